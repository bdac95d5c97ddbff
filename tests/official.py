"""Networks as their own libraries build them, filled with values that no mistake survives, and the files they write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from headstart.backbones.catalogue import Pretrained, load_pretrained
from headstart.backbones.names import NAME_MAPS
from headstart.engines.fast import FastNetwork

Values = dict[str, NDArray[np.float32]]
Save = Callable[[dict[str, torch.Tensor], Path], None]
SEEN = 5  # layers on the way to the logits that are compared


@dataclass(frozen=True)
class Case:
    """A catalogued network and where its library has it."""

    backbone: str
    source: str  # a key of `NAME_MAPS`: whose names the file has
    make: Callable[[], nn.Module]
    pixels: int = 64
    images: int = 2
    head: bool = True

    def __str__(self) -> str:
        return f"{self.backbone}-{self.source}"


def _torchvision(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name)


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, **options)


def _keras_form(name: str) -> Callable[[], nn.Module]:
    """torchvision's bottlenecks changed to the form of keras.applications."""

    def make() -> nn.Module:
        module = torchvision.models.get_model(name)
        for layer in module.modules():
            if isinstance(layer, torchvision.models.resnet.Bottleneck):
                layer.conv1.stride, layer.conv2.stride = layer.conv2.stride, layer.conv1.stride
            elif isinstance(layer, nn.Conv2d):
                layer.bias = nn.Parameter(torch.empty(layer.out_channels))
            elif isinstance(layer, nn.BatchNorm2d):
                layer.eps = 1.001e-5
        return module

    return make


