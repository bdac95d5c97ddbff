"""Labels as text, by which a class is known, and back to what they were, which a caller compares answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXT = "text"  # the kind of all labels that come from names of folders and from files
_FROM_TEXT: dict[str, tuple[str, Callable[[str], Any]]] = {  # kind: NumPy's type, and a label of its text
    "bool": ("bool", {"False": False, "True": True}.__getitem__),
    "integer": ("int64", int),
    "float": ("float64", float),
}


def kind_of(labels: Iterable[object]) -> str:
    """ "bool", "integer" or "float", where all labels are of that kind; else "text"."""
    kinds = {_kind(label) for label in labels}
    if kinds == {"integer", "float"}:
        return "float"
    return kinds.pop() if len(kinds) == 1 else TEXT


def _kind(label: object) -> str:
    if isinstance(label, bool) or type(label).__name__ in ("bool", "bool_"):  # NumPy's, by version
        return "bool"
    if isinstance(label, Integral):
        return "integer" if -(2**63) <= int(label) < 2**63 else TEXT
    return "float" if isinstance(label, Real) else TEXT


def as_kind(label: object, kind: str) -> object:
    """The same number as another kind has it: 5.0 is the integer 5, and True the integer 1; all else as it is."""
    if not isinstance(label, Real) or kind not in _FROM_TEXT:
        return label
    value = int(label) if isinstance(label, Integral) else float(label)
    if kind == "float":
        return float(value)
    if kind == "bool":
        return bool(value) if value in (0, 1) else label
    return int(value) if isinstance(value, int) or value.is_integer() else label


def in_order(names: Iterable[str], kind: str = TEXT) -> tuple[str, ...]:
    """The different names, sorted: numbers by value."""
    return tuple(sorted(set(names), key=None if kind == TEXT else _FROM_TEXT[kind][1]))


def as_given(names: Sequence[str], kind: str) -> NDArray[Any]:
    """Class names (K,) as the labels that they were made of.

    Raises:
        ValueError: an unknown kind, or a name that is none of it.
    """
    import numpy as np  # not with the module: what only prints a message does not wait for it

    if kind == TEXT:
        return np.array(names, np.str_)
    if kind not in _FROM_TEXT:
        raise ValueError(f"'{kind}' is no kind of label")
    dtype, parse = _FROM_TEXT[kind]
    try:
        return np.array([parse(name) for name in names], dtype)
    except (KeyError, OverflowError) as error:
        raise ValueError(f"not every class name is of the kind '{kind}'") from error
