"""Models that are altered on purpose: with every hash as it should be, so that something else must notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from headstart.backbones.weights import hash_of
from headstart.model.stored import CONFIG, GOLDEN, MODEL, OF, digest, sealed


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))


def put_config(folder: Path, config: Any) -> None:
    """Another config; one that is no object is written as it is."""
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    if isinstance(config, dict):
        reseal(folder)


def reseal(folder: Path) -> None:
    """Record all files as they are now; what cannot be read stays as it is."""
    config = config_of(folder)
    if config.get("format") != 1 and (folder / GOLDEN).is_file() and (folder / MODEL).is_file():
        golden = load_file(folder / GOLDEN) | {OF: np.frombuffer(digest(config, hash_of(folder / MODEL)), np.uint8)}
        save_file(golden, folder / GOLDEN)
    if isinstance(files := config.get("files"), dict):
        there = {name: hash_of(folder / name) if (folder / name).is_file() else said for name, said in files.items()}
        config |= {"files": there}
    (folder / CONFIG).write_text(json.dumps(sealed(config)), encoding="utf-8")
