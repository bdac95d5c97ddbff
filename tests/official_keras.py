"""Networks of keras.applications with values that no mistake survives; their files, and what they compute.

A program, ``official_keras.py FOLDER [NAME...]``, because Keras takes its backend from the environment when imported.
It writes into FOLDER the forms of file that are asked for, and NAME.npz with pixels and the values of a few layers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGES = 2
NEW, LEGACY, WHOLE = ".weights.h5", ".h5", ".whole.h5"


@dataclass(frozen=True)
class Case:
    """A model of keras.applications, and which of its layers is which node of the blueprint."""

    model: str
    module: str  # of keras.applications, that has its preprocess_input
    pairs: dict[str, str]
    pixels: int = 64
    top: bool = True
    alpha: float | None = None
    forms: tuple[str, ...] = (NEW, LEGACY)


CASES = {
    "vgg16": Case(
        "VGG16",
        "vgg16",
        {"block1_pool": "features.4", "block3_pool": "features.16", "block5_pool": "features.30", "fc1": "classifier.1"}
        | {"fc2": "classifier.4", "predictions": "logits"},
        forms=(LEGACY,),
    ),
    "vgg19": Case(
        "VGG19",
        "vgg19",
        {"block3_conv4": "features.17", "block4_conv1": "features.20", "block5_pool": "features.36"},
        pixels=32,
        top=False,
        forms=(NEW,),
    ),
    "resnet50": Case(
        "ResNet50",
        "resnet50",
        {"conv1_relu": "relu", "conv2_block1_0_bn": "layer1.0.downsample.1", "conv2_block3_out": "layer1.2.relu"}
        | {"conv3_block1_1_bn": "layer2.0.bn1", "conv5_block3_out": "layer4.2.relu", "predictions": "logits"},
        pixels=33,
    ),
    "mobilenet_v1": Case(
        "MobileNet",
        "mobilenet",
        {"conv1_relu": "bn1.act", "conv_dw_2_bn": "blocks.1.0.bn1", "conv_pw_6_relu": "blocks.3.0.bn2.act"}
        | {"conv_dw_12_relu": "blocks.4.0.bn1.act", "conv_pw_13_bn": "blocks.4.1.bn2", "predictions": "logits"},
        forms=(NEW, LEGACY, WHOLE),
    ),
    "mobilenet_v1_050": Case(
        "MobileNet",
        "mobilenet",
        {"conv_dw_4_bn": "blocks.2.0.bn1", "conv_pw_13_relu": "blocks.4.1.bn2.act", "conv_preds": "logits"},
        pixels=75,  # where its padding is not SAME
        alpha=0.5,
        forms=(NEW,),
    ),
    "mobilenet_v2": Case(
        "MobileNetV2",
        "mobilenet_v2",
        {"Conv1_relu": "bn1.act", "expanded_conv_project_BN": "blocks.0.0.bn2", "block_1_project_BN": "blocks.1.0.bn3"}
        | {"block_6_depthwise_relu": "blocks.3.0.bn2.act", "out_relu": "bn2.act", "predictions": "logits"},
        forms=(NEW, LEGACY, WHOLE),
    ),
    "mobilenet_v2_050": Case(
        "MobileNetV2",
        "mobilenet_v2",
        {"block_16_project_BN": "blocks.6.0.bn3", "out_relu": "bn2.act", "predictions": "logits"},
        pixels=75,
        alpha=0.5,
        forms=(NEW,),
    ),
    "mobilenet_v3_small": Case(
        "MobileNetV3Small",
        "mobilenet_v3",
        {"expanded_conv_squeeze_excite_mul": "blocks.0.0.se.scale", "expanded_conv_3_project_bn": "blocks.2.0.bn3"}
        | {"conv_1_bn": "blocks.5.0.bn1", "logits": "logits"},
        forms=(NEW, LEGACY, WHOLE),
    ),
    "mobilenet_v3_large": Case(
        "MobileNetV3Large",
        "mobilenet_v3",
        {"expanded_conv_project_bn": "blocks.0.0.bn2", "expanded_conv_3_squeeze_excite_mul": "blocks.2.0.se.scale"}
        | {"expanded_conv_12_project_bn": "blocks.5.0.bn3", "conv_1_bn": "blocks.6.0.bn1"},
        top=False,
    ),
}
LARGE = {  # the benchmark has the time for them
    f"resnet{depth}": Case(
        f"ResNet{depth}",
        "resnet",
        {"conv2_block3_out": "layer1.2.relu", "conv3_block2_1_bn": "layer2.1.bn1", "conv3_block4_out": "layer2.3.relu"}
        | {f"conv4_block{blocks}_out": f"layer3.{blocks - 1}.relu", "conv5_block3_out": "layer4.2.relu"}
        | {"predictions": "logits"},
        forms=(NEW,),
    )
    for depth, blocks in {101: 23, 152: 36}.items()
}


def run(folder: Path, names: Sequence[str] = ()) -> None:
    """Write the files, in a process of its own; one thread, as two would mostly wait for each other."""
    chosen = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, str(folder), *names], check=True, capture_output=True, env=chosen)


def main(folder: Path, names: Sequence[str]) -> None:
    import h5py
    import keras
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    for number, name in enumerate(names or CASES):
        case, generator = (CASES | LARGE)[name], np.random.default_rng(number)
        options: dict[str, Any] = {"alpha": case.alpha} if case.alpha else {}
        options |= {"classifier_activation": None} if case.top else {"pooling": "avg"}
        shape = (case.pixels, case.pixels, 3)
        wide = case.model.startswith(("VGG", "ResNet"))  # their pixels go from -128 to 128
        model = getattr(keras.applications, case.model)(
            weights=None, include_top=case.top, input_shape=shape, **options
        )
        for layer in model.layers:
            layer.set_weights([_values(each, generator, wide) for each in layer.weights])
        pixels = generator.integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
        preprocess = getattr(keras.applications, case.module).preprocess_input
        seen = keras.Model(model.inputs, [model.get_layer(layer).output for layer in case.pairs])
        values = seen.predict_on_batch(preprocess(pixels.astype(np.float32)))
        numbers: dict[str, Any] = {
            node: np.asarray(each) for node, each in zip(case.pairs.values(), values, strict=True)
        }
        np.savez(folder / f"{name}.npz", pixels=pixels, **numbers)
        for form in case.forms:
            if form == NEW:
                model.save_weights(folder / f"{name}{form}")
            elif form == WHOLE:
                model.save(folder / f"{name}{form}")
            else:
                with h5py.File(folder / f"{name}{form}", "w") as file:
                    save_weights_to_hdf5_group(file, model)


def _values(variable: Any, generator: np.random.Generator, wide: bool) -> NDArray[np.float32]:
    """Random, of a size that keeps the values of every layer about as large as those before it."""
    shape, name = tuple(variable.shape), variable.name
    if len(shape) > 1:
        fan_in = shape[0] * shape[1] * (shape[2] if shape[3] > 1 else 1) if len(shape) == 4 else shape[0]
        size = np.sqrt(1.6 / fan_in) / (64 if wide and shape[-2] == 3 else 1)
        return generator.normal(0, size, shape).astype(np.float32)
    if name in ("gamma", "moving_variance"):
        return generator.uniform(0.5, 1.5, shape).astype(np.float32)
    return generator.normal(0, 0.2, shape).astype(np.float32)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
