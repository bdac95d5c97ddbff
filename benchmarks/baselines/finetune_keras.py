"""Fine-tuning EfficientNet-Lite0 as people write it in plain Keras: tf.data, augmentation layers, compile and fit."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from keras import layers

SIZE, BATCH = (224, 224), 32
MOVING = ("blocks.5", "blocks.6", "conv_head", "bn2")


class StageTimer(keras.callbacks.Callback):  # type: ignore[misc]
    """Seconds of every epoch, its validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """It begins."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """It ends."""
        self.seconds.append(time.perf_counter() - self.start)


def decode(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A square of the photo's middle, and its class."""
    image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return tf.cast(keras.preprocessing.image.smart_resize(image, SIZE), tf.uint8), label


def build(path: str, classes: int, full: bool) -> keras.Model:
    """The pretrained network with a new head; below blocks 5 all is frozen, unless ``full``."""
    whole = keras.models.load_model(path, compile=False)
    trunk = keras.Model(whole.input, whole.get_layer("bn2.act").output)
    for layer in trunk.layers:
        layer.trainable = full or layer.name.startswith(MOVING)
    inputs = keras.Input((*SIZE, 3))
    x = layers.GlobalAveragePooling2D()(trunk(inputs, training=False))  # batch norm keeps its statistics
    return keras.Model(inputs, layers.Dense(classes)(layers.Dropout(0.2)(x)))


def main() -> None:
    """Train on the photos that a JSON file lists; print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="JSON: classes; train, val and test as lists of [path, class number]")
    parser.add_argument("network", help="a .keras file that takes pixels from 0 to 255")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--augmentation", choices=("flips", "light"), default="flips")
    parser.add_argument("--full", action="store_true", help="nothing is frozen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jit", choices=("auto", "yes", "no"), default="auto", help="compile with XLA; auto: Keras' way"
    )
    options = parser.parse_args()
    keras.utils.set_random_seed(options.seed)
    listed = json.loads(options.photos.read_text(encoding="utf-8"))
    more = (
        layers.RandomRotation(8 / 360),
        layers.RandomZoom((-0.2, 0.1)),
        layers.RandomBrightness(0.15),
        layers.RandomContrast(0.15),
    )
    augmentation = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            *(more if options.augmentation == "light" else ()),
        ]
    )

    def photos(part: str) -> tf.data.Dataset:
        paths, labels = zip(*listed[part], strict=True)
        dataset = tf.data.Dataset.from_tensor_slices((list(paths), list(labels)))
        dataset = dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).cache()
        if part == "train":
            dataset = dataset.shuffle(len(paths)).batch(BATCH)
            dataset = dataset.map(lambda x, y: (augmentation(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
        else:
            dataset = dataset.batch(BATCH)
        return dataset.prefetch(tf.data.AUTOTUNE)

    model, clock = build(options.network, len(listed["classes"]), options.full), StageTimer()
    model.compile(
        keras.optimizers.AdamW(options.rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile={"auto": "auto", "yes": True, "no": False}[options.jit],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/best.weights.h5"
        best = keras.callbacks.ModelCheckpoint(path, save_best_only=True, save_weights_only=True)
        told = model.fit(
            photos("train"), epochs=options.epochs, validation_data=photos("val"), callbacks=[best, clock], verbose=0
        )
        model.load_weights(path)
    accuracy = model.evaluate(photos("test"), verbose=0, return_dict=True)["accuracy"]
    print(json.dumps({"accuracy": accuracy, "val_loss": min(told.history["val_loss"]), "epochs": clock.seconds}))


if __name__ == "__main__":
    main()
