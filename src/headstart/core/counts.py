"""Counts in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


def counted(count: int, thing: str, things: str = "") -> str:
    """ "1 epoch", "3 epochs", "2 classes"; ``things`` where the plural ends in another way."""
    more = things or f"{thing}{'es' if thing.endswith('s') else 's'}"
    return f"{count} {verb(count, thing, more)}"


def each_kind(kinds: Iterable[str]) -> str:
    """How often there is each, the most frequent first: "duplicate (18), class too small (2)"."""
    return ", ".join(f"{kind} ({count})" for kind, count in Counter(kinds).most_common())


def verb(count: int, one: str = "is", more: str = "are") -> str:
    """The verb for so many."""
    return one if count == 1 else more
