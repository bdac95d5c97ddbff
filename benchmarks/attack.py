"""Attacks against Foolbox's: verdicts, smallest changes, steps a second: python benchmarks/attack.py

The same weights, photos, budgets, steps and start: 200 photos of cats and dogs on a classifier that is fitted here, and
100 photos of ImageNet on the MobileNetV2 that is there. Foolbox (3.3.4) attacks the model's own `to_torch()`, as its
users do; the speed, of Headstart's default engine, is also measured on the fast module that its PyTorch engine runs.
Needs the extra bench.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attack_subjects import BATCH, CATS, IMAGENET, Subject, cats_and_dogs, imagenet, on_engine
from harness import Goal, arguments, finish, median

Array = NDArray[Any]
LINF, L2 = {CATS: 0.5 / 255, IMAGENET: 0.5 / 255}, {CATS: 0.3, IMAGENET: 0.3}  # about where half of the photos fall
STEPS, DEEP = 10, 20  # of PGD, and of DeepFool
CW_STEPS, CW_SEARCHES, CW_RATE, CW_CONSTANT = 50, 5, 0.003, 0.01  # of Carlini and Wagner's: Foolbox's own take hours
CW_PHOTOS, ENGINE_PHOTOS = 16, 16
PARTS = ("speed", "engines", "pictures", "verdicts")
BOTH = ("headstart", "foolbox")


def main() -> None:
    """All parts; ends with 1 where a goal is missed."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=5)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--photos", nargs=2, type=int, default=[200, 100], help="of cats and dogs, and of ImageNet")
    parser.add_argument("--cw-photos", type=int, default=CW_PHOTOS, help="of each, for Carlini and Wagner's attack")
    options = parser.parse_args()
    try:
        import foolbox
    except ModuleNotFoundError:
        sys.exit("This benchmark needs Foolbox: pip install 'headstart[bench]'")
    if options.quick:
        options.photos, options.cw_photos, options.repeats = [8, 8], 2, 1
    print(f"Foolbox {foolbox.__version__}", flush=True)
    subjects = _subjects("fast", options)
    goals: list[Goal] = []
    result: dict[str, Any] = {"photos": {each.name: len(each.images) for each in subjects}}
    if "speed" in options.parts:
        result["speed"] = {each.name: speed(each, options, goals) for each in subjects}
    if "engines" in options.parts:
        result["engines"] = engines(subjects[0], goals)
    if "pictures" in options.parts:
        result["pictures"] = pictures(subjects[0], subjects[1], goals)
    if "verdicts" in options.parts:
        # On Foolbox's own framework: at these budgets the rounding of another one alone changes a verdict in forty.
        result["verdicts"] = [row for each in _subjects("torch", options) for row in verdicts(each, options, goals)]
    finish("attack", result, goals, options)


def _subjects(engine: str, options: argparse.Namespace) -> list[Subject]:
    return [cats_and_dogs(engine, options.photos[0]), imagenet(engine, options.photos[1])]


# --- verdicts and smallest changes ------------------------------------------------------------------------------------


