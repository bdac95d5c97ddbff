"""`headstart attack`: a photo that fools a model, or how much change of its photos a model stands."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.commands import COMMANDS
from headstart.cli.figures import add_left_out
from headstart.cli.terminal import UNLIKE, Rows, accuracy_text, console, quoted
from headstart.core.counts import counted
from headstart.core.errors import UsageError
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.attack.examples import Attacked
    from headstart.attack.robustness import Robustness
    from headstart.core.types import Accuracy
    from headstart.model.classifier import Classifier

NORMS = ("linf", "l2", "l1")
IMAGES = 100  # of a curve
OF_PHOTO = ("target", "no-crop")  # the other options that are not of both go with --data
_, EXAMPLE = COMMANDS["attack"]


def attack(
    model: options.Model,
    photo: Annotated[str | None, typer.Argument(metavar="PHOTO", help="The photo to change; or give --data.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Of a photo: what it shall be taken for; else any other class.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labelled photos: the accuracy under attack, as a curve.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="fgsm, pgd, mifgsm, descent, deepfool, cw or fmn; of data several: fgsm,pgd"),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(metavar="NAME", help="What a change is measured in: linf, l2, l1.")
    ] = None,
    epsilon: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The largest change, such as 8/255; of data several: 1/255,2/255")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="At most so many steps of each photo.")] = None,
    restarts: Annotated[int, typer.Option(metavar="N", help="How often pgd begins: at the photo, then at random.")] = 1,
    images: Annotated[
        int | None, typer.Option(metavar="N", help="Of data: at most so many photos, drawn by class; 100.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the draw and of random starts.")] = 0,
    crop: Annotated[
        bool, typer.Option("--crop/--no-crop", help="Of a photo: take its middle, or all of it, scaled as it is.")
    ] = True,
    training_set_too: Annotated[
        bool, typer.Option("--include-training-set", help="Of data: include images of the training set.")
    ] = False,
    engine: options.Engine = "auto",
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    label: options.LabelColumn = None,
    image: options.ImageColumn = None,
    group: options.GroupColumn = None,
    split: options.SplitColumn = None,
    label_from: options.LabelFrom = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="Where the pictures go.")] = "attacked",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Change a photo until the model takes it for something else; or measure the accuracy on photos under attack."""
    given = {"target": target, "no-crop": not crop, "images": images, "include-training-set": training_set_too}
    given |= {"label": label, "image": image, "group": group, "split": split, "label-from": label_from}
    _check(photo, data, given)
    options.check_new_files(out, _files(photo), overwrite)
    normal = options.normalisation(mean, std)
    open_model = partial(options.open_model, model, weights, engine, precision, device, normal)
    settings: dict[str, Any] = {"norm": norm, "steps": steps, "restarts": restarts, "seed": seed}
    if photo is not None:
        settings |= {"method": "pgd" if method is None else method, "epsilon": epsilon}
        ask = f"headstart predict {quoted(model)}{options.again(attack, weights=weights, mean=mean, std=std)}"
        _one(open_model, photo, target, settings, crop, out, as_json, ask)
    else:
        source = options.source(str(data), label, image, group, split, label_from)
        _curve(open_model, source, settings | _several(method, epsilon, images), training_set_too, out, as_json)


def _files(photo: str | None) -> tuple[str, ...]:
    """The names of what is written."""
    from headstart.plots import attack, robustness

    return robustness.FILES if photo is None else attack.FILES


def _several(method: str | None, epsilon: str | None, images: int | None) -> dict[str, Any]:
    """The attacks, the budgets and the number of photos of a curve."""
    return {
        "images": IMAGES if images is None else images,
        "methods": options.names_of("--method", "fgsm,pgd" if method is None else method),
        "epsilons": None if epsilon is None else options.names_of("--epsilon", epsilon),
    }


def _check(photo: str | None, data: str | None, given: Mapping[str, Any]) -> None:
    """Refuse what cannot be, before anything is opened; also options that would have no effect."""
    if (photo is None) == (data is None):
        raise UsageError(f"Give a photo, or labelled photos with --data DATA, and not both. For example: {EXAMPLE}")
    if data is not None and given["target"] is not None:
        raise UsageError("--target goes with a photo. On --data, every other class counts as fooled.")
    for name, value in given.items():
        if value not in (None, False) and (name in OF_PHOTO) == (photo is None):
            raise UsageError(f"--{name} goes with {'--data DATA, not with a photo' if photo else 'a photo'}.")
    if photo is not None and os.path.isdir(photo):
        raise UsageError(f"'{photo}' is a folder. Give one photo; for a folder of labelled ones: --data DATA")


