"""Gradients on the processor, the fast engine against PyTorch: python benchmarks/gradients.py

A step is what an attack does: `vjp` of the logits with respect to the pixels of photos, and one pullback; NumPy in and
out, fp32. One network of each architecture, with pretrained weights where they are at hand, else with random ones. Also
how far the two gradients are apart. Needs the extra torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from harness import Goal, arguments, finish, in_child, median, shared

FILES = {  # in the folder of weights; one more comes with Headstart
    "mobilenet_v2": "mobilenet_v2.timm",
    "squeezenet1_1": "squeezenet1_1.torchvision",
    **{f"cifar_resnet{depth}": f"cifar_resnet{depth}" for depth in (20, 32, 44, 56)},
}
ENGINES = ("fast", "torch")
BATCHES = (1, 8)


def main() -> None:
    """Each network in a process of its own, in which the two engines take turns, step by step."""
    from headstart.backbones.catalogue import BACKBONES

    names = list(dict.fromkeys(backbone.architecture for backbone in BACKBONES.values()))
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=5)
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each repeat, at least one step of both")
    options = parser.parse_args()
    if options.quick:
        options.networks, options.repeats, options.seconds = ["mobilenet_v2", "cifar_resnet20"], 1, 0.4
    table: dict[str, dict[str, Any]] = {}
    goals = []
    head = f"{'fast':>8}{'torch':>7}{'ratio':>7}"
    print(f"{'images a second':<28}" + "".join(f"{f'batch of {batch}':>22}" for batch in BATCHES))
    print(f"{'network':<20}{'pixels':>8}{head * len(BATCHES)}{'difference':>12}{'signs':>9}")
    for name in options.networks:
        found = table[name] = in_child(partial(_measure, name, options.seconds, options.repeats))
        line = f"{name + ('' if found['pretrained'] else ' *'):<20}{found['pixels']:>8}"
        for batch in BATCHES:
            speeds = found["images_a_second"][batch]
            ratio = median([ours / theirs for ours, theirs in zip(speeds["fast"], speeds["torch"], strict=True)])
            line += f"{median(speeds['fast']):>8.1f}{median(speeds['torch']):>7.1f}{ratio:>7.2f}"
            goals.append(Goal(f"{name}: fast over torch, batch of {batch}", ratio, least=1))
        print(f"{line}{found['difference']:>12.1e}{found['signs']:>9.2%}", flush=True)
        goals.append(Goal(f"{name}: share of equal signs", found["signs"], least=0.99))
    print("ratio: fast over torch, median of the pairs")
    print("difference: the greatest, of the largest value of the gradient; * random weights")
    finish("gradients", {"networks": table}, goals, options)


def _measure(name: str, seconds: float, repeats: int) -> dict[str, Any]:
    """Images a second of every turn by batch and engine, and how far the gradients are apart."""
    from headstart.backbones.catalogue import BACKBONES, load_pretrained
    from headstart.data.load import decode
    from headstart.engines.registry import get_engine

    file = shared("weights", f"{FILES[name]}.safetensors") if name in FILES else None
    backbone, pretrained = BACKBONES[name], bool(file or BACKBONES[name].weights.distribution)
    if pretrained:
        loaded = load_pretrained(name, file)
        blueprint, weights, spec = loaded.blueprint, loaded.weights, loaded.spec
    else:
        blueprint, spec = backbone.blueprint(), backbone.spec
        weights = _random(blueprint.weight_shapes())
    photos = sorted(shared("data", "imagenet_sample").glob("*.jpg"))[::100][: max(BATCHES)]
    images = np.stack([decode(photo.read_bytes(), spec) for photo in photos]).astype(np.float32) / 255
    cotangent = np.random.default_rng(1).standard_normal((len(images), *blueprint.shapes()["logits"]))
    networks = {engine: get_engine(engine, blueprint, weights, spec, "fp32", "cpu") for engine in ENGINES}

    def step(engine: str, batch: int) -> Any:
        _, pullback = networks[engine].vjp(images[:batch])
        return pullback(cotangent[:batch])

    ours, theirs = (step(engine, len(images)) for engine in ENGINES)
    found: dict[str, Any] = {
        "pretrained": pretrained,
        "pixels": spec.size,
        "difference": float(np.abs(ours - theirs).max() / np.abs(theirs).max()),
        "signs": float((np.sign(ours) == np.sign(theirs)).mean()),
        "images_a_second": {},
    }
    for batch in BATCHES:
        steps = {engine: partial(step, engine, batch) for engine in ENGINES}
        turns = _in_turn(steps, seconds, repeats)
        found["images_a_second"][batch] = {key: [batch / wall for wall in turn] for key, turn in turns.items()}
    return found


def _in_turn(steps: Mapping[str, Callable[[], object]], seconds: float, repeats: int) -> dict[str, list[float]]:
    """Seconds of a step, for each repeat, after one that compiles.

    Step by step, in an order that is drawn each time: the scheduler of a busy machine favours whoever comes first.
    """
    rng = np.random.default_rng(0)
    for step in steps.values():
        step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        count, took = 0, dict.fromkeys(steps, 0.0)
        while sum(took.values()) < seconds:
            for name in rng.permutation([*steps]):
                before = time.perf_counter()
                steps[name]()
                took[name] += time.perf_counter() - before
            count += 1
        for name, wall in took.items():
            found[name].append(wall / count)
    return found


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Weights that keep values near 1 from layer to layer."""
    rng, found = np.random.default_rng(0), {}
    for key, shape in shapes.items():
        if len(shape) > 1:
            value = rng.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        else:
            value = np.full(shape, float(key.endswith((".weight", ".var"))), np.float32)
        found[key] = value
    return found


if __name__ == "__main__":
    main()
