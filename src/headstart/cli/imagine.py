"""`headstart imagine`: the network's ideal image of a class, or of a channel of a layer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.terminal import UNLIKE, Rows, console
from headstart.core.arguments import SEED
from headstart.core.errors import UsageError
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.imagine.images import IdealImage
    from headstart.imagine.judges import Judgement
    from headstart.imagine.target import Target
    from headstart.model.classifier import Classifier

NAMED = 3  # classes that a judge sees instead


Classes = Annotated[
    list[str] | None, typer.Option("--class", metavar="NAME", help="A class of the model; several: --class again.")
]
Layer = Annotated[str | None, typer.Option(metavar="NAME", help="A layer instead, of which --channel makes an image.")]
Channel = Annotated[
    list[int] | None, typer.Option(metavar="NUMBER", help="A channel of it, from 0 on; several: again.")
]
PresetName = Annotated[
    str, typer.Option("--preset", metavar="NAME", help="best; or lesson: pixels, gradient and total-variation loss.")
]
Steps = Annotated[int | None, typer.Option(metavar="N", help="Gradient steps, in place of the preset's.")]
Start = Annotated[
    str, typer.Option("--from", metavar="PHOTO", help="Where to begin: a photo, noise, or mean for a plain colour.")
]
Judge = Annotated[
    list[str] | None,
    typer.Option(metavar="MODEL", help="Another model or network that is asked what it sees; or NETWORK=WEIGHTS."),
]


def imagine(
    model: options.Model,
    classes: Classes = None,
    layer: Layer = None,
    channel: Channel = None,
    preset: PresetName = "best",
    steps: Steps = None,
    start: Start = "noise",
    judge: Judge = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the noise.")] = 0,
    out: Annotated[str, typer.Option(metavar="DIR", help="Where the PNG files go.")] = "imagined",
    gif: Annotated[bool, typer.Option("--gif", help="Write the way to each image as a GIF, too.")] = False,
    engine: options.Engine = "auto",
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Make the image that a network likes best for a class, by gradient ascent on its pixels."""
    from headstart.imagine.images import ideal_images, targets_of
    from headstart.imagine.preset import find_preset
    from headstart.plots.ideal_images import names_of_files, write_ideal_images

    settings = find_preset(preset, steps)
    SEED.of("--seed", seed)  # before the model is opened
    options.check_new_files(out, (), overwrite)
    normalisation = options.normalisation(mean, std)
    classifier = options.open_model(model, weights, engine, "auto", device, normalisation)
    targets = targets_of(classifier, classes or (), layer, channel or ())
    files = names_of_files([target.name for target in targets], gif=gif)
    options.check_new_files(out, [name for of_one in files for name in of_one], overwrite)
    named = [_named(each) for each in judge or ()]
    images = ideal_images(
        classifier,
        classes or (),
        layer=layer,
        channels=channel or (),
        preset=settings,
        seed=seed,
        start=start,
        judges=_judges(model, named) if named else None,
    )
    if named:
        images = [_with_names(image, [name for name, _ in named]) for image in images]
    written = write_ideal_images(images, out, gif=gif)
    if not as_json:
        _show(classifier, images, written)
        return
    settled = {"preset": preset, "steps": settings.steps, "seed": seed}
    for image, target, paths in zip(images, targets, written, strict=True):
        answer = _answer(image, target) | settled | {"files": [str(path) for path in paths]}
        sys.stdout.write(json.dumps(answer) + "\n")


def _named(judge: str) -> tuple[str, str | None]:
    """A model, or a network with its weights where there is a "=": NETWORK=WEIGHTS."""
    model, equals, weights = (judge, "", "") if os.path.isdir(judge) else judge.partition("=")
    return model, weights if equals else None


def _judges(own: str, named: Sequence[tuple[str, str | None]]) -> list[Classifier]:
    """Each of `_named`, opened."""
    if any(os.path.abspath(model) == os.path.abspath(own) for model, _ in named):
        raise UsageError(f"--judge: '{own}' has made the images, and is no judge of them. Name another model.")
    return [options.open_model(model, weights, "auto", "auto") for model, weights in named]


def _with_names(image: IdealImage, names: Sequence[str]) -> IdealImage:
    """The image, its judges named as they were typed: two models may have the same network."""
    pairs = zip(image.judges, names, strict=True) if image.judges else ()
    return replace(image, judges=tuple(replace(said, judge=name) for said, name in pairs))


def _answer(image: IdealImage, target: Target) -> dict[str, Any]:
    of_class = target.is_class
    return {
        "class": image.name if of_class else None,
        "layer": target.layer,
        "channel": target.channel,
        "probability": image.probability,
        "unknown": image.unknown,
        "values": list(image.values),
        "judges": [_said(each) for each in image.judges],
        "seconds": image.seconds,
    }


def _said(each: Judgement) -> dict[str, Any]:
    top = [{"label": label, "probability": chance} for label, chance in each.top]
    return {"judge": each.judge, "place": each.place, "probability": each.probability, "top": top}


def _show(model: Classifier, images: Sequence[IdealImage], written: Sequence[Sequence[Path]]) -> None:
    """What was made, and what the judges say of it."""
    own, out = model.record.backbone or model.blueprint.name, console()
    for number, (image, paths) in enumerate(zip(images, written, strict=True)):
        rows = Rows()
        rows.add("image", Text(one_line(image.name), "bold"))
        if image.probability is None:
            rows.add("mean", f"{image.values[0]:.3g} in the beginning, {image.values[1]:.3g} in the end")
        else:
            rows.add("itself", f"{own}: {image.probability:.1%}, which noise alone can reach")
            if image.unknown:
                rows.add("", Text(UNLIKE, "yellow"))
        for each in image.judges:
            rows.add("judge", f"{each.judge}: {_in_words(each, image.name)}")
        if image.probability is not None and not image.judges:
            rows.add("judge", "none: there is no other network on this machine. Fetch one with --judge NAME")
        for place, path in enumerate(paths):
            rows.add("" if place else "files", Text(one_line(str(path)), "bold"), whole=True)
        if number:
            out.print()
        rows.show(out)


def _in_words(said: Judgement, name: str) -> str:
    before = NAMED if said.place is None else min(NAMED, said.place - 1)
    seen = ", ".join(f"{one_line(label)} {chance:.1%}" for label, chance in said.top[:before])
    if said.place is None or said.probability is None:
        return f"has no class of that name; it sees {seen}"
    if said.place == 1:
        return f"{one_line(name)} first, with {said.probability:.1%}"
    return f"{one_line(name)} in place {said.place}, with {said.probability:.1%}; before it {seen}"
