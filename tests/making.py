"""Hand-made photos that a pretrained network tells apart, and the command line run in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

SHAPES = ("bars", "discs", "waves")


def picture(kind: str, seed: int, size: int = 96) -> NDArray[np.uint8]:
    """A noisy picture: bars, discs or waves in colours of its own."""
    rng = np.random.default_rng((SHAPES.index(kind), seed))
    y, x = np.mgrid[0:size, 0:size] / size
    turn, shift, pitch = rng.uniform(-0.2, 0.2), rng.uniform(0, 6), rng.uniform(5, 8)
    if kind == "bars":
        field = np.sign(np.sin(pitch * 6 * (x + turn * y) + shift))
    elif kind == "discs":
        field = np.sign(np.sin(pitch * 3 * x + shift) * np.sin(pitch * 3 * y + 2 * shift) - 0.3)
    else:
        field = np.sin(pitch * 2 * (y + 0.1 * np.sin(9 * x + shift)))
    dark, light = rng.uniform(0, 90, 3), rng.uniform(150, 255, 3)
    image = dark + (light - dark) * (field[..., None] + 1) / 2 + rng.normal(0, 12, (size, size, 3))
    pixels: NDArray[np.uint8] = image.clip(0, 255).astype(np.uint8)
    return pixels


def packed(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def folder(root: Path, count: int = 8, kinds: Sequence[str] = SHAPES, start: int = 0) -> Path:
    """Class folders with ``count`` pictures each."""
    for kind in kinds:
        (root / kind).mkdir(parents=True, exist_ok=True)
        for seed in range(start, start + count):
            (root / kind / f"{seed}.png").write_bytes(packed(picture(kind, seed)))
    return root


def record_of(model: Any) -> dict[str, Any]:
    """What a model's folder keeps of how it was made, as JSON has it."""
    from headstart.model.records import to_json

    values: dict[str, Any] = json.loads(json.dumps(to_json(model.record)))
    return values


@dataclass
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one object that it must be."""
        return json.loads(self.out)


class Shell:
    """Runs ``headstart`` commands in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Answer:
        from headstart.cli.app import main

        self._monkeypatch.setattr("sys.argv", ["headstart", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err
        return Answer(int(ended.value.code or 0), captured.out, captured.err)
