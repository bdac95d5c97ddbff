"""The nodes of a Ray cluster: whether they have what the work needs, and whether they are at work."""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from time import monotonic
from types import TracebackType
from typing import Any, Self

from headstart import __version__
from headstart.core.counts import counted
from headstart.core.errors import MachineError
from headstart.core.install import pip_install
from headstart.core.processors import cores
from headstart.core.text import say as say_on_screen
from headstart.scale.cluster import answers

PATIENCE = 30.0  # seconds for all nodes to tell what they have
STALLED = 60.0  # seconds without a result after which a sentence is due
_SAME = ("headstart", "openvino", "python")  # what all nodes need in the version of this process


@dataclass(frozen=True)
class Node:
    """What one node has."""

    id: str
    address: str
    headstart: str  # versions
    openvino: str
    python: str
    precision: str  # in which networks run there, where nothing else is asked for
    cores: int
    missing: list[str]  # paths that it does not see
    cpus: int  # that Ray gives away


def check_nodes(see: Sequence[str] = (), seconds: float = PATIENCE) -> list[Node]:
    """What each living node has, those of the same packages as this one.

    Args:
        see: paths that each of them must see.

    Raises:
        MachineError: a node does not answer in time, has other packages, or does not see a path; it is named.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(_tell)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            asked[task.options(scheduling_strategy=strategy).remote([*see])] = node
    ready, silent = ray.wait([*asked], num_returns=len(asked), timeout=seconds)
    if silent:
        names = ", ".join(sorted(asked[ref]["NodeManagerAddress"] for ref in silent))
        raise MachineError(
            f"{counted(len(silent), 'node')} of the Ray cluster did not answer within {seconds:.0f} seconds: {names}. "
            "See 'ray status', and stop what does not answer."
        )
    own, told = _tell(), [_answer(ref, asked[ref]) for ref in ready]
    nodes = [node for node in told if node is not None]
    for node in nodes:
        _check_same(node, own)
        if node.missing:
            raise MachineError(
                f"The node {node.address} does not see '{node.missing[0]}'. Expected folders that all nodes see at the "
                "same path, such as those of a shared disk; for features: --store"
            )
    return nodes


def _answer(ref: Any, asked: dict[str, Any]) -> Node | None:
    """What a node tells; None where it was lost in the meantime."""
    import ray

    address = asked["NodeManagerAddress"]
    try:
        cpus = int(asked["Resources"].get("CPU", 0))
        return Node(asked["NodeID"], address, cpus=cpus, **answers(ref))
    except MachineError as error:
        if not any(node["Alive"] and node["NodeID"] == asked["NodeID"] for node in ray.nodes()):
            return None
        raise MachineError(f"The node {address} of the Ray cluster: {error}") from error


def _check_same(node: Node, own: dict[str, Any]) -> None:
    for name in _SAME:
        if (there := getattr(node, name)) != own[name]:
            how = "" if name == "python" else f" There: {pip_install(f'{name}=={own[name]}')}"
            raise MachineError(
                f"The node {node.address} has {name} {there or 'not at all'}; here is {own[name]}. Expected the same "
                f"on all nodes, for other versions give other numbers.{how}"
            )


def _tell(see: Sequence[str] = ()) -> dict[str, Any]:
    """What this process has; run on each node."""
    from headstart.engines.fast.graph import choose_precision

    versions = {"headstart": __version__, "openvino": _version("openvino")}
    precision = choose_precision("auto") if versions["openvino"] else ""
    missing = [path for path in see if not os.path.exists(path)]
    return versions | {
        "python": platform.python_version(),
        "precision": precision,
        "cores": cores(),
        "missing": missing,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class Watchdog:
    """Says a sentence where nothing has been finished for a while, so that no job waits without a word.

    A context around a loop that waits for results; call `done` for each of them.
    """

    def __init__(
        self, wants: str = "1 CPU", seconds: float = STALLED, say: Callable[[str], None] = say_on_screen
    ) -> None:
        """``wants`` is what each worker asks for, in words."""
        self._wants, self._seconds, self._say = wants, seconds, say
        self._since = monotonic()
        self._said = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="headstart-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._since = monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(5.0)  # not for ever: Ray may not answer it

    def done(self) -> None:
        """Something has been finished."""
        self._since, self._said = monotonic(), False

    def _watch(self) -> None:
        while not self._end.wait(min(1.0, self._seconds / 4)):
            if not self._said and monotonic() - self._since >= self._seconds:
                self._said = True
                self._say(self._sentence())

    def _sentence(self) -> str:
        import ray

        try:
            has, free = (each().get("CPU", 0) for each in (ray.cluster_resources, ray.available_resources))
            cpus = f"The Ray cluster has {counted(int(has), 'CPU')}, {free:g} of them free"
        except Exception as error:  # the head went away; the loop will hear of it
            cpus = f"The Ray cluster does not say what it has ({type(error).__name__})"
        return f"Nothing has been finished for {self._seconds:.0f} seconds. {cpus}; each worker wants {self._wants}."
