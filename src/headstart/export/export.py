"""Every export: written to a temporary path, opened by its own runtime, compared with fp32, then renamed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones.blueprint import LOGITS
from headstart.core.arguments import PATH, PROGRESS, YES_NO, checks, text
from headstart.core.atomic_files import beside, check_room, put_new
from headstart.core.display import Described
from headstart.core.errors import CheckError, HeadstartError, UsageError, check_machine, one_line
from headstart.core.progress import Progress, Shown, function_of, one_step, shows_progress
from headstart.data.inputs import Images
from headstart.data.sources import PathLike
from headstart.engines.registry import get_engine
from headstart.export.comparison import check_within, compare, difference_of
from headstart.export.formats import (
    FORMATS,
    PHOTOS,
    PIXELS,
    RESIZED,
    TAKES,
    TOLERANCE,
    Format,
    check_holds,
    exists_already,
    find_format,
    input_of,
    replace_older,
    target_of,
)
from headstart.export.int8 import Loss, gather, measure
from headstart.export.package import Package
from headstart.model.classifier import Classifier
from headstart.model.given import check_order, photo_model

EXPECTS = {
    PHOTOS: "photos (N, height, width, 3), uint8 RGB, any size, upright; cropped, scaled and normalised inside",
    PIXELS: "images (N, {size}, {size}, 3), uint8 RGB; normalised inside",
}


@dataclass(frozen=True, repr=False)
class Exported(Described):
    """A finished export, and how near its answers are to the classifier's."""

    format: str
    path: Path
    files: dict[Path, int]  # sizes in bytes
    max_difference: float  # of a value, relative to the largest
    tolerance: float | None  # the largest allowed; None in int8, where ``loss`` counts
    images: int  # compared
    node: str  # compared: "logits", or the feature map for the weights of a trunk
    classes: tuple[str, ...]
    pixels: int
    opens: str  # how to open it, in Python
    expects: str  # its input
    takes: str  # PHOTOS or PIXELS
    outputs: tuple[str, ...]  # of a network, by name
    loss: Loss | None = None
    note: str = ""  # what else is to be said of the file

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        size = sum(self.files.values()) / 1e6
        return {
            "format": f"{self.format}{'' if self.loss is None else ' in int8'}",
            "path": f"{self.path} ({size:.1f} MB)",
            "answers": f"{self.max_difference:.1g} from the model's, of the largest value",
            **({"note": self.note} if self.note else {}),
            "opens with": self.opens,
        }

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "format": self.format,
            "path": str(self.path),
            "files": [str(file) for file in self.files],
            "bytes": sum(self.files.values()),
            "max_difference": self.max_difference,
            "tolerance": self.tolerance,
            "images": self.images,
            "node": self.node,
            "classes": list(self.classes),
            "pixels": self.pixels,
            "opens": self.opens,
            "expects": self.expects,
            "takes": self.takes,
            "outputs": list(self.outputs),
            "note": self.note or None,
            "int8": None if self.loss is None else self.loss.as_json(),
        }


@checks(to=text("the name of a format, such as onnx"), takes=TAKES, int8=YES_NO, overwrite=YES_NO, progress=PROGRESS)
@shows_progress
def export_model(
    classifier: Classifier | PathLike,
    to: str,
    path: PathLike,
    *,
    takes: str = "auto",
    int8: bool = False,
    data: Images | None = None,
    overwrite: bool = False,
    progress: Shown = True,
) -> Exported:
    """Write a classifier to ``path`` in the format ``to``, one of `formats.FORMATS`; on an error nothing is written.

    Args:
        classifier: or the path of one; on any engine; the logits of the file are compared with its logits in fp32.
        to: the format.
        path: a file, or a folder, depending on the format.
        takes: "photos": of any size, cropped and scaled inside; "pixels": squares of the network's size; "auto":
            photos, where the format can.
        int8: weights and activations in int8, in formats that have it.
        data: labelled photos for int8, to take its ranges from and to measure its loss of accuracy on.
        overwrite: whether an older export there is replaced. A folder with anything else in it never is.
        progress: as for `fit`.

    Raises:
        UsageError: an unknown format, a path that exists or cannot be written, a network that the format cannot hold.
        MissingExtraError: the format needs a package that is not installed.
        CheckError: the file gives other answers than the classifier, or int8 loses too much accuracy.
    """
    check_order(path, "hs.export_model(model, 'onnx', path)")
    if to not in FORMATS and path in FORMATS:
        raise UsageError(f"The format comes first, then the path: export({path!r}, {to!r}).")
    found = find_format(to, int8=int8)
    takes = input_of(found, takes, int8=int8)
    classifier = photo_model(classifier, "classifier")
    target = target_of(found, PATH.of("--out", path), overwrite=overwrite)
    check_holds(found, classifier.blueprint)
    if int8 and data is None:
        raise UsageError("int8 takes its ranges from labelled photos, and is measured on others: --data PHOTOS")
    if data is not None and not int8:
        raise UsageError("Photos are for int8, which was not asked for: --int8")
    request = _Request(found, target, takes, data, function_of(progress))
    try:
        with beside(target) as folder:
            result = _made(classifier, request, folder / target.name)
            _put(folder / target.name, target, overwrite=overwrite)
    except OSError as error:
        raise UsageError(f"The export cannot be written to '{target}': {error.strerror or error}.") from error
    return result


