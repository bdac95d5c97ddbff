"""`headstart fit` against the script people write, whole processes on 820 photos: python benchmarks/fit.py"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from harness import HEADSTART, ROOT, Goal, Run, a_few, arguments, finish, median, shared, spread, timed

SIZES = (1024, 2048, 4096)  # of the matrix product that stands for the machine's peak


def main() -> None:
    """Both sides in turn, then where the time goes and how far the machine's limit is."""
    options = arguments(__doc__, repeats=3).parse_args()
    photos, weights = shared("data", "cats_dogs"), str(shared("weights", "mobilenet_v2.timm.safetensors"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.quick:
            options.repeats, photos = 1, a_few(photos, place / "photos", each=16)
        default = (*HEADSTART, "fit", str(photos), "--out", str(place / "model"), "--overwrite", "--json")
        ours = (*default, "--backbone", "mobilenet_v2", "--weights", weights)
        script = (sys.executable, str(ROOT / "benchmarks/baselines/sklearn_script.py"), str(photos), weights)
        a, b, c = [], [], []
        for _ in range(options.repeats):  # in turn, so that a slow minute of the machine falls on all of them
            a.append(timed(ours))
            b.append(timed(script))
            c.append(timed(default))
        timed(ours, str(place / "home"))
        warm = [timed(ours, str(place / "home")) for _ in range(options.repeats)]
        decoding = _decoding(photos, options.repeats)
    # OpenVINO comes into this process only now, or its memory would count as that of the processes above.
    peak = _peak(SIZES[:1] if options.quick else SIZES)

    rows = {"headstart, MobileNetV2": a, "the script, MobileNetV2": b, "headstart, default backbone": c}
    ratio = median([slow.seconds / fast.seconds for fast, slow in zip(a, b, strict=True)])
    accuracy = {name: float(runs[0].output["accuracy"]) for name, runs in rows.items()}
    print(f"{'whole process, cold cache':<30}{'seconds':<26}{'accuracy':<10}peak MB")
    for name, runs in rows.items():
        seconds = spread([run.seconds for run in runs])
        print(f"{name:<30}{seconds:<26}{accuracy[name]:<10.4f}{median([run.peak_mb for run in runs]):.0f}")
    print(f"{ratio:.1f} times faster than the script (median of the pairs)")

    shares = _shares(a, decoding)
    whole = sum(shares.values())
    print("\nwhere headstart's time goes, MobileNetV2:")
    for name, took in shares.items():
        print(f"  {name:<46}{took:6.2f} s {took / whole:5.0%}")
    again = median([run.work for run in warm])
    print(
        f"second fit on the same photos: {again:.2f} s of work; as a process {spread([run.seconds for run in warm])} s"
    )

    network = int(a[0].output["images"]) * 2 * _multiply_adds() / peak
    limit, features = decoding + network, median([run.stages["features"] for run in a])
    print(f"\nthe machine's limit: {limit:.2f} s = decoding alone on all cores {decoding:.2f} s + multiply-adds of")
    print(f"  the network at the peak of a bf16 matrix product ({peak / 1e9:.0f} GFLOP/s) {network:.2f} s")
    print(f"  features take {features / limit:.1f} times the limit, the whole process {whole / limit:.1f} times")

    difference = accuracy["headstart, MobileNetV2"] - accuracy["the script, MobileNetV2"]
    finish(
        "fit",
        {
            "ratio": ratio,
            "seconds": {name: [run.seconds for run in runs] for name, runs in rows.items()},
            "peak_mb": {name: median([run.peak_mb for run in runs]) for name, runs in rows.items()},
            "accuracy": accuracy,
            "shares": shares,
            "stages": {name: median([run.stages[name] for run in a]) for name in a[0].stages},
            "warm_work": again,
            "warm_seconds": [run.seconds for run in warm],
            "decoding": decoding,
            "peak_bf16_gflops": peak / 1e9,
            "limit": limit,
        },
        [
            Goal("times faster than the script", ratio, least=10),
            Goal("accuracy less the script's", difference, least=-0.005),
            Goal("seconds of work of a second fit", again, most=1),
        ],
        options,
    )


def _shares(runs: list[Run], decoding: float) -> dict[str, float]:
    """Seconds of the whole process by what they go into; each core decodes and computes in turn."""
    stages = {name: median([run.stages[name] for run in runs]) for name in runs[0].stages}
    features, head = stages.pop("features"), stages.pop("head")
    return {
        "start-up and imports": median([run.seconds - run.work for run in runs]),
        "decoding (as measured alone, on all cores)": decoding,
        "network (features less decoding)": max(features - decoding, 0.0),
        "head": head,
        f"rest ({', '.join(stages)})": sum(stages.values()),
    }


def _decoding(photos: Path, repeats: int) -> float:
    """Seconds to read, decode and scale all photos on all cores, with no network beside them."""
    import headstart as hs
    from headstart.data.load import in_chunks, load_images

    table, spec = hs.open_source(photos), hs.ImageSpec(224)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        decoded = in_chunks(lambda chunk: load_images(table, chunk, spec), range(len(table)))
        sum(item.pixels is not None for item in decoded)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _multiply_adds() -> int:
    from headstart.backbones.catalogue import find_backbone

    backbone = find_backbone("mobilenet_v2")
    return sum(backbone.blueprint().trunk(backbone.layers).multiply_adds().values())


def _peak(sizes: tuple[int, ...]) -> float:
    """Operations a second of a product of large matrices in bf16 (fp32 where the processor has none), the best seen."""
    import numpy as np
    import openvino as ov
    from openvino import opset13 as op

    from headstart.core.processors import cores
    from headstart.engines.fast import choose_precision

    precision = {"bf16": "bf16", "fp32": "f32"}[choose_precision("auto")]
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": cores(), "PERFORMANCE_HINT": "LATENCY"}
    best = 0.0
    for size in sizes:
        x = op.parameter([size, size], np.float32)
        weight = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
        model = ov.Model([op.result(op.matmul(x, weight, False, True))], [x])
        request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        values = np.ones((size, size), np.float32)
        for _ in range(6):
            start = time.perf_counter()
            request.infer({0: values}, share_inputs=True)
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
