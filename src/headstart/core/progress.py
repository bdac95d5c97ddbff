"""How far a piece of work is: one function that is told of every stage."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # stage, done, of how many


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """What tells ``progress`` of one stage, (done, of how many); None where nobody listens."""
    return None if progress is None else lambda done, count: progress(name, done, count)
