"""What `print` shows of a large object, one line, and what a notebook shows, a small card."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from headstart.core.counts import counted
from headstart.core.text import all_shortened

FEW = 4  # classes that are named
_TABLE = "border-collapse:collapse;border:1px solid #8888;text-align:left"
_CELL = "padding:2px 10px;text-align:left;vertical-align:top"


def names_in_short(names: Sequence[str]) -> str:
    """How many classes, and the first few: "2 classes (cats, dogs)"."""
    first = ", ".join(all_shortened(names[:FEW]).values())
    return f"{counted(len(names), 'class')} ({first}{', …' if len(names) > FEW else ''})"


def line_of(kind: str, facts: Iterable[str]) -> str:
    """What `print` shows of an object: its type and the facts, in one line."""
    return f"<{kind}: {'; '.join(facts)}>"


class Described(ABC):
    """An object that is shown by its ``facts``: in one line, and as a card in a notebook."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """What is said of it, by a word for each."""

    def __repr__(self) -> str:
        return line_of(type(self).__name__, self.facts().values())

    def _repr_html_(self) -> str:
        return card_of(type(self).__name__, self.facts())


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """What a notebook shows of several things with the same facts: a row for each, and a sentence below."""
    lines = [("th", head), *(("td", row) for row in rows)]
    body = "".join(
        f"<tr>{''.join(f'<{tag} style={_CELL!r}>{escape(cell)}</{tag}>' for cell in line)}</tr>" for tag, line in lines
    )
    return f'<table style="{_TABLE}">{body}</table><p>{escape(note)}</p>'


def card_of(kind: str, facts: Mapping[str, str]) -> str:
    """What a notebook shows: a table of the facts, in the colours of the page."""
    rows = "".join(
        f'<tr><th style="{_CELL}">{escape(name)}</th><td style="{_CELL}">{escape(fact)}</td></tr>'
        for name, fact in facts.items()
    )
    head = f'<tr><th colspan="2" style="{_CELL}">{escape(kind)}</th></tr>'
    return f'<table style="{_TABLE}">{head}{rows}</table>'
