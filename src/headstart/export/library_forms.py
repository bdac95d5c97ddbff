"""Finds the network of another library that has the same form as a blueprint, or the same trunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import BACKBONES
from headstart.backbones.ops import Node
from headstart.core.errors import UsageError, did_you_mean

LIBRARIES = ("keras-applications", "torchvision", "timm")
ANY = "The formats onnx, openvino, keras, savedmodel, tflite and torch take any network."


@dataclass(frozen=True)
class Form:
    """A network of a library, and the backbone with the same form in the catalogue."""

    model: str
    backbone: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The part of a blueprint that a library's network has: all of it, or the trunk up to ``node``."""

    library: str
    form: Form
    node: str  # the last of the part
    classes: int  # 0 where the part has no head


_SHARED = (  # with the same name in torchvision and timm
    *(Form(f"vgg{depth}{norm}", f"vgg{depth}{norm}") for depth in (16, 19) for norm in ("", "_bn")),
    *(Form(f"resnet{depth}", f"resnet{depth}") for depth in (18, 34, 50, 101, 152)),
)
FORMS: dict[str, tuple[Form, ...]] = {  # of several with the same architecture, the usual one is first
    "keras-applications": (
        Form("VGG16", "vgg16.keras"),
        Form("VGG19", "vgg19.keras"),
        *(Form(f"ResNet{depth}", f"resnet{depth}.keras") for depth in (50, 101, 152)),
        Form("MobileNet", "mobilenet_v1"),
        Form("MobileNetV2", "mobilenet_v2"),
        *(Form("MobileNetV2", f"mobilenet_v2_{each:03}.keras", {"alpha": each / 100}) for each in (50, 140)),
        Form("MobileNetV3Small", "mobilenet_v3_small.keras"),
        Form("MobileNetV3Large", "mobilenet_v3_large.keras"),
    ),
    "torchvision": (
        *_SHARED,
        Form("mobilenet_v2", "mobilenet_v2.torchvision"),
        *(Form("mobilenet_v2", f"mobilenet_v2_{each:03}", {"width_mult": each / 100}) for each in (50, 140)),
        *(Form(f"mobilenet_v3_{kind}", f"mobilenet_v3_{kind}") for kind in ("small", "large")),
        *(Form(f"squeezenet1_{number}", f"squeezenet1_{number}") for number in (0, 1)),
    ),
    "timm": (
        *_SHARED,
        Form("mobilenetv1_100", "mobilenet_v1.timm"),
        Form("mobilenetv2_100", "mobilenet_v2.timm"),
        Form("mobilenetv2_100", "mobilenet_v2", {"pad_type": "same", "bn_eps": 1e-3}),
        Form("mobilenetv2_050", "mobilenet_v2_050"),
        Form("mobilenetv2_140", "mobilenet_v2_140"),
        *(
            form
            for kind in ("small", "large")
            for form in (
                Form(f"mobilenetv3_{kind}_100", f"mobilenet_v3_{kind}.timm"),
                Form(f"mobilenetv3_{kind}_100", f"mobilenet_v3_{kind}", {"bn_eps": 1e-3}),  # torchvision's epsilon
                Form(f"tf_mobilenetv3_{kind}_100", f"mobilenet_v3_{kind}.tf"),
            )
        ),
        *(Form(f"tf_efficientnet_lite{number}", f"efficientnet_lite{number}") for number in range(5)),
    ),
}


def find_part(library: str, blueprint: Blueprint) -> Part:
    """The network of ``library`` that has the form of a blueprint, with its head if that is of the same form, too.

    Padding, epsilons, biases and strides count; the number of classes and dropout do not.

    Raises:
        UsageError: no such library, or it has none of this form; says what differs, and what would take it.
    """
    if library not in LIBRARIES:
        raise UsageError(f"There is no library '{library}' to write weights for. {did_you_mean(library, LIBRARIES)}")
    found, difference = _search(library, blueprint)
    if found is None:
        others = [each for each in LIBRARIES if _search(each, blueprint)[0]]
        also = f" The weights would do for {' and '.join(others)}." if others else ""
        raise UsageError(f"{difference}{also} {'' if blueprint.source else ANY}".rstrip())
    return found


def _search(library: str, blueprint: Blueprint) -> tuple[Part | None, str]:
    """The part, or a sentence that says why there is none."""
    name = blueprint.name
    if blueprint.source or name not in BACKBONES:
        return (
            None,
            f"'{blueprint.source or name}' is no network of the catalogue; only those have a form in {library}.",
        )
    architecture = BACKBONES[name].architecture
    differences = []
    for form in FORMS[library]:
        theirs = BACKBONES[form.backbone]
        if theirs.architecture != architecture:
            continue
        whole, end = theirs.blueprint(), theirs.layers[0]
        last = list(whole.parameters())[-1]  # the layer with a filter or unit for each class
        if not _difference(blueprint, whole.nodes, last):
            return Part(library, form, whole.layers[-1], _classes(blueprint[last])), ""
        differences.append((form, _difference(blueprint, whole.upto(end).nodes)))
        if not differences[-1][1]:
            return Part(library, form, end, 0), ""
    if not differences:
        return None, f"{library} has no {architecture}."
    form, difference = differences[0]
    return None, f"{library} has {form.model} in another form than '{name}': {difference}."


def _difference(blueprint: Blueprint, theirs: Sequence[Node], free: str = "") -> str:
    """The first difference between ``theirs`` and the blueprint's nodes of the same names, in words, or "".

    The node ``free`` may have any number of filters or units.
    """
    ours = {node.name: node for node in blueprint.nodes}
    for node in theirs:
        mine = ours.get(node.name)
        if mine is None or mine.op != node.op:
            return f"the layer '{node.name}' is {'not there' if mine is None else f'{mine.op}, not {node.op}'}"
        if mine.inputs != node.inputs:
            return f"the layer '{node.name}' takes {', '.join(mine.inputs)}, not {', '.join(node.inputs)}"
        wanted, received = _effect(node), _effect(mine)
        for attribute, value in wanted.items():
            if received[attribute] != value and not (node.name == free and attribute in ("filters", "units")):
                return f"the layer '{node.name}' has {attribute} {received[attribute]}, not {value}"
    return ""


def _effect(node: Node) -> dict[str, Any]:
    """The attributes that a forward pass depends on; equal paddings are written in the same way."""
    found = {key: tuple(value) if isinstance(value, list) else value for key, value in node.attrs.items()}
    found.pop("rate", None)
    if found.get("padding") == "same" and found["stride"] == 1 and all(side % 2 for side in found["kernel"]):
        rows, columns = found["kernel"]
        found["padding"] = (rows // 2, rows // 2, columns // 2, columns // 2)
    return found


def _classes(node: Node) -> int:
    return int(node["filters"] if node.op == "conv" else node["units"])
