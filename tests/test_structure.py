"""The house: one arrow between the rooms, a light door, nothing that executes what it reads, a pinned public face."""

from __future__ import annotations

import ast
import enum
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import headstart

SRC = Path(__file__).parents[1] / "src" / "headstart"
ROOMS = (  # in order: a file imports from rooms before its own, or from its own without a circle
    "core",
    "data",
    "backbones",
    "engines",
    "learn",
    "train",
    "diagnose",
    "model",
    "explain",
    "imagine",
    "attack",
    "workflows",
    "export",
    "plots",
    "drawing",
    "report",
    "server",
    "studio",
    "scale",
    "cli",
)
DOORS = ("__main__.py", "sklearn.py")  # the files that lie in no room; they open the last, and people type their names
FACE = "__init__.py"  # shows what the rooms have; belongs to none
# What a classifier can do beyond predicting is done by rooms above it, which its methods reach late, by public names.
THROUGH_THE_FACE = {"model/classifier.py"}
ON_THE_FACE = "studio/screens/"  # a button is a call of the public API
FRAMEWORKS = {"openvino", "torch", "torchvision", "timm", "tensorflow", "keras", "lightning", "onnx", "onnxruntime"}
FRAMEWORK_FILES = (  # where one may be imported
    *("engines/fast/", "engines/torch/", "engines/keras/", "train/torch/", "train/tensorflow/"),
    *(f"export/{name}.py" for name in ("keras", "onnx", "openvino", "savedmodel", "tflite", "torch", "weights")),
    *(f"export/operations/{name}.py" for name in ("onnx", "openvino", "tensorflow", "torch")),
    "export/web/",
    "train/callbacks.py",  # in a function, for those who have it and ask for it
)
HEAVY_ROOMS = ("engines/torch/", "engines/keras/", "train/torch/", "train/tensorflow/")
LONGEST, LONGEST_FUNCTION = 350, 60  # lines; of a function without its docstring


@dataclass(frozen=True)
class Import:
    """One file takes something from another; both relative to the package."""

    file: str
    line: int
    target: str  # a file of the package, or the name of another package


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))


def imports_of(root: Path, file: str, package: str = "headstart") -> Iterator[Import]:
    """Every import of a file: late ones and those for type checkers too."""
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = [package, *Path(file).parent.parts][: 1 + len(Path(file).parent.parts) - (node.level - 1)]
            base = ".".join([*(above if node.level else []), *([node.module] if node.module else [])])
            names = [(base, alias.name) for alias in node.names]
        else:
            continue
        for module, name in names:
            top, *rest = module.split(".")
            yield Import(file, node.lineno, _file(root, [*rest, *([name] if name else [])]) if top == package else top)


def _file(root: Path, parts: list[str]) -> str:
    """The file that a dotted name leads to: a module, or a folder's own, whose attribute the last part may be."""
    for kept in (parts, parts[:-1]):
        path = Path(*kept)
        if kept and (root / path.with_suffix(".py")).is_file():
            return path.with_suffix(".py").as_posix()
        if (root / path / FACE).is_file():
            return (path / FACE).as_posix()
    raise AssertionError(f"import of {'.'.join(parts)} leads nowhere")


def room_of(file: str) -> int:
    room = file.partition("/")[0]
    if file not in DOORS and room not in ROOMS:
        raise AssertionError(f"{file} lies in no room; give it one in ROOMS")
    return len(ROOMS) if file in DOORS else ROOMS.index(room)


def against_the_arrow(root: Path) -> list[str]:
    """Imports from a later room, and circles within one."""
    found, graph = [], {}
    for file in files_of(root):
        if file == FACE:
            continue
        targets = {each.target: each for each in imports_of(root, file) if each.target.endswith(".py")}
        targets.pop(FACE, None)
        for target, each in targets.items():
            if room_of(target) > room_of(file):
                found.append(f"{file}:{each.line} takes from {target}, of a later room")
        graph[file] = {target for target in targets if target != file}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"circle: {' <- '.join(error.args[1])}")
    return found


# --- rooms ------------------------------------------------------------------------------------------------------------


def test_there_is_one_arrow_between_the_rooms() -> None:
    assert against_the_arrow(SRC) == []


