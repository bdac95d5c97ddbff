"""The command line: its commands, and how each ends. A command turns its words into one call of the library."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from headstart import __version__
from headstart.cli.commands import COMMANDS
from headstart.cli.plain_values import take_plain_values
from headstart.cli.streams import is_printed, mute, prepare_streams
from headstart.core.arguments import expanded
from headstart.core.errors import HeadstartError, MachineError, UsageError, lack_of
from headstart.core.text import say
from headstart.core.wording import on_command_line

_TYPE = re.compile(r" <(?:str|list\[str\])>")


class PlainHelp(TyperCommand):
    """A command whose help says no types: the names of the arguments tell what they are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left; the others in the context."""
        take_plain_values(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        """The text, with its columns where they were."""
        return _TYPE.sub(lambda kind: " " * len(kind.group()), super().get_help(ctx)).replace("  [required]", "")


class PlainGroup(TyperGroup):
    """The command line itself."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left; the others in the context."""
        take_plain_values(self.get_params(ctx))
        return super().parse_args(ctx, args)


INTERRUPTED = 130
COMPLETES = {"--install-completion", "--show-completion", "_HEADSTART_COMPLETE"}  # what a shell, or somebody, asks
KEEPS = {"fit", "compare"}  # commands that keep features


def main() -> None:
    """Run a command and end with its exit code; errors are a sentence, never a traceback (but with --debug)."""
    with on_command_line():
        _main()


def _main() -> None:
    debug = "--debug" in sys.argv
    arguments = [at_home(argument) for argument in sys.argv[1:] if argument != "--debug"]
    prepare_streams()
    try:
        run = command_line(_needed(arguments))
        code = run(args=arguments, prog_name="headstart", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer turns Ctrl-C into an exit code
            raise KeyboardInterrupt
    except HeadstartError as error:
        if debug:
            traceback.print_exc()
        say(str(error))
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        kept = " What was computed is kept: the same command goes on from there."
        say(f"interrupted.{kept if _is_kept(arguments) else ''}")
        code = INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        code = _after_exit(error)
    except Exception as error:
        if debug:
            raise
        code = _unforeseen(error)
    if not is_printed():
        mute()
    sys.exit(code if isinstance(code, int) else 0)


def _needed(arguments: list[str]) -> Iterable[str]:
    """The command that is to be run, whose module alone is imported; all of them, where somebody asks what there is."""
    asked = arguments[:1]
    return asked if COMMANDS.keys() & asked and not COMPLETES & {*sys.argv, *os.environ} else COMMANDS


def _is_kept(arguments: list[str]) -> bool:
    """Whether a command keeps what it computed: features, or the rows of a table."""
    if arguments[:1] == ["predict"]:
        return any(argument.partition("=")[0] == "--out" for argument in arguments)
    return bool(KEEPS & {*arguments}) and "--no-cache" not in arguments


def at_home(argument: str) -> str:
    """What is typed, with the user's folder in the place of ``~``: no shell puts it into quotes, or after a "="."""
    if argument.startswith("~"):
        return expanded(argument)
    option, equals, value = argument.rpartition("=")
    return f"{option}{equals}{expanded(value)}"


def _after_exit(error: BrokenPipeError | SystemExit) -> int:
    """0 where whoever read the output has had enough, of which typer and rich make an exit; others are no success."""
    if isinstance(error, SystemExit) and COMPLETES & {*sys.argv, *os.environ}:
        return int(error.code or 0)  # typer's way out
    if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
        return _unforeseen(error)
    return 0


def _unforeseen(error: Exception | SystemExit) -> int:
    if hasattr(error, "exit_code") and hasattr(error, "show"):  # the command line itself was wrong
        error.show()
        return int(error.exit_code)
    if lack := lack_of(error):
        say(lack)
        return MachineError.exit_code
    if isinstance(error, OSError):  # a disk or a file gave up where nothing better could be said
        printing = "" if error.filename or is_printed() else "Standard output cannot be written: "
        say(f"{printing}{error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
        return UsageError.exit_code
    if isinstance(error, UnicodeEncodeError) and (encoding := sys.getfilesystemencoding()) != "utf-8":
        say(f"{error.object[:200]!r} can be no file's name here, where names are read as {encoding}: set PYTHONUTF8=1")
        return UsageError.exit_code
    say(f"{type(error).__name__}: {error}. This was not foreseen; with --debug it shows where it happened.")
    return 1


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """A folder of labelled photos becomes an image classifier you can trust, in seconds, on an ordinary machine."""


def command_line(names: Iterable[str]) -> typer.Typer:
    """The command line with these commands."""
    app = typer.Typer(
        cls=PlainGroup,
        name="headstart",
        help=root.__doc__,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    for name in names:
        does, example = COMMANDS[name]
        run = getattr(importlib.import_module(f"headstart.cli.{name}"), name)
        app.command(short_help=does, epilog=f"Example: {example}", cls=PlainHelp)(run)
    return app
