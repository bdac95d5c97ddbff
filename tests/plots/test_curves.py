"""The picture of a training's curves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.cli.figures import loading
from headstart.plots.curves import NAME, draw_curves, plot_curves
from headstart.train.overfitting_watch import Verdict
from headstart.train.protocol import Epoch
from headstart.train.training_record import TrainingRecord
from making import Shell

EPOCHS = tuple(Epoch(n, 0.9**n, 0.1, 0.8**n, 0.2, 2e-4, 3.25) for n in range(5))
RECORD = TrainingRecord(
    trainer="pytorch", recipe={}, rate=0.1, epochs=EPOCHS, best=2, stopped="",
    verdict=Verdict("healthy", "Healthy: all is well.", None), moving=5,
)  # fmt: skip


def lines_of(record: TrainingRecord) -> list[dict[str, list[float]]]:
    """What is drawn on each side, by its word in the legend."""
    return [
        {str(line.get_label()): np.asarray(line.get_ydata(), float).tolist() for line in axes.get_lines()}
        for axes in draw_curves(record).axes
    ]


def test_loss_and_error_of_both_sets_are_drawn_and_what_was_kept() -> None:
    loss, error = lines_of(RECORD)
    assert loss["training"] == pytest.approx([each.train_loss for each in EPOCHS])
    assert loss["validation"] == pytest.approx([each.val_loss for each in EPOCHS])
    assert error["training"] == pytest.approx([10.0] * 5)
    assert error["validation"] == pytest.approx([20.0] * 5)
    assert "kept" in loss
    assert "validation, calibrated" not in loss  # none was measured
    assert "kept" not in lines_of(replace(RECORD, best=-1))[0]
    calibrated = replace(RECORD, epochs=tuple(replace(each, val_calibrated=0.3) for each in EPOCHS))
    assert lines_of(calibrated)[0]["validation, calibrated"] == [0.3] * 5


def test_an_epoch_without_a_loss_is_a_gap(tmp_path: Path) -> None:
    gaps = replace(RECORD, epochs=(replace(EPOCHS[0], val_loss=math.nan), *EPOCHS[1:]))
    with Image.open(plot_curves(gaps, tmp_path / "new")) as drawn:
        assert drawn.size[0] > 600
    with pytest.raises(hs.UsageError, match="cannot be written"):
        plot_curves(RECORD, tmp_path / "new" / NAME)


def test_the_command_draws_them_beside_the_log(shell: Shell, tmp_path: Path) -> None:
    done = shell("train", "iris", "--out", tmp_path / "model", "--json").json
    assert Path(done["plot"]) == Path(done["log"]) / NAME
    assert Path(done["plot"]).stat().st_size > 5000
    words = shell("train", "iris", "--out", tmp_path / "model", "--overwrite").out
    assert f"plot           {done['plot']}" in words


def test_what_no_stage_has_is_named() -> None:
    assert loading(RECORD) == "loading PyTorch and saving"
    assert loading(replace(RECORD, trainer="keras")) == "loading Keras and saving"
