"""Messages name the options of the command line; who calls from Python gets them as arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

SWITCHES = {  # options without a value: as an argument
    "overwrite": "overwrite=True",
    "resume": "resume=True",
    "find-rate": "find_rate=True",
    "refit": "refit=True",
    "no-refit": "refit=False",
    "no-cache": "cache=False",
    "int8": "int8=True",
    "include-training-set": "fitted_on_too=True",
}
ARGUMENTS = {  # options with a value that have another name in Python
    "out": "path",
    "label-from": "label_from",
    "from": "start",
}
COLUMNS = ("image", "label", "group", "split")  # of a table of images: "--label COLUMN" is label_column=COLUMN
SAME = (  # those that have the same
    *("weights", "pixels", "mean", "std", "backbone", "backbones", "engine", "precision", "device", "devices", "nodes"),
    *("strategy", "head", "prior", "holdout", "seed", "folds", "hidden", "network", "recipe", "trainer", "to", "data"),
    *("budget", "within", "top", "validation", "grey"),
)
CHOICES = (  # values that a message may name
    *("auto", "fast", "torch", "keras", "cpu", "cuda", "mps", "bf16", "fp32", "pytorch", "lightning", "tensorflow"),
    *("small_cnn", "onnx", "openvino", "savedmodel", "tflite", "full", "careful", "flat", "empirical", "mlp"),
)
_NAMES = "|".join(sorted((*SWITCHES, *ARGUMENTS, *COLUMNS, *SAME), key=len, reverse=True))
_PATH = r"[^\s,;:()]*[./][^\s,;:()]*[^\s,;:().]"
_VALUE = rf"(?P<value>'[^']*'|{_PATH}|[A-Z][A-Z|_]+(?:\.[a-z]+)?|[0-9][0-9.,]*[0-9]|[0-9]|(?:{'|'.join(CHOICES)})\b)"
_OPTION = re.compile(rf"--(?P<name>{_NAMES})(?![a-z-])(?:[ =]{_VALUE})?")
_SEVERAL = re.compile(rf"(--[a-z-]+ (?:[A-Z][A-Z|_]*|{_PATH})) (?=--)")  # one after the other
_COMMAND = re.compile(r"headstart [a-z]+ [^.;]*")  # a whole command is typed elsewhere, and stays as it is

_typed: ContextVar[bool] = ContextVar("typed", default=False)


@contextmanager
def on_command_line() -> Iterator[None]:
    """While a command runs, messages keep its options."""
    token = _typed.set(True)
    try:
        yield
    finally:
        _typed.reset(token)


def option_of(argument: str) -> str:
    """What a message calls an argument: the option of a command where one has it, which `in_python` turns back."""
    options = {name: option for option, name in ARGUMENTS.items()} | {name: name for name in (*SAME, *COLUMNS)}
    return f"--{options[argument]}" if argument in options else argument


def worded(message: str) -> str:
    """A message for whoever called: a command, or Python."""
    return message if _typed.get() else in_python(message)


def in_python(message: str) -> str:
    """A message with the options outside of whole commands as arguments: "--engine torch" is "engine='torch'"."""
    found, end = "", 0
    for command in _COMMAND.finditer(message):
        found += _with_arguments(message[end : command.start()]) + command.group()
        end = command.end()
    return found + _with_arguments(message[end:])


def _with_arguments(text: str) -> str:
    return _OPTION.sub(_argument, _SEVERAL.sub(r"\1, ", text))


def _argument(option: re.Match[str]) -> str:
    name, value = option["name"], option["value"]
    if name in SWITCHES:
        return SWITCHES[name] + (f" {value}" if value else "")
    argument = f"{name}_column" if name in COLUMNS and value == "COLUMN" else ARGUMENTS.get(name, name)
    if value is None:
        return argument
    quoted = value if value[0] in "'0123456789" or value[0].isupper() else repr(value)
    return f"{argument}={quoted}"
