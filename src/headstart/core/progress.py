"""Progress of long work: one function that is called with the stage, the steps done, and their number."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # stage, steps done, number of steps
StageProgress = Callable[[int, int], None]  # steps done, number of steps


def stage(progress: Progress | None, name: str) -> StageProgress | None:
    """``progress`` for one stage; None where ``progress`` is None."""
    return None if progress is None else lambda done, count: progress(name, done, count)
