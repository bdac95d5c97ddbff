"""What the start of a command imports: its own module, and none of the others'."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from headstart.cli.app import command_line
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
