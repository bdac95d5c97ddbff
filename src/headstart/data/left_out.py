"""The sentence for a caller in Python on what was given and is left out."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.core.counts import counted, each_kind, verb
from headstart.core.errors import warn
from headstart.core.types import Problem


def warn_of(problems: Sequence[Problem], thing: str = "image") -> None:
    """A `DataWarning` that counts them and names the first; none where there is none."""
    if problems:
        kinds, first = each_kind(each.kind for each in problems), problems[0]
        many = counted(len(problems), thing)
        warn(f"{many} {verb(len(problems))} left out: {kinds}, first '{first.name}': {first.detail}.")
