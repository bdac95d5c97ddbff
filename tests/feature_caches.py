"""Feature caches made for tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from headstart.learn.feature_cache import FeatureCache

WIDTH = 40


ABOUT = {"backbone": "efficientnet_lite0", "pixels": 224, "precision": "bf16"}


Rows = tuple[list[bytes], NDArray[np.float16], NDArray[np.uint8]]


# Rows that any process can make again from their numbers, so that "nothing lost, nothing wrong" can be checked exactly.
MAKE = """
import hashlib, sys
from pathlib import Path
import numpy as np
from headstart.learn.feature_cache import FeatureCache
def make(numbers, width):
    keys = [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in numbers]
    noise = b"".join(hashlib.shake_128(key).digest(2 * width + 256) for key in keys)
    noise = np.frombuffer(noise, np.uint8).reshape(len(keys), 2 * width + 256)
    features = noise[:, 256:].copy().view(np.int16).astype(np.float16)
    thumbnails = noise[:, :256].reshape(len(keys), 16, 16)
    return keys, features, thumbnails
"""


_namespace: dict[str, Any] = {}
exec(MAKE, _namespace)


def make(numbers: Iterator[int] | range | list[int], width: int = WIDTH) -> Rows:
    rows: Rows = _namespace["make"](list(numbers), width)
    return rows


def cache(home: Path, width: int = WIDTH) -> FeatureCache:
    return FeatureCache(ABOUT, width, home)


def fill(home: Path, count: int, width: int = WIDTH) -> Rows:
    rows = make(range(count), width)
    with cache(home, width) as opened:
        opened.write(*rows)
        assert opened.problem is None
    return rows


def sound(opened: FeatureCache, rows: Rows) -> NDArray[np.bool_]:
    """Which rows are found; those that are must be right, and the others untouched."""
    keys, features, thumbnails = rows
    out_features, out_thumbnails = np.full_like(features, 77), np.full_like(thumbnails, 77)
    found = opened.read(keys, out_features, out_thumbnails)
    assert np.array_equal(out_features[found], features[found])
    assert np.array_equal(out_thumbnails[found], thumbnails[found])
    assert (out_features[~found] == 77).all()
    assert (out_thumbnails[~found] == 77).all()
    return found


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAKE + script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "features").iterdir())


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", *options, str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