def verdicts(subject: Subject, options: argparse.Namespace, goals: list[Goal]) -> list[dict[str, Any]]:
    """Each attack by both; whether their verdicts are the same, and how large the changes are."""
    import foolbox as fb

    from headstart.attack.carlini_wagner import carlini_wagner
    from headstart.attack.deepfool import deepfool
    from headstart.attack.gradient_steps import fgsm, pgd

    linf, l2 = LINF[subject.name], L2[subject.name]
    every, few = len(subject.images), min(options.cw_photos, len(subject.images))
    fixed = {"rel_stepsize": 2.5 / STEPS, "steps": STEPS, "random_start": False}
    cases: list[tuple[str, str, float | None, int, Callable[..., Any], Any]] = [
        ("fgsm", "linf", linf, every, partial(fgsm, norm="linf", epsilon=linf), fb.attacks.LinfFastGradientAttack()),
        ("pgd", "linf", linf, every, partial(pgd, norm="linf", epsilon=linf, steps=STEPS, leave=False),
         fb.attacks.LinfProjectedGradientDescentAttack(**fixed)),
        ("pgd", "l2", l2, every, partial(pgd, norm="l2", epsilon=l2, steps=STEPS, leave=False),
         fb.attacks.L2ProjectedGradientDescentAttack(**fixed)),
        ("deepfool", "l2", None, every, partial(deepfool, norm="l2", steps=DEEP),
         fb.attacks.L2DeepFoolAttack(steps=DEEP)),
        ("cw", "l2", None, few,
         partial(carlini_wagner, steps=CW_STEPS, searches=CW_SEARCHES, rate=CW_RATE, constant=CW_CONSTANT),
         fb.attacks.L2CarliniWagnerAttack(steps=CW_STEPS, binary_search_steps=CW_SEARCHES, stepsize=CW_RATE,
                                          initial_const=CW_CONSTANT, abort_early=False)),
    ]  # fmt: skip
    print(f"\n{subject.name}\n{'attack':<16}{'photos':>7}{'fooled':>9}{'theirs':>9}{'same':>9}"
          f"{'norm':>9}{'theirs':>9}{'seconds':>9}{'theirs':>9}", flush=True)  # fmt: skip
    rows = []
    for name, norm, epsilon, count, ours, theirs in cases:
        row = compare(subject, count, norm, epsilon, ours, theirs)
        rows.append({"model": subject.name, "attack": name, "norm": norm, "epsilon": epsilon, "photos": count} | row)
        print(f"{f'{name} {norm}':<16}{count:>7}{row['success'][0]:>9.1%}{row['success'][1]:>9.1%}{row['same']:>9.1%}"
              f"{row['median'][0]:>9.4f}{row['median'][1]:>9.4f}{row['seconds'][0]:>9.1f}{row['seconds'][1]:>9.1f}",
              flush=True)  # fmt: skip
        what = f"{subject.name}, {name} {norm}"
        if norm == "linf":
            goals.append(Goal(f"{what}: the same verdict", row["same"], least=0.99))
        else:
            gap = abs(row["success"][0] - row["success"][1])
            goals.append(Goal(f"{what}: difference of success", gap, most=0.02))
        if epsilon is None:
            ratio = row["median"][0] / row["median"][1]
            goals.append(Goal(f"{what}: difference of the median norm", abs(ratio - 1), most=0.02))
    return rows


def compare(subject: Subject, count: int, norm: str, epsilon: float | None, ours: Any, theirs: Any) -> dict[str, Any]:
    """Both attack the first ``count`` photos, in turns of `BATCH`; in PGD no photo leaves, as in Foolbox."""
    import foolbox as fb
    import torch

    from headstart.attack.goal import Goal as Wanted
    from headstart.attack.norms import sizes
    from headstart.attack.plan import in_floats

    model = fb.PyTorchModel(subject.module, bounds=(0, 1), device="cpu")
    reached: dict[str, list[Array]] = {who: [] for who in BOTH}
    norms: dict[str, list[Array]] = {who: [] for who in BOTH}
    seconds = dict.fromkeys(BOTH, 0.0)
    for start in range(0, count, BATCH):
        some = slice(start, min(start + BATCH, count))
        images, labels = in_floats(subject.images[some]), subject.labels[some]
        begin = time.perf_counter()
        found = ours(subject.network, images, Wanted(labels, targeted=False))
        seconds["headstart"] += time.perf_counter() - begin
        reached["headstart"].append(found.reached)
        norms["headstart"].append(sizes(found.images - images, norm))
        x = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
        begin = time.perf_counter()
        _, clipped, success = theirs(model, x, torch.tensor(labels), epsilons=epsilon)
        seconds["foolbox"] += time.perf_counter() - begin
        reached["foolbox"].append(success.numpy())
        norms["foolbox"].append(sizes(clipped.permute(0, 2, 3, 1).contiguous().numpy() - images, norm))
    verdict = {who: np.concatenate(reached[who]) for who in BOTH}
    both = verdict["headstart"] & verdict["foolbox"]
    return {
        "success": [float(verdict[who].mean()) for who in BOTH],
        "same": float((verdict["headstart"] == verdict["foolbox"]).mean()),
        "median": [float(np.median(np.concatenate(norms[who])[both])) if both.any() else float("nan") for who in BOTH],
        "seconds": [seconds[who] for who in BOTH],
    }


