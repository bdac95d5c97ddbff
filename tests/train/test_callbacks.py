"""Who listens to a training stops it in time, keeps the best of it, and never breaks it."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import UsageError
from headstart.train import callbacks as module
from headstart.train.callbacks import BaseCallback, BestSnapshot, CsvLog, EarlyStopping, Progress, TensorBoardLog, Watch
from headstart.train.overfitting_watch import watch as watch_curves
from headstart.train.protocol import Callback, Epoch

NAN = float("nan")


def history(*losses: float, train: float = 0.9) -> list[Epoch]:
    """Epochs with these validation losses, and a training loss that falls."""
    return [Epoch(place, train**place, 0.1, loss, 0.2, 1e-3, 2.0) for place, loss in enumerate(losses)]


def ends(stopping: Callback, losses: list[float]) -> int | None:
    """After how many epochs a training with these losses ends."""
    return next((n for n in range(1, len(losses) + 1) if stopping.epoch(history(*losses[:n]))), None)


@pytest.mark.parametrize(
    ("patience", "losses", "expected"),
    [
        (2, [3, 2, 1, 1, 1, 1], 5),  # as low is no lower
        (2, [3, 2, 2.5, 1, 2, 2], 6),
        (1, [3, 2, 1], None),
        (1, [3, 3], 2),
        (0, [1, 2, 3, 4], None),
        (3, [1, 2, 3], None),
        (3, [1, 2, 3, 4], 4),
        (2, [NAN, NAN, NAN, NAN], None),
        (2, [1, math.inf, math.inf], 3),
    ],
)
def test_early_stopping_waits_for_as_long_as_it_is_told(patience: int, losses: list[float], expected: int) -> None:
    assert ends(EarlyStopping(patience), losses) == expected


def test_early_stopping_counts_from_what_it_began_with() -> None:
    stopping = EarlyStopping(2, start=0.5)
    assert ends(stopping, [0.6, 0.55, 0.4]) == 2
    assert stopping.epoch(history(0.6, 0.55)) == (
        "2 epochs without a lower calibrated validation loss than 0.5 before the first epoch (patience 2)."
    )
    assert EarlyStopping(2).epoch(history(3, 1, 2, 2)) == (
        "2 epochs without a lower calibrated validation loss than 1 in epoch 2 (patience 2)."
    )


def test_early_stopping_goes_by_the_calibrated_loss_where_there_is_one() -> None:
    plain = history(1, 1.001, 1.002, 1.003)
    surer = tuple(replace(epoch, val_calibrated=1 / (epoch.number + 1)) for epoch in plain)
    assert EarlyStopping(2).epoch(surer) is None
    assert EarlyStopping(2).epoch(plain) is not None


def weights(value: float) -> dict[str, Any]:
    return {"w": np.full(2, value, np.float32)}


@settings(deadline=None)
@given(start=st.floats(0, 5), losses=st.lists(st.one_of(st.floats(0, 5), st.just(NAN), st.just(math.inf)), max_size=8))
def test_the_best_snapshot_is_never_worse_than_what_was_given(start: float, losses: list[float]) -> None:
    best = BestSnapshot(weights(-1), start)
    for epoch, loss in enumerate(losses):
        best.offer(epoch, loss, partial(weights, epoch))
    numbers = [loss for loss in losses if not math.isnan(loss)]
    lowest = min([start, *numbers])
    assert best.loss == lowest <= start
    assert best.epoch == (-1 if start == lowest else losses.index(lowest))  # of equals the first
    assert (best.weights["w"] == best.epoch).all()


def test_a_snapshot_is_a_copy_and_asked_for_only_when_it_is_better() -> None:
    given_weights = weights(1)
    best = BestSnapshot(given_weights, 1.0)
    given_weights["w"][:] = 9
    assert (best.weights["w"] == 1).all()
    assert not best.offer(0, 2.0, lambda: pytest.fail("asked for"))
    later = weights(2)
    assert best.offer(1, 0.5, lambda: later)
    later["w"][:] = 9
    assert (best.weights["w"] == 2).all()
    assert not best.offer(2, 0.1, lambda: weights(NAN))
    assert (best.epoch, best.loss) == (1, 0.5)


def test_without_validation_the_last_weights_count() -> None:
    best = BestSnapshot(weights(-1), NAN)
    assert [best.offer(epoch, NAN, partial(weights, epoch)) for epoch in range(3)] == [True] * 3
    assert best.epoch == 2


def test_the_watch_says_each_thing_once_and_stops_only_if_told() -> None:
    losses = [*np.linspace(0.8, 1.4, 10)]
    said: list[str] = []
    watch, stopping = Watch(said.append), Watch(said.append, stop=True)
    assert [watch.epoch(history(*losses[:n])) for n in range(1, 11)] == [None] * 10
    assert len(said) == 1
    assert said[0].startswith("Overfitting since epoch 2: validation loss rose from 0.8 to")
    assert ends(stopping, losses) == 4
    silent: list[str] = []
    turning = [*losses, 0.7, *losses]  # after the best of all it overfits a second time
    again = Watch(silent.append)
    kinds = [watch_curves(history(*turning[:n])).kind for n in range(1, len(turning) + 1)]
    assert sum(before != now == "overfitting" for before, now in pairwise(kinds)) == 2
    for n in range(1, len(turning) + 1):
        again.epoch(history(*turning[:n]))
    assert len(silent) == 1
    silent.clear()
    assert Watch(silent.append).epoch(history(1, 0.9, 0.8, 0.7)) is None
    assert silent == []


def test_progress_is_passed_on() -> None:
    seen: list[tuple[str, int, int]] = []
    progress = Progress(lambda *news: seen.append(news))
    for step in range(3):
        assert progress.step(step, 3, 0.5) is None
    assert seen == [("training", 1, 3), ("training", 2, 3), ("training", 3, 3)]


def test_all_of_them_are_callbacks(tmp_path: Path) -> None:
    everyone: list[Callback] = [
        BaseCallback(), EarlyStopping(3), Watch(print), Progress(print), CsvLog(tmp_path), TensorBoardLog(tmp_path)
    ]  # fmt: skip
    for each in everyone:
        assert each.step(0, 5, 1.0) is None
        assert each.epoch(history(1.0)) is None


# --- logs -------------------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_epoch_is_on_the_disk_when_it_is_over(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "logs")
    assert rows_of(log.path) == []
    epochs = history(0.1, 0.2, 1 / 3)
    for count in range(1, 4):
        log.epoch(epochs[:count])
        rows = rows_of(log.path)
        assert [float(row["val_loss"]) for row in rows] == [0.1, 0.2, 1 / 3][:count]  # to the last digit
    assert list(rows[0]) == [
        "number", "train_loss", "train_error", "val_loss", "val_error", "learning_rate", "seconds", "val_calibrated"
    ]  # fmt: skip


def test_each_run_has_a_file_of_its_own_and_a_resumed_one_all_of_its_epochs(tmp_path: Path) -> None:
    first = CsvLog(tmp_path)
    first.epoch(history(0.1))
    second = CsvLog(tmp_path)
    second.epoch(history(0.1, 0.2, 0.3))
    assert [first.path.name, second.path.name] == ["training-1.csv", "training-2.csv"]
    assert [len(rows_of(log.path)) for log in (first, second)] == [1, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full, as Linux has it")
def test_a_full_disk_costs_a_sentence(tmp_path: Path) -> None:
    said: list[str] = []
    log = CsvLog(tmp_path, said.append)
    log.epoch(history(0.1))
    log.path = Path("/dev/full")
    log.epoch(history(0.1, 0.2))
    log.epoch(history(0.1, 0.2, 0.3))
    assert said == [log.problem] == ["The log '/dev/full' cannot be continued: No space left on device."]


def test_a_log_that_cannot_begin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="No log can be written to"):
        CsvLog(tmp_path / "file")


class Writer:
    """Stands for TensorBoard's."""

    def __init__(self, folder: str) -> None:
        self.folder, self.seen, self.closed = folder, list[Any](), False

    def add_scalar(self, *news: Any) -> None:
        self.seen.append(news)

    add_scalars = add_scalar

    def flush(self) -> None:
        self.seen.append("flush")

    def close(self) -> None:
        self.closed = True


def test_tensorboard_is_told_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = ModuleType("torch.utils.tensorboard")
    package.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", package)
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    log = TensorBoardLog(tmp_path)
    log.step(4, 9, 0.5)
    log.epoch([replace(epoch, val_calibrated=0.2) for epoch in history(0.25)])
    log.close()
    writer: Writer = log._writer
    assert writer.folder == str(tmp_path)
    assert writer.seen == [
        ("loss/step", 0.5, 4),
        ("loss", {"train": 1.0, "val": 0.25}, 0),
        ("error", {"train": 0.1, "val": 0.2}, 0),
        ("loss/calibrated", 0.2, 0),
        ("learning_rate", 1e-3, 0),
        "flush",
    ]
    assert writer.closed


@pytest.mark.parametrize("absent", ["tensorboard", "torch"])
def test_without_tensorboard_nothing_happens(absent: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == absent else name)
    log = TensorBoardLog(tmp_path / "log")
    log.step(0, 1, 0.5)
    log.epoch(history(1.0))
    log.close()
    assert not (tmp_path / "log").exists()
