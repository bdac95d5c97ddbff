"""A training on Ray: the steps of one process, by two workers; one that is lost; what is told, and what is not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.scale.cluster import cluster
from headstart.scale.training import RayTrainer
from headstart.train.checkpoint import Checkpoints
from headstart.train.identity import Identity
from headstart.train.torch.lightning import train_lightning
from trainers import (
    EVERYTHING,
    Ending,
    Listener,
    batches_of,
    furthest,
    one_thread,  # noqa: F401
    small_task,
)

pytestmark = pytest.mark.filterwarnings("ignore:::ray", "ignore:.*ray.*:FutureWarning", "ignore::ResourceWarning")
RECIPE = replace(EVERYTHING, optimiser="adamw", epochs=3)


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    with cluster("ray"):
        yield


def train(trainer: Any, **more: Any) -> Any:
    task = small_task(RECIPE)
    return trainer(task, batches_of(task), batches_of(task, 24, shuffle=False), RECIPE, device="cpu", **more)


@pytest.mark.usefixtures("connected")
def test_two_workers_take_the_steps_of_one_process_also_after_one_was_lost(tmp_path: Path) -> None:
    """A worker is killed in the third epoch; all before it is told once."""
    told, killed = Listener(), Ending(13, kill_a_worker)
    identity = Identity.of(small_task(RECIPE), RECIPE, "these")
    with Checkpoints(tmp_path, identity) as checkpoints:
        found = train(RayTrainer(2), callbacks=[killed, told], checkpoints=checkpoints)
    alone = train(train_lightning)
    assert furthest(found.weights, alone.weights) < 1e-5
    assert furthest(found.last, alone.last) < 1e-5
    np.testing.assert_allclose(found.history.losses, alone.history.losses, atol=1e-5)
    assert [number for number, _, _ in told.steps] == [*range(15)]
    assert len(told.epochs) == 3
    assert (found.history.best, found.history.trainer) == (alone.history.best, "lightning")


def kill_a_worker() -> None:
    """The second of them."""
    psutil = pytest.importorskip("psutil")
    own = [each for each in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(each.cmdline())]
    assert len(own) == 2
    os.kill(max(each.pid for each in own), signal.SIGKILL)
