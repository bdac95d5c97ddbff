"""What the commands share: their options, and how they answer."""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from headstart.cli.terminal import quoted
from headstart.core.errors import UsageError
from headstart.core.text import say

if TYPE_CHECKING:
    from headstart.core.types import ImageDataset, Normalisation
    from headstart.model.classifier import Classifier

T = TypeVar("T")

_OPENED: list[Classifier] = []  # the last model: the process ends without taking it apart, which would take 10 ms

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="Folder of class folders, CSV, Parquet, tar or IDX file, or a named set.")
]
LabelColumn = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="Of a table: the labels.")]
ImageColumn = Annotated[str | None, typer.Option("--image", metavar="COLUMN", help="Of a table: the images.")]
GroupColumn = Annotated[
    str | None,
    typer.Option("--group", metavar="COLUMN", help="Of a table: images of one patient or video stay together."),
]
SplitColumn = Annotated[
    str | None, typer.Option("--split", metavar="COLUMN", help="Of a table: which are train, val and test.")
]
LabelFrom = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Of a folder: the class is what the first group finds in an image's path."),
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model's folder, or a backbone's name for its own ImageNet classes.")
]
Crop = Annotated[
    bool, typer.Option("--crop/--no-crop", help="Look at the middle of each photo, or at all of it, scaled as it is.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what was written there before.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Backbone = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="A name from: headstart backbones. auto: the fastest that is as accurate on these photos."
    ),
]
Weights = Annotated[str | None, typer.Option(metavar="FILE", help="Weights of your own: .safetensors, .pth or .h5.")]
Pixels = Annotated[
    int | None,
    typer.Option(metavar="N", help="Scale images to this size in pixels: smaller is faster, a little less accurate."),
]
Mean = Annotated[
    str | None, typer.Option(metavar="R,G,B", help="Mean of the pixels from 0 to 1, where the network's are not known.")
]
Std = Annotated[str | None, typer.Option(metavar="R,G,B", help="Standard deviation that goes with --mean.")]
Precision = Annotated[str, typer.Option(metavar="NAME", help="auto, bf16, int8 or fp32.")]
Head = Annotated[str, typer.Option(metavar="NAME", help="lda or ridge.")]
Prior = Annotated[str, typer.Option(metavar="NAME", help="flat, or empirical: expect classes as often as in the data.")]
Holdout = Annotated[float, typer.Option(metavar="SHARE", help="Share held out as test set, where the data has none.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the split.")]
Cache = Annotated[bool, typer.Option(help="Keep features for the next time.")]
Engine = Annotated[str, typer.Option(metavar="NAME", help="What runs the network: auto, fast, torch or keras.")]

RecipeName = Annotated[
    str, typer.Option("--recipe", metavar="PRESET|FILE", help="careful, fast, full or robust; or a JSON file.")
]
Trainer = Annotated[str, typer.Option(metavar="NAME", help="auto, pytorch, lightning, tensorflow or keras.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda or mps.")]
Devices = Annotated[int, typer.Option(metavar="N", help="How many devices, with --trainer lightning.")]
Nodes = Annotated[int, typer.Option(metavar="N", help="How many machines, with --trainer lightning.")]
Strategy = Annotated[
    str, typer.Option(metavar="NAME", help="How several devices work together, such as ddp, with --trainer lightning.")
]
Runner = Annotated[
    str | None,
    typer.Option(
        metavar="RAY",
        help="Where: ray starts a cluster on this machine, ray:HOST:PORT joins one. Default: in this process.",
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="With --runner: where features are kept, a folder that every machine sees. Default: the cache.",
    ),
]
Workers = Annotated[
    int, typer.Option(metavar="N", help="How many workers train together, with --runner: a CPU or a GPU for each.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint of the same training.")]
FindRate = Annotated[bool, typer.Option("--find-rate", help="Look for the learning rate first, and train with it.")]


