"""Counts in sentences."""

from __future__ import annotations


def counted(count: int, thing: str, things: str = "") -> str:
    """ "1 epoch", "3 epochs", "2 classes"; ``things`` where the plural ends in another way."""
    more = things or f"{thing}{'es' if thing.endswith('s') else 's'}"
    return f"{count} {verb(count, thing, more)}"


def verb(count: int, one: str = "is", more: str = "are") -> str:
    """The verb for so many."""
    return one if count == 1 else more
