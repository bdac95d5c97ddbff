"""One set of weights, seven runtimes: how far their answers are apart on real photos: python benchmarks/same_answer.py

Networks whose weights are at hand keep their own head and size. The others, and VGG, get weights drawn at random (batch
norm's statistics from photos) behind a head for ten classes, at fewer pixels; the arithmetic is the same, but short
numbers suffer more in a network that learned nothing. Logits are compared as a share of the largest logit, against
PyTorch in fp32. Needs the extra test.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness import Goal, arguments, finish, in_child, shared

if TYPE_CHECKING:
    from headstart.backbones.catalogue import Pretrained

PHOTOS = 200
FEWER = 96  # pixels, where weights are drawn at random
TOGETHER = 20  # images at a time, so that the largest networks fit into memory
AT_A_TIME = 8  # networks in one process
REFERENCE = "torch"
RUNTIMES = (REFERENCE, "fast fp32", "keras", "onnx", "openvino", "tflite", "fast bf16")
FILES = {"onnx": "model.onnx", "openvino": "model", "tflite": "model.tflite"}
EXACT = 1e-4  # allowed of fp32
OTHERS = 0.02  # share of the photos that bf16 may give another label: those where the first two classes are level
WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2.timm.safetensors",
    "squeezenet1_1.caffe": "squeezenet1_1.torchvision.safetensors",
    **{
        name: f"{name}.safetensors" for name in ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56")
    },
}
PACKAGED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")

Answers = dict[str, NDArray[np.float32]]


def main() -> None:
    """A line a network: the greatest difference of any logit, and of any probability."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    parser.add_argument("--networks", default="", help="names, with commas between; else the whole catalogue")
    options = parser.parse_args()
    from headstart.backbones.catalogue import BACKBONES

    names = [name for name in options.networks.split(",") if name] or list(BACKBONES)
    names = ["cifar_resnet20", "mobilenet_v2"] if options.quick else names
    photos = shared("data", "imagenet_sample")
    others, count = RUNTIMES[1:], 8 if options.quick else PHOTOS
    print(f"logits, as a share of the largest; below it probabilities; against {REFERENCE}")
    print(f"{'network':<27}{'px':>4} {'weights':<8}" + "".join(f"{name:>11}" for name in others))
    rows: dict[str, Any] = {}
    for start in range(0, len(names), AT_A_TIME):
        some = names[start : start + AT_A_TIME]
        rows |= in_child(functools.partial(_compare, some, photos, count))
    exact = [row["logits"][name] for row in rows.values() for name in others if name != "fast bf16"]
    real = [row["labels"]["fast bf16"] for row in rows.values() if row["weights"] == "real"]
    turned = [row["labels"][name] for row in rows.values() for name in others if name != "fast bf16"]
    finish(
        "same_answer",
        {"photos": count, "networks": rows},
        [
            Goal(f"greatest difference of a logit in fp32, {len(rows)} networks", max(exact), most=EXACT),
            Goal("other labels in fp32", sum(turned), most=0),
            Goal(
                f"other labels in bf16, {len(real)} networks with real weights",
                sum(real),
                most=OTHERS * count * len(real),
            ),
        ],
        options,
    )


def _compare(names: list[str], photos: Path, count: int) -> dict[str, Any]:
    from headstart.learn.calibrate import softmax

    rows: dict[str, Any] = {}
    for name in names:
        found, weights = _network(name, photos)
        images = _photos(photos, found, count)
        answers = {}
        with tempfile.TemporaryDirectory() as folder:
            for runtime, run in _runtimes(found, images, Path(folder)):
                parts = [images[start : start + TOGETHER] for start in range(0, len(images), TOGETHER)]
                answers[runtime] = np.concatenate([run(part) for part in parts])
        expected = answers.pop(REFERENCE)
        likely = softmax(expected)
        row: dict[str, Any] = {"pixels": found.spec.size, "weights": weights, "logits": {}, "probabilities": {}}
        row["labels"] = {key: int((value.argmax(1) != expected.argmax(1)).sum()) for key, value in answers.items()}
        for runtime, value in answers.items():
            row["logits"][runtime] = float(np.abs(value - expected).max() / np.abs(expected).max())
            row["probabilities"][runtime] = float(np.abs(softmax(value) - likely).max())
        for what, head in (("logits", f"{name:<27}{found.spec.size:>4} {weights:<8}"), ("probabilities", " " * 40)):
            print(head + "".join(f"{row[what][key]:>11.1e}" for key in RUNTIMES[1:]), flush=True)
        rows[name] = row
    return rows


