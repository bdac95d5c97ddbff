"""Each attack where the answer is known: on a linear network every boundary is a plane."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from headstart.attack.carlini_wagner import carlini_wagner
from headstart.attack.deepfool import BEYOND, OVERSHOOT, deepfool
from headstart.attack.descent import descent
from headstart.attack.fast_minimum_norm import fast_minimum_norm
from headstart.attack.goal import Found, Goal
from headstart.attack.gradient_steps import fgsm, mifgsm, pgd, random_starts
from headstart.attack.norms import NORMS, dual_size, size, sizes
from victims import SHAPE, Array, Bowl, Linear, greys

every_norm = pytest.mark.parametrize("norm", NORMS)
METHODS: dict[str, Callable[..., Found]] = {
    "fgsm": partial(fgsm, norm="linf", epsilon=0.15),
    "pgd": partial(pgd, norm="l2", epsilon=1.0, steps=5),
    "mifgsm": partial(mifgsm, norm="l1", epsilon=6.0, steps=5),
    "deepfool": partial(deepfool, norm="l2", steps=10),
    "cw": partial(carlini_wagner, steps=40),
    "fmn": partial(fast_minimum_norm, norm="linf", steps=20),
}
every_method = pytest.mark.parametrize("name", METHODS)


def away(network: Linear, images: Array) -> Goal:
    """From the answer as it is."""
    return Goal(network.forward(images).argmax(axis=1), targeted=False)


def distances(network: Linear, images: Array, goal: Goal, norm: str) -> Array:
    """How far each image is from the nearest boundary (N,)."""
    logits = network.forward(images).astype(np.float64)
    found = []
    for row, own in zip(logits, goal.classes, strict=True):
        others = [k for k in range(len(row)) if k != own]
        planes = [(row[own] - row[k], network.weights[k] - network.weights[own]) for k in others]
        found.append(min(gap / dual_size(slope, norm) for gap, slope in planes))
    return np.array(found)


def test_fgsm_lowers_the_logit_by_epsilon_times_the_l1_norm_of_the_weights() -> None:
    network, images, epsilon = Linear.random(), greys(5), 0.01
    goal = away(network, images)
    found = fgsm(network, images, goal, norm="linf", epsilon=epsilon)
    fall = goal.margins(network.forward(images)) - goal.margins(network.forward(found.images))
    np.testing.assert_allclose(fall, epsilon * np.abs(network.weights[0] - network.weights[1]).sum(), rtol=1e-4)
    np.testing.assert_allclose(np.abs(found.images - images), epsilon, rtol=1e-4)


@every_norm
def test_pgd_fools_exactly_those_that_are_nearer_than_the_budget(norm: str) -> None:
    """In L1 too: where a step takes one value, the ball's corner is reached in the end."""
    network, images = Linear.random(), greys(40)
    goal = away(network, images)
    far = distances(network, images, goal, norm)
    epsilon = float(np.sort(far)[19:21].mean())  # between two of them
    found = pgd(network, images, goal, norm=norm, epsilon=epsilon, steps=40)
    assert (found.reached == (far < epsilon)).all()
    assert (found.reached == goal.reached(network.forward(found.images))).all()


@every_norm
def test_no_budget_is_exceeded_and_pixels_stay_pixels(norm: str) -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (12, *SHAPE)).astype(np.float32)  # black and white among them
    images[:3] = images[:3].round()
    network = Linear.random(3)
    for epsilon in (0.02, 0.5):
        for run in (fgsm, partial(pgd, steps=6), partial(mifgsm, steps=6)):
            found = run(network, images, away(network, images), norm=norm, epsilon=epsilon)
            assert (sizes(found.images - images, norm) <= epsilon * (1 + 1e-5)).all()
            assert found.images.min() >= 0
            assert found.images.max() <= 1


@pytest.mark.parametrize("run", [partial(pgd, epsilon=4.0, steps=20), partial(fast_minimum_norm, steps=40)])
def test_in_l1_pixels_that_are_black_or_white_do_not_stop_it(run: Callable[..., Found]) -> None:
    """Those with the largest gradient are where it leads already."""
    network, images = Linear.random(), greys(4)
    slope = (network.weights[1] - network.weights[0]).reshape(SHAPE)  # towards class 1
    largest = np.abs(slope) >= np.sort(np.abs(slope), axis=None)[-6]
    images[:, largest] = np.where(slope > 0, 1, 0)[largest]
    logits = network.forward(images)
    network.bias[0] += float((logits[:, 1] - logits[:, 0]).max()) + 1.5  # all are class 0, by a little
    goal = Goal(np.zeros(4, np.intp), targeted=False)
    found = run(network, images, goal, norm="l1")
    assert found.reached.all()
    assert not (found.images - images)[:, largest].any()


