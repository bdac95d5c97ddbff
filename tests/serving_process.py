"""`headstart serve` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serving import PATIENCE, until


@dataclass
class Process:
    """A server of its own, and what it said."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def listen(self) -> None:
        """Read what it says until it ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def events(self, name: str) -> list[dict[str, object]]:
        """The lines of its log of one kind."""
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [each for each in found if each["event"] == name]

    @property
    def url(self) -> str:
        """Where it answers."""
        until(lambda: any("try: curl" in line for line in self.lines) or self.process.poll() is not None)
        found = re.search(r"at (http://\S+)", "".join(self.lines))
        assert found, self.lines
        return found[1]


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "headstart", "serve", *arguments, "--port", "0"]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    found = Process(started)
    reader = threading.Thread(target=found.listen)
    reader.start()
    try:
        yield found
    finally:
        if started.poll() is None:
            started.kill()
        started.wait(PATIENCE)
        reader.join(PATIENCE)
        assert started.stderr is not None
        started.stderr.close()
