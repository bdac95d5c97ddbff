"""The trainer `lightning`: the same curve as the plain loop's, quiet, and the same again from two processes."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import MissingExtraError, UsageError
from headstart.train.checkpoint import Checkpoints, Identity, Terminated
from headstart.train.protocol import Task
from headstart.train.recipe import Recipe
from headstart.train.torch.lightning import train_lightning
from headstart.train.torch.plain_loop import train_pytorch
from trainers import (
    EVERYTHING,
    SGD,
    Ending,
    Listener,
    assert_equal,
    batches_of,
    crash,
    furthest,
    learned,
    one_thread,  # noqa: F401
    sigterm,
    small_task,
    table_task,
)

ALL = replace(EVERYTHING, optimiser="adamw", batch_norm="train")


def train(recipe: Recipe, task: Task | None = None, trainer: Any = train_lightning, **more: Any) -> Any:
    task = task or small_task(recipe)
    validation = batches_of(task, 24, shuffle=False)  # that it learns even in a few steps
    return trainer(task, batches_of(task), validation, recipe, device="cpu", **more)


def test_it_says_nothing_and_leaves_no_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    levels = {name: logging.getLogger(name).level for name in ("lightning", "lightning.pytorch", "lightning.fabric")}
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    train(SGD)
    assert list(tmp_path.iterdir()) == []
    assert "".join(capfd.readouterr()) == ""
    assert caplog.messages == []
    assert levels == {name: logging.getLogger(name).level for name in levels}
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize(
    ("deed", "error", "start"),
    [(crash, RuntimeError, 10), (interrupt, KeyboardInterrupt, 10), (sigterm, Terminated, 13)],
)
def test_a_resumed_training_is_the_uninterrupted_one(
    tmp_path: Path, deed: Any, error: type[BaseException], start: int
) -> None:
    """Ctrl-C stays what it is, which Lightning would make an exit of."""
    identity, whole, told = Identity.of(small_task(ALL), ALL, "these"), train(ALL), Listener()
    before = signal.getsignal(signal.SIGINT)
    with Checkpoints(tmp_path, identity) as checkpoints, pytest.raises(error) as caught:
        train(ALL, checkpoints=checkpoints, callbacks=[Ending(13, deed)])
    assert caught.type is error
    assert signal.getsignal(signal.SIGINT) is before
    with Checkpoints(tmp_path, identity) as checkpoints:
        resumed = train(ALL, checkpoints=checkpoints, callbacks=[told])
    assert told.steps[0][0] == start
    assert_equal(resumed.weights, whole.weights)
    assert resumed.history.losses == whole.history.losses
    with Checkpoints(tmp_path, identity) as checkpoints:  # and one that has ended takes no step more
        again = train(ALL, checkpoints=checkpoints, callbacks=[Ending(1, crash)])
    assert again.history == resumed.history


def test_callbacks_and_patience_end_it() -> None:
    half = train(SGD, callbacks=[Listener(steps=7)]).history
    assert (len(half.epochs), len(half.losses), half.stopped) == (2, 7, "Enough steps.")
    told = Listener(epochs=3)
    whole = train(SGD, callbacks=[told]).history
    assert (len(whole.epochs), len(whole.losses), whole.stopped) == (3, 15, "Enough epochs.")
    assert told.epochs == list(whole.epochs)
    task = replace(learned(), rates={"logits": 10.0})
    patient = train(replace(SGD, learning_rate=0.8, patience=2), task)
    assert "patience 2" in patient.history.stopped
    assert patient.history.best == -1
    assert_equal(patient.weights, dict(task.weights))


def test_a_loss_that_is_no_number_ends_it_with_the_best_before() -> None:
    task, batches = table_task()
    batches._x[0, batches.order(1)[0]] = np.nan  # the second epoch begins with it, so it lies somewhere in the first
    place = int(np.flatnonzero(batches.order(0) == batches.order(1)[0])[0]) // 8
    found = train_lightning(task, batches, None, SGD, device="cpu")
    assert found.history.stopped.startswith(f"Step {place + 1}, batch {place + 1} of epoch 1")
    assert (found.history.best, found.history.epochs, len(found.history.losses)) == (-1, (), place)
    assert_equal(found.weights, dict(task.weights))


def test_memory_that_runs_out_costs_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.train.torch.network import TrainableNetwork

    said: list[str] = []
    whole, logits = train(SGD), TrainableNetwork.logits

    def limited(self: TrainableNetwork, x: Any, masks: Any = None) -> Any:
        if len(x) > 3 and masks is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return logits(self, x, masks)

    monkeypatch.setattr(TrainableNetwork, "logits", limited)
    parted = train(SGD, say=said.append)
    assert len(said) == 2
    assert "2 are taken at a time" in said[1]
    assert furthest(parted.weights, whole.weights) < 1e-5


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"strategy": "nonsense"}, "Lightning refuses devices=1, nodes=1, strategy='nonsense' on cpu: "),
        ({"devices": "many"}, "Lightning refuses devices='many'"),
        ({"devices": 2, "strategy": "ddp_spawn"}, "'ddp_spawn' trains in processes that return no result.*'ddp'"),
    ],
)
def test_devices_that_cannot_be_are_refused(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train(SGD, **wish)


def test_without_lightning_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "headstart.train.torch.lightning")
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[torch\]'"):
        importlib.import_module("headstart.train.torch.lightning")


# --- two processes ----------------------------------------------------------------------------------------------------

NAMES = ("train_loss", "train_error", "val_loss", "val_error", "val_calibrated")
SCRIPT = """
import json, os, sys
sys.path.insert(0, {tests!r})
import numpy as np
import torch
torch.set_num_threads(1)
from dataclasses import replace
from headstart.train.torch.lightning import train_lightning
from trainers import EVERYTHING, Listener, batches_of, small_task

recipe = replace(EVERYTHING, optimiser="momentum", clip=0.0)
task, told = small_task(recipe), Listener(epochs=3)
found = train_lightning(
    task, batches_of(task, 41), batches_of(task, 24, seed=1, shuffle=False), recipe, [told],
    device="cpu", devices=2, strategy="ddp",
)
assert torch.distributed.get_backend() == "gloo" and torch.distributed.get_world_size() == 2
rank = os.environ.get("LOCAL_RANK", "0")
history = found.history
about = {{name: [getattr(epoch, name) for epoch in history.epochs] for name in {names!r}}}
about |= dict(losses=history.losses, stopped=history.stopped, told=len(told.steps))
np.savez({out!r} + "/" + rank, about=json.dumps(about), **found.weights)
"""


def test_two_processes_are_as_one(tmp_path: Path) -> None:
    """Over gloo; the last batch of an epoch has one image, so one of them has none. The first alone calls callbacks."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path), names=NAMES))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    recipe = replace(EVERYTHING, optimiser="momentum", clip=0.0)
    task = small_task(recipe)
    validation = batches_of(task, 24, seed=1, shuffle=False)
    alone = train_pytorch(task, batches_of(task, 41), validation, recipe, [Listener(epochs=3)], device="cpu")
    for rank in ("0", "1"):
        with np.load(tmp_path / f"{rank}.npz") as file:
            about = json.loads(str(file["about"]))
            weights = {name: file[name] for name in file.files if name != "about"}
        assert furthest(weights, alone.weights) < 1e-4
        np.testing.assert_allclose(about["losses"], alone.history.losses, atol=1e-4)
        for name in NAMES:
            np.testing.assert_allclose(about[name], [getattr(e, name) for e in alone.history.epochs], atol=1e-4)
        assert about["stopped"] == "Enough epochs."
        assert about["told"] == (18 if rank == "0" else 0)
