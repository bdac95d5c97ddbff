"""Texts for a screen: names from elsewhere on one line and not too long, and sentences on standard error."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable

LONGEST = 24  # characters of a class on a screen


def one_line(name: str) -> str:
    """A name as one line that does nothing to a terminal."""
    if name.isprintable():
        return name
    return "".join(sign if sign.isprintable() else _escaped(sign) for sign in name)


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8, which not every file's can."""
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def _escaped(sign: str) -> str:
    """A sign as Python and shells write it; of a byte of a file's name that is no text, the byte."""
    return f"\\x{ord(sign) - 0xDC00:02x}" if "\udc80" <= sign <= "\udcff" else sign.encode("unicode_escape").decode()


def shortened(name: str, most: int) -> str:
    """A name on one line, of at most ``most`` characters: what is in its middle is left out."""
    name = one_line(name)
    end = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - end]}…{name[len(name) - end :]}"


def all_shortened(names: Iterable[str], most: int = LONGEST) -> dict[str, str]:
    """Each name, and it `shortened`; those that would then look alike keep more characters."""
    short = {name: shortened(name, most) for name in names}
    counts = Counter(short.values())
    alike = [name for name, text in short.items() if counts[text] > 1 and text != one_line(name)]
    return short | all_shortened(alike, 2 * most) if alike else short


def say(text: str) -> None:
    """One line on standard error, which a terminal gets in lines of its width."""
    line = f"headstart: {one_line(text)}"
    if sys.stderr.isatty():  # at words; what has no blank in it, such as a path, stays whole
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, max(width, 20), break_long_words=False, break_on_hyphens=False)
    sys.stderr.write(f"{line}\n")


def two_decimals(value: float) -> str:
    """ "0.25"; never "-0.00"."""
    return f"{round(value, 2) + 0.0:.2f}"
