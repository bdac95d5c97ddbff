"""What travels beside the numbers in formats that have no place of their own for it: two small text files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.export.package import Package

LABELS, METADATA = "labels.txt", "headstart.json"


def members(package: Package) -> dict[str, str]:
    """Name and content: the class names, a line each in the order of the logits, and all that is known, as JSON."""
    lines = [" ".join(name.splitlines()) for name in package.classes]
    text = "".join(f"{line}\n" for line in lines)
    return {  # a folder's name may hold bytes that are no letters in UTF-8; JSON has an escape for them
        LABELS: text.encode("utf-8", "replace").decode("utf-8"),
        METADATA: json.dumps(package.metadata(), indent=1) + "\n",
    }


def append(path: Path, package: Package) -> None:
    """Put them into a zip archive, or behind the end of any other file, where unzip finds them."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in members(package).items():
            archive.writestr(name, content)
