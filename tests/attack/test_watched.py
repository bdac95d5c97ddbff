"""Attacks tell how far they are while they go on, and can be ended in the middle."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.attack.goal import Goal
from headstart.attack.plan import attack, plan_of
from headstart.attack.watched import Watched
from headstart.core.progress import stage
from victims import SHAPE, Linear

IMAGES = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), dtype=np.uint8)


class StopError(Exception):
    """Somebody wants the work to end."""


def goal(network: Linear) -> Goal:
    return Goal(network.forward(IMAGES / np.float32(255)).argmax(axis=1), targeted=False)


def test_a_network_that_is_watched_gives_the_same_answers() -> None:
    network, told = Linear.random(), list[tuple[str, int, int]]()
    watched = Watched(network, lambda *step: told.append(step))
    assert (watched.forward(IMAGES) == network.forward(IMAGES)).all()
    assert told == []  # nothing was said yet that could be said again
    watched.tell("photos", 0, 20)
    watched.forward(IMAGES)
    assert told == [("photos", 0, 20)] * 4  # as it is told, and before 8, 8 and 4 images


def test_an_attack_is_the_same_and_can_be_ended_at_each_of_its_steps() -> None:
    network, plan, told = Linear.random(), plan_of("pgd", epsilon=1 / 255, steps=10), list[str]()

    def report(stage: str, done: int, count: int) -> None:
        told.append(stage)
        if len(told) == 12:
            raise StopError

    plain, _ = attack(network, IMAGES, goal(network), plan)
    quiet, _ = attack(Watched(network, None), IMAGES, goal(network), plan)
    assert (plain.images == quiet.images).all()
    watched = Watched(network, report)
    watched.tell("photos", 0, 20)
    network.seen = 0
    with pytest.raises(StopError):
        attack(watched, IMAGES, goal(network), plan, stage(watched.tell, "photos"))
    assert 0 < network.seen < 10 * len(IMAGES)
