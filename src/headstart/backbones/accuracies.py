"""What publishers say of their weights: top-1 accuracy on ImageNet's validation set, in percent, at the native size."""

from __future__ import annotations

TOP1 = {
    # the README of google-research's EfficientNet-Lite, in fp32
    "efficientnet_lite0": 75.1,
    "efficientnet_lite1": 76.7,
    "efficientnet_lite2": 77.6,
    "efficientnet_lite3": 79.8,
    "efficientnet_lite4": 81.5,
    # torchvision's own figures, in the metadata of its weights
    "mobilenet_v2.torchvision": 71.878,
    "mobilenet_v2.v2": 72.154,
    "mobilenet_v3_small": 67.668,
    "mobilenet_v3_large": 74.042,
    "mobilenet_v3_large.v2": 75.274,
    "resnet18": 69.758,
    "resnet34": 73.314,
    "resnet50": 76.13,
    "resnet50.v2": 80.858,
    "resnet101": 77.374,
    "resnet101.v2": 81.886,
    "resnet152": 78.312,
    "resnet152.v2": 82.284,
    "squeezenet1_0": 58.092,
    "squeezenet1_1": 58.178,
    "vgg16": 71.592,
    "vgg16_bn": 73.36,
    "vgg19": 72.376,
    "vgg19_bn": 74.218,
    # keras.io/api/applications; of MobileNetV3 the docstring of its file
    "mobilenet_v1": 70.4,
    "mobilenet_v2": 71.3,
    "mobilenet_v3_small.keras": 68.1,
    "mobilenet_v3_large.keras": 75.6,
    "resnet50.keras": 74.9,
    "resnet101.keras": 76.4,
    "resnet152.keras": 76.6,
    "vgg16.keras": 71.3,
    "vgg19.keras": 71.3,
}
