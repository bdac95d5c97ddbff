"""TensorFlow's SavedModel, a folder for TensorFlow Serving: `tf.saved_model.load` opens it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.quiet import quiet
from headstart.export.formats import PHOTOS
from headstart.export.keras import on_processor, with_features
from headstart.export.labels import members
from headstart.export.photo_input import to_pixels
from headstart.export.verdict import answers

if TYPE_CHECKING:
    from headstart.export.package import Package

SIGNATURE = "serving_default"  # the one that TensorFlow Serving and the converters use
EXTRA = "assets.extra"  # TensorFlow's folder for files that it does not read itself


def write(package: Package, path: Path, kind: type = np.float64) -> None:
    """Write a signature of ``images`` (N, size, size, 3), uint8, any N, or ``photos`` of any size → `Package.outputs`.

    ``kind`` is the type in which the weights of a resize are computed. Class names and metadata are files in
    ``assets.extra``; see `labels.members`.
    """
    with quiet():
        model = with_features(package)
        import tensorflow as tf

        from headstart.export.operations.tensorflow import TensorflowOperations

        ops = TensorflowOperations(kind)

        def serve(given: Any) -> dict[str, Any]:
            images = to_pixels(ops, given, package.spec) if package.takes == PHOTOS else given
            logits, features = model(images, training=False)
            return answers(ops, package, logits, tf.nn.softmax(logits), features)

        taken = tf.TensorSpec((None, *package.sides, 3), tf.uint8, name=package.given)
        traced = tf.function(serve, input_signature=[taken])
        module = tf.Module()
        module.held = [variable.value for variable in model.variables]  # Keras' own export would write them twice
        tf.saved_model.save(module, path, signatures={SIGNATURE: traced.get_concrete_function()})
    (path / EXTRA).mkdir()
    for name, content in members(package).items():
        (path / EXTRA / name).write_text(content, encoding="utf-8")


def replay(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What TensorFlow answers for images (N, size, size, 3), or photos of any size."""
    with quiet(), on_processor():
        import tensorflow as tf

        signature = tf.saved_model.load(path).signatures[SIGNATURE]
        (name,) = signature.structured_input_signature[1]
        found = signature(**{name: tf.constant(images)})
    return {name: value.numpy() for name, value in found.items()}
