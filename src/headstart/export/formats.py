"""The formats that a classifier can be exported to, and the checks of a request before any work is done."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from headstart.backbones.blueprint import Blueprint
from headstart.core.arguments import one_of
from headstart.core.atomic_files import folder_above, probe, put
from headstart.core.errors import MissingExtraError, UsageError, did_you_mean
from headstart.core.text import is_text
from headstart.data.sources import PathLike
from headstart.engines.names import framework_of
from headstart.export.weights import LIBRARIES, SUFFIX

PHOTOS, PIXELS = "photos", "pixels"  # what an export takes: photos of any size, or a network's input as it is
TAKES = one_of("auto", PHOTOS, PIXELS)
TOLERANCE = 1e-4  # of golden logits in fp32, relative to the largest
RESIZED = 1e-2  # where the file scales photos itself: of a few pixels the next of 256 values, which 32 x 32 can show
SIXTEEN_BITS = 1e-3  # likewise, where the weights have 16 bits


@dataclass(frozen=True)
class Format:
    """One format."""

    name: str
    suffix: str  # of the file; "" where it is a folder
    extra: str  # "" where the core suffices
    packages: tuple[str, ...]  # of that extra
    opens: str  # in Python; FILE stands for the path
    frameworks: tuple[str, ...] = ()  # of whose modules it can be made, besides blueprints
    int8: bool = False  # whether int8 is possible
    photos: bool = False  # whether it can take photos of any size
    tolerance: float = TOLERANCE
    page: str = ""  # what a page takes, in words; it is for people, and scales photos itself

    @property
    def library(self) -> bool:
        """Whether it is weights for another library, and not a network."""
        return self.name in LIBRARIES

    def module(self) -> ModuleType:
        """The module that writes and replays it."""
        return importlib.import_module(f"headstart.export.{'weights' if self.library else self.name}")


_KERAS, _TORCH = ("tensorflow", "keras"), ("torch",)
# in bf16, which is its own choice where the processor has it, the sizes of a photo are no longer whole numbers
_IN_FLOAT32 = 'openvino.Core().compile_model("FILE/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})'
FORMATS = {
    each.name: each
    for each in (
        Format("onnx", ".onnx", "onnx", ("onnx", "onnxruntime"), 'onnxruntime.InferenceSession("FILE")', photos=True),
        Format("openvino", "", "", (), _IN_FLOAT32, photos=True),
        Format("keras", ".keras", "keras", _KERAS, 'keras.models.load_model("FILE")', ("keras",)),
        Format(
            "savedmodel",
            "",
            "keras",
            _KERAS,
            'tensorflow.saved_model.load("FILE").signatures["serving_default"]',
            ("keras",),
            photos=True,
        ),
        Format(
            "tflite",
            ".tflite",
            "tflite",
            ("ai-edge-litert", *_KERAS),
            'ai_edge_litert.interpreter.Interpreter("FILE")',
            ("keras",),
            int8=True,
            photos=True,
        ),
        Format(
            "web",
            ".html",
            "onnx",
            ("onnx", "onnxruntime"),
            'webbrowser.open(pathlib.Path("FILE").as_uri())',
            tolerance=SIXTEEN_BITS,
            page="photos: JPEG, PNG, WebP, GIF and what else the browser decodes; or the camera",
        ),
        Format("torch", ".pt2", "torch", _TORCH, 'torch.export.load("FILE").module()', ("torch",), photos=True),
        *(
            Format(name, SUFFIX[name], extra, packages, "")
            for name, extra, packages in zip(
                LIBRARIES,
                ("keras", "torch", "torch"),
                (_KERAS, (*_TORCH, "torchvision"), (*_TORCH, "timm")),
                strict=True,
            )
        ),
    )
}


def find_format(name: str, *, int8: bool = False) -> Format:
    """The format called ``name``, whose packages are all installed.

    Raises:
        UsageError: there is none, or not in int8.
        MissingExtraError: it needs a package that is not installed.
    """
    if name not in FORMATS:
        raise UsageError(f"There is no format '{name}'. {did_you_mean(name, FORMATS)}")
    found = FORMATS[name]
    if int8 and not found.int8:
        raise UsageError(f"The format {name} is written in fp32 only. In int8: --to {' or '.join(_with('int8'))}")
    for package in found.packages:
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            raise MissingExtraError(package, found.extra, f"The format {name}")
    return found


def input_of(found: Format, takes: str, *, int8: bool = False) -> str:
    """What an export takes, PHOTOS or PIXELS; where it is "auto" photos, if the format can.

    Raises:
        UsageError: photos, and the format has none.
    """
    TAKES.of("--takes", takes)
    if found.page:
        if takes == PIXELS:
            raise UsageError(f"A file of format {found.name} is for people, who have photos: --takes {PHOTOS}")
        return PHOTOS
    possible = found.photos and not int8
    if takes == PHOTOS and not possible:
        if found.photos:
            raise UsageError(f"In int8 a file of format {found.name} takes pixels. Photos: without --int8")
        raise UsageError(
            f"A file of format {found.name} cannot crop and scale photos; it takes pixels. "
            f"Formats that can: --to {' or '.join(_with('photos'))}"
        )
    if takes == "auto":
        return PHOTOS if possible else PIXELS
    return takes


def default_path(found: Format, model: str, *, int8: bool = False) -> str:
    """The default path of an export of ``model``: its name, in the working folder."""
    name = os.path.basename(os.path.realpath(model)) or "model"
    return f"{name}{'_int8' * int8}{found.suffix or f'_{found.name}'}"


def target_of(found: Format, path: PathLike, *, overwrite: bool = False) -> Path:
    """The absolute path of an export to ``path``.

    Raises:
        UsageError: something is there that is not to be replaced, it cannot be written, or does not end in the format's
            suffix.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not overwrite:
            raise exists_already(target)
        if not is_text(str(target)):
            raise UsageError(
                f"'{target}' has letters that not every library can open. Choose another place: --out PATH"
            )
        if not target.name.endswith(found.suffix) or target.name == found.suffix:
            raise UsageError(f"The name of a file of format {found.name} ends in {found.suffix}. Received: '{path}'.")
        probe(target)
    except OSError as error:
        raise UsageError(
            f"'{folder_above(target)}' cannot be written to: {error.strerror}. Choose another place: --out PATH"
        ) from error
    return target