def _network(name: str, photos: Path) -> tuple[Pretrained, str]:
    from dataclasses import replace

    from headstart.backbones.catalogue import Pretrained, find_backbone, load_pretrained

    if name in PACKAGED or name in WEIGHTS:
        path = shared("weights", WEIGHTS[name]) if name in WEIGHTS else None
        return load_pretrained(name, path), "real"
    backbone = find_backbone(name)
    blueprint = backbone.blueprint().trunk(backbone.layers).with_head(10, sqrt=False)
    spec = replace(backbone.spec, size=FEWER)
    empty = Pretrained(blueprint, {}, spec, backbone)
    return replace(empty, weights=_settled(empty, _photos(photos, empty, 16))), "random"


def _settled(found: Pretrained, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Weights drawn at random, and batch norms that have seen ``images``, so that no layer overflows or dies."""
    import torch

    from headstart.engines.registry import torch_engine

    generator = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        part = name.rpartition(".")[2]
        if len(shape) > 1:
            return generator.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
        low, high = {"weight": (0.5, 1.2), "var": (1.0, 1.0)}.get(part, (-0.2, 0.2))
        return generator.uniform(low, high, shape).astype(np.float32)

    weights = {name: draw(name, shape) for name, shape in found.blueprint.weight_shapes().items()}
    module = torch_engine().to_module(found.blueprint, weights, found.spec)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.train()
            layer.momentum = None  # the statistics of this one batch
            layer.reset_running_stats()
    with torch.no_grad():
        module(torch.tensor(images))
    state = module.state_dict()
    return {name: state[key].numpy() for name, key in module.keys.items()}


def _photos(source: Path, found: Pretrained, count: int) -> NDArray[np.uint8]:
    from headstart.data.load import in_chunks, load_images
    from headstart.data.sources import unlabelled

    table = unlabelled([source])
    rows = np.linspace(0, len(table) - 1, count).astype(int).tolist()
    items = in_chunks(lambda chunk: load_images(table, chunk, found.spec), rows)
    return np.stack([item.pixels for item in items if item.pixels is not None])


def _runtimes(
    found: Pretrained, images: NDArray[np.uint8], folder: Path
) -> Iterator[tuple[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]]]:
    """Each runtime in turn, with what asks it; one network in memory at a time."""
    from headstart.engines.registry import get_engine
    from headstart.export.package import Package
    from headstart.model.golden import Golden

    def engine(name: str, precision: str = "fp32") -> Any:
        return get_engine(name, found.blueprint, found.weights, found.spec, precision).forward

    yield REFERENCE, engine("torch")
    yield "fast fp32", engine("fast")
    yield "fast bf16", engine("fast", "bf16")
    yield "keras", engine("keras")
    (units,) = found.blueprint.shapes()["logits"]
    golden = Golden(images[:1], np.zeros((1, units), np.float32))
    classes = tuple(f"class {number}" for number in range(units))
    package = Package(found.blueprint, found.weights, found.spec, classes, golden)
    for name, file in FILES.items():
        form = importlib.import_module(f"headstart.export.{name}")
        form.write(package, folder / file)
        yield name, functools.partial(form.replay, folder / file)


if __name__ == "__main__":
    main()