def test_momentum_goes_on_where_the_gradient_turns() -> None:
    """v ← decay · v + g / ‖g‖₁; a step of epsilon / steps along its sign."""
    network, images = Linear.random(), greys(1)
    goal = Goal(1 - network.forward(images).argmax(axis=1), targeted=False)  # reached, so nothing but the steps counts
    slope = network.weights[goal.classes[0]] - network.weights[1 - goal.classes[0]]
    found = pgd(network, images, goal, norm="linf", epsilon=0.04, steps=4, step=0.01, decay=1.0, leave=False)
    change = (found.images - images)[0].ravel()
    np.testing.assert_allclose(change, 0.04 * np.sign(-slope), rtol=1e-3)  # on a plane momentum changes no sign


def test_the_velocity_is_the_decayed_sum_of_gradients_of_norm_one() -> None:
    class Turning(Linear):
        """The gradient points the other way from the second step on, and is twice as large."""

        def slope(self, images: Array, cotangent: Array) -> Array:
            values = np.full(images.shape, 1.0 if self.seen <= 1 else -2.0, np.float32)
            values[..., 0] *= 3
            return values

    def run(decay: float | None) -> Array:
        network, images = Turning.random(), greys(1)
        goal = away(network, images)
        return pgd(network, images, goal, norm="linf", epsilon=1.0, steps=2, step=0.01, decay=decay, leave=False).images

    kept, images = run(1.0), greys(1)
    np.testing.assert_allclose(run(None), images, atol=1e-6)  # there and back
    np.testing.assert_allclose(run(0.5), images, atol=1e-6)  # 0.5 - 1 < 0
    np.testing.assert_allclose(kept - images, 0.01, atol=1e-6)  # 1 - 1 = 0: the second step is none
    np.testing.assert_allclose(run(2.0) - images, 0.02, atol=1e-6)  # 2 - 1 > 0


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("classes", [2, 5])
def test_deepfool_is_exact_in_one_step_on_a_linear_network(norm: str, classes: int) -> None:
    network, images = Linear.random(classes), greys(9)
    goal = away(network, images)
    found = deepfool(network, images, goal, norm=norm, steps=1)
    assert found.reached.all()
    expected = (1 + OVERSHOOT) * (distances(network, images, goal, norm) + BEYOND)
    np.testing.assert_allclose(sizes(found.images - images, norm), expected, rtol=1e-4)


def test_deepfool_towards_a_target_takes_its_boundary() -> None:
    network, images = Linear.random(2), greys(6)
    answers = network.forward(images).argmax(axis=1)
    found = deepfool(network, images, Goal(1 - answers, targeted=True), norm="l2", steps=3)
    plain = deepfool(network, images, Goal(answers, targeted=False), norm="l2", steps=3)
    assert found.reached.all()
    np.testing.assert_allclose(found.images, plain.images, atol=1e-6)
    many = Linear.random(6)
    goal = Goal((many.forward(images).argmax(axis=1) + 1) % 6, targeted=True)
    far = deepfool(many, images, goal, norm="l2", steps=30)
    assert (many.forward(far.images).argmax(axis=1) == goal.classes).all()


def test_carlini_wagner_ends_near_the_boundary() -> None:
    network, images = Linear.random(3), greys(6)
    goal = away(network, images)
    found = carlini_wagner(network, images, goal, steps=200)
    assert found.reached.all()
    ratio = sizes(found.images - images, "l2") / distances(network, images, goal, "l2")
    assert (ratio > 1 - 1e-3).all()
    assert (ratio < 1.1).all()


def test_carlini_wagner_searches_for_the_weight() -> None:
    """From one that is far too large, with which the change is too, by bisection; from one too small, upwards."""
    network, images = Linear.random(3), greys(6)
    goal = away(network, images)
    run = partial(carlini_wagner, network, images, goal, steps=50)
    far = distances(network, images, goal, "l2")
    large = [sizes(run(constant=3.0, searches=count).images - images, "l2") / far for count in (1, 8)]
    assert (large[0] > 1.15).all()
    assert (large[1] < 1.04).all()
    small = [run(constant=1e-4, searches=count).reached for count in (1, 5)]
    assert not small[0].any()
    assert small[1].all()


@every_norm
def test_fmn_ends_near_the_boundary_in_every_norm(norm: str) -> None:
    network, images = Linear.random(3), greys(6)
    goal = away(network, images)
    found = fast_minimum_norm(network, images, goal, norm=norm, steps=150)
    assert found.reached.all()
    ratio = sizes(found.images - images, norm) / distances(network, images, goal, norm)
    assert (ratio > 1 - 1e-3).all()
    assert (ratio < (1.05 if norm == "l1" else 1.002)).all()  # a step is no larger than in L2, so L1 takes more of them


