"""One HTML file that classifies photos in a browser, without a network: the page, the runtime and the model."""

from __future__ import annotations

import gzip
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.counts import counted
from headstart.core.errors import needs
from headstart.export import onnx as to_onnx
from headstart.export.onnx_graph import PROBABILITIES, build
from headstart.export.package import Package
from headstart.export.web.page import MODEL, page_of
from headstart.export.web.runtime import find_runtime
from headstart.export.web.sixteen_bits import in_sixteen_bits
from headstart.learn.calibrate import softmax

MOST = 1e-3  # that weights of 16 bits may change a probability of a golden image


def write(package: Package, path: Path) -> str:
    """Write the page; weights have 16 bits where that changes no label and hardly a probability of the golden images.

    Returns:
        sentences: which of the two the page holds, the size of both, and of its other parts.

    Raises:
        UsageError, CheckError: see `runtime.find_runtime` and `onnx_graph.build`.
    """
    runtime = find_runtime()
    whole = build(package)
    model, weights, note = _choice(package, _bytes_of(whole), _bytes_of(in_sixteen_bits(whole, package.weights)))
    page, sizes = page_of(package, model, weights, runtime)
    path.write_bytes(page)
    return f"{note} {sizes}"


def replay(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What ONNX Runtime answers, on the processor, with the model that is in the page."""
    block = re.search(rf'<script type="text/plain" id="{MODEL}">([^<]*)</script>', path.read_text("utf-8"))
    if block is None:
        raise ValueError("the page holds no model")
    return to_onnx.replay(gzip.decompress(b64decode(block[1])), images)


def _bytes_of(model: Any) -> bytes:
    with needs("onnx", "onnx", "The format web"):
        import onnx

    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def _choice(package: Package, whole: bytes, small: bytes) -> tuple[bytes, str, str]:
    """The model to take, what its weights are, and a sentence on both."""
    golden = package.golden
    less, more = (f"{len(each) / 1e6:.1f} MB" for each in (small, whole))
    expected, received = softmax(golden.logits), to_onnx.replay(small, golden.images)[PROBABILITIES]
    labels = int((expected.argmax(1) != received.argmax(1)).sum())
    change = float(np.abs(expected - received).max())
    said = f"{change:.0e} at most, and {labels} of {counted(len(golden.images), 'label')}"
    if labels == 0 and change < MOST:
        note = f"weights of 16 bits, {less}; of 32, {more}. They change golden probabilities by {said}."
        return small, "16-bit weights", note
    note = f"weights of 32 bits, {more}. Of 16, {less}, they would change golden probabilities by {said}."
    return whole, "32-bit weights", note
