"""Requests for an attack: what is filled in, and a sentence for each that cannot be met."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.attack.eight_bits import distance
from headstart.attack.goal import Goal
from headstart.attack.norms import NORMS, sizes
from headstart.attack.plan import METHODS, TOGETHER, attack, epsilon_text, in_floats, parse_epsilon, plan_of
from victims import SHAPE, Bowl, Linear


@pytest.mark.parametrize(
    ("given", "expected"),
    [("8/255", 8 / 255), ("0.03", 0.03), (0.03, 0.03), (" 1 / 255 ", 1 / 255), ("1e-3", 0.001), ("1", 1.0)],
)
def test_an_epsilon_is_a_number_or_a_share_of_255(given: float | str, expected: float) -> None:
    assert parse_epsilon(given) == pytest.approx(expected)


@pytest.mark.parametrize(
    "given", ["0", "-1/255", "abc", "", "nan", "inf", "8/0", "8/255/2", "1/nan", 0.0, -0.5, "8,255"]
)
def test_anything_else_is_a_sentence(given: float | str) -> None:
    with pytest.raises(hs.UsageError, match=r"epsilon: expected a number above 0, such as 8/255 or 0.03. Received"):
        parse_epsilon(given)


def test_levels_in_place_of_shares_are_seen() -> None:
    with pytest.raises(hs.UsageError, match="8 levels of 255 are 8/255"):
        parse_epsilon("8")
    assert parse_epsilon("8", "l2") == 8


@pytest.mark.parametrize(("norm", "text"), [("linf", "8/255"), ("l2", "0.03137")])
def test_an_epsilon_in_words(norm: str, text: str) -> None:
    assert epsilon_text(8 / 255, norm) == text


def test_what_is_left_open_is_filled_in() -> None:
    for name, method in METHODS.items():
        plan = plan_of(name, targeted=True)
        assert (plan.norm, plan.steps, plan.restarts) == (method.norms[0], method.steps, 1)
        assert math.isfinite(plan.epsilon) == method.budget
    assert plan_of().epsilon == pytest.approx(8 / 255)
    assert plan_of("pgd", "l2", "0.5", 7, 3, 5).steps == 7


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"norm": ""}, "no norm '' here"),
        ({"method": "pdg"}, "no attack 'pdg'. Did you mean pgd"),
        ({"norm": "linff"}, "no norm 'linff' here. Did you mean linf"),
        ({"method": "cw", "norm": "linf"}, "cw does not work in the norm linf. It does in: l2"),
        ({"method": "descent"}, "descent leads towards a class: give it with target=CLASS"),
        ({"method": "deepfool", "epsilon": "1/255"}, "deepfool looks for the smallest change and takes no epsilon"),
        ({"method": "fgsm", "steps": 3}, "fgsm is one step, and steps was 3"),
        ({"method": "fmn", "restarts": 2}, "restarts was 2. pgd has restarts"),
        ({"steps": 0}, "steps: expected a whole number, 1 or more. Received: 0"),
        ({"restarts": -1}, "restarts: expected a whole number, 1 or more. Received: -1"),
        ({"seed": -1}, "seed: expected a whole number, 0 to 9223372036854775807. Received: -1"),
    ],
)
def test_what_cannot_be_is_a_sentence(given: dict[str, Any], said: str) -> None:
    with pytest.raises(hs.UsageError) as caught:
        plan_of(**given)
    assert said in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_every_attack_runs_by_its_name_in_all_its_norms(method: str) -> None:
    """More images than are in memory at once; those whose goal is reached stay as they are."""
    network, rng = Linear.random(3), np.random.default_rng(0)
    images = rng.integers(100, 150, (TOGETHER + 3, *SHAPE), np.uint8)
    answers = network.forward(in_floats(images)).argmax(axis=1)
    classes = np.where(np.arange(len(images)) % 5, (answers + 1) % 3, answers)
    targeted = METHODS[method].targeted
    if not targeted:
        classes = np.where(classes == answers, (answers + 1) % 3, answers)
    goal = Goal(classes, targeted)
    told: list[tuple[int, int]] = []
    for norm in METHODS[method].norms:
        plan = plan_of(method, norm, steps=1 if METHODS[method].steps == 1 else 8, targeted=targeted)
        found, already = attack(network, images, goal, plan, lambda done, count: told.append((done, count)))
        assert (already == goal.reached(network.forward(in_floats(images)))).all()
        assert already.sum() == -(-len(images) // 5)
        np.testing.assert_array_equal(found.images[already], in_floats(images[already]))
        assert (found.reached == goal.reached(network.forward(found.images))).all()
        assert (sizes(found.images - in_floats(images), norm) <= plan.epsilon * (1 + 1e-5)).all()
        assert found.reached.sum() > already.sum()
    assert told[:2] == [(TOGETHER, len(images)), (len(images), len(images))]


def test_restarts_are_reproducible_and_only_add() -> None:
    """At the middle of the bowl the gradient vanishes; beside it, it does not."""
    network = Bowl(1.9 * 48**0.5 / 255, 128 / 255)
    images = np.full((6, *SHAPE), 128, np.uint8)
    images[:3] += np.arange(3, dtype=np.uint8)[:, None, None, None] % 2
    goal = Goal(np.zeros(6, np.intp), targeted=False)

    def run(restarts: int, seed: int) -> Any:
        return attack(network, images, goal, plan_of("pgd", "linf", "2/255", 2, restarts, seed))[0]

    once, several, again, other = run(1, 0), run(4, 0), run(4, 0), run(4, 1)
    assert (several.reached >= once.reached).all()
    assert once.reached.tolist() == [False, True, False, False, False, False]
    np.testing.assert_array_equal(several.images, again.images)
    np.testing.assert_array_equal(once.images[once.reached], several.images[once.reached])
    assert several.reached.all()
    added = ~once.reached
    assert not np.array_equal(several.images[added], other.images[added])


def test_bytes_become_the_floats_that_a_network_makes_of_them() -> None:
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(in_floats(levels), levels.astype(np.float32) / 255)
    for norm in NORMS:
        assert sizes(distance(levels[None], levels[None]), norm) == 0
