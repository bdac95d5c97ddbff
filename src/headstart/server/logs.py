"""What a server tells: lines of JSON on standard error, one for each request and event."""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any


class Log:
    """Writes lines, or none at all."""

    def __init__(self, kind: str = "json") -> None:
        self._on = kind != "none"

    def say(self, event: str, *, level: str = "info", **values: Any) -> None:
        """One line: time, level, event and what belongs to it. ASCII, so that nothing in it breaks the line."""
        if not self._on:
            return
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "level": level, "event": event, **values}, default=str)
        with suppress(OSError, ValueError):  # nobody reads it any more
            sys.stderr.write(f"{line}\n")

    def fault(self, error: BaseException, request_id: str | None = None) -> None:
        """A fault of the server, with where it happened."""
        lines = traceback.format_exception(error)
        self.say("fault", level="error", request_id=request_id, error="".join(lines)[-4000:])
