"""The value of ``--runner``, and whether a Ray head that can be joined answers at its address."""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

from headstart.core.errors import MachineError, UsageError

PATIENCE = 4.0  # seconds for a connection, and for a first answer
PROBE = 15.0  # seconds for `probe`, a process that imports Ray
_RUNNER = re.compile(r"ray(?::(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]@]+):(?P<port>[0-9]{1,5}))?")
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"  # of HTTP/2, which Ray speaks: empty settings
_SETTINGS = 4  # the kind of the frame that comes back first


def check_runner(text: str) -> str | None:
    """The address of the Ray head that ``ray:HOST:PORT`` names; None for ``ray``, a cluster on this machine.

    Raises:
        UsageError: it is neither.
    """
    expected = (
        "--runner: expected ray, or ray:HOST:PORT with the address that 'ray start' printed for its head. "
        f"Received: '{text}'."
    )
    if "://" in text:
        raise UsageError(
            f"{expected} An address with :// is of Ray's remote client, which cannot read photos and "
            "features on this machine. Run Headstart on a node of the cluster instead."
        )
    found = _RUNNER.fullmatch(text)
    if not found or (found["port"] and not 0 < int(found["port"]) < 65536):
        raise UsageError(expected)
    return f"{found['host']}:{found['port']}" if found["host"] else None


def parts_of(address: str) -> tuple[str, int]:
    """The host, an IPv6 one without its brackets, and the port."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def check_head(address: str, version: str) -> None:
    """Refuse, within seconds, an address at which no head answers that this process can join.

    Args:
        version: of Ray in this process.

    Raises:
        MachineError: nothing answers, or something else than a Ray head; or this machine is no node of its cluster.
        UsageError: the cluster has another version of Ray or Python, or wants a token.
    """
    _check_port(address)
    found = _probed(address)
    here = {"ray": version, "python": platform.python_version()}
    there = {name: str(found[name]) for name in here}
    if os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL") == "minor":
        here["python"], there["python"] = (each["python"].rpartition(".")[0] for each in (here, there))
    if there != here:
        raise UsageError(
            f"The Ray cluster at {address} has Ray {found['ray']} and Python {found['python']}; here are Ray {version} "
            f"and Python {platform.python_version()}. Expected the same on all nodes."
        )
    if not found["here"]:
        raise MachineError(
            f"A Ray head answers at {address}, but this machine is no node of its cluster. Make it one: "
            f"ray start --address={address}"
        )


def _check_port(address: str) -> None:
    """By a connection and the first bytes of an answer."""
    try:
        with socket.create_connection(parts_of(address), PATIENCE) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":  # there, `probe` is the first to be understood
                return
            connection.settimeout(PATIENCE)
            connection.sendall(_HELLO)
            answer = connection.recv(9)
    except OSError as error:
        reason = "" if isinstance(error, TimeoutError) else f" ({error.strerror or error})"
        raise _no_head(address, reason) from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise _no_head(address, " (something else listens there)")


def _probed(address: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "headstart.scale.probe", address]  # which was checked
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise _no_head(address, " (something else listens there)") from error
    if "AuthenticationError" in done.stderr or "Unauthenticated" in done.stderr:
        raise UsageError(
            f"The Ray cluster at {address} wants a token. Set RAY_AUTH_MODE=token, and its token in RAY_AUTH_TOKEN or "
            "in ~/.ray/auth_token."
        )
    with suppress(ValueError, IndexError):
        found = json.loads(done.stdout.splitlines()[-1])
        if isinstance(found, dict):
            return found
    raise _no_head(address, " (something else listens there)")


def _no_head(address: str, reason: str) -> MachineError:
    return MachineError(
        f"No Ray head answers at {address}{reason}. Expected the address that 'ray start' printed for its head."
    )
