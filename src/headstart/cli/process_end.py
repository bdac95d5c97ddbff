"""The end of the process that runs a command."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress

SERVERS = ("gradio", "ray", "uvicorn")  # packages that have processes or native threads of their own to end


def end_at_once(code: int) -> None:
    """End the process as it would end, but for taking apart its modules and OpenVINO: the system frees all of that.

    What is registered for the end is done: temporary folders are removed, logs written. Returns, so that the process
    ends in the ordinary way, where a thread or a server still runs, or a debugger, a profiler or a prompt waits for it.
    """
    if threading.active_count() > 1 or any(name in sys.modules for name in SERVERS) or _is_watched():
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more; `cli.streams` has told what there is to tell
            stream.flush()
    os._exit(code)


def _is_watched() -> bool:
    monitoring = getattr(sys, "monitoring", None)  # from Python 3.12 on
    tools = monitoring is not None and any(monitoring.get_tool(tool) for tool in range(6))
    prompt = sys.flags.inspect or "PYTHONINSPECT" in os.environ
    return bool(tools or prompt or sys.gettrace() or sys.getprofile())
