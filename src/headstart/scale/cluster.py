"""A Ray cluster: started on this machine, or joined; and what its errors mean, in words."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from headstart.core.errors import HeadstartError, MachineError, UsageError, needs
from headstart.core.install import pip_install
from headstart.core.processors import cores
from headstart.core.quiet import STDERR, muted
from headstart.scale.address import check_head, check_runner, parts_of

LOOPBACK = "127.0.0.1"
_SETTINGS = {  # of Ray, for a cluster that is started here
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray takes an outward address in the loopback's place
    "RAY_health_check_initial_delay_ms": "1000",  # a node that was killed is missed after about 10 seconds
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
_SECRET = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}  # in memory: Ray itself would leave one in the home folder


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to."""

    address: str  # of its head, HOST:PORT
    started: bool  # whether it was started here, on this machine alone

    def cpus(self) -> int:
        """How many CPUs its living nodes offer."""
        import ray

        return int(ray.cluster_resources().get("CPU", 0))


@contextmanager
def cluster(runner: str) -> Iterator[Cluster]:
    """Connect to the cluster that ``runner`` names, see `check_runner`; in the end, undo that.

    One that is started ends; one that is joined goes on, and so does a connection that the process had before.

    Raises:
        UsageError: another value; a cluster of other versions; or this process is connected to another cluster.
        MachineError: no head answers there, or Ray does not start.
        MissingExtraError: Ray is not installed.
    """
    address = check_runner(runner)
    with needs("ray", "ray", "The runner 'ray'"):
        import ray
    if ray.is_initialized():
        yield _already(address)
        return
    with ExitStack() as contexts:
        contexts.enter_context(_discreet())
        if address is None:
            contexts.enter_context(_settings(ray))
            files = contexts.enter_context(_folder())
            how = {"address": "local", "num_cpus": cores(), "include_dashboard": False}
            how |= {"_node_ip_address": LOOPBACK, "_temp_dir": os.path.join(files, "ray")}
        else:
            check_head(address, ray.__version__)
            how = {"address": address}
        contexts.enter_context(_silent(ray))
        contexts.callback(ray.shutdown, wait_for_processes=address is None)
        _init(how)
        yield Cluster(address or ray.get_runtime_context().gcs_address, started=address is None)


def _already(address: str | None) -> Cluster:
    """The cluster that this process is connected to, where it is the one that is asked for."""
    import ray

    there = ray.get_runtime_context().gcs_address
    if address is not None and _same(address, there):
        return Cluster(there, started=False)
    raise UsageError(
        f"This process is connected to the Ray cluster at {there} already. Take that one: ray:{there}. Or end the "
        "connection first: ray.shutdown()"
    )


def _same(one: str, other: str) -> bool:
    (host, port), (other_host, other_port) = parts_of(one), parts_of(other)
    return port == other_port and bool(_addresses(host) & _addresses(other_host))


def _addresses(host: str) -> set[str]:
    """What a name stands for; the loopback is every address of this machine that Ray may have taken for it."""
    import ray

    with suppress(OSError):
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, None)}
        loopback = found & {LOOPBACK, "::1"}
        return found | ({LOOPBACK, ray.util.get_node_ip_address()} if loopback else set())
    return {host}


def _init(how: dict[str, Any]) -> None:
    """Connect without messages; what SIGTERM does stays as it was, which Ray would make an exit."""
    import ray

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        with muted(STDERR):  # Ray says that it will say less
            ray.init(**how, log_to_driver=False, logging_level=logging.ERROR)
    except HeadstartError:
        raise
    except (Exception, SystemExit) as error:  # Ray ends a process whose head went away in the meantime
        raise MachineError(f"Ray does not start: {_short(error)}") from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _folder() -> tempfile.TemporaryDirectory[str]:
    """For Ray's sockets, logs, and objects that memory has no room for; not in a folder of all users, and not kept.

    Its path is short: that of a socket has at most 107 characters.
    """
    short = "/tmp" if os.path.isdir("/tmp") else None  # noqa: S108  # a new folder in it, for this user alone
    return tempfile.TemporaryDirectory(prefix="headstart-", dir=short, ignore_cleanup_errors=True)


