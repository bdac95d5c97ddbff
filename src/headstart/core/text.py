"""Names from elsewhere as a screen can bear them: on one line, and not too long."""

from __future__ import annotations


def one_line(name: str) -> str:
    """A name as one line that does nothing to a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def shortened(name: str, most: int) -> str:
    """A name on one line, of at most ``most`` characters: what is in its middle is left out."""
    name = one_line(name)
    end = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - end]}…{name[len(name) - end :]}"