def uses_of_the_face(root: Path, file: str) -> Iterator[ast.AST]:
    """Where a file imports the package itself for more than its version."""
    for node in ast.walk(ast.parse((root / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import) and any(alias.name == "headstart" for alias in node.names):
            yield node
        elif isinstance(node, ast.ImportFrom) and node.module == "headstart":
            yield from [node] * any(alias.name not in ("__version__", *ROOMS) for alias in node.names)


def test_only_the_classifier_reaches_what_lies_above_it_and_late() -> None:
    files = [file for file in files_of(SRC) if file != FACE and not file.startswith(ON_THE_FACE)]
    assert {file for file in files if any(uses_of_the_face(SRC, file))} == THROUGH_THE_FACE
    for file in THROUGH_THE_FACE:
        top = set(ast.parse((SRC / file).read_text(encoding="utf-8")).body)
        assert not top & set(uses_of_the_face(SRC, file))


def test_the_face_takes_nothing_of_ours_when_it_is_imported() -> None:
    body = ast.parse((SRC / FACE).read_text(encoding="utf-8")).body
    assert [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names] == ["lazy_loader"]
    assert not any(isinstance(node, ast.ImportFrom) for node in body)


def test_frameworks_are_imported_in_their_room_only() -> None:
    places = {each.file for file in files_of(SRC) for each in imports_of(SRC, file) if each.target in FRAMEWORKS}
    assert [file for file in places if not file.startswith(FRAMEWORK_FILES)] == []
    assert [place for place in FRAMEWORK_FILES if not any(file.startswith(place) for file in places)] == []


HOUSE = {
    "__init__.py": "from headstart.cli.app import main",  # exempt
    "__main__.py": "from headstart.cli.app import main",
    "core/__init__.py": "",
    "core/errors.py": "",
    "core/types.py": "from headstart.core.errors import HeadstartError",
    "data/__init__.py": "",
    "data/load.py": "import os\nfrom headstart import __version__\nfrom headstart.core.types import Sample",
    "data/tables.py": "from headstart.data import load",
    "learn/__init__.py": "",
    "learn/heads.py": "from headstart.data.load import decode\nimport headstart.core.errors",
    "model/__init__.py": "",
    "model/classifier.py": "from headstart.learn.heads import fit\ndef save():\n    import headstart",
    "model/bundle.py": "from headstart.model.classifier import Classifier",
    "cli/__init__.py": "",
    "cli/app.py": "import torch\nfrom headstart.model import classifier\nfrom headstart.core import errors",
}


def build(root: Path, changes: dict[str, str] | None = None) -> Path:
    for file, text in (HOUSE | (changes or {})).items():
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_text(text + "\n")
    return root


def test_a_sound_house_is_found_sound(tmp_path: Path) -> None:
    assert against_the_arrow(build(tmp_path)) == []
    assert [each.target for each in imports_of(tmp_path, "cli/app.py")] == [
        "torch", "model/classifier.py", "core/errors.py",
    ]  # fmt: skip
    assert [each.target for each in imports_of(tmp_path, "learn/heads.py")] == ["data/load.py", "core/errors.py"]
    assert [each.target for each in imports_of(tmp_path, "data/tables.py")] == ["data/load.py"]
    assert [file for file in files_of(tmp_path) if any(uses_of_the_face(tmp_path, file))] == ["model/classifier.py"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"core/errors.py": "from headstart.core.types import Sample"}, "circle"),
        ({"core/errors.py": "import headstart.cli.app"}, "core/errors.py:1 takes from cli/app.py"),
        ({"data/load.py": "\nfrom headstart.learn.heads import fit"}, "data/load.py:2 takes from learn/heads.py"),
        ({"data/load.py": "from headstart.learn import heads"}, "data/load.py:1 takes from learn/heads.py"),
        ({"data/load.py": "from headstart import learn"}, "data/load.py:1 takes from learn/__init__.py"),
        ({"data/load.py": "from ..learn import heads"}, "data/load.py:1 takes from learn/heads.py"),
        ({"data/load.py": "from ..model import bundle"}, "data/load.py:1 takes from model/bundle.py"),
        (
            {"data/load.py": "def f():\n  if x:\n    import headstart.cli.app as c"},
            "data/load.py:3 takes from cli/app.py",
        ),
        (
            {"data/load.py": "if TYPE_CHECKING:\n  from headstart.model.bundle import save"},
            "data/load.py:2 takes from model/bundle",
        ),
        ({"data/load.py": "from .tables import read"}, "circle"),
        ({"data/load.py": "from . import tables"}, "circle"),
        ({"data/load.py": "def late():\n  from headstart.data.tables import read"}, "circle"),
        ({"model/classifier.py": "def save():\n  from headstart.model.bundle import save"}, "circle"),
        (
            {"data/__init__.py": "from headstart.data.tables import read", "data/load.py": "import headstart.data"},
            "circle",
        ),
        (
            {"learn/heads.py": "def f():\n  from headstart.model.bundle import fit"},
            "takes from model/bundle.py",
        ),
    ],
)
def test_a_house_with_a_wrong_import_is_found_out(changes: dict[str, str], complaint: str, tmp_path: Path) -> None:
    found = against_the_arrow(build(tmp_path, changes))
    assert any(complaint in each for each in found), found