# --- as PNG files -----------------------------------------------------------------------------------------------------


def pictures(cats: Subject, photos: Subject, goals: list[Goal]) -> dict[str, Any]:
    """Attacks rounded to bytes and read back by `predict`: targeted PGD, and DeepFool with and without stretching."""
    import headstart as hs
    from headstart.attack.eight_bits import rounded
    from headstart.attack.plan import in_floats

    dogs = cats.images[cats.labels == cats.classifier.classes.index("dogs")]
    others = (photos.labels + np.random.default_rng(1).integers(1, 1000, len(photos.labels))) % 1000
    names = [photos.classifier.classes[k] for k in others]
    within, deep = {"method": "pgd", "epsilon": "2/255"}, {"method": "deepfool"}
    cases: tuple[tuple[str, Subject, Array, Any, dict[str, str], float], ...] = (
        ("dog to cat, pgd at 2/255", cats, dogs, "cats", within, 0.99),
        ("to a random class of 1000, pgd at 8/255", photos, photos.images, names, within | {"epsilon": "8/255"}, 0.90),
        ("cats and dogs, deepfool", cats, cats.images, None, deep, 1.0),
        ("ImageNet, deepfool", photos, photos.images, None, deep, 1.0),
    )
    found = {}
    print(f"\n{'as PNG files':<42}{'photos':>7}{'floats':>8}{'rounded':>9}{'stretched':>11}{'linf':>12}")
    for what, subject, images, target, settings, least in cases:
        attacked = hs.attack_photos(subject.classifier, images, target, **settings, crop=False, progress=False)  # type: ignore[arg-type]
        plan = attacked.plan
        plain = np.stack([
            rounded(change, image, plan.norm, plan.epsilon)
            for change, image in zip(attacked.found - in_floats(images), images, strict=True)
        ])  # fmt: skip
        as_it_is = float(attacked.goal.reached(subject.classifier.predict_proba(plain, crop=False)).mean())
        share, floats = float(attacked.success.mean()), float(attacked.reached.mean())
        largest = float(255 * attacked.sizes("linf").max())
        row = {"photos": len(images), "floats": floats, "rounded": as_it_is, "stretched": share, "linf": largest}
        found[what] = row
        print(f"{what:<42}{len(images):>7}{floats:>8.1%}{as_it_is:>9.1%}{share:>11.1%}{largest:>8.3g}/255", flush=True)
        goals.append(Goal(f"{what}, as PNG", share, least=least))
    return found


# --- engines ----------------------------------------------------------------------------------------------------------


