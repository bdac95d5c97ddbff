"""Plain values of options are taken as they are: typer checks each with pydantic, whose import takes 0.1 s."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,14})")
DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,6})(\.[0-9]{1,8})?")


def take_plain_values(parameters: Iterable[Any]) -> None:
    """Have the options and arguments of a command leave to typer only what is not plain, such as what is wrong."""
    for parameter in parameters:
        of_typer = getattr(parameter, "get_runtime_param", None)
        if of_typer is not None:  # else a version of typer without pydantic
            parameter.get_runtime_param = lambda of_typer=of_typer: _Value(of_typer)


class _Value:
    """Takes what was given for an option or an argument; the interface of typer's ``RuntimeParam``."""

    def __init__(self, of_typer: Callable[[], Any]) -> None:
        self._of_typer = of_typer

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value in the type of the function's parameter."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        kind = param.type_descriptor.annotation
        if kind is str and type(value) is str:
            return value
        if kind == list[str] and several and all(type(each) is str for each in value):
            return [*value]
        if kind is int and _is(value, int, WHOLE):
            return int(value)
        if kind is float and (type(value) is int or _is(value, float, DECIMAL)):
            return float(value)
        return self._of_typer().coerce(value, param=param, ctx=ctx)


def _is(value: Any, kind: type, plain: re.Pattern[str]) -> bool:
    return type(value) is kind or (type(value) is str and plain.fullmatch(value) is not None)
