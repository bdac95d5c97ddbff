"""OpenVINO's intermediate representation, a folder with model.xml and model.bin: the model of the fast engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS
from headstart.engines.fast.graph import build, core
from headstart.export.package import Package

MODEL = "model.xml"  # its weights are in model.bin beside it
INFO = "model_info"  # where OpenVINO's Model API and Model Server look


def write(package: Package, path: Path) -> None:
    """Write uint8 ``images`` (N, size, size, 3), any N → ``logits``, ``probabilities`` (N, K), float32 all through.

    Metadata is in the section ``model_info`` of rt_info; ``labels`` there are the class names in the form of the Model
    API: separated by spaces, with "_" for a space in a name.
    """
    model = build(package.blueprint, package.weights, package.spec, (LOGITS,))
    import openvino as ov
    from openvino import opset13 as op

    probabilities = op.softmax(model.output(0).get_node().input_value(0), 1)
    model.add_results([op.result(probabilities)])
    for output, name in zip(model.outputs, (LOGITS, "probabilities"), strict=True):
        output.get_tensor().set_names({name})
    for key, value in _info(package).items():
        model.set_rt_info(value, [INFO, key])
    path.mkdir()
    ov.save_model(model, path / MODEL, compress_to_fp16=False)


def replay(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits (N, K) that OpenVINO gives for images (N, size, size, 3), in float32."""
    network: Any = core().compile_model(path / MODEL, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits: NDArray[np.float32] = network(images)[LOGITS].copy()
    return logits


def _info(package: Package) -> dict[str, str]:
    return {"model_type": "Classification", "labels": " ".join(map(_word, package.classes)), **package.metadata()}


def _word(name: str) -> str:
    """A name without spaces and without characters that XML does not allow."""
    return "".join(sign if sign.isprintable() and not sign.isspace() else "_" for sign in name) or "_"
