"""No sentence says "1 epochs"."""

from __future__ import annotations

import pytest

from headstart.core.counts import counted, verb
from headstart.train.callbacks import EarlyStopping
from headstart.train.protocol import Epoch


@pytest.mark.parametrize(("count", "said"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs")])
def test_one_is_singular(count: int, said: str) -> None:
    assert counted(count, "epoch") == said
    assert counted(count, "class") == said.replace("epochs", "classes").replace("epoch", "class")
    assert counted(count, "batch", "batches") == said.replace("epochs", "batches").replace("epoch", "batch")
    assert verb(count) == ("is" if count == 1 else "are")


def test_early_stopping_after_one_epoch() -> None:
    history = [Epoch(number, 0.5, 0.1, loss, 0.1, 0.1, 1.0) for number, loss in enumerate((0.5, 0.6))]
    said = EarlyStopping(1).epoch(history)
    assert said is not None
    assert said.startswith("1 epoch without a lower calibrated validation loss than 0.5 in epoch 1")