@dataclass(frozen=True)
class _Request:
    """What is asked for, once it is known to be possible."""

    found: Format
    target: Path
    takes: str
    data: Images | None
    progress: Progress | None


def _put(made: Path, target: Path, *, overwrite: bool) -> None:
    if overwrite and target.exists():
        replace_older(made, target)
        return
    try:
        put_new(made, target)
    except FileExistsError as error:  # another export was faster
        raise exists_already(target) from error


def _made(classifier: Classifier, request: _Request, made: Path) -> Exported:
    """`_make`, whose formats' own writers and runtimes can raise anything.

    Raises:
        OSError: the disk is full, which most of them do not say.
    """
    try:
        return _make(classifier, request, made)
    except (HeadstartError, OSError):
        raise
    except Exception as error:
        check_machine(error)
        for path in (made, *made.glob("**/*")):
            if not path.is_dir():
                path.unlink(missing_ok=True)
        weights = sum(array.nbytes for array in classifier.weights.values())
        check_room(made.parent, weights + weights // 4 + (1 << 20))  # more than a file has beside them
        raise CheckError(
            f"'{classifier.blueprint.name}' cannot be written in the format {request.found.name}: {one_line(error)}. "
            "Nothing was written."
        ) from error


def _make(classifier: Classifier, request: _Request, made: Path) -> Exported:
    """Write to ``made``, the temporary path for the target, and check it there."""
    found, data = request.found, request.data
    package = Package.of(classifier, PIXELS if found.page else request.takes)
    blueprint, spec = package.blueprint, package.spec
    writer, node, opens, loss, note = found.module(), LOGITS, found.opens, None, ""
    tolerance = None if data is not None else RESIZED if package.takes == PHOTOS else found.tolerance
    if found.library:
        with one_step(request.progress, "writing"):
            opens = writer.write(found.name, blueprint, package.weights, spec, made)
        expects = f"{spec.size} × {spec.size} pixels: {writer.expects(found.name, blueprint, spec)['in words']}"
        node, difference = _of_trunk(package, writer, found.name, made)
        check_within(difference, TOLERANCE, package.golden, found.name)
    else:
        expects = found.page or EXPECTS[package.takes].format(size=spec.size)
        photos = None if data is None else gather(data, package.classes, spec, classifier.fitted_on)
        with one_step(request.progress, "writing"):
            note = writer.write(package, made, *(() if photos is None else (photos.calibration,))) or ""
        exact = classifier.network.at_precision("fp32")
        if photos is not None:
            loss = measure(photos, exact.forward, lambda batch: writer.replay(made, batch)[LOGITS])
        with one_step(request.progress, "comparing"):
            difference = compare(package, exact, lambda batch: writer.replay(made, batch), found.name, tolerance)
    files = [made] if made.is_file() else sorted(file for file in made.rglob("*") if file.is_file())
    return Exported(
        found.name,
        request.target,
        {request.target / file.relative_to(made): file.stat().st_size for file in files},
        difference,
        tolerance,
        len(package.golden.images),
        node,
        package.classes,
        spec.size,
        opens.replace("FILE", str(request.target)),
        expects,
        request.takes,
        () if found.library else package.outputs,
        loss,
        note,
    )


def _of_trunk(package: Package, writer: Any, name: str, made: Path) -> tuple[str, float]:
    """The node that weights for another library can be compared at, and the difference there."""
    images, spec = package.golden.images, package.spec
    node, values = writer.replay(name, package.blueprint, spec, made, images)
    expected = package.golden.logits
    if node != LOGITS:
        expected = get_engine("auto", package.blueprint, package.weights, spec, "fp32").forward(images, node)
    return node, difference_of(values, expected, name)
