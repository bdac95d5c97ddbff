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
    "colours": "grey=False",
    "include-training-set": "fitted_on_too=True",
    "urls": "urls=True",
}
ARGUMENTS = {  # options with a value that have another name in Python
    "out": "path",
    "label-from": "label_from",
    "class": "classes",
    "channel": "channels",
    "from": "start",
    "judge": "judges",
    "token-file": "token_file",
    "max-megabytes": "max_megabytes",
    "max-megapixels": "max_megapixels",
    "max-images": "max_images",
}
COLUMNS = ("image", "label", "group", "split")  # of a table of images: "--label COLUMN" is label_column=COLUMN
SAME = (  # those that have the same
    *("weights", "pixels", "mean", "std", "backbone", "backbones", "engine", "precision", "device", "devices", "nodes"),
    *("strategy", "head", "prior", "holdout", "seed", "folds", "hidden", "network", "recipe", "trainer", "to", "data"),
    *("budget", "within", "top", "validation", "grey", "layer", "preset"),
    *("host", "port", "queue", "wait", "timeout", "log"),
    *("target", "method", "norm", "epsilon", "steps", "restarts", "images", "takes"),
    *("runner", "workers", "store"),
)
CHOICES = (  # values that a message may name
    *("auto", "fast", "torch", "keras", "cpu", "cuda", "mps", "bf16", "int8", "fp32"),
    *("pytorch", "lightning", "tensorflow"),
    *("small_cnn", "onnx", "openvino", "savedmodel", "tflite", "full", "careful", "flat", "empirical", "mlp"),
    *("gradient", "integrated"),
)
_NAMES = "|".join(sorted((*SWITCHES, *ARGUMENTS, *COLUMNS, *SAME), key=len, reverse=True))
_PATH = r"[^\s,;:()]*[./][^\s,;:()]*[^\s,;:().]"
_VALUE = rf"(?P<value>'[^']*'|{_PATH}|[A-Z][A-Z|_]+(?:\.[a-z]+)?|[0-9][0-9.,]*[0-9]|[0-9]|(?:{'|'.join(CHOICES)})\b)"
_OPTION = re.compile(rf"--(?P<name>{_NAMES})(?![a-z-])(?:[ =]{_VALUE})?")
_SEVERAL = re.compile(rf"(--[a-z-]+ (?:[A-Z][A-Z|_]*|{_PATH})) (?=--)")  # one after the other
_COMMAND = re.compile(r"headstart [a-z]+ (?:[^.;]|\.(?=\S))*")  # a whole command: the dots in it are those of names
_CALLS = tuple(  # what a command is in Python; one that is nothing there is typed elsewhere, and stays as it is
    (re.compile(rf"headstart {command}"), call)
    for command, call in (
        ("fit PHOTOS --out MODEL", "hs.fit(PHOTOS).save(MODEL)"),
        (r"fit PHOTOS --backbone (\S+) --weights FILE", r"hs.fit(PHOTOS, backbone='\1', weights=FILE)"),
        ("fit PHOTOS", "hs.fit(PHOTOS)"),
        (r"train ROWS\.csv --out MODEL", "hs.train_rows('ROWS.csv').save(MODEL)"),
        ("train DATA --from MODEL", "hs.train_photos(DATA, start=MODEL)"),
        ("train FOLDER", "hs.train_photos(FOLDER)"),
        (r"train (\S+)", r"hs.train_rows('\1')"),
        ("predict MODEL PHOTO", "hs.load(MODEL).predict(PHOTO)"),
        (r"predict MODEL ROWS\.csv", "hs.load_rows(MODEL).predict_file('ROWS.csv')"),
        ("predict (.+) PHOTO", r"hs.load('\1').predict(PHOTO)"),
        ("finetune MODEL PHOTOS", "hs.finetune(MODEL, PHOTOS)"),
    )
)

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
    """A message with calls for whole commands, and arguments for options: "--engine torch" is "engine='torch'"."""
    found, end = "", 0
    for command in _COMMAND.finditer(message):
        found += _with_arguments(message[end : command.start()]) + _call(command.group())
        end = command.end()
    return found + _with_arguments(message[end:])


def _call(command: str) -> str:
    """A whole command as it is called in Python, with what stands after it; as it is where there is no such call."""
    for pattern, call in _CALLS:
        if found := pattern.match(command):
            return found.expand(call) + command[found.end() :]
    return command


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