def engines(subject: Subject, goals: list[Goal]) -> list[dict[str, Any]]:
    """Engines with gradients against PyTorch's: the share of photos with the same verdict, and of bytes that differ."""
    import headstart as hs

    images, rows = subject.images[:ENGINE_PHOTOS], []
    reference = on_engine(subject.classifier, "torch")
    print(f"\n{'engine':<8}{'attack':<24}{'same in floats':>16}{'same as PNG':>13}{'other bytes':>13}")
    for engine in ("keras", "fast"):
        other = on_engine(subject.classifier, engine)
        if not hasattr(other.network, "vjp"):
            continue
        for name, settings, judged in (
            ("fgsm linf, 1/255", {"method": "fgsm", "epsilon": "1/255"}, True),
            ("pgd linf, 1/255", {"epsilon": "1/255", "steps": STEPS}, False),
            ("pgd l2, 0.3", {"norm": "l2", "epsilon": 0.3, "steps": STEPS}, False),
            ("deepfool l2", {"method": "deepfool"}, False),
        ):
            one, two = (
                hs.attack_photos(each, images, **settings, crop=False, progress=False) for each in (reference, other)
            )
            same = float((one.reached == two.reached).mean()), float((one.success == two.success).mean())
            bytes_ = float((one.saved != two.saved).mean())
            rows.append({"engine": engine, "attack": name, "floats": same[0], "png": same[1], "other_bytes": bytes_})
            print(f"{engine:<8}{name:<24}{same[0]:>16.1%}{same[1]:>13.1%}{bytes_:>13.2%}", flush=True)
            goals.append(Goal(f"{engine}, {name}: the same verdict as torch", same[0], least=1.0))
            if judged:
                goals.append(Goal(f"{engine}, {name}: bytes that differ from torch", bytes_, most=0.01))
    return rows


# --- speed ------------------------------------------------------------------------------------------------------------


def speed(subject: Subject, options: argparse.Namespace, goals: list[Goal]) -> dict[str, float]:
    """Steps of PGD in L∞ a second, with the verdicts, image by image; all take turns."""
    import foolbox as fb
    import torch

    from headstart.attack.goal import Goal as Wanted
    from headstart.attack.gradient_steps import pgd
    from headstart.attack.plan import in_floats

    images, labels = in_floats(subject.images[:BATCH]), subject.labels[:BATCH]
    epsilon, steps = 8 / 255, 2 if options.quick else 10
    attack = fb.attacks.LinfProjectedGradientDescentAttack(rel_stepsize=0.1, steps=steps, random_start=False)
    x = torch.tensor(images)
    users = fb.PyTorchModel(subject.module, bounds=(0, 1), device="cpu")
    fast = fb.PyTorchModel(fast_module(subject.classifier), bounds=(0, 1), device="cpu")
    y, wanted = torch.tensor(labels), Wanted(labels, targeted=False)
    ours = partial(pgd, subject.network, images, wanted, norm="linf", epsilon=epsilon, steps=steps, step=epsilon / 10)
    runs: dict[str, Callable[[], object]] = {
        "headstart": lambda: ours(leave=False),
        "foolbox": lambda: attack(users, x.permute(0, 3, 1, 2).contiguous(), y, epsilons=epsilon),
        "foolbox on the fast module": lambda: attack(fast, x, y, epsilons=epsilon),
        "headstart, fooled ones leave": ours,
    }
    steps_of = len(images) * steps
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(options.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            speeds[name].append(steps_of / (time.perf_counter() - start))
    print(f"\n{subject.name:<30}{'steps a second':>16}")
    for name, found in speeds.items():
        print(f"  {name:<28}{median(found):>16.1f}", flush=True)
    for other, least in (("foolbox", 2.0), ("foolbox on the fast module", 1.2)):
        ratio = median([mine / theirs for mine, theirs in zip(speeds["headstart"], speeds[other], strict=True)])
        goals.append(Goal(f"{subject.name}: steps a second, headstart over {other}", ratio, least=least))
    return {name: median(values) for name, values in speeds.items()}


def fast_module(classifier: Any) -> Any:
    """The module of the PyTorch engine, as fast as it runs there: NHWC, frozen, batch norms folded."""
    import torch

    from headstart.engines.torch.network import TorchNetwork

    network = TorchNetwork(classifier.blueprint, classifier.weights, classifier.spec, "fp32", "cpu")

    class Fast(torch.nn.Module):  # type: ignore[misc]  # it has no hints
        def forward(self, x: Any) -> Any:
            return network._values(x, ("logits",), {}, low=False)["logits"]

    return Fast().eval()


if __name__ == "__main__":
    main()