def _one(
    open_model: Callable[[], Classifier],
    photo: str,
    target: str | None,
    settings: dict[str, Any],
    crop: bool,
    out: str,
    as_json: bool,
    ask: str,
) -> None:
    """One photo, as pictures; ``ask`` is the command that asks the model about one of them."""
    from headstart.attack.examples import attack_photos
    from headstart.attack.plan import plan_of
    from headstart.plots.attack import write_attack

    plan_of(**settings, targeted=target is not None)  # before the model is opened
    classifier = open_model()
    result = attack_photos(classifier, [photo], target, **settings, crop=crop, progress=not as_json)
    if target is not None and result.already[0]:
        best = result.before[0].argmax()
        raise UsageError(
            f"'{photo}' is taken for {result.classes[best]} as it is ({result.before[0, best]:.1%}). "
            "Choose another class: --target CLASS"
        )
    files = [str(path) for path in write_attack(result, out)]
    seen = _seen(photo, result.originals.shape[1], crop)
    options.answer_with(_answer(result, files), as_json, lambda: _show(result, files, photo, seen, ask))


def _seen(photo: str, size: int, crop: bool) -> str:
    """What the network is given of a photo, for its own pixels are not those of the file."""
    from headstart.core.regular_file import read_regular
    from headstart.data.file_headers import header_of
    from headstart.data.formats import MOST_BYTES

    header = header_of(read_regular(photo, MOST_BYTES))
    width, height = header.width, header.height
    given = f"{width} × {height} pixels"
    if crop:
        given += f"; the network sees the middle, at {size} × {size}"
    else:
        given += ", which go in as they are" if (width, height) == (size, size) else f", scaled to {size} × {size}"
    return given + ("; what is transparent is white" if header.transparent else "")


def _answer(result: Attacked, files: list[str]) -> dict[str, Any]:
    before, after = result.before[0].argmax(), result.after[0].argmax()
    plan = result.plan
    return {
        "success": bool(result.success[0]),
        "label": str(result.classes[after]),
        "probability": float(result.after[0, after]),
        "unknown": bool(result.unknown[0]),
        "before": {"label": str(result.classes[before]), "probability": float(result.before[0, before])},
        "target": str(result.classes[result.goal.classes[0]]) if result.goal.targeted else None,
        **{norm: float(result.sizes(norm)[0]) for norm in NORMS},
        "in_floats": {
            "success": bool(result.reached[0]),
            **{norm: float(result.sizes(norm, saved=False)[0]) for norm in NORMS},
        },
        "method": plan.method,
        "norm": plan.norm,
        "epsilon": plan.epsilon if math.isfinite(plan.epsilon) else None,
        "steps": plan.steps,
        "restarts": plan.restarts,
        "seed": plan.seed,
        "note": _note(result) or None,
        "files": files,
    }


def _note(result: Attacked) -> str:
    """Why the file does not fool the network, or what may help; "" where it does."""
    from headstart.attack.examples import too_small

    if result.success[0]:
        return ""
    return too_small(result.plan) or "More --steps, a larger --epsilon or another --method may do it."


def _show(result: Attacked, files: list[str], photo: str, seen: str, ask: str) -> None:
    """The answers before and after, and how large the change is."""
    from headstart.attack.plan import epsilon_text

    answer = _answer(result, files)
    rows, budget = Rows(), answer["epsilon"]
    rows.add("photo", one_line(photo))
    rows.add("", Text(seen, "dim"))
    rows.add("before", _chances(result, result.before[0]))
    within = "the smallest change in" if budget is None else f"epsilon {epsilon_text(budget, result.plan.norm)} in"
    rows.add(
        "attack", f"{result.plan.method}, {within} {result.plan.norm}, at most {counted(result.plan.steps, 'step')}"
    )
    fooled = Text("fooled", "bold green") if answer["success"] else Text("not fooled", "yellow")
    rows.add("as a PNG", fooled + "   " + _chances(result, result.after[0]))
    if answer["unknown"]:
        rows.add("", Text(UNLIKE, "yellow"))
    in_floats = "fooled" if result.reached[0] else "not fooled"
    for word, saved in (("change", True), ("in floats", False)):
        sizes = {norm: float(result.sizes(norm, saved=saved)[0]) for norm in NORMS}
        text = f"linf {epsilon_text(sizes['linf'])}, l2 {sizes['l2']:.3g}, l1 {sizes['l1']:.4g}"
        rows.add(word, text if saved else Text(f"{in_floats}, {text}", "dim"))
    if answer["note"]:
        rows.add("note", Text(answer["note"], "yellow"))
    for place, path in enumerate(files):
        rows.add("" if place else "files", Text(one_line(path)), whole=True)
    if answer["success"]:
        rows.add("try it", Text(f"{ask} {quoted(files[2])} --no-crop", "bold"), whole=True)
    rows.show(console())