def test_descent_takes_steps_of_the_gradient_and_stops_at_the_target() -> None:
    network, images = Linear.random(), greys(3)
    goal = Goal(1 - network.forward(images).argmax(axis=1), targeted=True)
    one = descent(network, images, goal, steps=1, first=0.003)
    np.testing.assert_allclose(sizes(one.images - images, "l2"), 0.003, rtol=1e-3)
    slope = network.weights[goal.classes[0]] - network.weights[1 - goal.classes[0]]
    change = (one.images - images)[0].ravel()
    assert float(change @ slope) == pytest.approx(size(change, "l2") * size(slope, "l2"), rel=1e-3)
    found = descent(network, images, goal, steps=300, first=0.003)
    assert found.reached.all()
    gone = sizes(found.images - images, "l2") - distances(network, images, Goal(1 - goal.classes, False), "l2")
    assert (gone > 0).all()
    assert (gone < 0.003 + 1e-4).all()  # less than a step beyond


def test_descent_keeps_the_change_small() -> None:
    network, images = Linear.random(), greys(4)
    goal = Goal(1 - network.forward(images).argmax(axis=1), targeted=True)
    free, kept = (
        descent(network, images, goal, steps=8, first=0.002, small=small).images - images for small in (0.0, 100.0)
    )
    assert (sizes(kept, "l2") < 0.9 * sizes(free, "l2")).all()


@every_method
@pytest.mark.parametrize("targeted", [False, True])
def test_what_is_reached_is_so(name: str, targeted: bool) -> None:
    network, images = Linear.random(4), greys(9)
    answers = network.forward(images).argmax(axis=1)
    goal = Goal((answers + 1) % 4 if targeted else answers, targeted)
    found = METHODS[name](network, images, goal)
    assert (found.reached == goal.reached(network.forward(found.images))).all()
    assert found.images.dtype == np.float32
    assert found.reached.any()


@every_method
def test_no_images_are_no_problem(name: str) -> None:
    found = METHODS[name](Linear.random(), greys(0), Goal(np.zeros(0, np.intp), targeted=False))
    assert found.images.shape == (0, *SHAPE)
    assert found.reached.shape == (0,)


@every_method
def test_images_do_not_see_each_other(name: str) -> None:
    network, images = Linear.random(3), greys(9)
    goal = away(network, images)
    together = METHODS[name](network, images, goal).images
    alone = [METHODS[name](network, images[k : k + 1], goal.part(np.array([k]))).images[0] for k in range(9)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


@every_method
def test_what_it_is_given_is_not_changed(name: str) -> None:
    network, images = Linear.random(3), greys(5)
    METHODS[name](network, images, away(network, images))
    np.testing.assert_array_equal(images, greys(5))


def test_fooled_images_leave_the_batch() -> None:
    network, images = Linear.random(), greys(6)
    goal = away(network, images)
    far = distances(network, images, goal, "linf")
    found = pgd(network, images, goal, norm="linf", epsilon=2 * float(far.max()), steps=100)
    assert found.reached.all()
    steps_needed = np.ceil(far / (2.5 * 2 * far.max() / 100))
    assert network.seen == steps_needed.sum() + len(images)  # each is looked at once more, and leaves
    assert (sizes(found.images - images, "linf") < far + 2.5 * 2 * far.max() / 100 + 1e-6).all()
    network.seen = 0
    pgd(network, images, goal, norm="linf", epsilon=0.1, steps=7, leave=False)
    assert network.seen == 7 * len(images)


def test_a_random_start_helps_where_the_gradient_vanishes_at_the_photo() -> None:
    network, images = Bowl(0.2), np.full((3, *SHAPE), 0.5, np.float32)
    goal = Goal(np.zeros(3, np.intp), targeted=False)
    run = partial(pgd, network, images, goal, norm="linf", epsilon=0.1, steps=10)
    assert not run().reached.any()
    starts = random_starts(images, "linf", 0.1, (0, 1))
    assert run(starts=starts).reached.all()


def test_a_start_depends_on_seed_and_image_alone() -> None:
    images = greys(4)
    starts = random_starts(images, "linf", 0.1, (0, 1))
    np.testing.assert_array_equal(random_starts(images[2:3], "linf", 0.1, (0, 1))[0], starts[2])
    assert not np.array_equal(random_starts(images, "linf", 0.1, (1, 1)), starts)
    assert (sizes(starts - images, "linf") <= 0.1 + 1e-6).all()
    assert not np.allclose(starts[0] - images[0], starts[1] - images[1], atol=1e-3)
