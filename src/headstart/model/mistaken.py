"""What was given where a model or photos were expected: the two are easily swapped."""

from __future__ import annotations

import os

from headstart.backbones.not_names import why_no_name
from headstart.backbones.published import BACKBONES
from headstart.core.errors import UsageError, did_you_mean
from headstart.core.missing import is_absent, near_path, why_missing
from headstart.core.regular_file import NO_FILE
from headstart.data.formats import SUFFIXES, suffix_of
from headstart.data.scan import scan
from headstart.model import stored

MAKE = "Make one with: headstart fit PHOTOS --out MODEL"
MAKE_OF_ROWS = "Make one with: headstart train ROWS.csv --out MODEL"


def no_model(name: str, *, networks: bool, make: str = MAKE) -> UsageError:
    """The error for a name that is no model: what it is instead, or what may be meant.

    Args:
        networks: whether the name of a network would do as well.
        make: a sentence on how such a model is made.
    """
    if os.path.isfile(name) and suffix_of(name) in SUFFIXES:
        return UsageError(f"'{name}' is a photo. The model comes first: headstart predict MODEL PHOTO")
    if os.path.isdir(name):
        swapped = " The model comes first, the photos after it." if scan(name).images else ""
        return UsageError(f"'{name}' is a folder, but no model: {_lack_of(name)}.{swapped} {make}")
    if networks and (problem := why_no_name(name, "NAME")):
        return UsageError(problem)
    if os.path.isfile(name):
        return UsageError(f"'{name}' is a file. A model is a folder. {make}")
    if not is_absent(name):
        return UsageError(why_missing(name) or f"'{name}' is {NO_FILE}. A model is a folder. {make}")
    if near := near_path(name, lambda path: os.path.isfile(os.path.join(path, stored.CONFIG))):
        return UsageError(f"There is no model '{name}'. Did you mean {near!r}?")
    if networks:
        near = did_you_mean(name, BACKBONES, "headstart backbones")
        return UsageError(f"There is no model '{name}', and no network of that name. {near}")
    return UsageError(f"There is no model '{name}'. {make}")


def _lack_of(folder: str) -> str:
    """What keeps a folder from being a model."""
    for name in stored.FILES:
        path = os.path.join(folder, name)
        if os.path.exists(path) and not os.path.isfile(path):
            return f"its {name} is no file"
        if not os.path.isfile(path):
            return f"it has no {name}"
    return "it cannot be opened"
