"""OpenVINO's intermediate representation, a folder with model.xml and model.bin: the model of the fast engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS
from headstart.engines.fast.graph import core, values_of
from headstart.engines.protocol import foldable
from headstart.export.formats import PHOTOS
from headstart.export.operations.openvino import OpenvinoOperations
from headstart.export.package import Package
from headstart.export.photo_input import to_pixels
from headstart.export.verdict import answers

MODEL = "model.xml"  # its weights are in model.bin beside it
INFO = "model_info"  # where OpenVINO's Model API and Model Server look


def write(package: Package, path: Path) -> None:
    """Write uint8 ``images`` (N, size, size, 3), any N, or ``photos`` of any size → `Package.outputs`, in float32.

    Metadata is in the section ``model_info`` of rt_info; ``labels`` there are the class names in the form of the Model
    API: separated by spaces, with "_" for a space in a name.
    """
    model = _build(package)
    for key, value in _info(package).items():
        model.set_rt_info(value, [INFO, key])
    import openvino as ov

    path.mkdir()
    ov.save_model(model, path / MODEL, compress_to_fp16=False)


def _build(package: Package) -> Any:
    core()
    import openvino as ov
    from openvino import opset13 as op

    blueprint, spec, ops = package.blueprint, package.spec, OpenvinoOperations()
    given = op.parameter([-1, *(side or -1 for side in package.sides), 3], np.uint8, name=package.given)
    images = to_pixels(ops, given, spec) if package.takes == PHOTOS else given
    values = values_of(op, images, blueprint, package.weights, spec, foldable(blueprint))
    logits, features = values[LOGITS], values[blueprint[LOGITS].inputs[0]]
    found = answers(ops, package, logits, op.softmax(logits, 1), features)
    model = ov.Model([op.result(value) for value in found.values()], [given], blueprint.name)
    for output, name in zip(model.outputs, found, strict=True):
        output.get_tensor().set_names({name})
    return model


def replay(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What OpenVINO answers for images (N, size, size, 3), or photos of any size, in float32."""
    network: Any = core().compile_model(path / MODEL, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = network(images)
    return {name: found[name].copy() for output in network.outputs for name in output.names}


def _info(package: Package) -> dict[str, str]:
    return {"model_type": "Classification", "labels": " ".join(map(_word, package.classes)), **package.metadata()}


def _word(name: str) -> str:
    """A name without spaces and without characters that XML does not allow."""
    return "".join(sign if sign.isprintable() and not sign.isspace() else "_" for sign in name) or "_"
