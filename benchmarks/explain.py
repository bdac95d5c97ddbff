"""Class activation in closed form against torch-cam's Grad-CAM, and tests of maps against Quantus': python
benchmarks/explain.py

Networks: EfficientNet-Lite0 and MobileNetV2 with their own heads on a photo of every tenth ImageNet class; and a head
fitted on seven photos of each of 37 breeds of pets, whose features are two layers, on the other photos. Both sides
explain the most probable class of the same photos, in turns. Needs the extra bench.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headstart as hs
from harness import Goal, arguments, finish, in_child, median, shared
from headstart.data.load import decode
from headstart.explain.explain import Explanation, explain_photos, scaled
from headstart.explain.faithfulness import average_drop, centre_blob, insertion_deletion, road
from headstart.explain.imputation import imputed
from headstart.explain.randomisation import complexity_rise, other_classes, random_logit, randomised

LAST = "bn2.act"  # the layer that torch-cam explains: the last one of all three networks
PUBLISHED = {"drop": 0.268, "increase": 0.348}  # of torch-cam's Grad-CAM with MobileNetV3-Large on Imagenette
PERCENTAGES = (20, 40, 60, 80)

Maps = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Case:
    """A classifier, and photos that it was not fitted on."""

    name: str
    classifier: hs.Classifier
    photos: list[str]


def main() -> None:
    """Speed, faithfulness and agreement, each with both sides in one run."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--photos", type=int, default=100, help="of each network")
    options = parser.parse_args()
    if options.quick:
        options.photos, options.repeats = 8, 1
    warnings.filterwarnings("ignore")
    cases = _cases(options.photos)
    speed = {case.name: _speed(case, options) for case in cases}
    faithful = {case.name: _faithful(case) for case in cases}
    agreement = _agreement(cases[0], min(8, options.photos))
    goals = [Goal(f"{name}: ms beyond predict", row["ours"], most=2) for name, row in speed.items()]
    for name, rows in faithful.items():
        ours, theirs = rows["headstart"], rows["torch-cam"]
        goals += [
            Goal(f"{name}: average drop, less torch-cam's", ours["drop"] - theirs["drop"], most=0),
            Goal(f"{name}: increase, less torch-cam's", ours["increase"] - theirs["increase"], least=0),
            Goal(f"{name}: ROAD, less torch-cam's", ours["road"] - theirs["road"], most=0.002),
            Goal(f"{name}: insertion - deletion, over a blob's", ours["score"] - rows["blob"]["score"], least=0),
        ]
    best = faithful["efficientnet_lite0"]["headstart"]
    goals += [
        Goal("average drop on ImageNet photos", best["drop"], most=PUBLISHED["drop"]),
        Goal("increase on ImageNet photos", best["increase"], least=PUBLISHED["increase"]),
        *(Goal(f"difference from Quantus: {name}", value, most=1e-6) for name, value in agreement.items()),
    ]
    result = {"milliseconds": speed, "faithful": faithful, "quantus": agreement, "published": PUBLISHED}
    finish("explain", result, goals, options)


