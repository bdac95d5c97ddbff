"""fit on a Ray cluster: what Ray adds, speed, memory, a killed node, and the cost model: python benchmarks/scale.py

overhead: 50 000 images of CIFAR-10 at 64 pixels by one process and by Ray on the same cores, whole processes by turns.
speed: photos of cats and dogs at 224 pixels, images a second a core.
memory: the largest resident set of the process that calls `fit_on_ray`, for few and for ten times the images.
kill: three nodes, one of them killed in the middle, beside an undisturbed run.
model: what `scale_model.py` says beforehand, from at most 2000 images, beside fits of more.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness import HEADSTART, Goal, arguments, finish, in_child, median, spread, timed
from scale_data import cifar, cifar_tars, made_up_tars, photos
from scale_model import LARGE, SMALL, Costs, calibrate, predict, show, table, whole_fit

PARTS = ("overhead", "speed", "memory", "kill", "model")
IMAGES, PIXELS = 50_000, 64
PHOTOS = 8000  # for speed: the start of the workers counts
MEMORY = (5000, 50_000)
KILLED = 10_000  # images of the run in which a node is killed
SIZES = (1000, 10_000, 50_000)
Found = tuple[dict[str, Any], list[Goal]]


def main() -> None:
    """All parts; ends with 1 where a goal is missed."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=3)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--photos", type=int, default=PHOTOS, help="how many, for speed and model; 0: none for model")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="images of 64 pixels, for model")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.photos, options.sizes = 1, min(options.photos, 200), (300, 600)
    parts: dict[str, Callable[[argparse.Namespace, Path], Found]] = {
        "overhead": overhead,
        "speed": speed,
        "memory": memory,
        "kill": kill,
        "model": model,
    }
    result, goals = dict[str, Any](), list[Goal]()
    for name in options.parts:
        print(f"\n{name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            result[name], met = parts[name](options, Path(folder))
        goals += met
    finish("scale", result, goals, options)


def one_process(data: Path, pixels: int | None) -> dict[str, float]:
    """Seconds by stage of a fit in one process, without a cache and without a report; ``total`` from outside."""
    size = () if pixels is None else ("--pixels", str(pixels))
    with tempfile.TemporaryDirectory() as folder:
        plain = ("--no-cache", "--no-report", "--out", f"{folder}/model", "--json")
        run = timed((*HEADSTART, "fit", str(data), *size, *plain))
    return run.stages | {"total": run.seconds}


def overhead(options: argparse.Namespace, folder: Path) -> Found:
    """By turns; the start of Ray is stated apart."""
    count = 1000 if options.quick else IMAGES
    data = in_child(partial(cifar, folder / "cifar.parquet", count))
    turns = []
    for _ in range(options.repeats):
        one, (ray, _) = one_process(data, PIXELS), whole_fit(data, PIXELS, "--no-report")
        turns.append({"one": one, "ray": ray})
        print(
            f"  one process {one['total']:.1f} s, features {one['features']:.1f};   Ray {ray['total']:.1f} s, "
            f"of that start {ray['start']:.1f}, features {ray['features']:.1f}",
            flush=True,
        )
    features = [turn["ray"]["features"] / turn["one"]["features"] - 1 for turn in turns]
    whole = [(turn["ray"]["total"] - turn["ray"]["start"]) / turn["one"]["total"] - 1 for turn in turns]
    starts = [turn["ray"]["start"] for turn in turns]
    print(f"  start of Ray, seconds: {spread(starts)}; what Ray adds to the features: {spread(features)}, ", end="")
    print(f"to the whole but its start: {spread(whole)}")
    found = {"images": count, "turns": turns, "start": median(starts), "features": features, "whole": whole}
    goals = [
        Goal("what Ray adds to the features, %", 100 * median(features), most=25),
        Goal("what Ray adds to the whole fit after its start, %", 100 * median(whole), most=25),
    ]
    return found, goals


def speed(options: argparse.Namespace, folder: Path) -> Found:
    """Read, decoded, through the network, written; and the whole fit after Ray's start. By turns with one process."""
    data = in_child(partial(photos, folder / "photos", options.photos))
    cores, found = len(os.sched_getaffinity(0)), dict[str, list[float]]()
    for _ in range(options.repeats):
        one, (ray, images) = one_process(data, None), whole_fit(data, None, "--no-report")
        found.setdefault("features", []).append(images / ray["features"] / cores)
        found.setdefault("whole fit after the start", []).append(images / (ray["total"] - ray["start"]) / cores)
        found.setdefault("features, one process", []).append(images / one["features"] / cores)
    for name, values in found.items():
        print(f"  {name:<28}{spread(values)} images a second a core", flush=True)
    goal = Goal("images a second a core on Ray, from file to shard", median(found["features"]), least=150)
    return {"images": options.photos, "cores": cores, "images_a_second_a_core": found}, [goal]


def memory(options: argparse.Namespace, folder: Path) -> Found:
    """By turns; tiny images in tar files."""
    counts = (300, 900) if options.quick else MEMORY
    peaks: dict[int, list[float]] = {count: [] for count in counts}
    data = {count: in_child(partial(made_up_tars, folder / f"tars{count}", count)) for count in counts}
    for turn in range(options.repeats):
        for count, own in peaks.items():
            own.append(in_child(partial(_peak, data[count], folder / f"{turn}-{count}")))
            print(f"  {count:>7} images: {own[-1]:.0f} MB", flush=True)
    few, many = (median(peaks[count]) for count in counts)
    goal = Goal("memory of the calling process for ten times the images over that for few", many / few, most=1.1)
    return {"peak_mb": {str(count): own for count, own in peaks.items()}}, [goal]


def _peak(data: Path, place: Path) -> float:
    """The largest resident set of this process in a fit, 10⁶ bytes."""
    from headstart.scale.fit import fit_on_ray

    fit_on_ray(data, place / "model", store=place / "store", pixels=32, diagnose=False, progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def kill(options: argparse.Namespace, folder: Path) -> Found:
    """Three nodes of one CPU on this machine, with Ray's own settings."""
    count = 1500 if options.quick else KILLED
    data = in_child(partial(cifar_tars, folder / "tars", count, each=1000))
    found = in_child(partial(_killed, data, folder))
    print(f"  units done when the node was killed: {found['done']} of {found['units']}")
    print(
        f"  seconds until the next shard after it: {found['next']:.1f}, longest wait between two: "
        f"{found['longest_wait']:.1f} (undisturbed {found['longest_wait_undisturbed']:.1f}); the features took "
        f"{found['extra']:.1f} seconds more than the {found['undisturbed']:.1f} of the undisturbed run"
    )
    print(
        f"  largest difference of a weight to the undisturbed run: {found['difference']:.3g}; images counted: "
        f"{found['images']} and {found['images_undisturbed']}, computed {found['computed']}"
    )
    goals = [
        Goal("largest difference of a weight after a kill", found["difference"], most=1e-5),
        Goal("images counted after a kill, less those of the undisturbed run", _lost(found), least=0, most=0),
    ]
    return found, goals


def _lost(found: dict[str, Any]) -> float:
    return float(found["images"] - found["images_undisturbed"])


def _killed(data: Path, folder: Path) -> dict[str, Any]:
    """A run to warm up and one that is left in peace, then one in which a node is killed."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes.add_node(num_cpus=1)
        victim = nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        runner = f"ray:{nodes.address}"
        _fitted(data, folder / "warm", runner)
        calm = _fitted(data, folder / "calm", runner)
        shards, at = folder / "killed" / "store" / "shards", dict[str, Any]()

        def end() -> None:
            wanted = calm["units"] // 3
            while len([*shards.rglob("*.arrow")]) < wanted:
                time.sleep(0.01)
            at["done"], at["time"] = len([*shards.rglob("*.arrow")]), time.time()
            nodes.remove_node(victim, allow_graceful=False)

        killer = threading.Thread(target=end, daemon=True)
        killer.start()
        hit = _fitted(data, folder / "killed", runner)
        killer.join(60)
    finally:
        nodes.shutdown()
    return {
        "done": at["done"],
        "units": hit["units"],
        "next": min((when for when in hit["written"] if when > at["time"]), default=at["time"]) - at["time"],
        "longest_wait": _longest_wait(hit["written"]),
        "longest_wait_undisturbed": _longest_wait(calm["written"]),
        "undisturbed": calm["seconds"]["features"],
        "extra": hit["seconds"]["features"] - calm["seconds"]["features"],
        "difference": _difference(calm["path"], hit["path"]),
        "images": hit["images"],
        "images_undisturbed": calm["images"],
        "computed": hit["computed"],
    }


def _fitted(data: Path, place: Path, runner: str) -> dict[str, Any]:
    from headstart.scale.fit import fit_on_ray

    store = place / "store"
    fitted = fit_on_ray(
        data, place / "model", runner=runner, store=store, pixels=PIXELS, diagnose=False, progress=False
    )
    written = sorted(path.stat().st_mtime for path in (store / "shards").rglob("*.arrow"))
    record = fitted.record
    return {
        "path": fitted.path,
        "seconds": record.seconds,
        "images": record.images,
        "computed": record.computed + record.from_store,
        "units": len(written),
        "written": written,
    }


def _longest_wait(written: list[float]) -> float:
    return max((after - before for before, after in pairwise(written)), default=0.0)


def _difference(one: Path, other: Path) -> float:
    """The largest of any weight of two models."""
    import numpy as np

    import headstart as hs

    models = [hs.load(path) for path in (one, other)]
    names = models[0].weights.keys() | models[1].weights.keys()
    return max(float(np.abs(models[0].weights[name] - models[1].weights[name]).max()) for name in names)


def model(options: argparse.Namespace, folder: Path) -> Found:
    """Said beforehand, and measured; whole fits with diagnosis and page."""
    cores = len(os.sched_getaffinity(0))
    few, some = (100, 200) if options.quick else (SMALL, LARGE)
    kinds: dict[str, tuple[Callable[[int], Path], int | None, tuple[int, ...]]] = {
        "images of 64 pixels": (
            lambda size: in_child(partial(cifar, folder / f"{size}.parquet", size)),
            PIXELS,
            tuple(options.sizes),
        )
    }
    if options.photos:
        counts = (options.photos,) if options.quick else (1000, min(options.photos, 4000))
        kinds["photos of 224 pixels"] = (
            lambda size: in_child(partial(photos, folder / f"photos{size}", size)),
            None,
            counts,
        )
    found, goals = dict[str, Any](), list[Goal]()
    for kind, (made, pixels, sizes) in kinds.items():
        small = [made(size) for size in (few, some)]
        costs = calibrate(small[1], pixels, small, quick=options.quick)
        print(f"\n  {kind}")
        show(costs)
        rows = [_beside(costs, size, made(size), pixels, cores, options.repeats) for size in sizes]
        found[kind] = {"costs": vars(costs), "rows": rows}
        if pixels is None:
            dollars = table(costs, 10**8, 16)["dollars a million"]
            goals.append(Goal("dollars for the features of a million photos", dollars, most=0.1))
        goals += [Goal(f"{kind}: {row['images']}, error in %", 100 * abs(row["error"]), most=15) for row in rows]
    return found, goals


def _beside(costs: Costs, size: int, data: Path, pixels: int | None, cores: int, repeats: int) -> dict[str, Any]:
    """What was said of a fit, and what it took."""
    said = predict(costs, size, cores)
    runs = [whole_fit(data, pixels)[0] for _ in range(1 if size > 20_000 else repeats)]
    took = {stage: median([run[stage] for run in runs]) for stage in runs[0]}
    error = said["total"] / took["total"] - 1
    print(f"\n  {size} images: {said['total']:.1f} s said, {took['total']:.1f} s measured ({error:+.0%})")
    for stage, value in said.items():
        print(f"    {stage:<12}{value:8.2f}{took.get(stage, 0.0):8.2f}", flush=True)
    return {"images": size, "said": said, "took": took, "error": error}


if __name__ == "__main__":
    main()
