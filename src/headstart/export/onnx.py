"""ONNX (.onnx), one file: ONNX Runtime opens it, and most other runtimes can import it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import needs
from headstart.export.onnx_graph import build
from headstart.export.package import Package


def write(package: Package, path: Path) -> None:
    """Write the model of `onnx_graph.build`, checked by `onnx.checker`."""
    model = build(package)
    import onnx

    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path, full_check=True)


def replay(path: Path | bytes, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What ONNX Runtime answers for images (N, size, size, 3), or photos of any size, on the processor.

    Args:
        path: of a file, or its content.
        images: or photos.
    """
    with needs("onnxruntime", "onnx", "The format onnx"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))
