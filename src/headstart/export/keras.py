"""Keras (.keras): `keras.models.load_model` opens it in safe mode, without Headstart."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS
from headstart.core.errors import UsageError
from headstart.core.quiet import quiet
from headstart.engines.registry import keras_engine
from headstart.export.labels import append
from headstart.learn.unknown import NEAREST, Unknown

if TYPE_CHECKING:
    from headstart.export.package import Package

CONFIG = "config.json"  # the architecture in the archive


def write(package: Package, path: Path) -> None:
    """Write images (N, size, size, 3), 0 to 255, any N → a dictionary of `Package.outputs`.

    Class names and metadata are members of the archive, which Keras ignores; see `labels.members`.

    Raises:
        UsageError: a model with custom layers, whose code the file cannot hold.
    """
    for node in package.blueprint.nodes:
        if node.op == "module" and not node["config"]:
            raise UsageError(
                f"'{node['source']}' has custom layers, and a .keras file can be opened only with their code. "
                "Use the format that holds the computation itself: --to savedmodel"
            )
    with quiet():
        to_classifier(package).save(path)
        _make_portable(path)
    append(path, package)


def _make_portable(path: Path) -> None:
    """Rewrite the architecture in the archive so that older versions of Keras open it, too."""
    from headstart.engines.keras.config import portable

    whole = path.with_name(f"{path.name}.whole")
    path.replace(whole)
    with zipfile.ZipFile(whole) as given, zipfile.ZipFile(path, "w") as archive:
        for member in given.infolist():
            with given.open(member) as source, archive.open(member, "w", force_zip64=True) as target:
                if member.filename == CONFIG:
                    target.write(json.dumps(portable(json.load(source))).encode())
                else:
                    shutil.copyfileobj(source, target, 1 << 20)
    whole.unlink()


def replay(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What Keras answers for images (N, size, size, 3)."""
    with quiet(), on_processor():
        import keras

        model = keras.models.load_model(path, compile=False, safe_mode=True)
        found = model(images, training=False)
    return {name: value.numpy() for name, value in found.items()}


def to_classifier(package: Package) -> Any:
    """The network as a `keras.Model` with named outputs, `Package.outputs`, of Keras' own layers and operations."""
    network = with_features(package)
    import keras

    logits, features = network.outputs
    probabilities = keras.layers.Softmax(name="probabilities")(logits)
    found = [logits, probabilities, keras.ops.argmax(logits, -1)]
    if package.unknown is not None:
        found += _verdict(package.unknown, features, probabilities)
    return keras.Model(network.input, dict(zip(package.outputs, found, strict=True)), name=network.name)


def _verdict(unknown: Unknown, features: Any, probabilities: Any) -> list[Any]:
    """Score and verdict; see `verdict.answers`, which does the same where constants need no layer to hold them."""
    import keras

    ops = keras.ops
    apart = keras.layers.Rescaling(1.0, (-unknown.centre).tolist(), name="unknown_apart")(features)
    direction = keras.layers.UnitNormalization(name="unknown_direction")(apart)
    kept = np.asarray(unknown.kept.T, np.float32)
    cosines = _product(kept, np.zeros(kept.shape[1], np.float32), "unknown_cosines", direction)
    nearest, _ = ops.top_k(cosines, min(NEAREST, kept.shape[1]))
    nearness = ops.mean(nearest, -1, keepdims=True)
    sureness = ops.max(probabilities, -1, keepdims=True)
    score = ops.add(
        _log_rank(unknown.sure, sureness, "unknown_sure"), _log_rank(unknown.near, nearness, "unknown_near")
    )
    score = ops.reshape(score, (-1,))
    return [score, ops.less(score, unknown.threshold)]


def _log_rank(known: NDArray[np.float32], values: Any, name: str) -> Any:
    import keras

    ops = keras.ops
    above = _product(np.ones((1, len(known)), np.float32), -known, name, values)  # value - known, below 0 or not
    count = ops.sum(ops.cast(ops.greater_equal(above, 0.0), "float32"), -1, keepdims=True)
    return ops.log(ops.divide(ops.add(count, 1.0), len(known) + 1.0))


def _product(kernel: NDArray[np.float32], bias: NDArray[np.float32], name: str, values: Any) -> Any:
    """``values @ kernel + bias`` by a layer that is not trained."""
    import keras

    layer = keras.layers.Dense(kernel.shape[1], kernel_initializer="zeros", trainable=False, name=name, dtype="float32")
    result = layer(values)
    layer.set_weights([kernel, bias])
    return result


def with_features(package: Package) -> Any:
    """The network as a `keras.Model` with two outputs, the logits and what its last layer takes."""
    engine = keras_engine()
    import keras

    network = engine.to_model(package.blueprint, package.weights, package.spec, package.module)
    engine.rename_without_dots(network)
    return keras.Model(network.input, [network.output, network.get_layer(LOGITS).input], name=network.name)


def on_processor() -> Any:
    """A context on the processor: accelerators may compute fp32 with less precision."""
    keras_engine()
    import tensorflow as tf

    return tf.device("CPU:0")