class _Block(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Two convolutions beside a shortcut of option A, after He et al. 2015, section 4.2."""

    def __init__(self, incoming: int, channels: int) -> None:
        super().__init__()
        self.stride = channels // incoming
        self.conv1 = nn.Conv2d(incoming, channels, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            beside = torch.zeros_like(y[:, : y.shape[1] // 4])
            x = torch.cat([beside, x[:, :, ::2, ::2], beside], dim=1)
        return torch.relu(x + y)


class CifarResNet(nn.Module):  # type: ignore[misc]
    """With the names of akamaster/pytorch_resnet_cifar10."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16) for _ in range(count)))
        self.layer2 = nn.Sequential(*(_Block(32 if i else 16, 32) for i in range(count)))
        self.layer3 = nn.Sequential(*(_Block(64 if i else 32, 64) for i in range(count)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        out: torch.Tensor = self.linear(x.mean(dim=(2, 3)))
        return out


CASES = (
    *(Case(f"resnet{depth}", "torchvision", _torchvision(f"resnet{depth}")) for depth in (18, 34, 50, 101, 152)),
    *(Case(f"resnet{depth}.keras", "torchvision", _keras_form(f"resnet{depth}")) for depth in (50, 101, 152)),
    Case("resnet50", "timm", _timm("resnet50")),
    Case("vgg16", "torchvision", _torchvision("vgg16"), pixels=224, images=1),  # its head takes no other size
    Case("vgg16", "timm", _timm("vgg16"), head=False),
    *(Case(name, "torchvision", _torchvision(name), head=False) for name in ("vgg19", "vgg16_bn", "vgg19_bn")),
    Case("mobilenet_v1.tf", "timm", _timm("mobilenetv1_100", pad_type="same", bn_eps=1e-3)),  # its padding at 64 pixels
    Case("mobilenet_v1.timm", "timm", _timm("mobilenetv1_100")),
    Case("mobilenet_v2.tf", "timm", _timm("mobilenetv2_100", pad_type="same", bn_eps=1e-3)),
    Case("mobilenet_v2.torchvision", "torchvision", _torchvision("mobilenet_v2")),
    Case("mobilenet_v2.timm", "timm", _timm("mobilenetv2_100")),
    Case("mobilenet_v2_050", "timm", _timm("mobilenetv2_050")),
    Case("mobilenet_v2_140", "timm", _timm("mobilenetv2_140")),
    *(
        Case(f"mobilenet_v2_{each}.keras", "timm", _timm(f"mobilenetv2_{each}", pad_type="same", bn_eps=1e-3))
        for each in ("050", "140")
    ),
    *(
        case
        for kind in ("small", "large")
        for case in (
            Case(f"mobilenet_v3_{kind}", "torchvision", _torchvision(f"mobilenet_v3_{kind}")),
            Case(f"mobilenet_v3_{kind}.timm", "timm", _timm(f"mobilenetv3_{kind}_100")),
            Case(f"mobilenet_v3_{kind}.tf", "timm", _timm(f"tf_mobilenetv3_{kind}_100")),
        )
    ),
    Case("squeezenet1_0", "torchvision", _torchvision("squeezenet1_0")),
    Case("squeezenet1_1", "torchvision", _torchvision("squeezenet1_1")),
    *(Case(f"efficientnet_lite{number}", "timm", _timm(f"tf_efficientnet_lite{number}")) for number in range(5)),
    Case("efficientnet_lite0.timm", "timm", _timm("efficientnet_lite0")),
    *(Case(f"cifar_resnet{depth}", "akamaster", partial(CifarResNet, depth), pixels=32) for depth in (20, 32, 44, 56)),
)

LARGE = tuple(  # with their heads; the benchmark has the time for them
    Case(name, "torchvision", _torchvision(name), pixels=224, images=1) for name in ("vgg19", "vgg16_bn", "vgg19_bn")
)


def save_legacy(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


SAVES: dict[str, tuple[str, Save]] = {
    "zip": (".pth", torch.save),
    "legacy": (".pth", save_legacy),
    "safetensors": (".safetensors", safetensors.torch.save_file),
}


def filled(case: Case, seed: int = 0) -> nn.Module:
    """The library's module in evaluation mode: weights drawn at random, and running statistics of a batch of noise."""
    with torch.device("meta"):
        module = case.make()
    if not case.head:  # most of VGG's weights
        for name in ("classifier", "pre_logits", "head"):
            if hasattr(module, name):
                setattr(module, name, nn.Identity())
        module.avgpool = nn.Identity()
    module = module.to_empty(device="cpu").requires_grad_(False).train()
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
            if layer.bias is not None:
                layer.bias.normal_(0, 0.2, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # an average, and not one that forgets
            layer.weight.uniform_(0.5, 1.2, generator=generator)
            layer.bias.normal_(0, 0.3, generator=generator)
    if any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        module(torch.randn(8, 3, case.pixels, case.pixels, generator=generator))
    return module.eval()


def photos(case: Case, seed: int = 1) -> NDArray[np.uint8]:
    shape = (case.images, case.pixels, case.pixels, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def of_library(case: Case, module: nn.Module, found: Pretrained, images: NDArray[np.uint8]) -> Values:
    """The outputs of a handful of layers and of the whole, by the blueprint's names."""
    nodes = found.blueprint.layers
    ours = NAME_MAPS[case.source](nodes)
    seen: Values = {}

    def note(node: str) -> Callable[[Any, Any, torch.Tensor], None]:
        def hook(layer: Any, inputs: Any, output: torch.Tensor) -> None:
            seen[node] = (
                output.numpy().copy().reshape(output.shape if output.shape[2:] != (1, 1) else (len(output), -1))
            )

        return hook

    layers = [(ours.get(path, path), layer) for path, layer in module.named_modules()]
    norms = [(node, layer) for node, layer in layers if isinstance(layer, nn.BatchNorm2d) and node in nodes]
    chosen = norms or [(node, layer) for node, layer in layers if isinstance(layer, nn.Conv2d) and node in nodes]
    chosen = [chosen[round(place)] for place in np.linspace(0, len(chosen) - 1, SEEN)]
    hooks = [layer.register_forward_hook(note(_acting(node, layer))) for node, layer in chosen]
    pixels = ((images / 255 - np.array(found.spec.mean)) / np.array(found.spec.std)).astype(np.float32)
    with torch.inference_mode():
        out = module(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    for hook in hooks:
        hook.remove()
    if case.head:
        seen["logits"] = out.numpy()
    return seen


def _acting(node: str, layer: nn.Module) -> str:
    """timm's batch norm may bring the activation with it."""
    return node if isinstance(getattr(layer, "act", nn.Identity()), nn.Identity) else f"{node}.act"


def differences(case: Case, save: str, folder: Path) -> Iterator[tuple[str, float]]:
    """For each node compared its greatest difference, as a share of its largest value, by way of a file."""
    module = filled(case)
    suffix, write = SAVES[save]
    path = folder / f"{case}{suffix}"
    write(module.state_dict(), path)
    found = load_pretrained(case.backbone, path, case.pixels, head=case.head)
    path.unlink()  # some hold half a gigabyte
    images = photos(case)
    expected = of_library(case, module, found, images)
    network = FastNetwork(found.blueprint, found.weights, found.spec, "fp32")
    for (node, value), mine in zip(expected.items(), network.forward_many(images, list(expected)), strict=True):
        assert mine.shape == value.shape, node
        yield node, float(np.abs(mine - value).max() / np.abs(value).max())
