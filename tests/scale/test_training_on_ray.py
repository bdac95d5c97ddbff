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

from headstart.core.errors import MachineError, UsageError
from headstart.scale.cluster import cluster
from headstart.scale.training import RayTrainer, training_on
from headstart.train.batches import ArrayBatches
from headstart.train.checkpoint import Checkpoints, Terminated
from headstart.train.identity import Identity
from headstart.train.torch.lightning import train_lightning
from headstart.train.training_run import TrainingRun
from trainers import (
    EVERYTHING,
    Ending,
    Listener,
    Short,
    batches_of,
    furthest,
    one_thread,  # noqa: F401
    pictures,
    sigterm,
    small_task,
)

pytestmark = pytest.mark.filterwarnings("ignore:::ray", "ignore:.*ray.*:FutureWarning", "ignore::ResourceWarning")
RECIPE = replace(EVERYTHING, optimiser="adamw", epochs=3)


@pytest.fixture(scope="module")
def workers() -> Iterator[RayTrainer]:
    """Two, also where these tests have a single processor."""
    pytest.importorskip("ray", reason="needs the extra 'ray'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.scale.cluster.cores", lambda: 2)
        with cluster("ray"), RayTrainer(2) as trainer:
            yield trainer


def train(trainer: Any, batches: Any = None, **more: Any) -> Any:
    task = small_task(RECIPE)
    batches = batches or batches_of(task)
    return trainer(task, batches, batches_of(task, 24, shuffle=False), RECIPE, device="cpu", **more)


def test_two_workers_take_the_steps_of_one_process_also_after_one_was_lost(workers: RayTrainer, tmp_path: Path) -> None:
    """A worker is killed in the third epoch; all before it is told once."""
    told, killed = Listener(), Ending(13, kill_a_worker)
    identity = Identity.of(small_task(RECIPE), RECIPE, "these")
    with Checkpoints(tmp_path, identity) as checkpoints:
        found = train(workers, callbacks=[killed, told], checkpoints=checkpoints)
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


def test_a_callback_here_ends_it_there(workers: RayTrainer, tmp_path: Path) -> None:
    """With the same workers, which are at hand; and a memory map, which they need not have."""
    run, (x, y) = workers._run, pictures(12, 40)
    mapped = np.memmap(tmp_path / "x", np.uint8, "w+", shape=x.shape)
    mapped[:] = x
    (tmp_path / "x").unlink()
    found = train(workers, ArrayBatches(mapped, y, 8), callbacks=[Listener(steps=7)]).history
    alone = train(train_lightning, callbacks=[Listener(steps=7)]).history
    assert (len(found.epochs), len(found.losses), found.stopped) == (2, 7, "Enough steps.")
    np.testing.assert_allclose(found.losses, alone.losses, atol=1e-5)
    assert run is None or workers._run is run


def test_sigterm_saves_and_another_trainer_goes_on(workers: RayTrainer, tmp_path: Path) -> None:
    """The checkpoints are those of Lightning in one process."""
    identity = Identity.of(small_task(RECIPE), RECIPE, "these")
    with (
        Checkpoints(tmp_path, identity) as checkpoints,
        pytest.raises(Terminated, match="Ended after step 8, as the system asked; --resume"),
    ):
        train(workers, callbacks=[Ending(8, sigterm)], checkpoints=checkpoints)
    with Checkpoints(tmp_path, identity) as checkpoints:
        assert checkpoints.latest() is not None
        told = Listener()
        resumed = train(train_lightning, callbacks=[told], checkpoints=checkpoints)
    assert told.steps[0][0] == 8
    assert furthest(resumed.weights, train(train_lightning).weights) < 1e-5


@pytest.mark.slow
def test_an_error_of_a_worker_comes_back_as_itself(workers: RayTrainer) -> None:
    """And is not tried again; afterwards nothing of the training is left."""
    x, y = pictures(12, 40)
    with pytest.raises(UsageError, match=r"Epoch 1 should have had 5 batches. Received: 4"):
        train(workers, Short(x, y, 8))
    assert workers._run is None


# --- what is refused before any work ----------------------------------------------------------------------------------


def test_without_a_runner_there_are_no_workers() -> None:
    with training_on(None) as found:
        assert found is None
    with pytest.raises(UsageError, match="workers=2 belongs to runner"), training_on(None, 2):
        pass
    with pytest.raises(UsageError, match="workers: expected"):
        RayTrainer(0)


def test_more_workers_than_processors_are_refused(workers: RayTrainer) -> None:
    with pytest.raises(UsageError, match=r"64: this machine has \d+ CPUs? for workers"):
        train(RayTrainer(64))
    with pytest.raises(UsageError, match=r"cuda.* has 0 GPUs. Take: device='cpu'"):
        RayTrainer(1)._device("cuda")


def test_a_runner_goes_with_its_own_trainer_alone() -> None:
    runner = RayTrainer(2)
    assert TrainingRun.of(TrainingRun(runner=runner)).trainer == "lightning"
    for more in ({"trainer": "pytorch"}, {"devices": 2, "trainer": "lightning"}):
        with pytest.raises(UsageError, match=r"runner trains with lightning, on as many devices as there are workers"):
            TrainingRun(runner=runner, **more).check()
    with pytest.raises(UsageError, match="runner: expected an object that trains"):
        TrainingRun(runner="ray")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_worker_that_is_lost_too_often_is_said_in_words(workers: RayTrainer) -> None:
    """Ray's own error tells of a traceback."""
    workers._end(in_order=True)  # which have the processors, where they are at hand
    with RayTrainer(2, failures=0) as once, pytest.raises(MachineError, match=r"without a result.*begun 1 time\. "):
        train(once, callbacks=[Ending(3, kill_a_worker)])
