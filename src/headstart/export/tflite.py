"""LiteRT, formerly TensorFlow Lite (.tflite): one file for phones and small boards, in fp32 or mostly in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import UsageError, check_machine, needs, one_line
from headstart.core.quiet import quiet
from headstart.export import savedmodel
from headstart.export.labels import append

if TYPE_CHECKING:
    from headstart.export.package import Package

WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"}  # layers with weights
TOGETHER = 32  # images in a batch


def write(package: Package, path: Path, calibration: NDArray[np.uint8] | None = None) -> None:
    """Write a signature of ``images`` (N, size, size, 3), uint8, any N, or ``photos`` of any size → `Package.outputs`.

    With photos for ``calibration``, weights and activations are int8 (Jacob et al., CVPR 2018) from the first layer
    with weights to the last but one. The rest stays in float32: the normalisation, the averages that are the features,
    and the fitted head, whose large weights nearly cancel each other. Class names and metadata are a zip archive after
    the end of the file, as in TensorFlow Lite; see `labels.members`.

    Raises:
        UsageError: LiteRT lacks an operation, or there is nothing between first and last layer for int8.
        MissingExtraError: LiteRT is not installed.
    """
    _litert()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        savedmodel.write(package, Path(folder, "saved"), np.float32)
        with quiet():
            content = _convert(Path(folder, "saved"), calibration, package.blueprint.name)
    path.write_bytes(content)
    append(path, package)


def replay(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What LiteRT answers for images (N, size, size, 3), or photos of any size."""
    with quiet():
        run = _litert()(model_path=str(path)).get_signature_runner(savedmodel.SIGNATURE)
        (name,) = run.get_input_details()
        batches = [images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER)]
        found = [run(**{name: batch}) for batch in batches]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def _convert(saved: Path, calibration: NDArray[np.uint8] | None, name: str) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[savedmodel.SIGNATURE])
    try:
        content: bytes = converter.convert() if calibration is None else _in_int8(converter, calibration, name)
    except UsageError:
        raise
    except Exception as error:  # the converter can raise anything on an unusual graph
        check_machine(error)
        raise UsageError(f"'{name}' cannot be written with TensorFlow Lite's operations: {one_line(error)}") from error
    return content


def _in_int8(converter: Any, calibration: NDArray[np.uint8], name: str) -> bytes:
    import tensorflow as tf

    def photos() -> Iterator[list[NDArray[np.uint8]]]:
        yield from ([image[None]] for image in calibration)

    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = photos
    nothing = UsageError(f"'{name}' has nothing between its first layer and its head that int8 would make smaller.")
    try:  # the only public interface that can leave parts of a network in float32
        quantizer = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_dataset=photos)
    except ValueError as error:
        raise nothing from error
    names, quantized = _stay_float(quantizer.calibrated_model)
    if not quantized:
        raise nothing
    quantizer.options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=names)
    content: bytes = quantizer.get_nondebug_quantized_model()
    return content


def _stay_float(content: bytes) -> tuple[list[str], int]:
    """Names of the tensors whose steps stay in float32, and the number of layers with weights in int8.

    These are the steps before the first layer with weights, and those after the last but one.
    """
    interpreter = _litert()(model_content=content)
    names = {each["index"]: each["name"] for each in interpreter.get_tensor_details()}
    steps = [each for each in interpreter._get_ops_details() if each["op_name"] != "DELEGATE"]
    ahead: dict[int, set[int]] = {}  # tensor -> layers with weights that depend on it
    beyond: dict[int, set[int]] = {}  # step -> those after it
    for step in reversed(steps):
        index = step["index"]
        beyond[index] = set().union(*(ahead.get(tensor, set()) for tensor in step["outputs"]))
        own = {index} if step["op_name"] in WEIGHTED else set()
        for tensor in step["inputs"]:
            ahead[tensor] = ahead.get(tensor, set()) | beyond[index] | own
    weighted = {step["index"] for step in steps if step["op_name"] in WEIGHTED}
    last = {index for index in weighted if not beyond[index]}
    seen: set[int] = set()  # tensors after a layer with weights
    stay = []
    for step in steps:
        index = step["index"]
        if index in weighted or not seen.isdisjoint(step["inputs"]):
            seen.update(step["outputs"])
        in_front = seen.isdisjoint(step["outputs"])
        behind = not beyond[index] - last and index not in weighted - last
        stay += [names[tensor] for tensor in step["outputs"] if in_front or behind]
    return stay, len(weighted - last)


def _litert() -> Any:
    """LiteRT's interpreter, imported late."""
    with needs("ai-edge-litert", "tflite", "The format tflite"):
        from ai_edge_litert.interpreter import Interpreter
    return Interpreter