def _cases(count: int) -> list[Case]:
    imagenet = sorted(map(str, shared("data", "imagenet_sample").glob("*.jpg")))
    some = imagenet[:: max(1, len(imagenet) // count)][:count]
    weights = shared("weights", "mobilenet_v2.timm.safetensors")
    pets = [sorted(map(str, folder.iterdir())) for folder in sorted(shared("data", "oxford_pets").iterdir())]
    train = [path for breed in pets for path in breed[:7]]
    test = [path for breed in pets for path in breed[7:]]
    fitted = hs.fit(train, [path.split("/")[-2] for path in train], holdout=0, cache=False, progress=False)
    return [
        Case("efficientnet_lite0", hs.pretrained("efficientnet_lite0"), some),
        Case("mobilenet_v2", hs.pretrained("mobilenet_v2", weights), some),
        Case("fitted on pets", fitted, test[:count]),
    ]


def _cam(classifier: hs.Classifier) -> tuple[Any, Any]:
    """The classifier as torch-cam takes it, and its Grad-CAM."""
    from torchcam.methods import GradCAM

    module = classifier.to_torch()
    return module, GradCAM(module, target_layer=module.get_submodule(LAST))


def _speed(case: Case, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds that a map takes beyond the answer alone; both sides in turns, each in a process of its own."""
    ours, theirs = [], []
    for _ in range(options.repeats):
        ours.append(in_child(partial(_our_times, case.classifier, case.photos[:60])))
        theirs.append(in_child(partial(_their_times, case.classifier, case.photos[:20])))  # many times slower
    predict, beyond = (median([row[k] for row in ours]) for k in (0, 1))
    forward, cam = (median([row[k] for row in theirs]) for k in (0, 1))
    print(
        f"{case.name:<20}predict {predict:6.1f} ms, map {beyond:+.2f} ms;   torch {forward:6.1f} ms, "
        f"torch-cam {cam:+.1f} ms",
        flush=True,
    )
    return {"predict": predict, "ours": beyond, "torch": forward, "theirs": cam}


def _our_times(classifier: hs.Classifier, photos: Sequence[str]) -> tuple[float, float]:
    return _times(
        lambda photo: classifier.predict([photo]),
        lambda photo: explain_photos(classifier, [photo], progress=False),
        photos,
    )


def _their_times(classifier: hs.Classifier, photos: Sequence[str]) -> tuple[float, float]:
    """As torch-cam's manual has it: decode, forward, and the map from the same scores."""
    import torch

    module, cam = _cam(classifier)

    def plain(photo: str) -> None:
        with torch.no_grad(), cam._hooks_off():
            module(torch.tensor(_pixels(classifier, photo)[None])).argmax(1)

    def mapped(photo: str) -> None:
        scores = module(torch.tensor(_pixels(classifier, photo)[None]))
        cam(int(scores.argmax()), scores)

    return _times(plain, mapped, photos)


def _times(
    plain: Callable[[str], object], mapped: Callable[[str], object], photos: Sequence[str]
) -> tuple[float, float]:
    """Median milliseconds of the answer alone, and of what a map takes beyond it, photo by photo in turns."""
    took: list[list[float]] = [[], []]
    for turn in (plain, mapped, plain, mapped):
        turn(photos[0])
    for photo in photos:
        for times, turn in zip(took, (plain, mapped), strict=True):
            start = time.perf_counter()
            turn(photo)
            times.append(1e3 * (time.perf_counter() - start))
    return median(took[0]), median([b - a for a, b in zip(*took, strict=True)])


def _faithful(case: Case) -> dict[str, dict[str, float]]:
    """Average drop, increase, ROAD, insertion and deletion of both maps, and of a blob in the middle."""
    import torch

    classifier, (module, cam) = case.classifier, _cam(case.classifier)
    found = explain_photos(classifier, case.photos, progress=False)
    size = classifier.spec.size
    theirs = []
    for each in found:
        scores = module(torch.tensor(each.pixels[None]))
        theirs.append(cam(each.index, scores)[0][0].detach().numpy())
    maps = {
        "headstart": np.stack([each.at_size(size) for each in found]),
        "torch-cam": np.stack([scaled(each, (size, size)) for each in theirs]),
        "blob": np.stack([centre_blob(size)] * len(found)),
    }
    print(f"{case.name}: {len(found)} photos\n{'':<12}" + "".join(f"{word:>12}" for word in _MEASURES))
    table = {}
    for name, values in maps.items():
        table[name] = _measured(classifier, found, values)
        print(f"{name:<12}" + "".join(f"{table[name][word]:12.3f}" for word in _MEASURES), flush=True)
    return table


_MEASURES = ("drop", "increase", "road", "road_kept", "insertion", "deletion", "score")


def _measured(classifier: hs.Classifier, found: Sequence[Explanation], maps: Maps) -> dict[str, float]:
    images, classes = np.stack([each.pixels for each in found]), np.array([each.index for each in found])
    network = classifier.network
    drop, increase = average_drop(network, images, maps, classes)
    left = road(network, images, maps, classes, percentages=PERCENTAGES)
    pixels = insertion_deletion(network, images, maps, classes)
    insertion, deletion = float(pixels.insertion.mean()), float(pixels.deletion.mean())
    return {
        "drop": float(drop.mean()),
        "increase": float(increase.mean()),
        "road": float(left.probability.mean()),
        "road_kept": float(left.kept.mean()),
        "insertion": insertion,
        "deletion": deletion,
        "score": insertion - deletion,
    }


def _agreement(case: Case, count: int) -> dict[str, float]:
    """The largest difference of each test from Quantus' on the same maps of real photos."""
    import quantus
    import torch
    from quantus.functions.perturb_func import noisy_linear_imputation

    classifier = replace(case.classifier, precision="fp32")
    size, names = classifier.spec.size, classifier.classes
    found = explain_photos(classifier, case.photos[:count], progress=False)
    images, classes = np.stack([each.pixels for each in found]), np.array([each.index for each in found])
    others = [names[other] for other in other_classes(classes, len(names))]

    def explained(model: hs.Classifier, labels: Sequence[str]) -> Maps:
        pairs = zip(images, labels, strict=True)
        each = [explain_photos(model, [pixels], label, crop=False, progress=False)[0] for pixels, label in pairs]
        found = np.stack([one.at_size(size) for one in each])
        return np.asarray(found - found.min((1, 2), keepdims=True))  # Quantus takes no map without a value above 0

    maps = np.stack([each.at_size(size) for each in found])
    of_others, of_random = explained(classifier, others), explained(randomised(classifier), [e.label for e in found])
    x = (images / 255.0).transpose(0, 3, 1, 2)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))  # Quantus asks for one; the maps are given
    module(torch.tensor(x[:1], dtype=torch.float32))
    module.eval()
    kernel = module[1].weight.detach().clone()

    def call(metric: Any, row: int, of_changed: Maps) -> float:
        def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> Maps:
            changed = isinstance(metric, quantus.RandomLogit) or not torch.equal(model[1].weight, kernel)
            return (of_changed if changed else maps)[row : row + 1, None]

        given = {"x_batch": x[row : row + 1], "y_batch": np.array([0]), "a_batch": maps[row : row + 1, None]}
        return float(metric(model=module, channel_first=True, explain_func=explain, **given)[0])

    logit = [call(quantus.RandomLogit(num_classes=2, disable_warnings=True), row, of_others) for row in range(count)]
    rise = [call(quantus.EfficientMPRT(disable_warnings=True), row, of_random) for row in range(count)]
    np.random.seed(0)
    order = np.argsort(-maps.reshape(count, -1), axis=1, kind="stable")
    filled, differences = [], []
    for percentage in PERCENTAGES:
        for row in range(count):
            gone = order[row, : int(size * size * percentage / 100)]
            state = np.random.get_state()
            theirs = noisy_linear_imputation(x[row], gone).transpose(1, 2, 0).clip(0, 1)
            source = np.random.RandomState()
            source.set_state(state)
            differences.append(np.abs(theirs - imputed(x[row].transpose(1, 2, 0), gone, source, tolerance=1e-11)).max())
            filled.append(theirs)
    logits = classifier.network.forward(np.stack(filled).astype(np.float32))
    kept = (logits.argmax(1).reshape(len(PERCENTAGES), count) == classes).T
    ours = road(
        classifier.network, images, maps, classes,
        percentages=PERCENTAGES, random=np.random.RandomState(0), tolerance=1e-11,
    )  # fmt: skip
    result = {
        "random logit": float(np.abs(random_logit(maps, of_others) - logit).max()),
        "complexity rise (efficient MPRT)": float(np.abs(complexity_rise(maps, of_random) - rise).max()),
        "imputation, pixels from 0 to 1": float(max(differences)),
        "ROAD, share that keeps its class": float(np.abs(ours.kept.mean(0) - kept.mean(0)).max()),
    }
    for name, value in result.items():
        print(f"difference from Quantus, {name}: {value:.1e}")
    return result


def _pixels(classifier: hs.Classifier, photo: str) -> NDArray[np.uint8]:
    with open(photo, "rb") as file:
        return decode(file.read(), classifier.spec)


if __name__ == "__main__":
    main()
