"""Counts in sentences."""

from __future__ import annotations


def counted(count: int, thing: str, things: str = "") -> str:
    """ "1 epoch", "3 epochs"; ``things`` where the plural has another ending than s."""
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"


def verb(count: int, one: str = "is", more: str = "are") -> str:
    """The verb for so many."""
    return one if count == 1 else more
