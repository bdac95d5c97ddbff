"""`headstart explain`: where on photos the evidence for a class lies, and what the layers answer to, as pictures."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.predict import show_problem
from headstart.cli.terminal import UNLIKE, Rows, console
from headstart.core.text import one_line, shortened, two_decimals
from headstart.core.types import Problem

if TYPE_CHECKING:
    from headstart.core.progress import Progress
    from headstart.core.types import ImageDataset
    from headstart.explain.check import ExplanationCheck
    from headstart.explain.explain import Explanation
    from headstart.explain.feature_maps import FeatureMaps
    from headstart.model.classifier import Classifier

ENDINGS = ("_evidence.png", "_features.png")  # of the pictures of a photo
LABEL = 40  # characters of a class on the screen


@dataclass(frozen=True, eq=False)
class _Explained:
    """All that there is to tell of one photo."""

    map: Explanation
    features: FeatureMaps | None
    check: ExplanationCheck | None
    unknown: bool  # whether `predict` finds the photo unlike the training photos
    files: tuple[str, ...]


def explain(
    model: options.Model,
    photos: Annotated[list[str], typer.Argument(metavar="PHOTO...", help="Images, or folders of images.")],
    label: Annotated[
        str | None, typer.Option("--class", metavar="NAME", help="The class to explain; by default the predicted one.")
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="auto, hirescam, gradcam, gradient or integrated.")
    ] = "auto",
    at: Annotated[
        str | None, typer.Option(metavar="LAYER", help="Of hirescam and gradcam, in place of the features' layers.")
    ] = None,
    layers: Annotated[
        str, typer.Option(metavar="NAMES", help="Draw the strongest channels of these; auto: one a stage; none.")
    ] = "auto",
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Test each map: about a second a photo.")] = True,
    crop: options.Crop = True,
    out: Annotated[str, typer.Option(metavar="DIR", help="Write the pictures here.")] = "explained",
    engine: options.Engine = "auto",
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Show where on photos the evidence for a class lies, and what the layers of the network answer to, as pictures.
    Each map is tested: against a blob in the middle of the photo, another class and random weights."""
    from headstart.core.progress import shown
    from headstart.data.sources import images_in
    from headstart.data.tables import file_dataset
    from headstart.explain.explain import explanations
    from headstart.explain.feature_maps import layers_of
    from headstart.explain.request import plan_of

    found, problems = images_in(photos)
    names = _file_names([path for _, path in found], features=layers != "none")
    options.check_new_files(out, [name for pair in names for name in pair], overwrite)
    classifier = options.open_model(model, weights, engine, precision, device, options.normalisation(mean, std))
    plan_of(classifier, label, method=method, at=at)
    wanted = [] if layers == "none" else layers_of(classifier, options.names_of("--layers", layers))
    dataset = file_dataset("", found, in_order=True)
    with shown(not as_json) as report:
        maps = list(explanations(classifier, dataset, label, method=method, at=at, crop=crop))
        problems += [item for item in maps if isinstance(item, Problem)]
        rows = [row for row, item in enumerate(maps) if not isinstance(item, Problem)]
        explained = _work(
            classifier,
            dataset.part(rows),
            [item for item in maps if not isinstance(item, Problem)],
            [names[row] for row in rows],
            wanted, out, tests=tests, crop=crop, report=report,
        )  # fmt: skip
    for place, each in enumerate(explained):
        if place and not as_json:
            typer.echo()
        options.answer_with(_answer(each), as_json, functools.partial(_show, each))
    for problem in problems:
        show_problem(problem, as_json)
    if problems:
        raise typer.Exit(3)


def _file_names(paths: Sequence[str], *, features: bool) -> list[tuple[str, ...]]:
    """The names of the pictures of each photo."""
    from headstart.plots.files import file_names

    photos = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    return file_names(photos, ENDINGS if features else ENDINGS[:1])


