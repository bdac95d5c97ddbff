"""Headstart against Keras: features of the same photos, and whole processes: python benchmarks/keras_engine.py"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import HEADSTART, ROOT, Goal, Run, a_few, arguments, finish, in_child, median, shared, spread, timed

PHOTOS = 512  # whose features are computed
FAST, SAME = "headstart, as it comes, 128 px", "headstart, MobileNetV2, 224 px"
GUIDE = "Keras' guide, MobileNetV2, 224 px"


def main() -> None:
    """Both sides in turn, first the features alone, then the photos' whole way to a classifier."""
    options = arguments(__doc__, repeats=3).parse_args()
    photos = shared("data", "cats_dogs")
    weights = str(shared("weights", "mobilenet_v2.keras.weights.h5"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if options.quick:
            options.repeats, photos = 1, a_few(photos, place / "photos", each=16)
        fit = (*HEADSTART, "fit", str(photos), "--out", str(place / "model"), "--overwrite", "--json")
        network = ("--backbone", "mobilenet_v2", "--weights", weights)
        guide = (sys.executable, str(ROOT / "benchmarks/baselines/keras_guide.py"), str(photos))
        commands = {
            FAST: (*fit, "--pixels", "128"),
            SAME: (*fit, *network),
            "headstart, as it comes": fit,
            GUIDE: (*guide, weights),
            "Keras' guide, Xception, 150 px": guide,
        }
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for _ in range(options.repeats):  # in turn, so that a slow minute of the machine falls on all of them
            for name, command in commands.items():
                runs[name].append(timed(command))
    accuracy = {name: float(each[0].output["accuracy"]) for name, each in runs.items() if "Xception" not in name}
    ratios = {
        name: median([slow.seconds / fast.seconds for fast, slow in zip(each, runs[GUIDE], strict=True)])
        for name, each in runs.items()
    }
    print(f"{'whole process, cold cache':<34}{'seconds':<26}{'times':<8}{'accuracy':<10}peak MB")
    for name, each in runs.items():
        seconds, right = spread([run.seconds for run in each]), f"{accuracy[name]:.4f}" if name in accuracy else ""
        peak = median([run.peak_mb for run in each])
        print(f"{name:<34}{seconds:<26}{ratios[name]:<8.1f}{right:<10}{peak:.0f}")
    print(
        "times: as fast as the guide with the same network as ours, median of the pairs; Xception's weights are random"
    )

    work = functools.partial(_features, photos, weights, options.repeats, 32 if options.quick else PHOTOS)
    speeds, apart = in_child(work)
    print("\nfeatures of MobileNetV2, 224 pixels, decoded photos, images a second:")
    for name, speed in speeds.items():
        print(f"  {name:<42}{spread(speed)}")
    pairs = zip(speeds["the Keras engine"], speeds["keras.applications, model.predict"], strict=True)
    quicker = median([mine / other for mine, other in pairs])
    print(f"  {quicker:.2f} times as fast; the features differ by at most {apart:.1e} of the largest")

    finish(
        "keras_engine",
        {
            "ratios": ratios,
            "seconds": {name: [run.seconds for run in each] for name, each in runs.items()},
            "peak_mb": {name: median([run.peak_mb for run in each]) for name, each in runs.items()},
            "accuracy": accuracy,
            "images_a_second": speeds,
            "features_ratio": quicker,
            "features_apart": apart,
        },
        [
            Goal(f"times faster than Keras' guide: {FAST}", ratios[FAST], least=6),
            Goal("accuracy less the guide's", accuracy[FAST] - accuracy[GUIDE], least=-0.005),
            Goal("times the speed of model.predict", quicker, least=1),
            Goal("difference of the features", apart, most=1e-4),
        ],
        options,
    )


def _features(photos: Path, weights: str, repeats: int, count: int) -> tuple[dict[str, list[float]], float]:
    """Images a second of each way to the same features, in turn in one process, and how far they are apart."""
    import numpy as np

    import headstart as hs
    from headstart.backbones.catalogue import load_pretrained
    from headstart.data.load import load_images
    from headstart.engines.registry import get_engine

    found = load_pretrained("mobilenet_v2", weights)
    table = hs.open_source(photos)
    decoded = (item.pixels for item in load_images(table, range(min(count, len(table))), found.spec))
    images = np.stack([pixels for pixels in decoded if pixels is not None])
    engines = {name: get_engine(name, found.blueprint, found.weights, found.spec, "fp32") for name in ("keras", "fast")}
    import keras

    model = keras.applications.MobileNetV2(weights=weights)
    model = keras.Model(model.input, model.get_layer("global_average_pooling2d").output)

    def predict() -> object:
        pixels = keras.applications.mobilenet_v2.preprocess_input(images.astype(np.float32))
        return model.predict(pixels, batch_size=32, verbose=0)

    ways: dict[str, Callable[[], object]] = {
        "the Keras engine": lambda: engines["keras"].forward(images, "pooled"),
        "keras.applications, model.predict": predict,
        "the fast engine, fp32": lambda: engines["fast"].forward(images, "pooled"),
    }
    values = {name: np.asarray(way()) for name, way in ways.items()}  # which compiles, too
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            speeds[name].append(len(images) / (time.perf_counter() - start))
    ours, theirs = values["the Keras engine"], values["keras.applications, model.predict"]
    return speeds, float(np.abs(ours - theirs).max() / np.abs(theirs).max())


if __name__ == "__main__":
    main()
