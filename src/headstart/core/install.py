"""Commands that install a package into the Python that runs: "pip" alone may be another one's, or not there."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress

SIZES = {  # of an extra with all that it needs, on disk; Linux has the largest
    "data": "0.4 GB",
    "demo": "0.1 GB",
    "heic": "30 MB",
    "keras": "2.1 GB",
    "lite": "50 MB",
    "onnx": "0.1 GB",
    "ray": "0.5 GB",
    "studio": "0.2 GB",
    "serve": "40 MB",
    "tflite": "2.1 GB",
    "torch": "4.7 GB",
}


def pip_install(package: str, options: str = "") -> str:
    """The command, as the shell of this system takes it."""
    python = sys.executable or "python"
    with suppress(OSError):  # the working directory was removed
        if python.startswith(os.path.join(os.getcwd(), "")):
            python = os.path.relpath(python)
    python, package = map(_quoted, (python, package))
    return f"{python} -m pip install {options}{' ' if options else ''}{package}"


def _quoted(word: str) -> str:
    """A word for the shell; on Windows none takes single quotes."""
    return f'"{word}"' if os.name == "nt" else shlex.quote(word)


def extra_install(extra: str) -> str:
    """The command for an extra of Headstart, with the size of what it brings."""
    size = f" (up to {SIZES[extra]} on disk)" if extra in SIZES else ""
    return f"{pip_install(f'headstart[{extra}]')}{size}"
