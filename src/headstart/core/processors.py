"""The processors that this process may use, and how many images each takes at a time."""

from __future__ import annotations

import os

from headstart.core.errors import UsageError

CHUNK = 8  # images that a thread takes at a time
AHEAD = 12  # chunks decoded ahead of the network; with CHUNK it bounds the memory whatever the number of images
SPARE = 2  # threads more than processors, so that none is idle while a thread waits: for a file, or for its turn
THREADS = "HEADSTART_THREADS"  # of the environment


def cores() -> int:
    """The number of processors that this process may use: at most ``HEADSTART_THREADS`` of them, where that is set.

    Raises:
        UsageError: that is no whole number above 0.
    """
    wanted = os.environ.get(THREADS, "").strip()
    if not wanted:
        return _processors()
    if not (wanted.isdecimal() and int(wanted) > 0):
        raise UsageError(f"{THREADS}: expected a whole number above 0, or nothing. Received: '{wanted}'.")
    return min(_processors(), int(wanted))


def threads_of_network() -> int:
    """Threads that decode images and run the network on them: a few to spare, but of a part of the processors none."""
    count = cores()
    return count + SPARE if 1 < count == _processors() else count


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
