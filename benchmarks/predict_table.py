"""Tables of predictions: images a second beside the network alone, and memory for few and for many images.

Run: python benchmarks/predict_table.py [--quick]
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from harness import Goal, arguments, finish, in_child, median, shared, spread

COUNTS = (2_000, 20_000)


def fitted(photos: Path, model: Path, pixels: int | None) -> None:
    """A model of these photos, as a folder."""
    import headstart as hs

    hs.fit(photos, pixels=pixels, cache=False, diagnose=False, progress=False).save(model)


def speeds(model: Path, photos: list[str], folder: Path, repeats: int) -> dict[str, list[float]]:
    """Images a second, by turns; what the table costs beside the network alone; how busy the main thread is."""
    import headstart as hs
    from headstart.backbones.blueprint import LOGITS
    from headstart.data.sources import unlabelled
    from headstart.learn.features import run_network

    classifier = hs.load(model)
    below = classifier.blueprint[LOGITS].inputs[0]

    def alone() -> None:
        for _ in run_network(unlabelled(photos), classifier.network, (LOGITS, below)):
            pass

    def table() -> None:
        hs.predict_table(classifier, photos, folder / "table.csv", overwrite=True, progress=False)

    alone()  # to warm up
    found: dict[str, list[float]] = {"alone": [], "table": [], "table / alone": [], "processors": [], "main thread": []}
    for _ in range(repeats):
        without, with_table = measured(alone), measured(table)
        found["alone"].append(len(photos) / without[0])
        found["table"].append(len(photos) / with_table[0])
        found["table / alone"].append(without[0] / with_table[0])
        found["processors"].append(with_table[1] / without[1])
        found["main thread"].append(with_table[2] / with_table[0])
    return found


def measured(work: Callable[[], None]) -> tuple[float, float, float]:
    """Seconds; those of all processors, which other programs do not change; those of the thread that calls."""
    start, all_threads, own = time.perf_counter(), time.process_time(), time.thread_time()
    work()
    return time.perf_counter() - start, time.process_time() - all_threads, time.thread_time() - own


def peak(model: Path, photos: list[str], table: Path) -> float:
    """The largest resident set of a process that makes a table, 10⁶ bytes."""
    import headstart as hs

    hs.predict_table(model, photos, table, every=table.suffix == ".parquet", progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    options = arguments(__doc__, 5).parse_args()
    data = shared("data", "oxford_pets")
    there = sorted(str(path) for path in data.rglob("*.jpg"))
    counts, images = ((100, 400), 64) if options.quick else (COUNTS, 3 * len(there))
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        in_child(partial(fitted, data, folder / "model", None))
        in_child(partial(fitted, data, folder / "small", 64))
        found = in_child(partial(speeds, folder / "model", [*islice(cycle(there), images)], folder, options.repeats))
        for name, values in found.items():
            print(f"{name:<16}{spread(values)}", flush=True)
        peaks: dict[str, list[float]] = {"csv": [], "parquet, all probabilities": []}
        for name, count in product(peaks, counts):
            table = folder / f"{count}.{name.partition(',')[0]}"
            peaks[name].append(in_child(partial(peak, folder / "small", [*islice(cycle(there), count)], table)))
            print(f"{count:>7} images, {name}: {peaks[name][-1]:.0f} MB", flush=True)
        result = {"images": images, "speed": found, "counts": counts, "peak_mb": peaks}
    goals = [
        Goal("images a second of a table over those of the network alone", median(found["table / alone"]), least=0.95),
        Goal("seconds of all processors, likewise", median(found["processors"]), most=1.05),
        Goal("memory for ten times the images over that for few", peaks["csv"][1] / peaks["csv"][0], most=1.05),
    ]
    finish("predict_table", result, goals, options)


if __name__ == "__main__":
    main()