def exists_already(target: Path) -> UsageError:
    """The error for a path at which something is."""
    return UsageError(f"'{target}' exists already. Choose another place: --out PATH. Or replace it: --overwrite")


def replace_older(made: Path, target: Path) -> None:
    """Put an export in the place of an older one.

    Raises:
        UsageError: a folder for a file, a file for a folder, or a folder with other things in it.
    """
    if made.is_dir() != target.is_dir():
        kinds = ("a folder", "a file") if target.is_dir() else ("a file", "a folder")
        raise UsageError(f"'{target}' is {kinds[0]}, the export is {kinds[1]}. Choose another place: --out PATH")
    if made.is_dir():
        ours = {entry.name for entry in made.iterdir()}
        others = sorted(entry.name for entry in target.iterdir() if entry.name not in ours)
        if others:
            raise UsageError(
                f"'{target}' is a folder with other things in it ('{others[0]}' first); they are not overwritten. "
                "Choose another place: --out PATH"
            )
    put(made, target)


def check_holds(found: Format, blueprint: Blueprint) -> None:
    """Refuse a module of another library in a format that is made of blueprints only."""
    framework = framework_of(blueprint.source)
    if framework and framework not in found.frameworks:
        kind = {"torch": "PyTorch module", "keras": "Keras model"}[framework]
        raise UsageError(
            f"'{blueprint.source}' is a {kind}, which cannot be written in the format {found.name}. "
            f"Formats for it: --to {' or '.join(_with(framework))}"
        )


def _with(what: str) -> Sequence[str]:
    return [
        each.name
        for each in FORMATS.values()
        if what in each.frameworks or (what == "int8" and each.int8) or (what == "photos" and each.photos)
    ]
