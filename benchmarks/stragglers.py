"""A thousand workers that take units from a queue, slow machines and failures: python benchmarks/stragglers.py

A simulation with NumPy and no cluster: what `scale/` does with units, in seconds that are made up around a mean. A unit
that is done has its shard, and is not done again. A machine that fails is missed after a while; what its workers held
goes back to the front of the queue, and a machine in its place takes part once it has started.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import Goal, arguments, finish, median

HOUR = 3600.0
HAND = 0.004  # seconds, as `scale_model.py` measures it
DONE, DOWN, MISSED, BACK = range(4)  # kinds of events


@dataclass(frozen=True)
class Setting:
    """The machines, and the work."""

    images: int = 1_000_000_000
    unit: int = 4096  # images of a unit
    rate: float = 1200.0  # images a second of a worker: 8 cores of 150
    spread: float = 0.3  # standard deviation of the logarithm of a unit's time
    fixed: float = 0.02  # seconds that every unit takes beside its images
    hand: float = 0.0  # seconds in which the process that hands out units hands out one
    workers: int = 1000
    machine: int = 8  # workers of a machine
    slow: float = 0.0  # share of the machines that are slow,
    slowness: float = 3.0  # and how many times as long they take
    hours: float = float("inf")  # mean time between failures of one machine
    missed: float = 10.0  # seconds until a machine is missed that failed
    start: float = 30.0  # seconds until one in its place is at work
    ahead: int = 2  # units that a worker holds, the one that it is at among them
    longest_first: bool = False

    @property
    def units(self) -> int:
        """How many there are."""
        return -(-self.images // self.unit)


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    seconds: float
    ideal: float  # seconds, were the images spread evenly over all workers, each at its speed
    done: NDArray[np.int_]  # (units,) how often the shard of each was written
    again: float  # share of the work that was done twice, as a machine failed in the middle
    failures: int
    longest: float  # seconds of the longest unit on the slowest machine

    @property
    def cost(self) -> float:
        """Seconds beyond the ideal, as a share of it."""
        return self.seconds / self.ideal - 1


def simulate(setting: Setting, seed: int = 0) -> Outcome:
    """All units done by all workers, event by event."""
    return _Simulation(setting, seed).run()


class _Simulation:
    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting, self._rng = setting, np.random.default_rng(seed)
        mean, count = setting.unit / setting.rate, setting.units
        work = self._rng.lognormal(np.log(mean) - setting.spread**2 / 2, setting.spread, count)
        self._machines = -(-setting.workers // setting.machine)
        slow = self._rng.permutation(self._machines) < round(setting.slow * self._machines)
        slowness = np.where(slow, setting.slowness, 1.0)[np.arange(setting.workers) // setting.machine]
        self._slowness: list[float] = slowness.tolist()
        self._ideal = float(work.sum() / (1 / slowness).sum())
        self._longest = float((work.max() + setting.fixed) * slowness.max())
        self._total = float(work.sum())
        self._work: list[float] = (work + setting.fixed).tolist()
        order = np.argsort(-work, kind="stable") if setting.longest_first else np.arange(count)
        self._queue = deque[int](order.tolist())
        self._held: list[list[int]] = [[] for _ in range(setting.workers)]
        self._begun = [0.0] * setting.workers
        self._ready = [0.0] * count  # when each was handed out
        self._handed = 0.0  # until when the process that hands them out is busy
        self._up, self._times = [True] * self._machines, [0] * self._machines  # and how often each failed
        self._lost: list[list[int]] = [[] for _ in range(self._machines)]
        self._done = np.zeros(count, int)
        self._again, self._left = 0.0, count
        self._events: list[tuple[float, int, int, int]] = []  # time, kind, worker or machine, failures before

    def run(self) -> Outcome:
        for machine in range(self._machines):
            self._fail_later(machine, 0.0)
        for worker in range(self._setting.workers):
            self._take(worker, 0.0)
        now = 0.0
        handlers = {DOWN: self._down, MISSED: self._missed, BACK: self._back}
        while self._left:
            now, kind, who, failures = heapq.heappop(self._events)
            if kind == DONE:
                if failures == self._times[who // self._setting.machine]:  # else it failed in the meantime
                    self._finish(who, now)
            else:
                handlers[kind](who, now)
        share = self._again / self._total
        return Outcome(now, self._ideal, self._done, share, sum(self._times), self._longest)

    def _take(self, worker: int, now: float) -> None:
        """Fill up what a worker holds, and begin with the first."""
        held = self._held[worker]
        idle = not held
        while len(held) < self._setting.ahead and self._queue:
            unit = self._queue.popleft()
            self._handed = max(self._handed, now) + self._setting.hand
            self._ready[unit] = self._handed
            held.append(unit)
        if idle and held:
            self._begin(worker, now)

    def _begin(self, worker: int, now: float) -> None:
        unit = self._held[worker][0]
        self._begun[worker] = max(now, self._ready[unit])
        end = self._begun[worker] + self._work[unit] * self._slowness[worker]
        heapq.heappush(self._events, (end, DONE, worker, self._times[worker // self._setting.machine]))

    def _finish(self, worker: int, now: float) -> None:
        held = self._held[worker]
        self._done[held.pop(0)] += 1
        self._left -= 1
        if held:
            self._begin(worker, now)
        self._take(worker, now)

    def _workers_of(self, machine: int) -> range:
        each = self._setting.machine
        return range(machine * each, min((machine + 1) * each, self._setting.workers))

    def _fail_later(self, machine: int, now: float) -> None:
        if self._setting.hours < float("inf"):
            when = now + float(self._rng.exponential(self._setting.hours * HOUR))
            heapq.heappush(self._events, (when, DOWN, machine, 0))

    def _down(self, machine: int, now: float) -> None:
        self._up[machine] = False
        self._times[machine] += 1
        for worker in self._workers_of(machine):
            if self._held[worker]:
                self._again += max(0.0, now - self._begun[worker]) / self._slowness[worker]
            self._lost[machine] += self._held[worker]
            self._held[worker] = []
        heapq.heappush(self._events, (now + self._setting.missed, MISSED, machine, 0))

    def _missed(self, machine: int, now: float) -> None:
        self._queue.extendleft(reversed(self._lost[machine]))
        self._lost[machine] = []
        for worker in range(self._setting.workers):
            if not self._queue:
                break
            if not self._held[worker] and self._up[worker // self._setting.machine]:
                self._take(worker, now)
        heapq.heappush(self._events, (now + self._setting.start, BACK, machine, 0))

    def _back(self, machine: int, now: float) -> None:
        self._up[machine] = True
        for worker in self._workers_of(machine):
            self._take(worker, now)
        if not any(self._held) and not any(self._lost):
            raise RuntimeError("units were lost: nobody holds what is left")
        self._fail_later(machine, now)


USUAL = Setting()
ROUGH = replace(USUAL, hours=24, slow=0.05)  # machines that are taken away once a day, and some slow ones
SETTINGS = {
    "nothing fails": USUAL,
    "5 % of the machines at a third of the speed": replace(USUAL, slow=0.05),
    "a machine fails once in 1 000 hours": replace(USUAL, hours=1000),
    "once in 24 hours": replace(USUAL, hours=24),
    "once an hour": replace(USUAL, hours=1),
    "once in 24 hours, 5 % slow": ROUGH,
    "the same, the longest units first": replace(ROUGH, longest_first=True),
    "the same, a worker holds one unit only": replace(ROUGH, ahead=1),
}
SIZES = (256, 1024, 4096, 16_384, 65_536, 262_144)  # images of a unit


def main() -> None:
    """Both tables."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=3)
    parser.add_argument("--rate", type=float, default=USUAL.rate, help="images a second of a worker of 8 cores")
    parser.add_argument("--hand", type=float, default=HAND, help="seconds in which one unit is handed out")
    options = parser.parse_args()
    given: dict[str, Any] = {"rate": options.rate, "hand": options.hand}
    if options.quick:
        given |= {"images": 40_000_000}
    print(f"{USUAL.workers} workers, {USUAL.machine} a machine; cost: beyond the ideal time, median of the seeds")
    rows = [_row(name, replace(setting, **given), options.repeats) for name, setting in SETTINGS.items()]
    print()
    sizes = [size for size in SIZES if not options.quick or size > 1000]
    rows_of_sizes = [_row(f"{size} images", replace(ROUGH, **given, unit=size), options.repeats) for size in sizes]
    by_name = {row["name"]: row for row in rows}
    goals = [Goal("retries where machines fail once in 24 hours, % of the ideal time", _retries(by_name), most=5)]
    finish("stragglers", {"settings": rows, "sizes": rows_of_sizes}, goals, options)