def open_model(
    model: str,
    weights: str | None,
    engine: str,
    precision: str,
    device: str = "auto",
    spec: Normalisation | None = None,
) -> Classifier:
    """A bundle, or a backbone with its own head; what was assumed of it is said."""
    from headstart.model.opened import open_model as opened

    found = opened(model, weights, engine=engine, precision=precision, device=device, spec=spec)
    _OPENED[:] = [found]
    if found.record.assumed:
        say(found.record.assumed)
    return found


def normalisation(mean: str | None, std: str | None) -> Normalisation | None:
    """Pixels normalised by --mean and --std; None where neither is given."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise UsageError("--mean and --std belong together. Received only one of them.")
    from headstart.core.types import Normalisation

    return Normalisation(_colours("--mean", mean), _colours("--std", std))


def _colours(option: str, text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = map(float, text.split(","))
    except ValueError:
        red = green = blue = math.nan
    if not all(map(math.isfinite, (red, green, blue))):
        raise UsageError(f"{option}: expected three numbers, of red, green and blue. Received: '{text}'.")
    return red, green, blue


def check_new_files(folder: str, names: Sequence[str], overwrite: bool) -> None:
    """Refuse a folder that cannot be written to, or has one of these files already, before any work is done."""
    from headstart.plots.style import why_no_folder

    if problem := why_no_folder(folder):
        raise UsageError(problem)
    if not overwrite and (there := [name for name in names if os.path.lexists(os.path.join(folder, name))]):
        raise UsageError(
            f"'{os.path.normpath(os.path.join(folder, there[0]))}' exists already. Choose another place: --out. Or "
            "replace it: --overwrite"
        )


def source(
    data: str, label: str | None, image: str | None, group: str | None, split: str | None, label_from: str | None
) -> str | ImageDataset:
    """The data with these columns or labels; as it was named where none is given."""
    if label is image is group is split is label_from is None:
        return data
    from headstart.data.sources import open_source

    return open_source(
        data, label_column=label, image_column=image, group_column=group, split_column=split, label_from=label_from
    )


def again(command: Callable[..., None], **given: object) -> str:
    """The options of a command as they are to be typed, without those that have its default value."""
    known = inspect.signature(command).parameters
    return "".join(
        f" --{name.replace('_', '-')} {quoted(str(value))}"
        for name, value in given.items()
        if value != known[name].default
    )


def names_of(option: str, text: str) -> list[str]:
    """ "a,b" as ["a", "b"].

    Raises:
        UsageError: one of them is empty.
    """
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"{option}: expected one value, or several with commas between them. Received: '{text}'.")
    return names


def sizes_of(text: str) -> list[int]:
    """ "128,160" as [128, 160]."""
    try:
        return [int(size) for size in names_of("--pixels", text)]
    except ValueError:
        raise UsageError(f"--pixels: expected sizes, as in 128,160,224. Received: '{text}'.") from None


def files_of(pairs: list[str]) -> dict[str, str]:
    """ "NAME=FILE" as {NAME: FILE}."""
    files: dict[str, str] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise UsageError(f"--weights: expected NAME=FILE. Received: '{pair}'.")
        if name in files:
            raise UsageError(f"--weights: {name} is given two files.")
        files[name] = file
    return files


def attempted(write: Callable[[], T]) -> tuple[T | None, UsageError | None]:
    """Write what goes beside an answer, such as a plot; where it cannot be written, `answer_with` tells both."""
    try:
        return write(), None
    except UsageError as error:
        return None, error


def answer_with(
    values: dict[str, Any], as_json: bool, screen: Callable[[], None], failed: UsageError | None = None
) -> None:
    """Print JSON, in ASCII: any stream carries it, and no name in it breaks the line. Or what a person reads.

    Raises:
        UsageError: what ``failed``; the answer is printed before.
    """
    if as_json:
        sys.stdout.write(json.dumps(values) + "\n")
    else:
        screen()
    if failed is not None:
        raise failed
