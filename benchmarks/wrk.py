"""Load by `wrk`, which rotates through whole requests that are made before it starts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30  # seconds that a request may take
BOUNDARY = "a-boundary-that-no-photo-has"
SCRIPT = """
local requests, at = {}, 0
function init(args)
  for line in io.lines(args[1] .. "/index") do
    local kind, file = line:match("(.*)\\t(.*)")
    local opened = io.open(args[1] .. "/" .. file, "rb")
    requests[#requests + 1] = wrk.format("POST", nil, {["Content-Type"] = kind}, opened:read("*a"))
    opened:close()
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local e = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %f, "p50": %f, "p99": %f, "status": %d, "broken": %d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


@dataclass(frozen=True)
class Body:
    """The body of a request."""

    kind: str  # its content type
    content: bytes


@dataclass(frozen=True)
class Load:
    """What `wrk` saw."""

    requests: int  # that were answered
    seconds: float
    p50: float  # milliseconds
    p99: float
    status: int  # answers of 400 and more
    broken: int  # no connection, no answer in time, half an answer

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return (self.requests - self.status) / self.seconds

    @property
    def errors(self) -> int:
        """Requests without a good answer."""
        return self.status + self.broken


def form(photo: bytes) -> Body:
    """A photo as a browser sends it."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return Body(f"multipart/form-data; boundary={BOUNDARY}", head.encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode())


def written(bodies: Sequence[Body], folder: Path) -> Path:
    """A folder from which `start` sends these bodies."""
    folder.mkdir()
    (folder / "script.lua").write_text(SCRIPT, encoding="utf-8")
    for number, body in enumerate(bodies):
        (folder / f"{number}").write_bytes(body.content)
    index = "".join(f"{body.kind}\t{number}\n" for number, body in enumerate(bodies))
    (folder / "index").write_text(index, encoding="utf-8")
    return folder


def start(url: str, bodies: Path, clients: int, seconds: float) -> subprocess.Popen[str]:
    """Begin to send; `finished` waits for the end. One thread sends for all clients."""
    if shutil.which("wrk") is None:
        sys.exit("This benchmark needs wrk: apt install wrk, or https://github.com/wg/wrk")
    command = ["wrk", "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", f"--timeout={PATIENCE}s"]
    script = ["-s", str(bodies / "script.lua"), url, "--", str(bodies)]
    return subprocess.Popen([*command, *script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(sending: subprocess.Popen[str]) -> Load:
    """What it saw, when it ends."""
    said, _ = sending.communicate()
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if sending.returncode or not lines:
        sys.exit(f"wrk ended with exit code {sending.returncode}. It said: {said[-2000:]}")
    return Load(**json.loads(lines[-1]))


def load(url: str, bodies: Path, clients: int, seconds: float) -> Load:
    """So many clients, each of which sends its next request when it has the answer to the last."""
    return finished(start(url, bodies, clients, seconds))
