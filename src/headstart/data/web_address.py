"""Which names are addresses; what fetches them is imported where there are any."""

from __future__ import annotations

_SCHEMES = ("http://", "https://")


def is_address(path: str) -> bool:
    """Whether it is an address of http or https, not a path."""
    return path[:8].lower().startswith(_SCHEMES)
