"""A limit on the weights of a model that is built from a file: a small one can ask for any number of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from headstart.core.shared_change import SharedChange

FEW = 10_000  # weights that a file need not hold

_here = threading.local()  # how many weights this thread may still make


@contextmanager
def weights_at_most(count: int | None) -> Iterator[None]:
    """Building a model in this thread fails before it makes more weights than that; None: as many as it has.

    Only for models whose weights begin as zeros.

    Raises:
        ValueError: it would.
    """
    _here.left = None if count is None else count + FEW
    try:
        with _COUNTED:
            yield
    finally:
        _here.left = None


@contextmanager
def _counted_zeros() -> Iterator[None]:
    """Keras' initialiser of zeros, which reckons before it makes them."""
    make = keras.initializers.Zeros.__call__

    def counted(self: Any, shape: Any, *rest: Any, **settings: Any) -> Any:
        if (left := getattr(_here, "left", None)) is not None:
            _here.left = left - math.prod(shape)
            if _here.left < 0:
                raise ValueError("its layers have more weights than the file holds")
        return make(self, shape, *rest, **settings)

    keras.initializers.Zeros.__call__ = counted
    try:
        yield
    finally:
        keras.initializers.Zeros.__call__ = make


_COUNTED = SharedChange(_counted_zeros)
