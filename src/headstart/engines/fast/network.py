"""A network on OpenVINO: fit, predict and gradients on a CPU need no deep-learning framework."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, Blueprint
from headstart.backbones.ops import SQRT_EPSILON, Node, Shape
from headstart.core.errors import UsageError
from headstart.core.processors import CHUNK, cores
from headstart.core.types import ImageSpec
from headstart.engines.fast.backward import between
from headstart.engines.fast.gradients import Gradients
from headstart.engines.fast.graph import build, compiled, precision_of
from headstart.engines.memory import check_memory
from headstart.engines.names import resolve_engine
from headstart.engines.protocol import (
    PRECISIONS,
    Array,
    Network,
    Pullback,
    Weights,
    check_layers,
    check_network,
    fitting,
    not_before,
)

if TYPE_CHECKING:
    import openvino as ov

FEW = CHUNK  # images: as many as one core would take by itself
Key = tuple[tuple[str, ...], str, bool, int, bool]  # of a compiled model: nodes, precision, floats, rows, alone


class FastNetwork(Network):
    """A network on OpenVINO.

    One stream for each core, on a batch small enough for its cache: twice as fast as one large batch on all cores. For
    a few images see `for_images`.
    ``precision`` "auto" takes bf16 where the processor has it, else int8 where the network suits it; `check_precision`
    compares either with fp32.
    """

    engine, device = "fast", "cpu"

    def __init__(self, blueprint: Blueprint, weights: Weights, spec: ImageSpec, precision: str = "auto") -> None:
        resolve_engine(self.engine, blueprint)
        check_network(blueprint, precision, PRECISIONS)
        self.blueprint = blueprint
        self.name = blueprint.name
        self.spec = spec
        self.layers = blueprint.layers
        self.precision = precision_of(blueprint, precision)
        self._head = _fitted_head(blueprint)
        self.micro_batch = max(1, min(CHUNK, round((448 / spec.size) ** 2)))
        check_memory(blueprint, spec.size, self.micro_batch * cores())
        self._weights: Weights = fitting(weights, blueprint)
        self._gradients = Gradients(blueprint, self._weights, spec)
        self._alone = False  # whether each image has all cores
        self._compiled: dict[Key, ov.CompiledModel] = {}
        self._coming: dict[Key, Future[ov.CompiledModel]] = {}  # see `compile_beside`
        self._locks = {name: threading.Lock() for name in PRECISIONS}

    def runner(self, at: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]]:
        """A function for one thread: up to ``micro_batch`` images in, the nodes ``at`` out. Threads need one each."""
        return self._runner(at, floats=False)

    def for_images(self, count: int) -> Self:
        """The network for so many images: a few are run one by one, each on all cores, by a model compiled for that."""
        if count > FEW:
            return self
        found = self.one_by_one()
        found._alone = True
        return found

    def compile_beside(self, count: int, at: Sequence[str]) -> None:
        """Begin to compile for so many images on a thread; what is Python is done at once."""
        few = self.for_images(count)
        key = few._key(few._below(at), few.precision, floats=False)
        pool = ThreadPoolExecutor(1)
        self._coming[key] = pool.submit(few._compiler(key))
        pool.shutdown(wait=False)

    def one_by_one(self) -> Self:
        """The network for one image at a time on one core, where the other cores have other work."""
        found = copy.copy(self)
        found.micro_batch = 1
        return found

    def _below(self, at: Sequence[str]) -> tuple[str, ...]:
        """The nodes to compile for those ``at``: the head's are computed from the features."""
        tail = {node.name for node in self._head}
        return tuple(dict.fromkeys(FEATURES if name in tail else name for name in at))

    def _runner(self, at: Sequence[str], *, floats: bool) -> Callable[[Array], list[NDArray[np.float32]]]:
        check_layers(self.name, at, self.layers)
        tail = {node.name: node for node in self._head}
        below = self._below(at)
        request = self._compile(below, self.precision, floats).create_infer_request()
        shape = (self.micro_batch, self.spec.size, self.spec.size, 3)
        buffer = np.zeros(shape, np.float32 if floats else np.uint8)

        def run(images: Array) -> list[NDArray[np.float32]]:
            buffer[: len(images)] = images
            request.infer({0: buffer}, share_inputs=True, share_outputs=True)  # which are copied below
            values = {name: request.get_output_tensor(i).data[: len(images)].copy() for i, name in enumerate(below)}
            for name, node in tail.items() if set(at) & set(tail) else ():
                values[name] = _head_value(node, values[node.inputs[0]], self._weights)
            return [values[name] for name in at]

        return run

    def release(self) -> None:
        """Free what was compiled in this precision; it is compiled again when needed."""
        with self._locks[self.precision]:
            for held in (self._compiled, self._coming):
                for key in [key for key in held if key[1] == self.precision]:
                    del held[key]
        self._gradients.release()

    def shape(self, at: str) -> Shape:
        """The shape of node ``at`` for one image."""
        return self.blueprint.shapes(self.spec.size)[at]

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the weights by their names in the blueprint."""
        return {name: np.array(array, np.float32) for name, array in self._weights.items()}

    def _take(self, weights: Weights) -> None:
        self._weights = weights
        self._gradients = Gradients(self.blueprint, weights, self.spec)  # pullbacks keep the one they were made with
        self._compiled, self._coming = {}, {}  # new ones: networks that share the old ones keep their weights

    def _forward(self, batches: Sequence[Array], at: Sequence[str]) -> list[list[Array]]:
        runners = threading.local()

        def run(batch: Array) -> list[Array]:
            if not hasattr(runners, "run"):
                runners.run = self._runner(at, floats=batch.dtype != np.uint8)
            result: list[Array] = runners.run(batch)
            return result

        with ThreadPoolExecutor(min(cores(), len(batches))) as pool:
            return list(pool.map(run, batches))

    def _in_both_precisions(self, images: Array, at: str) -> tuple[Array, Array]:
        with ThreadPoolExecutor(2) as pool:  # compiling takes one core for as long as computing takes
            exact = pool.submit(self.at_precision("fp32").forward, images, at)
            return self.forward(images, at), exact.result()

    def _value_and_gradient(self, images: Array, at: str, wrt: str) -> tuple[Array, Pullback]:
        if not between(self.blueprint, at, wrt):
            raise not_before(self.name, at, wrt, self.layers, self.blueprint.upto(at).layers[:-1])
        return self._gradients.vjp(images, at, wrt, self.micro_batch)

    def _compile(self, at: tuple[str, ...], precision: str, floats: bool) -> ov.CompiledModel:
        with self._locks[precision]:
            key = self._key(at, precision, floats=floats)
            if key not in self._compiled:
                coming = self._coming.pop(key, None)
                self._compiled[key] = self._compiler(key)() if coming is None else coming.result()
            return self._compiled[key]

    def _key(self, at: tuple[str, ...], precision: str, *, floats: bool) -> Key:
        return at, precision, floats, self.micro_batch, self._alone

    def _compiler(self, key: Key) -> Callable[[], ov.CompiledModel]:
        """The model of this key, built; a function compiles it."""
        at, precision, floats, rows, alone = key
        model = build(self.blueprint, self._weights, self.spec, at, floats=floats, int8=precision == "int8")
        return partial(compiled, model, rows, precision, alone=alone)


def _fitted_head(blueprint: Blueprint) -> tuple[Node, ...]:
    """The nodes after the features. They stay in fp32: their large weights nearly cancel each other."""
    names = blueprint.layers
    head = blueprint.nodes[names.index(FEATURES) + 1 :] if FEATURES in names else ()
    for before, node in zip((FEATURES, *(node.name for node in head)), head, strict=False):
        if node.inputs != (before,) or (node.op, node.attrs.get("kind")) not in (("dense", None), ("act", "sqrt")):
            raise UsageError(f"The fast engine does not support such a head: node '{node.name}' ({node.op}).")
    return head


def _head_value(node: Node, x: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    if node.op == "act":
        return np.sqrt(np.maximum(x, 0) + np.float32(SQRT_EPSILON))
    result: NDArray[np.float32] = x @ weights[f"{node.name}.weight"].T + weights[f"{node.name}.bias"]
    return result
