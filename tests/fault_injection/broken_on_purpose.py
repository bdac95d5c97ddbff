"""Trials that show that the campaigns see what they are to see."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fault_injection.watched import Trial
from headstart.core.errors import UsageError


@contextmanager
def trials() -> Iterator[Trial]:
    def trial(seed: int) -> str:
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if seed == 2:
            raise ValueError("not foreseen")
        if seed == 3:
            time.sleep(60)
        if seed == 4:
            raise UsageError("no")
        return "accepted"

    yield trial
