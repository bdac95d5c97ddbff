"""The servers that `serve.py` compares: how each is started, asked, measured and stopped."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from harness import HEADSTART, ROOT
from wrk import Body, form

BASELINES = ROOT / "benchmarks" / "baselines"
START, STOP = 180, 15  # seconds that a server has for it
Answer = tuple[str, float]  # label and probability
MLSERVER = {  # the others have theirs in their own files
    "MLSERVER_HTTP_PORT": "{port}",
    "MLSERVER_GRPC_PORT": "{other}",
    "MLSERVER_HOST": "127.0.0.1",
    "MLSERVER_DEBUG": "false",
    "MLSERVER_METRICS_ENDPOINT": "",
    "MLSERVER_PARALLEL_WORKERS": str(len(os.sched_getaffinity(0))),
    "MLSERVER_MODEL_NAME": "photos",
    "MLSERVER_MODEL_IMPLEMENTATION": "serve_mlserver.Photos",
    "MLSERVER_MODEL_MAX_BATCH_SIZE": "4",
    "MLSERVER_MODEL_MAX_BATCH_TIME": "0.005",
}


def _answer(found: Mapping[str, Any]) -> Answer:
    return found["label"], found["probability"]


@dataclass(frozen=True)
class Server:
    """One of the servers, not running."""

    name: str
    command: Sequence[str]  # in which {port} stands for its port
    path: str = "/predict"
    body: Callable[[bytes], Body] = form
    answer: Callable[[Any], Answer] = _answer
    environment: Mapping[str, str] = field(default_factory=dict)
    package: str = ""  # of a virtual environment of its own
    missing: str = ""  # what it would need

    def version(self) -> str:
        """Of its package, and of ONNX Runtime beside it."""
        code = f"from importlib.metadata import version as v; print(v('{self.package}'), v('onnxruntime'))"
        python = str(Path(self.command[0]).parent / "python")
        return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


class Running:
    """A server that runs, with all of its processes."""

    def __init__(self, server: Server, port: int, process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
        self.server, self._process, self._said = server, process, said
        self.url = f"http://127.0.0.1:{port}{server.path}"

    def ask(self, photo: bytes) -> Answer:
        """Its answer to a photo.

        Raises:
            OSError: there is none.
        """
        body = self.server.body(photo)
        request = urllib.request.Request(self.url, body.content, {"Content-Type": body.kind})
        with urllib.request.urlopen(request, timeout=30) as answer:
            label, probability = self.server.answer(json.load(answer))
        return label, float(probability)

    def wait(self, photo: bytes) -> None:
        """Until it answers."""
        until = time.monotonic() + START
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(OSError):
                self.ask(photo)
                return
            time.sleep(0.2)
        sys.exit(f"{self.server.name} does not answer. It said: {self.said()[-3000:]}")

    def said(self) -> str:
        """What it wrote until now."""
        place = self._said.fileno()  # the server writes at the same position, so it must not be moved
        return os.pread(place, os.fstat(place).st_size, 0).decode(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """It and all that it started."""
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds of processors until now."""
        return float(sum(sum(each.cpu_times()[:2]) for each in self.processes()))

    def memory(self) -> float:
        """10⁶ bytes of all; what they share counts once, and alike whether processes of others share it, too."""
        found = [each.memory_full_info() for each in self.processes()]
        return float(sum(each.uss for each in found) + max(each.rss - each.uss for each in found)) / 1e6


@contextmanager
def running(server: Server) -> Iterator[Running]:
    """Start a server at a free port; in the end it and all that it started are gone."""
    port = free_port()
    with tempfile.TemporaryFile() as said:
        ports = {"port": port, "other": free_port()}
        environment = {name: value.format(**ports) for name, value in server.environment.items()}
        environment = os.environ | {"BENCH_PORT": str(port)} | environment
        command = [part.format(**ports) for part in server.command]
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, cwd=BASELINES)
        found = Running(server, port, process, said)
        try:
            yield found
        finally:
            with suppress(psutil.NoSuchProcess):
                _stop(found.processes())
            process.wait()


def _stop(processes: list[psutil.Process]) -> None:
    processes[0].terminate()
    _, left = psutil.wait_procs(processes, STOP)
    for each in left:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def free_port() -> int:
    """One that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def servers(model: Path, onnx: Path, peers: Path) -> list[Server]:
    """All of them; Headstart comes first."""
    eager = {"BENCH_MODEL": str(model)}
    script = [sys.executable, str(BASELINES / "serve_eager.py")]
    return [
        headstart(model),
        Server("eager PyTorch", script, environment=eager),
        Server("eager PyTorch, one thread", script, environment=eager | {"BENCH_THREADS": "1"}),
        _peer("litserve", peers, onnx, ["python", str(BASELINES / "serve_litserve.py")]),
        _peer(
            "bentoml", peers, onnx, ["bentoml", "serve", "serve_bentoml:Photos", "--host=127.0.0.1", "--port={port}"],
            answer=lambda found: _answer(found[0]),
        ),
        _peer(
            "mlserver", peers, onnx, ["mlserver", "start", str(BASELINES)], path="/v2/models/photos/infer",
            body=_v2_body, answer=lambda found: tuple(output["data"][0] for output in found["outputs"]),
            settings=MLSERVER,
        ),
    ]  # fmt: skip


def headstart(model: Path, *options: str) -> Server:
    """`headstart serve`."""
    command = [*HEADSTART, "serve", str(model), "--port={port}", *options]
    return Server("headstart", command, answer=lambda found: _answer(found["predictions"][0]))


def _peer(
    name: str, peers: Path, onnx: Path, command: list[str], settings: Mapping[str, str] | None = None, **more: Any
) -> Server:
    program = peers / name / "bin" / command[0]
    missing = "" if program.exists() else f"no '{program}'; the first lines of serve.py say how to install it"
    environment = {"BENCH_MODEL": str(onnx), "PYTHONPATH": str(BASELINES), **(settings or {})}
    return Server(name, [str(program), *command[1:]], environment=environment, package=name, missing=missing, **more)


def _v2_body(photo: bytes) -> Body:
    """A photo in base64, as MLServer takes it."""
    image = {"name": "image", "datatype": "BYTES", "shape": [1, 1], "parameters": {"content_type": "base64"}}
    values = {"inputs": [image | {"data": [base64.b64encode(photo).decode()]}]}
    return Body("application/json", json.dumps(values).encode())
