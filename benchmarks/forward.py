"""Images a second of a forward pass on the processor, engine against engine: python benchmarks/forward.py

The fast engine gets uint8 photos and normalises them itself; the others get tensors that are ready, which favours them.
Needs the extras torch and test, and for torch.compile a C++ compiler.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from harness import Goal, arguments, finish, in_child, median

NETWORKS = {  # ours -> timm's of the same architecture
    "mobilenet_v2": "mobilenetv2_100",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "resnet50": "resnet50",
    "vgg16": "vgg16",
}
ENGINES = ("fast bf16", "fast fp32", "eager", "channels_last", "compiled", "compiled bf16", "onnxruntime")
FAST = ("fast bf16", "fast fp32")
BATCH = {"vgg16": 8}  # of the others; 32 where nothing is said


def main() -> None:
    """Each engine in a process of its own; medians of several stretches of a few seconds."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seconds", type=float, default=3.0, help="of each stretch")
    options = parser.parse_args()
    if options.quick:
        options.networks, options.seconds, options.repeats = ["mobilenet_v2"], 0.5, 1
    print("images a second, 224 px, random weights; in brackets as a multiple of torch eager")
    print(f"{'network':<20}" + "".join(f"{engine:>17}" for engine in ENGINES))
    table, goals = {}, []
    for name in options.networks:
        speeds = {}
        print(f"{name:<20}", end="", flush=True)
        for engine in ENGINES:
            runs = in_child(partial(_measure, name, engine, options.seconds, options.repeats))
            speeds[engine] = median(runs)
            eager = speeds.get("eager")
            text = f"{speeds[engine]:.1f}" + (f" ({speeds[engine] / eager:.1f})" if eager else "")
            print(f"{text:>17}", end="", flush=True)
        print()
        table[name] = speeds
        others = max(speed for engine, speed in speeds.items() if engine not in FAST)
        exact = max(speed for engine, speed in speeds.items() if engine not in FAST and "bf16" not in engine)
        goals.append(Goal(f"{name}: fast bf16 over the fastest of the others", speeds["fast bf16"] / others, least=1))
        goals.append(Goal(f"{name}: fast fp32 over the fastest of fp32", speeds["fast fp32"] / exact, least=1))
    finish("forward", {"images_per_second": table}, goals, options)


def _measure(name: str, engine: str, seconds: float, repeats: int) -> list[float]:
    """Images a second of each stretch, after what is done once."""
    warnings.filterwarnings("ignore")
    batch = BATCH.get(name, 32)
    run = _ours(name, engine.split()[1]) if engine in FAST else _theirs(name, engine, batch)
    if engine in FAST:
        batch = 64  # any number: it cuts them up itself
    images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    step = run(images)
    step()
    step()
    speeds = []
    for _ in range(repeats):
        count, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds or not count:
            step()
            count += batch
        speeds.append(count / took)
    return speeds


def _ours(name: str, precision: str) -> Callable[[Any], Callable[[], object]]:
    from headstart.backbones.catalogue import find_backbone
    from headstart.engines.fast import FastNetwork

    backbone, rng = find_backbone(name), np.random.default_rng(0)
    blueprint = backbone.blueprint()
    weights = {
        key: np.asarray(np.ones(shape) if len(shape) < 2 else rng.normal(0, np.prod(shape[1:]) ** -0.5, shape), "f4")
        for key, shape in blueprint.weight_shapes().items()
    }
    network = FastNetwork(blueprint, weights, backbone.spec, precision)
    return lambda images: partial(network.forward, images)


def _theirs(name: str, engine: str, batch: int) -> Callable[[Any], Callable[[], object]]:
    import timm
    import torch

    model = timm.create_model(NETWORKS[name], pretrained=False).eval().requires_grad_(False)
    example = torch.randn(batch, 3, 224, 224)
    if engine == "onnxruntime":
        return lambda images: _onnx(model, example)
    if engine != "eager":
        model, example = model.to(memory_format=torch.channels_last), example.to(memory_format=torch.channels_last)
    if "bf16" in engine:
        model, example = model.bfloat16(), example.bfloat16()
    if "compiled" in engine:
        import torch._inductor.config as inductor

        inductor.freezing = True  # folds batch norm and lays the weights out beforehand
        model = torch.compile(model)

    def step() -> object:
        with torch.inference_mode() if "compiled" not in engine else torch.no_grad():
            return model(example)

    return lambda images: step


def _onnx(model: Any, example: Any) -> Callable[[], object]:
    import io

    import onnxruntime
    import torch

    file = io.BytesIO()
    torch.onnx.export(model, (example,), file, input_names=["x"], dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue())
    values = {"x": example.numpy()}
    return lambda: session.run(None, values)


if __name__ == "__main__":
    main()
