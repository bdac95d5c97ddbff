"""Arguments as people give them: of the type and in the range that is expected, or a sentence that names them.

NumPy's numbers are taken, and become Python's.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, TypeVar, cast

from headstart.core.errors import UsageError
from headstart.core.text import one_line
from headstart.core.wording import option_of

LONGEST = 60  # characters of a value in a sentence
_PLAIN = (str, bytes, bool, int, float, list, tuple, set, dict, os.PathLike)  # are shown; of others their type
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rule:
    """What an argument may be."""

    expected: str  # for a sentence: "a whole number, 1 or more"
    take: Callable[[Any], Any]  # the value in Python's own type; raises ValueError or TypeError where it is no such

    def of(self, what: str, value: object) -> Any:
        """The value, in Python's own type; ``what`` is what the sentence calls it.

        Raises:
            UsageError: it is not what is expected.
        """
        try:
            return self.take(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{what}: expected {self.expected}. Received: {shown(value)}.") from None


def checks(**rules: Rule) -> Callable[[F], F]:
    """Give a function arguments that keep these rules, by their names; None passes where it is the default.

    Raises:
        UsageError: from the function, before it does anything.
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:  # not as many arguments, or unknown ones: Python says it best
                return function(*args, **kwargs)
            for name in given.arguments.keys() & rules.keys():
                value, default = given.arguments[name], signature.parameters[name].default
                if value is not default:
                    given.arguments[name] = rules[name].of(option_of(name), value)
            return function(*given.args, **given.kwargs)

        return cast("F", run)

    return decorate


def check_fields(record: Any, rules: Mapping[str, Rule], called: str = "") -> None:
    """Have the fields of a dataclass keep these rules; a field's default passes.

    Args:
        called: what comes before the name of a field in a sentence; default: nothing.
    """
    for each in fields(record):
        value = getattr(record, each.name)
        if each.name in rules and value is not each.default:
            what = f"{called}, {each.name}" if called else option_of(each.name)
            found = rules[each.name].of(what, value)
            if found != value or type(found) is not type(value):  # else the object itself may tell something
                object.__setattr__(record, each.name, found)


def shown(value: object) -> str:
    """A value for a sentence: short, and on one line."""
    if isinstance(value, Real):
        return repr(_number(value))
    if value is None or isinstance(value, _PLAIN):
        text = one_line(repr(value))
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return type(value).__qualname__


def whole(least: float = -math.inf, most: float = math.inf) -> Rule:
    """A whole number."""

    def take(value: object) -> int:
        if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) <= most:
            raise ValueError
        return int(value)

    ranges = f", {least} or more" if most == math.inf else f", {least} to {most}"
    return Rule(f"a whole number{'' if least == -math.inf else ranges}", take)


def number(least: float, most: float = math.inf, *, above: bool = False) -> Rule:
    """A finite number in a range; with ``above`` the least one is not in it."""

    def take(value: object) -> float:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError
        found: float = _number(value)
        if not (math.isfinite(found) and least <= found <= most) or (above and found == least):
            raise ValueError
        return found

    upto = "" if most == math.inf else f"{' up to' if above else ' to'} {most:g}"
    return Rule(f"a number {'above' if above else 'from'} {least:g}{upto}", take)


def share(least: float, most: float, *, above: bool = False) -> Rule:
    """A number that is a share."""
    rule = number(least, most, above=above)
    return replace(rule, expected=rule.expected.replace("a number", "a share"))


def one_of(*words: str) -> Rule:
    """One of a few words."""

    def take(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return str(value)

    return Rule(f"one of {', '.join(words)}", take)


def text(expected: str = "a name") -> Rule:
    """Some words; where only some are known, who looks them up refuses others, with the nearest."""

    def take(value: object) -> str:
        if not isinstance(value, str):
            raise TypeError
        return str(value)

    return Rule(expected, take)


def several(each: Rule, expected: str, *, least: int = 0) -> Rule:
    """A list of ``least`` values or more, or one alone; as a tuple."""

    def take(value: object) -> tuple[Any, ...]:
        alone = isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable)
        found = (each.take(value),) if alone else tuple(each.take(one) for one in cast("Iterable[Any]", value))
        if len(found) < least:
            raise ValueError
        return found

    return Rule(expected, take)


def exactly(count: int, each: Rule, expected: str) -> Rule:
    """A list of so many values; as a tuple."""

    def take(value: object) -> tuple[Any, ...]:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise TypeError
        found = tuple(each.take(one) for one in value)
        if len(found) != count:
            raise ValueError
        return found

    return Rule(expected, take)


def instance(expected: str, *kinds: type) -> Rule:
    """An object of one of these classes."""

    def take(value: object) -> object:
        if not isinstance(value, kinds):
            raise TypeError
        return value

    return Rule(expected, take)


def expanded(path: str | os.PathLike[str]) -> str:
    """A path as text, with the home of a user in the place of ``~`` at its beginning."""
    return os.path.expanduser(os.fspath(path))


def _number(value: Any) -> Any:
    """A number of NumPy, or any other, as Python has it."""
    if type(value) in (bool, int, float):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # NumPy's, by version
        raise TypeError
    return bool(value)


def _path(value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError
    found = expanded(value)
    if not isinstance(found, str) or not found:  # of bytes, or none at all
        raise ValueError
    return found


def _device(value: object) -> str:
    if (type(value).__module__, type(value).__name__) == ("torch", "device"):
        return str(value)
    return str(TEXT.take(value))


def _progress(value: object) -> object:
    return value if value is None or callable(value) else _yes_or_no(value)


def _function(value: object) -> object:
    if not callable(value):
        raise TypeError
    return value


def _label(value: object) -> object:
    if value is None or (isinstance(value, Iterable) and not isinstance(value, str | bytes)):
        raise TypeError
    return value


def _files(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {TEXT.take(name): _path(file) for name, file in value.items()}


TEXT = text()
YES_NO = Rule("True or False", _yes_or_no)
PATH = Rule("a path", _path)
DEVICE = Rule("auto, cpu, cuda or mps, or a torch.device", _device)
PROGRESS = Rule("True, False, or a function of (stage, done, of how many)", _progress)
FUNCTION = Rule("a function", _function)
LABEL = Rule("one class", _label)  # a word or a number: who looks it up refuses those that a model has not
SEED = whole(0, 2**63 - 1)
PIXELS = whole(1)  # the size that a network takes has its own range
FILES = Rule("a dictionary with a file for each name", _files)
ENGINE, PRECISION = text("auto, fast, torch or keras"), text("auto, bf16, int8 or fp32")
