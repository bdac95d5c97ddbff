"""What the servers with ONNX Runtime share: photos decoded with Pillow, and the exported network on a batch of them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

PORT, MODEL = "BENCH_PORT", "BENCH_MODEL"  # the environment in which each is started
BATCH = 4  # images at a time: on a core, ONNX Runtime takes more processor time for an image of 8 or 16


class PhotoNetwork:
    """The file of `headstart export --to onnx --takes pixels`: squares of any number at a time."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # there is a process for each core
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(os.environ[MODEL], options, providers=["CPUExecutionProvider"])
        about = self._session.get_modelmeta().custom_metadata_map
        self.classes: list[str] = json.loads(about["classes"])
        self._pixels, self._crop = int(about["pixels"]), float(about["crop"])
        self._resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[about["resample"]]
        self.answers([np.zeros((self._pixels, self._pixels, 3), np.uint8)])

    def decode(self, raw: bytes) -> np.ndarray:
        """The centred square of a photo, (pixels, pixels, 3)."""
        photo = ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB")
        side = min(photo.size) * self._crop
        left, top = (photo.width - side) / 2, (photo.height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(photo.resize((self._pixels, self._pixels), self._resample, box))

    def answers(self, squares: Sequence[np.ndarray]) -> list[dict[str, object]]:
        """Label and probability of each."""
        (found,) = self._session.run(["probabilities"], {"images": np.stack(squares)})
        return [{"label": self.classes[int(row.argmax())], "probability": float(row.max())} for row in found]
