"""What all plots share: matplotlib's settings, colours, and the check of the folder that they go to."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from headstart.core.atomic_files import folder_above, probe
from headstart.core.shared_change import SharedChange

INK, QUIET = "#222222", "#6f6f6f"


def _style() -> AbstractContextManager[object]:
    from matplotlib import rc_context

    return rc_context({"svg.hashsalt": "headstart", "svg.fonttype": "none", "font.size": 9.5})


STYLE = SharedChange(_style)  # matplotlib's settings are those of the whole process


def why_no_folder(path: str | os.PathLike[str], advice: str = "Choose another: --out") -> str | None:
    """A sentence if nothing can be written into a folder at ``path``, before any work is done for it."""
    inside = Path(os.path.realpath(path)) / "plots"
    try:
        probe(inside)
        return None
    except OSError as error:
        return f"'{folder_above(inside)}' cannot be written to: {error.strerror or error}. {advice}"
