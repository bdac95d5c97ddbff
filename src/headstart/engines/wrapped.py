"""A network of somebody else's making as a trunk: what wrapping one gives, whichever framework it is of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS
from headstart.backbones.catalogue import LARGEST, SMALLEST, Pretrained
from headstart.core.errors import UsageError


@dataclass(frozen=True)
class Wrapped:
    """A module as a trunk that can be fitted on, its own head beside it."""

    trunk: Pretrained
    module: Any  # a copy of it, which the trunk is built from; None where the blueprint says all
    head: tuple[NDArray[np.float32], NDArray[np.float32]] | None  # weight (K, D) and bias (K,), where it has them

    def whole(self) -> Pretrained:
        """The network with its own head for ImageNet's classes.

        Raises:
            UsageError: it has none, or one for other classes.
        """
        classes = len(self.trunk.backbone.classes())
        if self.head is None or len(self.head[0]) != classes:
            received = "none" if self.head is None else len(self.head[0])
            raise UsageError(
                f"'{self.trunk.blueprint.name}' alone is no classifier: expected a head for the {classes} classes of "
                f"ImageNet, received {received}. Fit one of your own: headstart fit PHOTOS"
            )
        weight, bias = self.head
        blueprint = self.trunk.blueprint.with_head(classes, sqrt=False)
        weights = self.trunk.weights | {f"{LOGITS}.weight": weight, f"{LOGITS}.bias": bias}
        return replace(self.trunk, blueprint=blueprint, weights=weights)


def check_pixels(pixels: int | None) -> None:
    """Refuse a size out of range."""
    if pixels is not None and not SMALLEST <= pixels <= LARGEST:
        raise UsageError(f"--pixels: expected {SMALLEST} to {LARGEST}. Received: {pixels}.")


def attempt(problem: str, action: Callable[[], Any]) -> Any:
    """What somebody else's code returns; of whatever it raises, a `UsageError` that begins with the ``problem``."""
    try:
        return action()
    except UsageError:
        raise
    except Exception as error:  # somebody else's code can raise anything
        raise UsageError(f"{problem}: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}") from error