def _work(
    classifier: Classifier,
    dataset: ImageDataset,
    maps: Sequence[Explanation],
    names: Sequence[tuple[str, ...]],
    layers: Sequence[str],
    out: str,
    *,
    tests: bool,
    crop: bool,
    report: Progress | None,
) -> list[_Explained]:
    """Channels, tests and pictures of each map."""
    from headstart.explain.check import checked
    from headstart.explain.feature_maps import feature_maps
    from headstart.plots.explanation import draw_explanation, draw_features
    from headstart.plots.pictures import write_pictures

    features = feature_maps(classifier, dataset, layers, crop=crop) if layers else [None] * len(maps)
    checks: Iterator[ExplanationCheck | None] = checked(classifier, maps) if tests else iter([None] * len(maps))
    done = []
    for item, channels, check, name in zip(maps, features, checks, names, strict=True):
        pictures = {name[0]: draw_explanation(item)}
        if channels is not None:
            pictures[name[1]] = draw_features(channels)
        files = write_pictures(pictures, out)
        unknown = bool(classifier.unlike_training(item.pixels[None])[0])
        done.append(_Explained(item, channels, check, unknown, tuple(map(str, files))))
        if report:
            report("photos", len(done), len(maps))
    return done


def _answer(each: _Explained) -> dict[str, Any]:
    found, check = each.map, each.check
    figures = None if check is None else asdict(check) | {"score": check.score}
    return {
        "path": found.name,
        "label": found.label,
        "probability": found.probability,
        "predicted": found.predicted,
        "unknown": each.unknown,
        "method": found.method,
        "layers": [{"layer": part.layer, "share": part.share} for part in found.layers],
        "steps": found.steps,
        "gap": found.gap,
        "channels": {part.layer: part.channels for part in each.features.layers} if each.features else {},
        "tests": figures and {name: value for name, value in figures.items() if name != "warnings"},
        "warnings": _warnings(each),
        "files": each.files,
    }


def _warnings(each: _Explained) -> tuple[str, ...]:
    return each.map.warnings if each.check is None else each.check.warnings


def _show(each: _Explained) -> None:
    """What a person reads of one photo."""
    from headstart.plots.explanation import title_of

    found, check, rows = each.map, each.check, Rows()
    rows.add("photo", Text(one_line(found.name), "bold"), whole=True)
    other = "" if found.label == found.predicted else f" (predicted: {shortened(found.predicted, LABEL)})"
    rows.add("class", f"{shortened(found.label, LABEL)} {found.probability:.1%}{other}")
    if each.unknown:
        rows.add("", Text(UNLIKE, "yellow"))
    how = ", ".join(f"{part.share:.0%} in {part.layer}" for part in found.layers)
    if found.steps is not None:
        how = f"{found.steps} steps, completeness gap {found.gap:.1%}"
    rows.add("evidence", f"{title_of(found)}{': ' if how else ''}{how}")
    if check is not None and check.score is not None:
        _add_figures(rows, check)
    for warning in _warnings(each):
        rows.add("warning", Text(warning, "yellow"))
    for place, file in enumerate(each.files):
        rows.add("" if place else "files", Text(one_line(file)), whole=True)
    rows.show(console())


def _add_figures(rows: Rows, check: ExplanationCheck) -> None:
    """The tests, each with what it is held against."""
    parts = f"insertion {_figure(check.insertion)} − deletion {_figure(check.deletion)}"
    rows.add("faithful", f"{_figure(check.score)} ({parts}); a blob in the middle {_figure(check.blob)}")
    rows.add("ROAD", f"probability {_figure(check.road)} without the strongest places; blob {_figure(check.road_blob)}")
    rest = "rises" if check.increase else f"falls by {check.drop:.1%}"
    rows.add("kept alone", f"probability {rest} where only the bright places are kept")
    rows.add("other class", f"similarity {_figure(check.random_logit)} to the map of another class (1: the same)")
    rise = "" if check.complexity_rise is None else f", complexity {check.complexity_rise:+.1%}"
    rows.add("random weights", f"rank correlation {_figure(check.unchanged)} (1: nothing changes){rise}")


def _figure(value: float | None) -> str:
    return "unknown" if value is None else two_decimals(value)
