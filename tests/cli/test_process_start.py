"""What the start of a command imports: its own module, and none of the others'."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperCommand, TyperOption
from typer.testing import CliRunner

from headstart.cli.app import PlainHelp, command_line
from headstart.cli.commands import COMMANDS

TELL = "import atexit, json, sys; atexit.register(lambda: print(json.dumps([*sys.modules]), file=sys.stderr))"


def loaded(*arguments: str) -> set[str]:
    run = f"sys.argv = {['headstart', *arguments]}; from headstart.__main__ import main; main()"
    command = [sys.executable, "-c", f"{TELL}\n{run}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {*json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.parametrize("words", [["cache", "--help"], ["cache", "--no-such-option"]])
def test_a_command_imports_no_other(words: list[str]) -> None:
    assert {f"headstart.cli.{name}" for name in COMMANDS} & loaded(*words) == {"headstart.cli.cache"}


@pytest.mark.parametrize("words", [[], ["--help"], ["no-such-command"]])
def test_where_no_command_is_named_there_are_all(words: list[str]) -> None:
    assert {f"headstart.cli.{name}" for name in COMMANDS} <= loaded(*words)


def test_the_list_of_commands_is_whole_and_in_order() -> None:
    named = [command.callback.__name__ for command in command_line(COMMANDS).registered_commands if command.callback]
    assert named == [*COMMANDS]


@pytest.mark.skipif(not hasattr(TyperOption, "get_runtime_param"), reason="a version of typer without pydantic")
def test_plain_values_need_no_pydantic(photos: Path, tmp_path: Path) -> None:
    words = ["check", str(photos), "--json"]
    assert "pydantic" not in loaded(*words)


TYPED: dict[Any, list[Any]] = {
    str: ["", " x ", "1", "é"],
    int: ["0", "7", "-3", "007", "+5", "1_000", " 2 ", "2.0", "2.5", "1e3", "x", "", "٣", "9" * 15, "9" * 30, "-0"],
    float: ["0", "1", "-2.5", "0.1", "1e-3", "inf", "nan", "1_0", ".5", "5.", " 1", "x", "0.30000001", "1234567.125"],
    list[str]: [["a"], ["a", "b c"]],
}


def answer_of(kind: object, words: list[str], plain: bool) -> tuple[object, ...]:
    """What a function of one parameter of this kind gets, or what is said instead."""
    found: list[object] = []

    def run(value: Any, other: Any = None) -> None:
        found.extend([value, other])

    run.__annotations__ = {"value": kind, "other": list[str] | None if kind == list[str] else kind}
    app = typer.Typer(rich_markup_mode=None)
    app.command(cls=PlainHelp if plain else TyperCommand)(run)
    result = CliRunner().invoke(app, ["--", *words])
    return result.exit_code, result.output, [(type(value), repr(value)) for value in found]


@pytest.mark.parametrize(("kind", "words"), [(kind, word) for kind, words in TYPED.items() for word in words])
def test_a_value_is_what_typer_makes_of_it(kind: object, words: str | list[str]) -> None:
    typed = [words] if isinstance(words, str) else words
    assert answer_of(kind, typed, plain=True) == answer_of(kind, typed, plain=False)


def test_predict_imports_neither_trainers_nor_the_web(bundle: Path, photos: Path) -> None:
    modules = loaded("predict", str(bundle), str(photos / "bars" / "0.png"))
    assert {"openvino", "headstart.model.bundle"} <= modules
    unneeded = {"headstart.train.training_run", "headstart.data.addresses", "http.client", "importlib.metadata"}
    assert not modules & {*unneeded, "openvino.tools.ovc"}


def test_json_needs_neither_rich_nor_the_catalogue(bundle: Path, photos: Path) -> None:
    words = ["predict", str(bundle), str(photos / "bars" / "0.png")]
    assert {"rich.console", "rich.text"} <= loaded(*words)
    assert not {"rich.console", "rich.text", "threadpoolctl"} & loaded(*words, "--json")


def test_a_model_is_opened_by_little_until_its_network_is_being_compiled() -> None:
    """The rest is imported meanwhile."""
    command = [sys.executable, "-c", f"{TELL}\nimport headstart.model.opened"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {*json.loads(done.stderr.splitlines()[-1])}
    later = {"headstart.model.classifier", "headstart.model.records", "headstart.data.load", "PIL.Image"}
    assert "headstart.engines.fast.network" in modules
    assert not modules & {*later, "openvino", "headstart.backbones.published"}
