"""Transfer learning as Keras' own guide has it, one epoch: augmentation, the trunk frozen, a dense layer on top.

With a file of weights the trunk is MobileNetV2 at 224 pixels; without one it is the guide's own, Xception at 150, whose
weights are drawn at random: then only the time counts.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
from keras import layers


def main() -> None:
    """Arguments: the folder with train/ and test/, and the weights of keras.applications' MobileNetV2, if any."""
    data, weights = Path(sys.argv[1]), sys.argv[2:]
    keras.utils.set_random_seed(0)
    if weights:
        size, batch = (224, 224), 32
        whole = keras.applications.MobileNetV2(weights=weights[0])
        trunk = keras.Model(whole.input, whole.get_layer("out_relu").output)
    else:
        size, batch = (150, 150), 64
        trunk = keras.applications.Xception(weights=None, include_top=False, input_shape=(*size, 3))

    def photos(part: str) -> object:
        dataset = keras.utils.image_dataset_from_directory(
            data / part, image_size=size, batch_size=batch, label_mode="categorical", shuffle=part == "train"
        )
        return dataset.prefetch(2)

    trunk.trainable = False
    inputs = keras.Input((*size, 3))
    x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(inputs))
    x = trunk(layers.Rescaling(1 / 127.5, offset=-1)(x), training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.compile(keras.optimizers.Adam(), keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(photos("train"), epochs=1, verbose=0)
    accuracy = model.evaluate(photos("test"), verbose=0, return_dict=True)["accuracy"]
    print(json.dumps({"accuracy": accuracy}))


if __name__ == "__main__":
    main()
