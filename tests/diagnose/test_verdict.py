"""The verdict: the first rule that applies decides, and made-up problems get the right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diagnosed import blobs, fitted, xor
from headstart.diagnose.diagnose import FittedHead, diagnose_head
from headstart.diagnose.records import KINDS, Verdict
from headstart.diagnose.verdict import HEALTHY, RULES, Facts, verdict_on, words_of

pytestmark = pytest.mark.usefixtures("half_of_the_cores")

GOOD = Facts(images=400, accuracy=0.9, accuracy_se=0.015, train_error=0.02, chance=0.5)
AT_CHANCE = replace(GOOD, accuracy=0.52, accuracy_se=0.025)
FIRING = [  # for each rule facts on which it is the first, and facts just short of it
    (replace(GOOD, copied=0.05), replace(GOOD, copied=0.019)),
    (replace(GOOD, shortcut=0.2), replace(GOOD, shortcut=0.0)),
    (replace(GOOD, accuracy_se=0.06), replace(GOOD, accuracy_se=0.05)),
    (replace(GOOD, test_z=4.1), replace(GOOD, test_z=3.9)),
    (replace(GOOD, flexible=0.06, flexible_z=4.0), replace(GOOD, flexible=0.06, flexible_z=2.9)),
    (replace(AT_CHANCE, train_error=0.1), replace(AT_CHANCE, train_error=0.1, accuracy=0.6)),
    (replace(AT_CHANCE, train_error=0.4), replace(AT_CHANCE, train_error=0.24, accuracy=0.6)),
    (replace(GOOD, stiffer=0.04, stiffer_z=2.5), replace(GOOD, stiffer=0.04, stiffer_z=1.9)),
    (replace(GOOD, wrong_labels=0.12, sure_mistakes=0.4), replace(GOOD, wrong_labels=0.09, sure_mistakes=0.4)),
    (replace(GOOD, more=0.03, from_half=0.05, from_half_z=3.0), replace(GOOD, more=0.019, from_half_z=3.0)),
    (replace(GOOD, train_error=0.26), replace(GOOD, train_error=0.24)),
]
OTHER_SIDE = [  # each of the other conditions of a rule keeps it from deciding
    replace(GOOD, copied=0.05, copies_within=0.03),  # copies are usual in these data
    replace(GOOD, test_z=-9.0),  # a test set that is harder
    replace(GOOD, flexible=0.015, flexible_z=9.0),  # sure, but not worth it
    replace(GOOD, accuracy=0.5, chance=0.1, flexible=0.04, flexible_z=9.0),  # less than a tenth of the errors
    replace(GOOD, stiffer=0.01, stiffer_z=9.0),
    replace(GOOD, accuracy=0.7, wrong_labels=0.12, sure_mistakes=0.4),  # most errors are not for wrong labels
    replace(GOOD, wrong_labels=0.12, sure_mistakes=0.2),  # mistakes lie where classes overlap
    replace(GOOD, accuracy=0.45, chance=0.1, wrong_labels=0.55, sure_mistakes=0.4),  # most labels cannot be wrong
    replace(GOOD, more=0.1, from_half_z=0.9),
    replace(GOOD, more=0.029, from_half_z=1.9),
]


def order_of(facts: Facts) -> list[int]:
    """The rules that apply, by their places."""
    return [place for place, rule in enumerate(RULES) if rule.applies(facts)]


def test_every_rule_has_its_case() -> None:
    assert len(FIRING) == len(RULES)


@pytest.mark.parametrize("place", range(len(RULES)))
def test_each_rule_decides_where_it_is_the_first(place: int) -> None:
    facts, short = FIRING[place]
    assert order_of(facts)[0] == place
    found = verdict_on(facts)
    assert found.kind == RULES[place].kind
    assert found.next_step.split()[:2] == RULES[place].next_step.split()[:2]
    assert "{" not in found.sentence + found.next_step
    assert place not in order_of(short)


def test_of_two_rules_the_first_decides() -> None:
    """All that speaks against a classifier at once, and from then on without what the rule before looked at."""
    facts = replace(
        AT_CHANCE,
        train_error=0.4,
        copied=0.3,
        test_z=9.0,
        flexible=0.3,
        flexible_z=9.0,
        stiffer=0.1,
        stiffer_z=5.0,
        more=0.1,
        from_half=0.1,
        from_half_z=9.0,
        wrong_labels=0.3,
        sure_mistakes=0.5,
    )
    assert order_of(facts) == [0, 4, 6, 7, 8, 9, 10]  # wrong labels make any test set easy
    assert order_of(replace(facts, wrong_labels=0.0)) == [0, 3, 4, 6, 7, 9, 10]
    assert "near copy" in verdict_on(facts).sentence
    facts = replace(facts, copied=0.0)
    assert "easier than the training set" in verdict_on(replace(facts, wrong_labels=0.0)).sentence
    assert "with bends" in verdict_on(facts).sentence
    facts = replace(facts, flexible=0.0)
    assert "labels that mean nothing" in verdict_on(facts).sentence
    facts = replace(facts, accuracy=0.7)
    assert "strength of regularisation" in verdict_on(facts).sentence
    facts = replace(facts, stiffer=0.0)
    assert "labels are probably wrong" in verdict_on(facts).sentence
    facts = replace(facts, wrong_labels=0.0, test_z=0.0)
    assert "From half" in verdict_on(facts).sentence
    facts = replace(facts, more=0.0)
    assert "Even of the training images" in verdict_on(facts).sentence
    assert verdict_on(replace(facts, train_error=0.1)).kind == "healthy"


@pytest.mark.parametrize("facts", [GOOD, *OTHER_SIDE], ids=range(1 + len(OTHER_SIDE)))
def test_otherwise_it_is_healthy(facts: Facts) -> None:
    assert order_of(facts) == []
    found = verdict_on(facts)
    assert (found.kind, found.next_step) == ("healthy", HEALTHY.next_step)
    assert f"{facts.accuracy:.1%} of the 400 training images" in found.sentence


def test_every_kind_is_known_and_used() -> None:
    assert {rule.kind for rule in (*RULES, HEALTHY)} == {*KINDS}


@settings(deadline=None, max_examples=80)
@given(shares=st.lists(st.floats(0, 1), min_size=16, max_size=16), images=st.integers(4, 10**6))
def test_every_sentence_can_be_said(shares: list[float], images: int) -> None:
    facts = Facts(images, *shares)
    for rule in (*RULES, HEALTHY):
        only = Facts(images, *shares)
        text = rule.sentence.format(**words_of(only))
        assert text.endswith((".", "fault."))
        assert "{" not in text
    found = verdict_on(facts)
    assert found.kind in KINDS
    assert found.figures == {name: float(getattr(facts, name)) for name in Facts.__slots__}


def test_the_sentence_has_the_figures() -> None:
    text = verdict_on(replace(GOOD, copied=0.0523)).sentence
    assert text.startswith("5.2% of the test images")
    assert "4.2 standard errors" in verdict_on(replace(GOOD, test_z=4.2)).sentence
    text = verdict_on(replace(AT_CHANCE, train_error=0.125)).sentence
    assert "52.0% of the images are right" in text
    assert "(50.0%)" in text
    assert "12.5% are wrong" in text
    text = verdict_on(replace(GOOD, train_error=0.4, chance=0.3)).sentence
    assert "40.0% are wrong, where guessing gets 70.0% wrong" in text


# --- made-up problems, whose verdict is known ---


def last(count: int, of: int) -> NDArray[np.bool_]:
    return np.arange(of) >= of - count


def meaningless(count: int, width: int, seed: int) -> FittedHead:
    """Labels that say nothing of the features."""
    return fitted(np.random.default_rng(seed).standard_normal((count, width)), np.arange(count) % 2)


def leaked(seed: int) -> FittedHead:
    """30 of 100 test images lie among the training images too."""
    x, labels = blobs(400, 20, 2.5, seed)
    x[:30], labels[:30] = x[300:330], labels[300:330]
    return fitted(x, labels, last(100, 400), copies=[(300 + row, row) for row in range(30)])


def easy_test(seed: int) -> FittedHead:
    """Test images from the middle of their classes, of classes that overlap."""
    x, labels = blobs(500, 10, 1.3, seed)
    x[300:, :2] += np.eye(2)[labels[300:]] * 3
    return fitted(x, labels, last(200, 500))


def flipped(seed: int, tested: int = 0) -> FittedHead:
    """A fifth of the labels of the training set is wrong; those of the test set are right."""
    x, labels = blobs(600 + tested, 10, 4.0, seed)
    wrong = np.random.default_rng(100 + seed).permutation(600)[:120]
    labels[wrong] = 1 - labels[wrong]
    return fitted(x, labels, last(tested, 600 + tested))


def few(seed: int) -> FittedHead:
    """Forty images of each of ten classes, in 400 dimensions."""
    return fitted(*blobs(1400, 400, 3.0, seed, classes=10), last(1000, 1400))


def noisy(seed: int) -> FittedHead:
    """Features that tell little of the class."""
    return fitted(*blobs(2000, 8, 0.8, seed, classes=8))


CASES: dict[str, tuple[Callable[[int], FittedHead], str, str]] = {
    "random labels, wide": (lambda seed: meaningless(200, 400, seed), "overfitting", "by heart"),
    "random labels, narrow": (lambda seed: meaningless(300, 5, seed), "suspicious data", "labels that mean nothing"),
    "linear": (lambda seed: fitted(*blobs(600, 6, 2.5, seed)), "healthy", "no rule found a fault"),
    "linear, with a test set": (
        lambda seed: fitted(*blobs(800, 6, 2.5, seed), last(200, 800)),
        "healthy",
        "no rule found a fault",
    ),
    "XOR": (lambda seed: fitted(*xor(400, seed)), "underfitting", "with bends"),
    "leaked test set": (leaked, "suspicious data", "30.0% of the test images have a near copy"),
    "easy test set": (easy_test, "suspicious data", "easier than the training set"),
    "flipped labels": (flipped, "suspicious data", "of the labels are probably wrong"),
    "flipped labels, and a test set without": (
        lambda seed: flipped(seed, 200),
        "suspicious data",
        "of the labels are probably wrong",
    ),
    "few images": (few, "too little data", "From half of the training images to all"),
    "classes that overlap": (noisy, "underfitting", "Even of the training images"),
}


def verdict_of(case: str, seed: int) -> Verdict:
    return diagnose_head(CASES[case][0](seed)).verdict


@pytest.mark.parametrize("seed", [0, 4])
@pytest.mark.parametrize("case", CASES)
def test_a_made_up_problem_gets_its_verdict(case: str, seed: int) -> None:
    _, kind, words = CASES[case]
    found = verdict_of(case, seed)
    assert (found.kind, words in found.sentence) == (kind, True), found
