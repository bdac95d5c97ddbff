"""Trials in a process of their own, so that one that ends the process, hangs or takes much memory is counted."""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

LIMIT = 10.0  # seconds for one trial
START = 120.0  # seconds until the first
KINDS = ("tried", "refused", "crashed", "hung", "wrong", "lost")
TESTS = Path(__file__).resolve().parents[1]

Trial = Callable[[int], str]  # of a seed: one of "accepted", "refused", or "wrong: …", "lost: …", "crashed: …"


@dataclass
class Outcome:
    """How many trials ended in which way."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)  # a line for each
    beyond: int = 0  # bytes of memory beyond those before the first trial

    def add(self, seed: int, said: str) -> None:
        """One more trial."""
        self.counts["tried"] += 1
        kind = said.split(":", 1)[0]
        if kind != "accepted":
            self.counts[kind] += 1
        if kind not in ("accepted", "refused"):
            self.faults.append(f"seed {seed}: {said}")


def campaign(trials: str, seed: int, count: int, limit: float = LIMIT) -> Outcome:
    """Run trials, each with a seed of its own.

    Args:
        trials: a module of this folder, whose context manager `trials` gives a `Trial`.
    """
    outcome, place = Outcome(), seed
    while place < seed + count:
        place = _some(trials, place, seed + count, limit, outcome)
    return outcome


def _some(trials: str, start: int, stop: int, limit: float, outcome: Outcome) -> int:
    """Run trials until one ends the process or hangs; returns the next seed."""
    code = f"from fault_injection.watched import serve; serve({trials!r}, {start}, {stop})"
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert running.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(running.stdout, lines), daemon=True).start()
    place, patience = start, START
    try:
        while place < stop:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                outcome.add(place, f"hung: over {patience:g} s")
                return place + 1
            if line is None:
                running.wait()
                outcome.add(place, f"crashed: the process ended with {running.returncode}")
                return place + 1
            said, outcome.beyond = json.loads(line)[0], max(outcome.beyond, json.loads(line)[1])
            outcome.add(place, said)
            place, patience = place + 1, limit
        return place
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def _read(stream: IO[str], lines: queue.Queue[str | None]) -> None:
    with contextlib.suppress(ValueError):  # closed
        for line in stream:
            if line.startswith("["):
                lines.put(line)
    lines.put(None)


def serve(trials: str, start: int, stop: int) -> None:
    """What the other process does: a line for each trial, and what it has taken of memory so far."""
    own = os.fdopen(os.dup(1), "w")  # what a decoder prints goes elsewhere
    os.dup2(2, 1)
    with importlib.import_module(f"fault_injection.{trials}").trials() as trial:
        before = resident("VmRSS")
        for seed in range(start, stop):
            own.write(json.dumps([_tried(trial, seed), resident("VmHWM") - before]) + "\n")
            own.flush()


def _tried(trial: Trial, seed: int) -> str:
    from headstart.core.errors import HeadstartError

    try:
        return trial(seed)
    except HeadstartError as error:
        return "wrong: a message of several lines" if "\n" in str(error).strip() else "refused"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"crashed: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})".replace(
            "\n", " "
        )


def resident(name: str) -> int:
    """Bytes of memory of this process: "VmRSS", or the most so far, "VmHWM"; 0 where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
    return 0


def table(rows: dict[str, Outcome]) -> str:
    """The campaigns, one in each row."""
    lines = [f"{'campaign':<12}" + "".join(f"{kind:>9}" for kind in KINDS) + f"{'beyond':>10}"]
    for name, each in rows.items():
        counts: Any = each.counts
        lines.append(f"{name:<12}" + "".join(f"{counts[kind]:>9}" for kind in KINDS) + f"{each.beyond / 1e6:>7.0f} MB")
    return "\n".join(lines)
