"""Keras (.keras): `keras.models.load_model` opens it in safe mode, without Headstart."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import UsageError
from headstart.core.quiet import quiet
from headstart.engines.registry import keras_engine
from headstart.export.labels import append

if TYPE_CHECKING:
    from headstart.export.package import Package

CONFIG = "config.json"  # the architecture in the archive


def write(package: Package, path: Path) -> None:
    """Write images (N, size, size, 3), 0 to 255, any N → {"logits": (N, K), "probabilities": (N, K)}, float32.

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


def replay(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits (N, K) that Keras gives for images (N, size, size, 3)."""
    with quiet(), on_processor():
        import keras

        model = keras.models.load_model(path, compile=False, safe_mode=True)
        logits: NDArray[np.float32] = model(images, training=False)["logits"].numpy()
    return logits


def to_classifier(package: Package) -> Any:
    """The network as a `keras.Model` with two named outputs, of Keras' own layers only."""
    engine = keras_engine()
    import keras

    network = engine.to_model(package.blueprint, package.weights, package.spec, package.module)
    engine.rename_without_dots(network)
    logits = network.output
    probabilities = keras.layers.Softmax(name="probabilities")(logits)
    outputs = {"logits": logits, "probabilities": probabilities}
    return keras.Model(network.input, outputs, name=network.name)


def on_processor() -> Any:
    """A context on the processor: accelerators may compute fp32 with less precision."""
    keras_engine()
    import tensorflow as tf

    return tf.device("CPU:0")
