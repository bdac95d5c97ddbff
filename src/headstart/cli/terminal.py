"""Plain words on a terminal or in a pipe: wrapped here, a line each there, and no name that plays tricks on either."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.core.text import all_shortened, one_line

if TYPE_CHECKING:  # rich is imported where something is printed: --json does without it
    from rich.console import Console
    from rich.text import Text

FEW = 8  # lines or names of a long list that a screen shows; --json has them all
INDENT = 15  # of what stands beside a word
UNLIKE = "unlike the training photos: predict answers unknown"
PIPE = 1000  # columns, where nobody looks and a script wants a line to stay one


def accuracy_text(value: float, low: float, high: float) -> Text:
    """An accuracy with its interval."""
    from rich.text import Text

    return Text(f"{value:.1%}", "bold green") + Text(f"   95 % interval {low:.1%} to {high:.1%}")


class Rows:
    """A word, and what there is to say of it: wrapped beside the word on a terminal, one line each in a pipe."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, Text, bool]] = []

    def add(self, word: str, text: str | Text, whole: bool = False) -> None:
        """``whole`` for what is there to be copied, which a line break would spoil."""
        from rich.text import Text

        self._rows.append((word, Text(text) if isinstance(text, str) else text, whole))

    def show(self, out: Console) -> None:
        """Print all rows."""
        from rich.text import Text

        for word, text, whole in self._rows:
            lines = [text] if whole or not out.is_terminal else text.wrap(out, max(out.width - INDENT, 20))
            for place, line in enumerate(lines):
                out.print(Text(f"{'' if place else word:<{INDENT}}", "dim") + line, soft_wrap=True)


def console() -> Console:
    """Standard output."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE)


def quoted(path: str) -> str:
    """A path as a shell takes it, on one line."""
    if path.isprintable():
        return shlex.quote(path)
    path = path.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{one_line(path)}'"  # what bash, zsh and ksh read with its escapes


def names_of_classes(classes: Sequence[str]) -> str:
    """The first few, long ones without their middle."""
    return ", ".join([*all_shortened(classes).values()][:FEW]) + (" …" if len(classes) > FEW else "")
