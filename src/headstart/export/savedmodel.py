"""TensorFlow's SavedModel, a folder for TensorFlow Serving: `tf.saved_model.load` opens it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from headstart.core.quiet import quiet
from headstart.export.keras import on_processor, to_classifier
from headstart.export.labels import members

if TYPE_CHECKING:
    from headstart.export.package import Package

SIGNATURE = "serving_default"  # the one that TensorFlow Serving and the converters use
EXTRA = "assets.extra"  # TensorFlow's folder for files that it does not read itself


def write(package: Package, path: Path) -> None:
    """Write a signature ``images`` (N, size, size, 3), uint8, any N → ``logits``, ``probabilities`` (N, K), float32.

    Class names and metadata are files in ``assets.extra``; see `labels.members`.
    """
    size = package.spec.size
    with quiet():
        model = to_classifier(package)
        import tensorflow as tf

        images = tf.TensorSpec((None, size, size, 3), tf.uint8, name="images")
        serve = tf.function(lambda images: model(images, training=False), input_signature=[images])
        module = tf.Module()
        module.held = [variable.value for variable in model.variables]  # Keras' own export would write them twice
        tf.saved_model.save(module, path, signatures={SIGNATURE: serve.get_concrete_function()})
    (path / EXTRA).mkdir()
    for name, content in members(package).items():
        (path / EXTRA / name).write_text(content, encoding="utf-8")


def replay(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits (N, K) that TensorFlow gives for images (N, size, size, 3)."""
    with quiet(), on_processor():
        import tensorflow as tf

        signature = tf.saved_model.load(path).signatures[SIGNATURE]
        logits: NDArray[np.float32] = signature(images=tf.constant(images))["logits"].numpy()
    return logits
