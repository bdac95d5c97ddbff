"""The connection to a Ray cluster: its address, what is no head, one that is joined and left running, its errors."""

from __future__ import annotations

import http.server
import os
import pickle
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.core.errors import (
    DataError,
    HeadstartError,
    MachineError,
    MissingExtraError,
    UnreadableImageError,
    UsageError,
)
from headstart.core.processors import cores
from headstart.scale import address, nodes
from headstart.scale.address import check_head, check_runner
from headstart.scale.cluster import answers, cluster
from headstart.scale.nodes import Watchdog, check_nodes

needs_ray = pytest.mark.usefixtures("ray")
pytestmark = pytest.mark.filterwarnings("ignore:::ray", "ignore:.*ray.*:FutureWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def ray() -> Any:
    found = pytest.importorskip("ray", reason="needs the extra 'ray'")
    found.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # which workers cannot import
    return found


@pytest.fixture(scope="module")
def head(ray: Any) -> Iterator[str]:
    """The address of a cluster that others started, of one node with two CPUs."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield started.address
    started.shutdown()


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ray", None),
        ("ray:head:6379", "head:6379"),
        ("ray:10.0.0.1:1", "10.0.0.1:1"),
        ("ray:[::1]:65535", "[::1]:65535"),
    ],
)
def test_a_runner_names_a_cluster_here_or_a_head(text: str, found: str | None) -> None:
    assert check_runner(text) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "Ray", "ray:", "ray:head", "ray:head:", "ray::6379", "ray:head:0", "ray:head:65536", "ray:a b:1"),
        *("ray:head:6379 ", "ray:::1:6379", "ray:head:6379/x", "spark", "ray:auto", "ray:[::1]", "ray:h:٣"),
    ],
)
def test_anything_else_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(UsageError, match=r"runner: expected ray, or ray:HOST:PORT"):
        check_runner(text)


@pytest.mark.parametrize("text", ["ray://head:10001", "ray:ray://head:10001", "ray:http://head:1"])
def test_the_remote_client_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(UsageError, match="remote client, which cannot read photos"):
        check_runner(text)


# --- what is no head --------------------------------------------------------------------------------------------------


@pytest.fixture
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_nothing_that_answers_is_said_at_once(free_port: int) -> None:
    with pytest.raises(MachineError, match=rf"No Ray head answers at 127.0.0.1:{free_port} .*'ray start' printed"):
        check_head(f"127.0.0.1:{free_port}", "2.60.0")


def test_a_host_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(MachineError, match=r"No Ray head answers at nowhere\.invalid:6379"):
        check_head("nowhere.invalid:6379", "2.60.0")


@needs_ray
def test_an_http_server_is_no_head() -> None:
    """Ray itself would wait for 81 seconds and end this process."""
    server = http.server.HTTPServer(("127.0.0.1", 0), _Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with (
            pytest.raises(MachineError, match="something else listens there"),
            cluster(f"ray:127.0.0.1:{server.server_port}"),
        ):
            pass
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_port_that_accepts_and_says_nothing_is_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(MachineError, match="No Ray head answers"):
        check_head(f"127.0.0.1:{silent.getsockname()[1]}", "2.60.0")


def test_another_service_that_speaks_http_2_is_no_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says hello as Ray does, and then nothing."""
    monkeypatch.setattr(address, "PROBE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_hello, args=(server,), daemon=True).start()
        with pytest.raises(MachineError, match="something else listens there"):
            check_head(f"127.0.0.1:{server.getsockname()[1]}", "2.60.0")


def _hello(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"\0\0\0\x04\0\0\0\0\0")
        connection.recv(99)


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[ray\]'"), cluster("ray"):
        pass


# --- a cluster on this machine ----------------------------------------------------------------------------------------


@needs_ray
def test_a_cluster_of_ones_own_listens_on_the_loopback_alone_and_ends(
    ray: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where RAY_ADDRESS names another; what was set before is set again."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    before, handler = _environment(), signal.getsignal(signal.SIGTERM)
    with cluster("ray") as found:
        assert found.started
        assert found.address.startswith("127.0.0.1:")
        assert found.cpus() == cores()
        files = Path(ray._private.worker._global_node.get_session_dir_path()).parent.parent
        assert stat.S_IMODE(files.stat().st_mode) == 0o700
        assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
        port = int(found.address.rpartition(":")[2])
        for outward in _outward():
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((outward, port), 2)
        assert signal.getsignal(signal.SIGTERM) is handler
        with pytest.raises(UsageError, match=r"connected to the Ray cluster at 127.0.0.1:.* already"), cluster("ray"):
            pass
        _errors_come_back(ray)
    assert not ray.is_initialized()
    assert _environment() == before
    assert not files.exists()
    assert "".join(capfd.readouterr()) == ""


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY")}


def _outward() -> set[str]:
    """Addresses of this machine that others reach; none where it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            udp.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            return set()
        return {str(udp.getsockname()[0])} - {"127.0.0.1"}


def _errors_come_back(ray: Any) -> None:
    for error in (DataError("Too few photos."), UnreadableImageError("damaged", "Cut short.")):
        with pytest.raises(type(error)) as caught:
            answers(ray.remote(max_retries=0)(_raising).remote(error))
        assert type(caught.value) is type(error)
        assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))
    with pytest.raises(KeyError):
        answers([ray.remote(max_retries=0)(_raising).remote(KeyError("a"))])
    with pytest.raises(MachineError, match=r"no openvino.*pip install openvino"):
        answers(ray.remote(max_retries=0)(_raising).remote(ModuleNotFoundError("No module named 'openvino'")))
    with pytest.raises(MachineError, match="has no headstart"):
        answers(ray.remote(max_retries=0)(_without_headstart()).remote())
    with pytest.raises(MachineError, match="A worker or node of the Ray cluster was lost"):
        answers(ray.remote(max_retries=0)(_die).remote())


def _raising(error: BaseException) -> None:
    raise error


def _die() -> None:
    os._exit(1)


def _without_headstart() -> Any:
    """A function of a module of the package that the workers do not have."""
    import types

    module = types.ModuleType("headstart_that_is_not_there")
    code = "def work():\n    return 1"
    exec(code, vars(module))  # its module is known here alone
    sys.modules[module.__name__] = module
    vars(module)["work"].__module__ = module.__name__
    return vars(module)["work"]


def test_an_error_is_the_same_after_a_journey() -> None:
    for error in (MissingExtraError("ray", "ray", "This"), UnreadableImageError("damaged", "Cut."), UsageError("No.")):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
        assert isinstance(back, HeadstartError)


# --- a cluster that is joined -----------------------------------------------------------------------------------------


@needs_ray
def test_a_cluster_is_joined_and_left_running(ray: Any, head: str) -> None:
    for _ in range(2):
        with cluster(f"ray:{head}") as found:
            assert (found.address, found.started, found.cpus()) == (head, False, 2)
            node = check_nodes()[0]
            assert (node.headstart, node.openvino, node.cores) == (*_own()[:2], cores())
            with cluster(f"ray:127.0.0.1:{head.rpartition(':')[2]}") as again:  # by another name; it stays connected
                assert again.address == head
            assert ray.is_initialized()
            with pytest.raises(UsageError, match="Take that one"), cluster("ray:127.0.0.1:1"):
                pass
            _nodes_are_compared()
            _a_starved_job_is_told_of(ray)
        assert not ray.is_initialized()


def _own() -> tuple[str, str, str]:
    told = nodes._tell()
    return told["headstart"], told["openvino"], told["python"]


def _nodes_are_compared() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "_version", lambda _: "0.0.1")
        with pytest.raises(MachineError, match=r"The node [0-9.]+ has openvino .*; here is 0\.0\.1.*openvino==0\.0\.1"):
            check_nodes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "answers", _lost)
        with pytest.raises(MachineError, match=r"The node [0-9.]+ of the Ray cluster: It was lost\."):
            check_nodes()
        patch.setattr(nodes, "answers", lambda _: _forget(patch))
        assert check_nodes() == []
    with pytest.raises(MachineError, match=r"1 node of the Ray cluster did not answer within 0 seconds: [0-9.]+"):
        check_nodes(seconds=0.0)


def _lost(_: Any) -> Any:
    raise MachineError("It was lost.")


def _forget(patch: pytest.MonkeyPatch) -> Any:
    """The node is gone by the time that it is asked for again."""
    patch.setattr("ray.nodes", list)
    return _lost(None)


def _a_starved_job_is_told_of(ray: Any) -> None:
    said: list[str] = []
    never = ray.remote(num_cpus=64)(_die).remote()
    with Watchdog("64 CPUs", 0.2, said.append) as dog:
        for _ in range(2):
            end = time.monotonic() + 10
            before = len(said)
            while len(said) == before and time.monotonic() < end:
                ray.wait([never], timeout=0.1)
            dog.done()
    assert said[0].startswith("Nothing has been finished for 0 seconds. The Ray cluster has 2 CPUs, ")
    assert said[0].endswith(" of them free; each worker wants 64 CPUs.")
    assert len(said) >= 2
    ray.cancel(never)


@needs_ray
def test_other_versions_are_refused_in_words(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"has Ray .* and Python .*; here are Ray 2\.0\.0 and Python"):
        check_head(head, "2.0.0")


@needs_ray
def test_a_machine_that_is_no_node_is_told_so(ray: Any, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = address._probed(head) | {"here": False}
    monkeypatch.setattr(address, "_probed", lambda _: found)
    with pytest.raises(MachineError, match=rf"no node of its cluster. Make it one: ray start --address={head}"):
        check_head(head, ray.__version__)


def test_a_job_that_goes_on_is_not_told_of() -> None:
    said: list[str] = []
    with Watchdog("1 CPU", 60.0, said.append) as dog:
        dog.done()
    assert said == []
