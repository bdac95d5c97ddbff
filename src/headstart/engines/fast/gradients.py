"""Gradients of the fast engine: compiled for what is asked, and run on all cores."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headstart.backbones.blueprint import INPUT, Blueprint
from headstart.core.processors import cores
from headstart.core.types import ImageSpec
from headstart.engines.fast.backward import build_pair
from headstart.engines.fast.graph import compiled
from headstart.engines.protocol import Array, Pullback, Weights

if TYPE_CHECKING:
    import openvino as ov

KEPT = 8  # compiled pairs that a network holds; the one used longest ago goes first


class _Pair(NamedTuple):
    forward: ov.CompiledModel
    backward: ov.CompiledModel


class Gradients:
    """The gradients of a network with these weights, in fp32."""

    def __init__(self, blueprint: Blueprint, weights: Weights, spec: ImageSpec) -> None:
        self._blueprint, self._weights, self._spec = blueprint, weights, spec
        self._pairs: dict[tuple[str, str, int, bool], _Pair] = {}
        self._lock = threading.Lock()

    def vjp(self, images: Array, at: str, wrt: str, most: int) -> tuple[Array, Pullback]:
        """As `Network.vjp`, of checked arguments; ``most`` images at a time on each core."""
        pixels = images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images
        pixels, shapes = np.asarray(pixels, np.float32), self._blueprint.shapes(self._spec.size)
        value = np.zeros((len(pixels), *shapes[at]), np.float32)
        gradient_shape = (len(pixels), *(pixels.shape[1:] if wrt == INPUT else shapes[wrt]))
        if not len(pixels):
            return value, lambda cotangent: np.zeros(gradient_shape, np.float32)
        rows = _share(len(pixels), most)
        pair = self._pair(at, wrt, rows, alone=len(pixels) == 1)
        parts = [slice(start, start + rows) for start in range(0, len(pixels), rows)]

        requests = [pair.forward.create_infer_request() for _ in parts]
        _run(requests, [_filled(pixels[part], rows) for part in parts])
        for request, part in zip(requests, parts, strict=True):
            value[part] = request.get_output_tensor(0).data[: len(value[part])]

        def gradient(cotangent: Array) -> Array:
            weight = np.asarray(cotangent, np.float32)
            found = np.empty(gradient_shape, np.float32)
            back = [pair.backward.create_infer_request() for _ in parts]
            for request, before in zip(back, requests, strict=True):
                for place in range(1, len(pair.forward.outputs)):
                    request.set_input_tensor(place, before.get_output_tensor(place))
            _run(back, [_filled(weight[part], rows) for part in parts])
            for request, part in zip(back, parts, strict=True):
                found[part] = request.get_output_tensor(0).data[: len(found[part])]
            return found

        return value, gradient

    def release(self) -> None:
        """Free what was compiled; it is compiled again when needed."""
        with self._lock:
            self._pairs.clear()

    def _pair(self, at: str, wrt: str, rows: int, *, alone: bool) -> _Pair:
        key = (at, wrt, rows, alone)
        with self._lock:
            pair = self._pairs.pop(key, None) or self._compile(at, wrt, rows, alone=alone)
            self._pairs[key] = pair
            if len(self._pairs) > KEPT:
                del self._pairs[next(iter(self._pairs))]
            return pair

    def _compile(self, at: str, wrt: str, rows: int, *, alone: bool) -> _Pair:
        models = build_pair(self._blueprint, self._weights, self._spec, at, wrt)
        with ThreadPoolExecutor(2) as pool:  # compiling takes one core
            return _Pair(*pool.map(lambda model: compiled(model, rows, alone=alone), models))


def _share(count: int, most: int) -> int:
    """How many images each core takes at a time: a power of two, so that few numbers are compiled for."""
    rows = 1
    while rows < min(most, -(-count // cores())):
        rows *= 2
    return min(rows, most)


def _filled(array: Array, rows: int) -> Array:
    """The array, with rows of zeros behind it if it has fewer than ``rows``."""
    if len(array) == rows:
        return np.ascontiguousarray(array)
    filled = np.zeros((rows, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    return filled


def _run(requests: Sequence[ov.InferRequest], inputs: Sequence[Array]) -> None:
    """Run them all, on as many cores at once as there are streams."""
    for request, first in zip(requests, inputs, strict=True):
        request.start_async({0: first}, share_inputs=True)
    for request in requests:
        request.wait()
