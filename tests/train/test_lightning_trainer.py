"""The trainer `lightning`: quiet, with the curve of the plain loop. Two processes: tests of the command."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import MissingExtraError, UsageError
from headstart.train.checkpoint import Checkpoints, Terminated
from headstart.train.identity import Identity
from headstart.train.protocol import Task
from headstart.train.recipe import Recipe
from headstart.train.torch.lightning import train_lightning
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
    ("deed", "error", "after", "start"),
    [
        (crash, RuntimeError, 13, 10),
        (interrupt, KeyboardInterrupt, 13, 10),
        (sigterm, Terminated, 13, 13),
        (sigterm, Terminated, 10, 10),  # the last step of an epoch
    ],
)
def test_a_resumed_training_is_the_uninterrupted_one(
    tmp_path: Path, deed: Any, error: type[BaseException], after: int, start: int
) -> None:
    """Ctrl-C and SIGTERM stay what they are, which Lightning would make an exit of."""
    identity, whole, told = Identity.of(small_task(ALL), ALL, "these"), train(ALL), Listener()
    before = signal.getsignal(signal.SIGINT)
    with Checkpoints(tmp_path, identity) as checkpoints, pytest.raises(error) as caught:
        train(ALL, checkpoints=checkpoints, callbacks=[Ending(after, deed)])
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


def test_without_checkpoints_sigterm_does_what_it_did_before() -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        ended = train(SGD, callbacks=[Ending(13, sigterm)])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked == [signal.SIGTERM]
    assert_equal(ended.weights, train(SGD).weights)


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