@contextmanager
def _discreet() -> Iterator[None]:
    """Ray in this process tells nobody how it is used, and no terminal what is for its makers, as its C++ does."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_BACKEND_LOG_LEVEL": os.environ.get("RAY_BACKEND_LOG_LEVEL", "fatal"),
    }
    kept = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        _restore(kept)


def _restore(kept: Mapping[str, str | None]) -> None:
    for name, value in kept.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Without what Ray prints to the standard output, where answers go; its errors come back from `answers`."""
    worker = ray._private.worker
    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _settings(ray: Any) -> Iterator[None]:
    """Ray's settings for a cluster of one's own; what is set already stays, but for where it listens."""
    settings = _SETTINGS | (_SECRET if "RAY_AUTH_MODE" not in os.environ else {})
    kept = {name: os.environ.get(name) for name in ("RAY_AUTH_MODE", *settings)}  # the first is set by Ray
    constants = ray._private.ray_constants
    several = constants.ENABLE_RAY_CLUSTER  # what the second setting says, read when Ray was imported
    forced = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", *_SECRET}
    os.environ.update({name: value for name, value in settings.items() if name in forced or kept[name] is None})
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = several
        _restore(kept)
        with suppress(AttributeError):  # that was read from them, for the next cluster
            ray._raylet.Config.initialize("")
            ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def answers(refs: Any) -> Any:
    """What `ray.get` gives, with errors in words.

    Raises:
        HeadstartError: the one that a task raised, as it was.
        MachineError: a node lacks a package, or a worker or node was lost beyond what Ray tries again.
    """
    import ray

    try:
        return ray.get(refs)
    except Exception as error:
        found = in_words(error)
        if found is error:
            raise
        raise found from error


def answers_in_order(refs: Iterable[Any], ahead: int) -> Iterator[Any]:
    """What each gives, see `answers`, in their order; so many are asked for before the first of them is waited for."""
    waiting = deque[Any]()
    for ref in refs:
        waiting.append(ref)
        if len(waiting) >= ahead:
            yield answers(waiting.popleft())
    while waiting:
        yield answers(waiting.popleft())


def in_words(error: BaseException) -> BaseException:
    """What an error of Ray means; one that is not known comes back itself."""
    from ray import exceptions

    cause = getattr(error, "cause", None) if isinstance(error, exceptions.RayTaskError) else None
    if isinstance(cause, HeadstartError):
        return cause
    text = str(error)
    for package in ("headstart", "openvino"):
        if f"No module named '{package}" in text:
            node = getattr(error, "ip", "") or "of the cluster"
            return MachineError(
                f"The node {node} has no {package}. Every node needs the packages of this one. There: "
                f"{pip_install(package)}"
            )
    if isinstance(cause or error, exceptions.OutOfMemoryError | MemoryError):
        return MachineError(
            f"A node has too little memory for its tasks. Take fewer workers at a time. {_short(error)}"
        )
    lost = (
        *(
            exceptions.WorkerCrashedError,
            exceptions.RayActorError,
            exceptions.NodeDiedError,
            exceptions.ObjectLostError,
        ),
        *(exceptions.LocalRayletDiedError, exceptions.RpcError, exceptions.OutOfDiskError),
        *(exceptions.ObjectStoreFullError, exceptions.TaskUnschedulableError, exceptions.ActorUnschedulableError),
    )
    if isinstance(error, lost):
        return MachineError(f"A worker or node of the Ray cluster was lost, again and again: {_short(error)}")
    return error


def _short(error: BaseException) -> str:
    """Type and first sentence of Ray's long messages."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"[:300]