@pytest.mark.parametrize("file", ["stray.py", "stray/file.py"])
def test_a_file_without_a_room_is_found_out(file: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"stray(/file)?\.py lies in no room"):
        against_the_arrow(build(tmp_path, {file: "import headstart.core.errors"}))


# --- a light door -----------------------------------------------------------------------------------------------------

HEAVY = ["PIL", "keras", "matplotlib", "numpy", "openvino", "pyarrow", "safetensors", "sklearn", "tensorflow", "torch"]


@pytest.mark.parametrize(
    ("action", "light"),
    [
        ("import headstart", [*HEAVY, "rich", "typer"]),
        ("import headstart; dir(headstart); headstart.__version__", [*HEAVY, "rich", "typer"]),
        ("import headstart; headstart.UsageError, headstart.Prediction", [*HEAVY, "rich", "typer"]),
        ("import headstart.cli.app", HEAVY),
        ("import sys; sys.argv = ['headstart', '--help']; from headstart.__main__ import main; main()", HEAVY),
    ],
)
def test_what_needs_no_photo_loads_no_framework(action: str, light: list[str]) -> None:
    """In a fresh process; as the command line ends it, too."""
    tell = "import sys, json, atexit; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))"
    done = subprocess.run([sys.executable, "-c", f"{tell}\n{action}"], check=True, capture_output=True, text=True)
    assert "--help" not in action or "Usage: headstart" in done.stdout
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert "headstart" in loaded
    assert sorted(loaded & set(light)) == []


def test_even_the_whole_core_waits_with_openvino() -> None:
    """Until there is a network to run; and nothing brings another framework in."""
    files = [file for file in files_of(SRC) if not file.startswith((*HEAVY_ROOMS, "studio/")) and file not in DOORS]
    names = [f"headstart.{file[:-3].replace('/', '.')}" for file in files]
    code = f"import sys, importlib as i, json; [i.import_module(m) for m in {names}]; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(json.loads(done.stdout))
    assert {"numpy", "PIL", "headstart.engines.fast"} <= loaded
    assert sorted(loaded & (FRAMEWORKS | {"matplotlib", "pyarrow", "sklearn"})) == []


# --- the public face --------------------------------------------------------------------------------------------------


def test_the_public_names_are_exactly_these() -> None:
    assert headstart.__all__ == [
        "Accuracy",
        "Attacked",
        "CheckError",
        "Classifier",
        "Comparison",
        "DataError",
        "DataWarning",
        "Evaluation",
        "Explanation",
        "ExplanationCheck",
        "Exported",
        "FeatureMaps",
        "HeadstartError",
        "IdealImage",
        "ImageDataset",
        "ImageSpec",
        "MissingExtraError",
        "PolynomialFit",
        "PredictedTable",
        "Prediction",
        "Problem",
        "Recipe",
        "Report",
        "Robustness",
        "Sample",
        "Table",
        "TrainingRun",
        "UsageError",
        "attack_photos",
        "check",
        "check_explanations",
        "compare",
        "corrupted",
        "explain_photos",
        "export_model",
        "feature_maps",
        "finetune",
        "fit",
        "fit_on_ray",
        "fit_polynomial",
        "from_scratch",
        "ideal_images",
        "load",
        "load_rows",
        "open_source",
        "predict_on_ray",
        "predict_table",
        "pretrained",
        "robustness",
        "save",
        "serve",
        "studio",
        "train_photos",
        "train_rows",
        "write_report",
    ]
    assert dir(headstart) == sorted([*headstart.__all__, "__version__"])


def test_every_public_name_is_there_and_of_headstart() -> None:
    for name in headstart.__all__:
        thing = getattr(headstart, name)
        assert thing.__name__ == {"Table": "ImageDataset"}.get(name, name)  # an older name of it
        assert thing.__module__.startswith("headstart.")
    with pytest.raises(AttributeError, match="fitt"):
        _ = headstart.fitt  # type: ignore[attr-defined]


