"""How robust a classifier is: its accuracy under attack, by the size of the change, and whether to believe it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from headstart.attack.checks import NOISE, Check, Checks
from headstart.attack.examples import victim_of
from headstart.attack.goal import Goal, Victim
from headstart.attack.norms import NORM, NORMS, check_norm, sizes, steepest
from headstart.attack.plan import EPSILON, METHODS, Plan, attack, epsilon_text, in_floats, parse_epsilon, plan_of
from headstart.attack.watched import Watched
from headstart.core.arguments import PROGRESS, SEED, TEXT, YES_NO, checks, several, whole
from headstart.core.display import Described
from headstart.core.progress import Progress, Shown, function_of, shows_progress, stage
from headstart.core.types import Accuracy, Problem
from headstart.data.inputs import Images, labelled_dataset
from headstart.learn.evaluate import accuracy_of
from headstart.model.classifier import Classifier
from headstart.model.given import CLASSIFIER
from headstart.model.held_out import HeldOut, held_out

GRIDS = {  # budgets; in L∞ a standard network is gone at 1/255, and the last two only show that the attack works
    "linf": tuple(level / 255 for level in (0.1, 0.25, 0.5, 1, 2, 4, 8)),
    "l2": (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0),
    "l1": (2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0),
}
STEPS = 20  # of pgd, where none are given
IMAGES = 100
ATTACKS = ("fgsm", "pgd")


@dataclass(frozen=True)
class Point:
    """The accuracy where every photo may be changed by ``epsilon``."""

    epsilon: float
    accuracy: Accuracy  # under the worst of all attacks, photo by photo
    attacks: dict[str, Accuracy]  # under each, and under random noise


@dataclass(frozen=True, repr=False)
class Robustness(Described):
    """The accuracy of a classifier under attack, and what tells a broken attack from a robust model."""

    norm: str
    accuracy: Accuracy  # of the photos as they are
    curve: tuple[Point, ...]  # the smallest budget first
    checks: tuple[Check, ...]
    drawn_from: int  # photos that those were drawn from
    passed_over: int  # photos not counted, because they are in the training set
    left_out: tuple[Problem, ...]

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        under = ", ".join(f"{epsilon_text(one.epsilon, self.norm)}: {one.accuracy.value:.1%}" for one in self.curve)
        failed = [check.name for check in self.checks if not check.passed]
        return {
            "photos": self.accuracy.in_words("photo"),
            f"under attack ({self.norm})": under,
            "checks": f"failed: {', '.join(failed)}" if failed else "all passed",
        }


@checks(
    classifier=CLASSIFIER,
    methods=several(TEXT, "names of attacks, one or more, such as pgd", least=1),
    epsilons=several(EPSILON, "numbers above 0, one or more, such as 8/255 or 0.03", least=1),
    fitted_on_too=YES_NO,
    progress=PROGRESS,
)  # `request_of` checks the rest
@shows_progress
def robustness(
    classifier: Classifier,
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    methods: Sequence[str] | str = ATTACKS,
    norm: str | None = None,
    epsilons: Sequence[float | str] | float | str | None = None,
    steps: int | None = None,
    restarts: int = 1,
    images: int = IMAGES,
    seed: int = 0,
    fitted_on_too: bool = False,
    progress: Shown = True,
) -> Robustness:
    """The accuracy on labelled photos when each may be changed by ``epsilons``, in floats; docs/attack.md reads it.

    A photo that is wrong as it is stays wrong. One that an attack fools within a budget is fooled within every larger
    one, so it leaves. Photos of the training set are passed over, as in `Classifier.evaluate`.

    Args:
        methods: of `attack_photos`, or one; those that look for the smallest change need one run for all budgets.
        norm: None: "linf".
        epsilons: norms of the change, or one, such as "1/255" or 0.03; None: those of `GRIDS`.
        steps: of "pgd" and the others that take several; None: 20, or the method's own where it has no budget.
        images: at most so many, a share of each class.

    Raises:
        UsageError: an unknown method or norm, or a number out of range.
        DataError: there is no photo to count.
    """
    budgets = cast("Sequence[float] | None", epsilons)
    plans, grid = request_of(methods, norm, budgets, steps, restarts, images, seed)
    norm = plans[0].norm
    report = function_of(progress)
    network = Watched(victim_of(classifier), report)
    dataset = labelled_dataset(data, labels, classifier.label_kind)
    photos = held_out(
        classifier, dataset, images, seed, training_set_too=fitted_on_too, progress=stage(report, "reading")
    )
    curve = _Curve(network, photos, grid, norm, network.tell)
    curve.add_noise(seed)
    for plan in plans:
        curve.add(plan)
    checks = Checks(network, photos.images, photos.labels, curve.right, norm, grid, curve.fooled, steps or STEPS)
    return Robustness(
        norm=norm,
        accuracy=accuracy_of(curve.right, photos.groups),
        curve=curve.points(),
        checks=checks.all(network.tell),
        drawn_from=photos.of,
        passed_over=photos.passed_over,
        left_out=photos.left_out,
    )


@checks(norm=NORM, steps=whole(1), restarts=whole(1), images=whole(1), seed=SEED)
def request_of(
    methods: Sequence[str] = ATTACKS,
    norm: str | None = None,
    epsilons: Sequence[float | str] | None = None,
    steps: int | None = None,
    restarts: int = 1,
    images: int = IMAGES,
    seed: int = 0,
) -> tuple[list[Plan], list[float]]:
    """A plan of each method, and the budgets, the smallest first; checked before any work is done.

    Raises:
        UsageError: as `robustness`.
    """
    norm = NORMS[0] if norm is None else norm
    check_norm(norm)
    plans = []
    for method in dict.fromkeys(methods):
        known = METHODS.get(method)
        pgd = known is not None and known.restarts
        several = STEPS if steps is None and pgd else steps
        several = None if known is not None and known.steps == 1 else several
        plans.append(plan_of(method, norm, steps=several, restarts=restarts if pgd else 1, seed=seed))
    grid = sorted({parse_epsilon(each, norm) for each in epsilons} if epsilons is not None else GRIDS[norm])
    return plans, grid


class _Curve:
    """Which photos are fooled by each attack within each budget."""

    def __init__(self, network: Victim, photos: HeldOut, grid: Sequence[float], norm: str, progress: Progress) -> None:
        self.network, self.photos, self.grid, self.norm, self.progress = network, photos, grid, norm, progress
        progress(NOISE, 0, len(grid) + 1)  # the photos as they are are the first of these
        answers = network.forward(in_floats(photos.images)).argmax(axis=1)
        self.right: NDArray[np.bool_] = answers == photos.labels
        self.fooled: dict[str, NDArray[np.bool_]] = {}  # name: (budgets, N)

    def add(self, plan: Plan) -> None:
        """Attack within every budget, the smallest first."""
        fooled = self.fooled[plan.method] = np.zeros((len(self.grid), len(self.right)), bool)
        count = int(self.right.sum())
        if not METHODS[plan.method].budget:
            rows = np.flatnonzero(self.right)
            report = stage(self.progress, plan.method)
            found, _ = attack(self.network, self.photos.images[rows], self._goal(rows), plan, report)
            needed = sizes(found.images - in_floats(self.photos.images[rows]), self.norm)
            for place, epsilon in enumerate(self.grid):
                fooled[place, rows] = found.reached & (needed <= epsilon)
            return
        for place, epsilon in enumerate(self.grid):
            rows = np.flatnonzero(self.right & ~fooled[:place].any(axis=0))
            before = (place + 1) * count - len(rows)  # those that left are done within this budget, too
            self.progress(plan.method, before, len(self.grid) * count)

            def tell(done: int, _: int, before: int = before) -> None:
                self.progress(plan.method, before + done, len(self.grid) * count)

            found, _ = attack(
                self.network, self.photos.images[rows], self._goal(rows), replace(plan, epsilon=epsilon), tell
            )
            fooled[place:, rows[found.reached]] = True

    def add_noise(self, seed: int) -> None:
        """As an attack, a step of the whole budget in a random direction."""
        fooled = self.fooled[NOISE] = np.zeros((len(self.grid), len(self.right)), bool)
        for place, epsilon in enumerate(self.grid):
            self.progress(NOISE, place + 1, len(self.grid) + 1)
            rows = np.flatnonzero(self.right & ~fooled[:place].any(axis=0))
            noisy = in_floats(self.photos.images[rows])
            for row, image in zip(rows.tolist(), noisy, strict=True):
                change = np.random.default_rng((seed, place, row)).standard_normal(image.shape).astype(np.float32)
                steepest(change, self.norm)
                np.clip(image + np.float32(epsilon) * change, 0, 1, out=image)
            fooled[place:, rows[self._goal(rows).reached(self.network.forward(noisy))]] = True

    def points(self) -> tuple[Point, ...]:
        """The accuracy of each budget."""
        found = []
        for place, epsilon in enumerate(self.grid):
            under = {name: self._accuracy(fooled[place]) for name, fooled in self.fooled.items()}
            worst = self._accuracy(np.any([fooled[place] for fooled in self.fooled.values()], axis=0))
            found.append(Point(epsilon, worst, under))
        return tuple(found)

    def _accuracy(self, fooled: NDArray[np.bool_]) -> Accuracy:
        return accuracy_of(self.right & ~fooled, self.photos.groups)

    def _goal(self, rows: NDArray[np.intp]) -> Goal:
        return Goal(self.photos.labels[rows], targeted=False)
