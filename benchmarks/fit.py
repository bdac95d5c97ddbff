"""`headstart fit` against the script people write, whole processes on 820 photos: python benchmarks/fit.py"""

from __future__ import annotations

import os
import sys
import tempfile
import time

import numpy as np
import openvino as ov
from openvino import opset13 as op

import headstart as hs
from harness import HEADSTART, ROOT, arguments, keep, median, shared, spread, timed
from headstart.backbones.catalogue import find_backbone
from headstart.data.load import cores, fetch, in_chunks


def main() -> None:
    """Both sides in turn, then where the time goes and how far the machine's limit is."""
    options = arguments(__doc__, repeats=3).parse_args()
    data, weights = str(shared("data", "cats_dogs")), str(shared("weights", "mobilenet_v2.timm.safetensors"))
    with tempfile.TemporaryDirectory() as place:
        model = os.path.join(place, "model")
        ours = (*HEADSTART, "fit", data, "--backbone", "mobilenet_v2", "--weights", weights, "--out", model, "--json")
        script = (sys.executable, str(ROOT / "benchmarks/baselines/sklearn_script.py"), data, weights)
        default = (*HEADSTART, "fit", data, "--out", model, "--json")
        a, b, c = [], [], []
        for _ in range(options.repeats):
            a.append(timed(ours))
            b.append(timed(script))
            c.append(timed(default))
        home = os.path.join(place, "home")
        timed(ours, home)
        again = [timed(ours, home) for _ in range(options.repeats)]

    ratio = median([y.seconds / x.seconds for x, y in zip(a, b, strict=True)])
    rows = (("headstart, MobileNetV2", a), ("the script, MobileNetV2", b), ("headstart, default backbone", c))
    print(f"{'whole process, cold cache':<30}{'seconds':<26}{'accuracy':<10}peak MB")
    for name, runs in rows:
        seconds = [run.seconds for run in runs]
        print(
            f"{name:<30}{spread(seconds):<26}{runs[0].output['accuracy']:<10.4f}{median([r.peak_mb for r in runs]):.0f}"
        )
    print(f"{ratio:.1f} times faster than the script (median of the pairs)")

    stages = {name: median([run.output["stages"][name] for run in a]) for name in a[0].output["stages"]}
    work = median([sum(run.output["stages"].values()) for run in a])
    start_up = median([run.seconds for run in a]) - work
    warm = median([sum(run.output["stages"].values()) for run in again])
    print(
        "\nseconds by stage: "
        + ", ".join(f"{k} {v:.2f}" for k, v in stages.items())
        + f", start-up and imports {start_up:.2f}"
    )
    processes = spread([run.seconds for run in again])
    print(f"a second fit on the same photos: {warm:.2f} s of work, {processes} s as a process")

    decoding, peak = _decoding(data), _peak()
    adds = sum(find_backbone("mobilenet_v2").blueprint().multiply_adds().values())
    network = 820 * 2 * adds / peak
    limit = decoding + network
    print(f"\ndecoding alone, all cores: {decoding:.2f} s, {decoding / work:.0%} of the work")
    print(f"network at the peak of a bf16 matrix product ({peak / 1e9:.0f} GFLOP/s): {network:.2f} s")
    share = f"the features take {stages['features'] / limit:.1f} times that, all the work {work / limit:.1f} times"
    print(f"limit {limit:.2f} s; {share}")
    keep(
        "fit",
        {
            "ratio": ratio,
            "seconds": {name: [run.seconds for run in runs] for name, runs in rows},
            "accuracy": {name: runs[0].output["accuracy"] for name, runs in rows},
            "stages": stages,
            "start_up": start_up,
            "warm_work": warm,
            "decoding": decoding,
            "peak_bf16_gflops": peak / 1e9,
            "limit": limit,
        },
        options.out,
    )


def _decoding(data: str) -> float:
    table = hs.open_source(data)
    spec = hs.ImageSpec(224)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        sum(1 for _ in in_chunks(lambda chunk: [fetch(table, index, spec) for index in chunk], range(len(table))))
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def _peak(size: int = 2048) -> float:
    """Operations a second of a large product of matrices in bf16."""
    x = op.parameter([size, size], np.float32)
    weight = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    model = ov.Model([op.result(op.matmul(x, weight, False, True))], [x])
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": cores(), "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    values = np.ones((size, size), np.float32)
    best = np.inf
    for _ in range(8):
        start = time.perf_counter()
        request.infer({0: values}, share_inputs=True)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


if __name__ == "__main__":
    main()