def _retries(rows: dict[str, dict[str, Any]]) -> float:
    """What failures cost: the cost with them less that without, in percent."""
    with_them, without = rows["once in 24 hours"]["cost"], rows["nothing fails"]["cost"]
    return float(100 * (with_them - without))


def _row(name: str, setting: Setting, seeds: int) -> dict[str, Any]:
    """A line of a table."""
    found = [simulate(setting, seed) for seed in range(seeds)]
    if any((outcome.done != 1).any() for outcome in found):
        raise RuntimeError("a unit was not done exactly once")
    row = {
        "name": name,
        "setting": asdict(setting) | {"hours": min(setting.hours, 1e9)},
        "units": setting.units,
        "ideal": median([outcome.ideal for outcome in found]),
        "seconds": median([outcome.seconds for outcome in found]),
        "cost": median([outcome.cost for outcome in found]),
        "again": median([outcome.again for outcome in found]),
        "failures": median([outcome.failures for outcome in found]),
    }
    print(
        f"{name:<45}{row['units']:>9} units{row['ideal']:>8.0f} s{row['seconds']:>8.0f} s"
        f"   cost {row['cost']:>6.1%}   done twice {row['again']:>6.2%}   {row['failures']:.0f} failures",
        flush=True,
    )
    return row


if __name__ == "__main__":
    main()
