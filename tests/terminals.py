"""The command line on a terminal of its own, as a person has it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

COLUMNS = 80
HEADSTART = (sys.executable, "-m", "headstart")


def on_a_terminal(*arguments: object) -> tuple[int, str, list[str]]:
    """Run a command on a terminal of its own: its exit code, everything that it wrote, and the lines left standing."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR", "CI")
    }
    child = subprocess.Popen(
        [*HEADSTART, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment | {"TERM": "xterm"}, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # how Linux says that nobody writes any more
        pass
    os.close(ours)
    raw = written.decode()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw)
    return child.wait(timeout=60), raw, [line.split("\r")[-1].rstrip() for line in plain.split("\r\n")]
