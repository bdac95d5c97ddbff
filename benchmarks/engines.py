"""What each engine takes to build a network and see a first batch, and gradients a second: python benchmarks/engines.py

Gradients are those of a thousand logits with respect to 224-pixel images, weights frozen: `vjp` and its pullback, NumPy
in and out, against a plain loop on timm's module of the same architecture, tensors in and out. Needs the extra torch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from harness import Goal, arguments, finish, in_child, median

NETWORKS = {  # ours -> timm's of the same architecture
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "resnet50": "resnet50",
}
ENGINES = ("fast", "torch")
LOOPS = ("vjp", "plain", "plain channels_last")
BATCH = 16


def main() -> None:
    """Each measurement in a process of its own; the three loops take turns in one."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    if options.quick:
        options.networks, options.repeats = ["mobilenet_v2"], 1
    starts: dict[str, dict[str, dict[str, float]]] = {}
    speeds: dict[str, dict[str, float]] = {}
    goals = []
    print(f"seconds: imports, building, first batch of {BATCH}, later ones; weights random")
    for name in options.networks:
        starts[name] = {engine: in_child(partial(_start, name, engine)) for engine in ENGINES}
        for engine, seconds in starts[name].items():
            print(f"{name:<20}{engine:<8}" + "".join(f"{value:>9.2f}" for value in seconds.values()), flush=True)
    print(
        f"\ngradients: images a second, batches of {BATCH}\n{'network':<20}" + "".join(f"{loop:>21}" for loop in LOOPS)
    )
    for name in options.networks:
        runs = in_child(partial(_gradients, name, options.repeats))
        speeds[name] = {loop: median(values) for loop, values in runs.items()}
        ratio = median([ours / theirs for ours, theirs in zip(runs["vjp"], runs["plain"], strict=True)])
        print(f"{name:<20}" + "".join(f"{speeds[name][loop]:>21.1f}" for loop in LOOPS), flush=True)
        goals.append(Goal(f"{name}: vjp over a plain autograd loop", ratio, least=1))
    finish("engines", {"seconds": starts, "gradients_per_second": speeds}, goals, options)


def _images() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (BATCH, 224, 224, 3), np.uint8)


def _network(name: str, engine: str) -> Any:
    """A catalogued network with random weights."""
    from headstart.backbones.catalogue import find_backbone
    from headstart.engines.registry import get_engine

    backbone, rng = find_backbone(name), np.random.default_rng(0)
    blueprint = backbone.blueprint()
    weights = {
        key: np.asarray(np.ones(shape) if len(shape) < 2 else rng.normal(0, np.prod(shape[1:]) ** -0.5, shape), "f4")
        for key, shape in blueprint.weight_shapes().items()
    }
    return partial(get_engine, engine, blueprint, weights, backbone.spec, "fp32")


def _start(name: str, engine: str) -> dict[str, float]:
    """Seconds of each stage, in a process that has loaded no engine yet."""
    build, images, seconds, start = _network(name, engine), _images(), {}, time.perf_counter()

    def mark(stage: str) -> None:
        nonlocal start
        seconds[stage], start = time.perf_counter() - start, time.perf_counter()

    import_module({"fast": "openvino", "torch": "headstart.engines.torch.network"}[engine])
    mark("imports")
    network = build()
    mark("building")
    network.forward(images)
    mark("first batch")
    network.forward(images)
    mark("later batches")
    return seconds


def _gradients(name: str, repeats: int) -> dict[str, list[float]]:
    """Images a second of each loop, turn by turn, so that a busy machine is busy for all of them."""
    warnings.filterwarnings("ignore")
    network, images = _network(name, "torch")(), _images()
    cotangent = np.random.default_rng(1).standard_normal((BATCH, 1000)).astype(np.float32)

    def ours() -> object:
        return network.vjp(images)[1](cotangent)

    steps: dict[str, Callable[[], object]] = {"vjp": ours}
    steps |= {loop: _plain(name, cotangent, last=loop.endswith("last")) for loop in LOOPS[1:]}
    speeds: dict[str, list[float]] = {loop: [] for loop in LOOPS}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for loop, step in steps.items():
            count, start = 0, time.perf_counter()
            while (took := time.perf_counter() - start) < 3 or not count:
                step()
                count += BATCH
            speeds[loop].append(count / took)
    return speeds


def _plain(name: str, cotangent: Any, *, last: bool) -> Callable[[], object]:
    import timm
    import torch

    model = timm.create_model(NETWORKS[name], pretrained=False).eval().requires_grad_(False)
    example, weight = torch.rand(BATCH, 3, 224, 224), torch.tensor(cotangent)
    if last:
        model, example = model.to(memory_format=torch.channels_last), example.to(memory_format=torch.channels_last)

    def step() -> object:
        x = example.detach().requires_grad_()
        model(x).backward(weight)
        return x.grad

    return step


if __name__ == "__main__":
    main()
