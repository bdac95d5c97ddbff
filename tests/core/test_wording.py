"""Messages name options on the command line, and arguments in Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import headstart as hs
from headstart.core.wording import ARGUMENTS, COLUMNS, SAME, SWITCHES, in_python, on_command_line
from making import Shell

SOURCE = Path(hs.__file__).parent
OTHERS = {  # of other programs; and those that only a command has, said where a command was typed
    *("--force-reinstall", "--upgrade"),
    *("--json", "--debug", "--prune", "--days", "--max-gb", "--graph", "--version", "--help"),
    *("--address", "--num-cpus"),
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("--pixels: expected 32 to 1024. Received: 5.", "pixels: expected 32 to 1024. Received: 5."),
        ("Take: --engine torch or --engine keras", "Take: engine='torch' or engine='keras'"),
        ("Received: --device cuda. Leave --engine out.", "Received: device='cuda'. Leave engine out."),
        ("Name a file that has them: --weights FILE", "Name a file that has them: weights=FILE"),
        ("Choose another place: --out MODEL", "Choose another place: path=MODEL"),
        ("Continue it: --resume. Or remove it.", "Continue it: resume=True. Or remove it."),
        ("or count those too: --include-training-set", "or count those too: fitted_on_too=True"),
        ("--mean and --std belong together.", "mean and std belong together."),
        ("Say which one it is: --label COLUMN.", "Say which one it is: label_column=COLUMN."),
        ("--label-from is for a folder", "label_from is for a folder"),
        ("Take --no-cache.", "Take cache=False."),
        ("Name it: --label NAME (columns: 'a')", "Name it: label=NAME (columns: 'a')"),
        ("Give: --backbone NAME --weights my/net.pth.", "Give: backbone=NAME, weights='my/net.pth'."),
        (
            "Fit one: headstart fit PHOTOS --backbone NAME --weights FILE. Or: --weights FILE",
            "Fit one: hs.fit(PHOTOS, backbone='NAME', weights=FILE). Or: weights=FILE",
        ),
        ("Make one with: headstart fit PHOTOS --out MODEL", "Make one with: hs.fit(PHOTOS).save(MODEL)"),
        ("With: headstart train ROWS.csv --out MODEL.", "With: hs.train_rows('ROWS.csv').save(MODEL)."),
        ("of photos: headstart train iris", "of photos: hs.train_rows('iris')"),
        ("first: headstart predict my model PHOTO", "first: hs.load('my model').predict(PHOTO)"),
        ("headstart finetune MODEL PHOTOS trains more of it.", "hs.finetune(MODEL, PHOTOS) trains more of it."),
        ("See them: headstart backbones", "See them: headstart backbones"),
        ("headstart show a.b --pixels 5; --pixels 5", "headstart show a.b --pixels 5; pixels=5"),
        ("--colours: the model has its own.", "grey=False: the model has its own."),
        ("pip install --force-reinstall a", "pip install --force-reinstall a"),
        ("'--pixels-of-mine'", "'--pixels-of-mine'"),
    ],
)
def test_options_are_arguments_in_python(message: str, expected: str) -> None:
    assert str(hs.UsageError(message)) == in_python(message) == in_python(expected) == expected
    with on_command_line():
        assert str(hs.UsageError(message)) == message


def test_every_option_in_a_message_has_its_argument() -> None:
    """Of all texts of the package outside of the commands' own files; a new option is added to the list."""
    known = {f"--{name}" for name in (*ARGUMENTS, *COLUMNS, *SAME, *SWITCHES)} | OTHERS
    found = set()
    for file in SOURCE.rglob("*.py"):
        if file.parent.name == "cli" or file.name == "wording.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= {*re.findall(r"--[a-z][a-z0-9-]*", node.value)}
    assert len(found) > 20
    assert found - known == {"--fitted-on-too"} & found


ASKED = "fit|train|predict|finetune|evaluate|export|compare"  # commands that Python has calls for


def parts_of(node: ast.AST) -> Iterator[ast.Constant]:
    """The texts of a message in their order, and the values in it."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.Constant | ast.FormattedValue):
            yield each if isinstance(each, ast.Constant) else ast.Constant("NAME")
        else:
            yield from parts_of(each)


def test_every_command_in_a_message_is_a_call_in_python() -> None:
    """But for those that Python has no call for."""
    found = set()
    for file in SOURCE.rglob("*.py"):
        if file.parent.name in ("cli", "plots") or file.name in ("wording.py", "model_card.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("UsageError", "DataError", "CheckError"):
                message = "".join(str(each.value) for each in parts_of(node))
                found |= {*re.findall(rf"headstart (?:{ASKED})\b.*", in_python(message))}
    assert found == set()


def test_the_same_mistake_by_both_doors(photos: Path, shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(hs.UsageError, match=r"^pixels: expected"):
        hs.fit(str(photos), pixels=5)
    assert "headstart: --pixels: expected" in shell("fit", photos, "--pixels", 5, "--out", tmp_path / "model").err
