"""The attacks by name, and a request for one of them: its norm, budget, steps and restarts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headstart.attack.carlini_wagner import carlini_wagner
from headstart.attack.deepfool import deepfool
from headstart.attack.descent import descent
from headstart.attack.fast_minimum_norm import fast_minimum_norm
from headstart.attack.goal import Array, Found, Goal, Victim
from headstart.attack.gradient_steps import fgsm, mifgsm, pgd, random_starts
from headstart.attack.norms import NORM, NORMS, check_norm
from headstart.core.arguments import SEED, Rule, checks, text, whole
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.progress import StageProgress

LEVEL = 1 / 255  # the smallest change that eight bits can hold
TOGETHER = 64  # images in memory as floats; those that are left fill the batches of the network
EPSILONS = {"linf": 8 / 255, "l2": 2.0, "l1": 200.0}  # of one photo, where none is given


@dataclass(frozen=True, eq=False)
class Method:
    """One attack."""

    run: Callable[[Victim, Array, Goal, Plan], Found]
    norms: tuple[str, ...]
    steps: int  # at most, where none are given
    budget: bool = False  # stays within epsilon; else it looks for the smallest change
    restarts: bool = False  # can begin anew at a random point
    targeted: bool = False  # needs a target


@dataclass(frozen=True)
class Plan:
    """A checked request for an attack."""

    method: str
    norm: str
    epsilon: float  # infinite where the method looks for the smallest change
    steps: int
    restarts: int
    seed: int


def _size(value: object) -> float:
    above, slash, below = str(value).partition("/")
    try:
        found = float(above) / (float(below) if slash else 1.0)
    except ZeroDivisionError:
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise ValueError
    return found


EPSILON = Rule("a number above 0, such as 8/255 or 0.03", _size)


@checks(
    method=text("the name of an attack, such as pgd"),
    norm=NORM,
    epsilon=EPSILON,
    steps=whole(1),
    restarts=whole(1),
    seed=SEED,
)
def plan_of(
    method: str = "pgd",
    norm: str | None = None,
    epsilon: float | str | None = None,
    steps: int | None = None,
    restarts: int = 1,
    seed: int = 0,
    *,
    targeted: bool = False,
) -> Plan:
    """Check a request, before any work is done for it, and fill in what was left open.

    Raises:
        UsageError: an unknown method or norm, a number out of range, or one that the method has no use for.
    """
    if method not in METHODS:
        raise UsageError(f"There is no attack '{method}'. {did_you_mean(method, METHODS)}")
    chosen = METHODS[method]
    norm = chosen.norms[0] if norm is None else norm
    check_norm(norm)
    if norm not in chosen.norms:
        raise UsageError(f"{method} does not work in the norm {norm}. It does in: {', '.join(chosen.norms)}.")
    if chosen.targeted and not targeted:
        raise UsageError(f"{method} leads towards a class: give it with --target CLASS.")
    if epsilon is not None and not chosen.budget:
        raise UsageError(f"{method} looks for the smallest change and takes no --epsilon. fgsm, mifgsm and pgd do.")
    if steps is not None and steps != 1 and chosen.steps == 1:
        raise UsageError(f"{method} is one step, and --steps was {steps}. pgd takes several.")
    if restarts != 1 and not chosen.restarts:
        raise UsageError(f"{method} begins at the photo, and --restarts was {restarts}. pgd has restarts.")
    budget = EPSILONS[norm] if epsilon is None else parse_epsilon(epsilon, norm)
    return Plan(method, norm, budget if chosen.budget else math.inf, steps or chosen.steps, restarts, seed)


def parse_epsilon(size: float | str, norm: str = "linf") -> float:
    """A budget: a number, "8/255" or "0.03"; pixels go from 0 to 1.

    Raises:
        UsageError: it is no number above 0, or one that no change in L∞ can have.
    """
    value: float = EPSILON.of("--epsilon", size)
    if norm == "linf" and value > 1:
        raise UsageError(
            f"--epsilon: pixels go from 0 to 1, so no change in linf is larger than 1. Received: {value:g}. "
            f"{value:g} levels of 255 are {value:g}/255."
        )
    return value


def epsilon_text(epsilon: float, norm: str = "linf") -> str:
    """A budget for a screen: in L∞ in levels of 255."""
    return f"{255 * epsilon:.4g}/255" if norm == "linf" else f"{epsilon:.4g}"


def attack(
    network: Victim, images: NDArray[np.uint8], goal: Goal, plan: Plan, progress: StageProgress | None = None
) -> tuple[Found, NDArray[np.bool_]]:
    """Attack images (N, size, size, 3), and say which of them (N,) needed none: their goal was reached before.

    ``progress(done, count)`` is called after every `TOGETHER` images.
    """
    made = np.zeros(images.shape, np.float32)
    reached, already = np.zeros(len(images), bool), np.zeros(len(images), bool)
    for start in range(0, len(images), TOGETHER):
        rows = np.arange(start, min(start + TOGETHER, len(images)))
        made[rows] = in_floats(images[rows])
        already[rows] = reached[rows] = goal.part(rows).reached(network.forward(made[rows]))
        if len(open_rows := rows[~already[rows]]):
            found = METHODS[plan.method].run(network, made[open_rows], goal.part(open_rows), plan)
            made[open_rows], reached[open_rows] = found.images, found.reached
        if progress:
            progress(int(rows[-1]) + 1, len(images))
    return Found(made, reached), already


def in_floats(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bytes as the floats in [0, 1] that a network makes of them."""
    return images.astype(np.float32) / np.float32(255)


def _pgd(network: Victim, images: Array, goal: Goal, plan: Plan) -> Found:
    """The first run begins at the images, the others at random points; each only with what is left."""
    run = partial(pgd, network, norm=plan.norm, epsilon=plan.epsilon, steps=plan.steps)
    found = run(images, goal)
    for restart in range(1, plan.restarts):
        rows = np.flatnonzero(~found.reached)
        if not len(rows):
            break
        starts = random_starts(images[rows], plan.norm, plan.epsilon, (plan.seed, restart))
        again = run(images[rows], goal.part(rows), starts=starts)
        won = rows[again.reached]
        found.images[won], found.reached[won] = again.images[again.reached], True
    return found


METHODS = {
    "fgsm": Method(lambda n, x, g, p: fgsm(n, x, g, norm=p.norm, epsilon=p.epsilon), NORMS, 1, budget=True),
    "pgd": Method(_pgd, NORMS, 40, budget=True, restarts=True),
    "mifgsm": Method(
        lambda n, x, g, p: mifgsm(n, x, g, norm=p.norm, epsilon=p.epsilon, steps=p.steps), NORMS, 10, budget=True
    ),
    "descent": Method(lambda n, x, g, p: descent(n, x, g, steps=p.steps), ("l2",), 200, targeted=True),
    "deepfool": Method(lambda n, x, g, p: deepfool(n, x, g, norm=p.norm, steps=p.steps), ("l2", "linf"), 50),
    "cw": Method(lambda n, x, g, p: carlini_wagner(n, x, g, steps=p.steps), ("l2",), 100),
    "fmn": Method(lambda n, x, g, p: fast_minimum_norm(n, x, g, norm=p.norm, steps=p.steps), NORMS, 60),
}
