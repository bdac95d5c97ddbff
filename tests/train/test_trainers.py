"""Trainers and steppers by name, and what is refused before any work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import MissingExtraError, UsageError
from headstart.train.checkpoint import Checkpoints, ReadOnlyCheckpoints, discard, save, unfinished
from headstart.train.identity import Identity
from headstart.train.protocol import TRAINERS
from headstart.train.trainers import check_device, check_trainer, get_stepper, get_trainer
from headstart.train.training_run import TrainingRun, is_main_process
from trainers import SGD, batches_of, small_task


@pytest.mark.parametrize("name", TRAINERS)
def test_each_is_found_by_its_name(name: str) -> None:
    found: Any = get_trainer(name)
    assert found.__name__ == f"train_{name}"


def test_an_unknown_one_is_refused_with_the_nearest() -> None:
    for ask in (get_trainer, check_trainer):
        with pytest.raises(UsageError, match=r"no trainer 'pytorc'\. Did you mean pytorch"):
            ask("pytorc")


@pytest.mark.parametrize("more", [{"devices": 2}, {"nodes": 2}, {"strategy": "ddp"}])
def test_only_lightning_takes_several_devices(more: dict[str, Any]) -> None:
    check_trainer("lightning", **more)
    with pytest.raises(UsageError, match=r"takes one device.*trainer='lightning'"):
        check_trainer("keras", **more)


@pytest.mark.parametrize("trainer", ["pytorch", "keras"])
def test_a_device_that_is_not_there_is_refused(trainer: str) -> None:
    check_device(trainer, "auto")
    check_device(trainer, "cpu")
    with pytest.raises(UsageError, match="no device 'tpu'"):
        check_device(trainer, "tpu")


def test_without_its_framework_a_trainer_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "headstart.train.torch.lightning", raising=False)
    for name in [name for name in sys.modules if name == "lightning" or name.startswith("lightning.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[torch\]'"):
        get_trainer("lightning")


@pytest.mark.parametrize("trainer", ["lightning", "tensorflow"])
def test_a_loop_of_ones_own_takes_one_step_at_a_time(trainer: str) -> None:
    task = small_task()
    batches = batches_of(task)
    stepper = get_stepper(trainer, task, SGD, SGD.epochs * batches.steps, "cpu")
    losses = [stepper.step(batch) for epoch in range(SGD.epochs) for batch in batches.epoch(epoch)]
    assert stepper.steps_done == len(losses)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


# --- a training from its start to its end -----------------------------------------------------------------------------


def test_what_cannot_be_done_is_said_before_any_work(tmp_path: Path) -> None:
    TrainingRun().check()
    with pytest.raises(UsageError, match="name the folder"):
        TrainingRun(resume=True).check()
    task = small_task()
    save(tmp_path, 3, {"weight": np.zeros(2)}, {}, Identity.of(task, SGD, "photos"))
    with pytest.raises(UsageError, match=r"unfinished training.*resume=True"):
        TrainingRun(folder=tmp_path).check()
    TrainingRun(folder=tmp_path, resume=True).check()


def test_checkpoints_go_when_the_result_is_safe_and_logs_stay(tmp_path: Path) -> None:
    task = small_task()
    for folder in (tmp_path, tmp_path / "refit"):
        save(folder, 3, {"weight": np.zeros(2)}, {}, Identity.of(task, SGD, "photos"))
    (tmp_path / "training-1.csv").write_text("number\n")
    assert unfinished(tmp_path)
    discard(tmp_path)
    assert not unfinished(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["training-1.csv"]
    discard(tmp_path / "nowhere")


def test_other_processes_read_and_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small_task()
    identity = Identity.of(task, SGD, "photos")
    assert is_main_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_main_process()
    with Checkpoints(tmp_path, identity) as first, ReadOnlyCheckpoints(tmp_path, identity) as other:
        first.save(4, {"weight": np.ones(2)}, {})
        assert not other.save(5, {"weight": np.ones(2)}, {})
        found = other.latest()
    assert found is not None
    assert found.step == 4
