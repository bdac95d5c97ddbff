"""Class names and metadata as two small text files, for formats without a place of their own for them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart.export.package import Package

LABELS, METADATA = "labels.txt", "headstart.json"


def members(package: Package) -> dict[str, str]:
    """Names and contents: the class names, one a line in the order of the logits, and all metadata as JSON."""
    lines = [" ".join(name.splitlines()) for name in package.classes]
    text = "".join(f"{line}\n" for line in lines)
    return {  # a folder's name may have bytes that are not UTF-8; JSON escapes them
        LABELS: text.encode("utf-8", "replace").decode("utf-8"),
        METADATA: json.dumps(package.metadata(), indent=1) + "\n",
    }


def append(path: Path, package: Package) -> None:
    """Add them to a zip archive, or as a zip archive after the end of any other file."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in members(package).items():
            archive.writestr(name, content)
