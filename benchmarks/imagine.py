"""Whether other networks see in an ideal image what it was made for: python benchmarks/imagine.py

Twenty of ImageNet's classes, drawn with seed 0 before anything was tuned (what was tuned, was on the next in the same
draw). Their images are made with one network and shown to two that had no part in it: the network itself is deceived
by mere noise. "lesson" is gradient descent on pixels with total-variation loss, "best" is what the command does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import Goal, arguments, finish, median, shared

if TYPE_CHECKING:
    from headstart import Classifier, IdealImage

CLASSES = sorted(np.random.default_rng(0).permutation(1000)[:20].tolist())
NETWORKS = ("efficientnet_lite0", "mobilenet_v2")  # each makes images, and is the judge of the other's
STRANGER = "squeezenet1_1.caffe"  # a judge of both: much smaller, and of another kind
WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2.timm.safetensors",
    STRANGER: "squeezenet1_1.torchvision.safetensors",
}
PRESETS = ("lesson", "best")
TOGETHER = 8
OTHER, STRANGE = 14, 8  # goals for "best": images of the twenty whose class is among the judge's first five


def main() -> None:
    """A line for each network and preset; below it a line for each class."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=3)
    parser.add_argument("--engine", default="auto", help="what computes the gradients")
    options = parser.parse_args()
    import headstart as hs

    def opened(name: str, engine: str = "auto") -> Classifier:
        path = shared("weights", WEIGHTS[name]) if name in WEIGHTS else None
        return hs.pretrained(name, path, engine=engine)

    judges = {name: opened(name) for name in (*NETWORKS, STRANGER)}
    numbers = CLASSES[:2] if options.quick else CLASSES
    rows: list[dict[str, Any]] = []
    for source, other in (NETWORKS, NETWORKS[::-1]):
        model = opened(source, options.engine)
        classes = [model.classes[number] for number in numbers]
        for preset in PRESETS:
            steps = 4 if options.quick else None
            asked = [judges[other], judges[STRANGER]]
            images = hs.ideal_images(model, classes, preset=preset, steps=steps, judges=asked, progress=False)
            rows.append({"network": source, "engine": model.engine, "preset": preset} | _counts(images))
            rows[-1] |= _seconds(model, classes, preset, steps, options.repeats)
            _show(rows[-1])
    finish("imagine", {"classes": CLASSES, "rows": rows}, _goals(rows), options)


def _counts(images: Sequence[IdealImage]) -> dict[str, Any]:
    """How many each judge is right about, and what they say of each image."""
    sure = sum((image.probability or 0) > 0.5 for image in images)
    found: dict[str, Any] = {"steps": images[0].steps[-1], "itself": sure}
    names = [judge.judge for judge in images[0].judges]
    for row, name in enumerate(names):
        places = [image.judges[row].place or 0 for image in images]
        found[name] = {"first": sum(place == 1 for place in places), "first_five": sum(place <= 5 for place in places)}
    found["images"] = [
        {"class": image.name, "probability": image.probability}
        | {judge.judge: {"place": judge.place, "probability": judge.probability} for judge in image.judges}
        for image in images
    ]
    return found


def _seconds(
    model: Classifier, classes: Sequence[str], preset: str, steps: int | None, repeats: int
) -> dict[str, float]:
    """Seconds of an image alone, and of one among eight; the judges' are not counted."""
    import headstart as hs

    found = {}
    for name, count in (("alone", 1), ("of_eight", TOGETHER)):
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            made = hs.ideal_images(model, classes[:count], preset=preset, steps=steps, judges=[], progress=False)
            times.append((time.perf_counter() - begun) / len(made))
        found[name] = median(times)
    return {"seconds_alone": found["alone"], "seconds_of_eight": found["of_eight"]}


def _show(row: dict[str, Any]) -> None:
    """One network with one preset."""
    count = len(row["images"])
    judges = [name for name, value in row.items() if isinstance(value, dict)]
    said = ", ".join(f"{name} {row[name]['first_five']} ({row[name]['first']} first)" for name in judges)
    print(
        f"{row['network']:<19}{row['preset']:<7} {row['steps']} steps  itself {row['itself']} of {count}; "
        f"among the first five of {said}; {row['seconds_alone']:.1f} s alone, {row['seconds_of_eight']:.1f} s of eight",
        flush=True,
    )
    for image in row["images"]:
        places = "".join(f"{name} {image[name]['place']:>4} {image[name]['probability']:.3f}   " for name in judges)
        print(f"  {image['class']:<24} {image['probability']:.3f}   {places}")


def _goals(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    goals = []
    for row in rows:
        if row["preset"] == "best":
            for judge in (name for name, value in row.items() if isinstance(value, dict)):
                least = STRANGE if judge == STRANGER else OTHER
                what = f"images of {row['network']} that {judge} names among its first five, of {len(CLASSES)}"
                goals.append(Goal(what, row[judge]["first_five"], least=least))
    return goals


if __name__ == "__main__":
    main()
