"""What tells a broken attack from a robust model (Athalye et al. 2018; Carlini et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.attack.goal import Goal, Victim, batches
from headstart.attack.gradient_steps import fgsm
from headstart.attack.plan import Plan, attack, epsilon_text, in_floats
from headstart.core.progress import Progress

NOISE = "noise"  # in place of an attack
NOTHING = "no photo is right to begin with"
MORE = 2  # times as many steps
CONVERGED = 0.05  # share of the photos that so many more steps may fool beside
FLAT = 0.01  # share of the photos whose gradient may vanish


@dataclass(frozen=True)
class Check:
    """One thing that is so of every sound attack."""

    name: str
    passed: bool
    sentence: str


@dataclass(frozen=True, eq=False)
class Checks:
    """The checks of one curve, on its photos."""

    network: Victim
    images: NDArray[np.uint8]
    labels: NDArray[np.intp]
    right: NDArray[np.bool_]  # (N,) photos whose label is right as they are
    norm: str
    grid: Sequence[float]
    fooled: Mapping[str, NDArray[np.bool_]]  # (budgets, N) by each attack, and by noise
    steps: int

    def all(self, progress: Progress | None = None) -> tuple[Check, ...]:
        """Each of them."""
        parts = self.gradients, self.large_budget, self.more_steps, self.noise
        found = []
        for place, part in enumerate(parts):
            if progress:
                progress("checks", place, len(parts))
            found.append(part())
        return tuple(found)

    def gradients(self) -> Check:
        """A gradient that is zero or not finite leads nowhere: the attack sees nothing of the network."""
        rows, flat = np.flatnonzero(self.right), 0
        for some in batches(self.network, rows):
            logits, pullback = self.network.vjp(in_floats(self.images[some]))
            steep = np.abs(pullback(self._goal(some).uphill(logits))).max(axis=(1, 2, 3))
            flat += int((~np.isfinite(steep) | (steep == 0)).sum())
        sentence = f"the gradient vanishes on {flat} of {len(rows)} photos"
        return Check("gradients", flat <= FLAT * len(rows), sentence)

    def large_budget(self) -> Check:
        """Within a budget that could make every photo grey, each can be fooled."""
        left = np.flatnonzero(self.right & ~self._any(-1))
        largest = epsilon_text(self.grid[-1], self.norm)
        if not len(left):
            return Check("large epsilon", True, f"no photo is left at {largest}")
        count = self.images[0].size
        grey = {"linf": 0.5, "l2": 0.5 * count**0.5, "l1": 0.5 * count}[self.norm]
        rest = int((~self._pgd(left, grey, self.steps)).sum())
        text = f"of {len(left)} left at {largest}, {rest} are left where each could be made grey"
        return Check("large epsilon", rest == 0, text)

    def more_steps(self) -> Check:
        """Several steps fool more than one, and many more steps not many more photos."""
        rows = np.flatnonzero(self.right)
        if not len(rows):
            return Check("more steps", True, NOTHING)
        left = [int((self.right & ~self._any(place)).sum()) for place in range(len(self.grid))]
        # Where about half are fooled; rather where all are than where none is, for that tells nothing.
        place = int(np.abs(np.array(left) - len(rows) / 2 + 0.1).argmin())
        epsilon = self.grid[place]
        photos = in_floats(self.images[rows])
        one = int(fgsm(self.network, photos, self._goal(rows), norm=self.norm, epsilon=epsilon).reached.sum())
        known = self.fooled.get("pgd")
        fooled = self._pgd(rows, epsilon, self.steps) if known is None else known[place, rows]
        several = int(fooled.sum())
        many = several + int(self._pgd(rows[~fooled], epsilon, MORE * self.steps).sum())
        text = (
            f"at {epsilon_text(epsilon, self.norm)} one step fools {one} of {len(rows)}, {self.steps} fool {several}, "
            f"{MORE * self.steps} fool {many}"
        )
        enough = many - several <= CONVERGED * len(rows)
        return Check("more steps", several >= one and enough, text if enough else f"{text}: give more --steps")

    def noise(self) -> Check:
        """Random noise is nowhere better than an attack of the same size, and somewhere weaker."""
        attacks = [fooled for name, fooled in self.fooled.items() if name != NOISE]
        best = np.max([fooled.sum(axis=1) for fooled in attacks], axis=0)
        noise = self.fooled[NOISE].sum(axis=1)
        if not self.right.any():
            return Check("noise", True, NOTHING)
        sound = bool((noise <= best).all() and (noise < best).any())
        place = int((best - noise).argmax() if sound else (noise - best).argmax())
        where = epsilon_text(self.grid[place], self.norm)
        text = f"at {where} noise fools {noise[place]} photos, the best attack {best[place]}"
        return Check("noise", sound, text)

    def _any(self, place: int) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.any([fooled[place] for fooled in self.fooled.values()], axis=0)
        return found

    def _pgd(self, rows: NDArray[np.intp], epsilon: float, steps: int) -> NDArray[np.bool_]:
        plan = Plan("pgd", self.norm, epsilon, steps, restarts=1, seed=0)
        return attack(self.network, self.images[rows], self._goal(rows), plan)[0].reached

    def _goal(self, rows: NDArray[np.intp]) -> Goal:
        return Goal(self.labels[rows], targeted=False)
