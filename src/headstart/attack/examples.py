"""Adversarial examples of photos: changed so that a classifier takes them for another class, also as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headstart.attack.eight_bits import survivors
from headstart.attack.goal import Goal, Victim
from headstart.attack.gradient_steps import pgd
from headstart.attack.norms import sizes
from headstart.attack.plan import LEVEL, Plan, attack, epsilon_text, in_floats, plan_of
from headstart.attack.watched import Watched
from headstart.core.arguments import PROGRESS, YES_NO, checks
from headstart.core.display import Described
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.labels import as_given
from headstart.core.progress import Shown, function_of, shows_progress, stage
from headstart.data.inputs import Images, one_each, unlabelled_dataset
from headstart.engines.protocol import LOW, Network
from headstart.model.classifier import Classifier
from headstart.model.given import CLASSIFIER
from headstart.model.held_out import pixels_of


@dataclass(frozen=True, eq=False, repr=False)
class Attacked(Described):
    """What an attack made of N photos, as floats and as the bytes of a PNG file.

    ``success`` and ``after`` are of the bytes, as `Classifier.predict` with ``crop=False`` answers them.
    """

    plan: Plan
    classes: NDArray[Any]  # (K,) the labels, in the order of the probabilities
    goal: Goal
    names: tuple[str, ...]
    originals: NDArray[np.uint8]  # (N, size, size, 3) the photos, as the network sees them
    found: NDArray[np.float32]  # (N, size, size, 3) pixels from 0 to 1
    saved: NDArray[np.uint8]  # (N, size, size, 3) the same in bytes, stretched a little where rounding needs it
    before: NDArray[np.floating]  # (N, K) probabilities of the photos
    after: NDArray[np.floating]  # (N, K) of what is saved
    reached: NDArray[np.bool_]  # (N,) whether the floats fool the network
    success: NDArray[np.bool_]  # (N,) whether the bytes do
    already: NDArray[np.bool_]  # (N,) photos that needed no attack, and were left as they are
    unknown: NDArray[np.bool_]  # (N,) whether the bytes are unlike the training photos: `predict` may say "unknown"

    @property
    def labels(self) -> NDArray[Any]:
        """The answer for what is saved (N,)."""
        found: NDArray[Any] = self.classes[self.after.argmax(axis=1)]
        return found

    def sizes(self, norm: str, *, saved: bool = True) -> NDArray[np.float64]:
        """The "linf", "l2" or "l1" of each change (N,), in pixels from 0 to 1, of the bytes or of the floats."""
        return sizes((in_floats(self.saved) if saved else self.found) - in_floats(self.originals), norm)

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        budget = "" if math.isinf(self.plan.epsilon) else f", epsilon {epsilon_text(self.plan.epsilon, self.plan.norm)}"
        return {
            "attack": f"{self.plan.method} in {self.plan.norm}{budget}",
            "fooled": f"{int(self.success.sum())} of {len(self.success)}, {int(self.reached.sum())} in floats",
        }


@checks(classifier=CLASSIFIER, crop=YES_NO, progress=PROGRESS)  # `plan_of` checks the rest
@shows_progress
def attack_photos(
    classifier: Classifier,
    images: Images,
    target: object = None,
    *,
    labels: Sequence[object] | None = None,
    method: str = "pgd",
    norm: str | None = None,
    epsilon: float | str | None = None,
    steps: int | None = None,
    restarts: int = 1,
    seed: int = 0,
    crop: bool = True,
    progress: Shown = True,
) -> Attacked:
    """Change photos so that the classifier takes them for another class; or for ``target``, one class or one of each.

    Methods: "fgsm", "pgd" and "mifgsm" stay within ``epsilon``; "descent", "deepfool", "cw" and "fmn" look for a small
    change. docs/attack.md says which is for what. The gradients are computed in fp32. A photo that is
    taken for ``target`` as it is, or not for its own class, counts as fooled and stays as it is: `Attacked.already`.

    Args:
        images: as for `Classifier.predict`; ``crop`` too.
        labels: the right class of each, which the attack leads away from; None: the class that is predicted.
        norm: "linf", "l2" or "l1", of pixels from 0 to 1; None: the method's first.
        epsilon: the largest norm, such as "8/255" or 0.03; None: 8/255 in L∞, 2 in L2, 200 in L1.
        steps: at most so many of each image; an image that is fooled leaves. None: the method's own.
        restarts: of "pgd": how often it begins, the first time at the photo, then at random points.

    Raises:
        UsageError: an unknown class, method or norm, or a number out of range.
        DataError: an image that cannot be read.
    """
    plan = plan_of(method, norm, epsilon, steps, restarts, seed, targeted=target is not None)
    network, dataset = Watched(victim_of(classifier), function_of(progress)), unlabelled_dataset(images)
    goal_classes = target if target is not None else labels
    chosen = None if goal_classes is None else classes_of(classifier, goal_classes, len(dataset))
    originals = pixels_of(classifier, dataset, crop=crop)
    answer = partial(classifier.predict_proba, crop=False)  # of pixels that go in as they are
    before = answer(originals)
    goal = Goal(before.argmax(axis=1) if chosen is None else chosen, targeted=target is not None)
    network.tell("photos", 0, len(originals))
    found, already = attack(network, originals, goal, plan, stage(network.tell, "photos"))
    if len(rows := np.flatnonzero(already & ~goal.reached(before))):  # fp32 gives another answer than `predict`
        step = min(plan.epsilon, LEVEL)
        further = partial(pgd, norm=plan.norm, epsilon=step, steps=1, step=step, leave=False)
        found.images[rows] = further(network, found.images[rows], goal.part(rows)).images
        already[rows] = False
    saved, after = survivors(found.images, originals, goal, answer, plan.norm, plan.epsilon)
    return Attacked(
        plan=plan,
        classes=as_given(classifier.classes, classifier.label_kind),
        goal=goal,
        names=tuple(sample.name for sample in dataset.samples),
        originals=originals,
        found=found.images,
        saved=saved,
        before=before,
        after=after,
        reached=found.reached,
        success=goal.reached(after),
        already=already,
        unknown=classifier.unlike_training(saved),
    )


def too_small(plan: Plan) -> str:
    """A sentence where no change within the budget survives eight bits, else ""."""
    if plan.norm == "linf" and plan.epsilon < LEVEL / 2:
        return (
            f"An epsilon of {epsilon_text(plan.epsilon)} is less than half a level of eight bits, so nothing of the "
            "change survives in a PNG file. Take 0.5/255 or more."
        )
    return ""


def victim_of(classifier: Classifier) -> Victim:
    """The classifier's network, computing in fp32.

    Raises:
        UsageError: its engine has no gradients.
    """
    network: Network = classifier.network
    if not hasattr(network, "vjp"):
        raise UsageError(f"The engine '{network.engine}' has no gradients, which an attack needs. Take --engine torch")
    return cast("Victim", network.at_precision("fp32") if network.precision in LOW else network)


def classes_of(classifier: Classifier, given: object, count: int) -> NDArray[np.intp]:
    """The places of ``given`` classes among the classifier's (``count``,): of one for all, or one for each.

    Raises:
        UsageError: a class that it does not know.
    """
    one = isinstance(given, str | bytes) or not hasattr(given, "__iter__")
    labels = [given] * count if one else one_each(given)
    if len(labels) != count:
        raise UsageError(f"Expected one class, or one for each of the {count} images. Received: {len(labels)}.")
    place = {name: k for k, name in enumerate(classifier.classes)}
    for label in labels:
        if str(label) not in place:
            raise UsageError(f"The model has no class '{label}'. {did_you_mean(str(label), classifier.classes)}")
    return np.array([place[str(label)] for label in labels], np.intp)
