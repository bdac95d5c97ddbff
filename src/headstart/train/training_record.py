"""What a model remembers of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.train.gap import Gap
from headstart.train.overfitting_watch import Verdict
from headstart.train.protocol import Epoch


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """The history of a training, as a model keeps it."""

    trainer: str
    recipe: dict[str, Any]
    rate: float  # the recipe's learning rate, or the one that was found
    epochs: tuple[Epoch, ...]
    best: int  # the epoch whose weights were kept; -1: the starting weights
    stopped: str
    verdict: Verdict
    moving: int  # number of trained weights
    gap: Gap | None = None