def undocumented(name: str, thing: Any) -> Iterator[str]:
    """What of a function or class has no docstring of its own (a dataclass is given one that says nothing)."""
    doc: str | None = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
    if not doc or not doc.strip() or (inspect.isclass(thing) and doc.startswith(f"{thing.__name__}(")):
        yield name
    if inspect.isclass(thing) and not issubclass(thing, enum.Enum):
        for key, member in vars(thing).items():
            inner = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if not key.startswith("_") and (inspect.isfunction(inner) or isinstance(inner, property)):
                yield from undocumented(f"{name}.{key}", inner)


def test_everything_public_says_what_it_is() -> None:
    missing = [each for name in headstart.__all__ for each in undocumented(name, getattr(headstart, name))]
    assert missing == []


def test_what_says_nothing_is_found_out() -> None:
    @dataclass
    class Bare:
        field: int

        def method(self) -> None: ...

        @property
        def quality(self) -> int:
            return 0

        @classmethod
        def of(cls) -> None:
            """Said."""

    assert list(undocumented("Bare", Bare)) == ["Bare", "Bare.method", "Bare.quality"]


# --- what no file does ------------------------------------------------------------------------------------------------


def dangers(source: str) -> Iterator[str]:
    """What would execute something that was read. Names of pickle's opcodes are no danger; its readers are."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name in UNPICKLERS - {"pickle"})
                yield from (f"pickle as {alias.asname}" for alias in names if alias.name == "pickle" and alias.asname)
            case ast.ImportFrom(module=module) if module in UNPICKLERS:
                yield f"from {module}"
            case ast.Attribute(value=ast.Name(id="pickle"), attr=attr) if not attr.isupper():
                yield f"pickle.{attr}"
            case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
                yield "torch.load"
            case ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen"):
                yield "os.system"
            case ast.Name(id="eval" | "exec" | "compile" | "__import__" as name):
                yield name
            case ast.keyword(arg="allow_pickle", value=value) if not (
                isinstance(value, ast.Constant) and value.value is False
            ):
                yield "allow_pickle"
            case ast.keyword(arg="shell", value=value) if not (isinstance(value, ast.Constant) and not value.value):
                yield "shell"
            case _:
                pass


UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.mark.parametrize("file", files_of(SRC))
def test_no_file_executes_what_it_reads(file: str) -> None:
    assert list(dangers((SRC / file).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(f)",
        "import pickle\nloads = pickle.loads",
        "import pickle as p\np.load(f)",
        "from pickle import load",
        "import joblib",
        "eval('1')",
        "run = exec",
        "import torch\ntorch.load(f, weights_only=True)",
        "import numpy as np\nnp.load(f, allow_pickle=True)",
        "import numpy as np\nnp.load(f, allow_pickle=flag)",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
    ],
)
def test_what_executes_is_found_out(source: str) -> None:
    assert list(dangers(source))


@pytest.mark.parametrize("source", ["import pickle\npickle.MARK", "np.load(f, allow_pickle=False)", "model.eval()"])
def test_what_does_not_execute_is_let_be(source: str) -> None:
    assert not list(dangers(source))


@pytest.mark.parametrize("file", files_of(SRC))
def test_a_file_is_read_in_one_go(file: str) -> None:
    assert len((SRC / file).read_text(encoding="utf-8").splitlines()) <= LONGEST


def long_functions(source: str) -> Iterator[str]:
    """Functions with more lines than can be read in one go, their docstrings not counted."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = (ast.get_docstring(node, clean=False) or "").count("\n") + bool(ast.get_docstring(node))
            if (lines := (node.end_lineno or 0) - node.lineno + 1 - documented) > LONGEST_FUNCTION:
                yield f"{node.name}: {lines}"


@pytest.mark.parametrize("file", files_of(SRC))
def test_a_function_is_read_in_one_go(file: str) -> None:
    assert list(long_functions((SRC / file).read_text(encoding="utf-8"))) == []


def test_a_long_function_is_found_out() -> None:
    body = "\n".join(["    x = 1"] * LONGEST_FUNCTION)
    assert list(long_functions(f'def long():\n    """One.\n\n    Two."""\n{body}')) == ["long: 61"]
    assert not list(long_functions("def short():\n" + body.removeprefix("    x = 1\n")))