def _chances(result: Attacked, probabilities: Any) -> Text:
    """The answer, and the probability of the class that it was, or is wanted."""
    best, goal = int(probabilities.argmax()), int(result.goal.classes[0])
    text = Text(f"{one_line(str(result.classes[best]))} {probabilities[best]:.1%}", "bold")
    if goal != best:
        text += Text(f", {one_line(str(result.classes[goal]))} {probabilities[goal]:.1%}")
    return text


def _curve(
    open_model: Callable[[], Classifier],
    source: Any,
    request: dict[str, Any],
    training_set_too: bool,
    out: str,
    as_json: bool,
) -> None:
    """The accuracy of labelled photos under attack."""
    from headstart.attack.robustness import request_of, robustness
    from headstart.plots.robustness import write_robustness

    request_of(**request)  # before the model is opened
    result = robustness(open_model(), source, **request, fitted_on_too=training_set_too, progress=not as_json)
    files = [str(path) for path in write_robustness(result, out)]
    options.answer_with(_curve_answer(result, files), as_json, lambda: _show_curve(result, files))


def _curve_answer(result: Robustness, files: list[str]) -> dict[str, Any]:
    def figures(accuracy: Accuracy) -> dict[str, Any]:
        return {"accuracy": accuracy.value, "interval": [accuracy.low, accuracy.high]}

    return {
        "curve": [
            {"epsilon": point.epsilon, **figures(point.accuracy)}
            | {"attacks": {name: figures(accuracy) for name, accuracy in point.attacks.items()}}
            for point in result.curve
        ],
        **figures(result.accuracy),
        "images": result.accuracy.images,
        "drawn_from": result.drawn_from,
        "passed_over": result.passed_over,
        "left_out": [asdict(problem) for problem in result.left_out],
        "norm": result.norm,
        "checks": [asdict(check) for check in result.checks],
        "files": files,
    }


def _show_curve(result: Robustness, files: list[str]) -> None:
    """A line for each budget, then the checks."""
    from headstart.attack.plan import epsilon_text

    rows, accuracy = Rows(), result.accuracy
    rows.add("accuracy", accuracy_text(accuracy.value, accuracy.low, accuracy.high) + Text("   as they are", "dim"))
    drawn = f", drawn from {result.drawn_from}" if result.drawn_from > accuracy.images else ""
    passed = f" ({result.passed_over} in the training set are not counted)" if result.passed_over else ""
    rows.add("photos", f"{accuracy.images}{drawn}{passed}")
    add_left_out(rows, result.left_out)
    names = [*result.curve[0].attacks]
    head = "".join(f"{name:>9}" for name in (*names, "worst"))
    rows.add("", Text(head + "   95 % interval", "dim"))
    for point in result.curve:
        each = "".join(f"{point.attacks[name].value:>9.1%}" for name in names)
        interval = f"   {point.accuracy.low:.1%} to {point.accuracy.high:.1%}"
        rows.add(
            epsilon_text(point.epsilon, result.norm),
            Text(each) + Text(f"{point.accuracy.value:>9.1%}", "bold") + interval,
        )
    for place, check in enumerate(result.checks):
        word = Text(f"{check.name:<14}", "green" if check.passed else "bold red")
        rows.add("" if place else "checks", word + ("" if check.passed else "FAILED: ") + check.sentence)
    for place, path in enumerate(files):
        rows.add("" if place else "files", Text(one_line(path)), whole=True)
    rows.show(console())
