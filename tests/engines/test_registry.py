"""Opening what people call a backbone: the same rules for the catalogue and for live modules."""

from __future__ import annotations

import pytest

from headstart.backbones.catalogue import DEFAULT
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec, Normalisation
from headstart.engines.registry import open_backbone


def test_two_sizes_are_refused() -> None:
    """Before anything is opened, so of a backbone of any kind."""
    for backbone in (DEFAULT, "timm/resnet18", object()):
        with pytest.raises(UsageError, match="pixels=64 and a spec of 32 pixels name two sizes"):
            open_backbone(backbone, pixels=64, head=False, spec=ImageSpec(32))


def test_a_size_goes_with_a_spec_that_has_the_same_or_none() -> None:
    for spec in (ImageSpec(64), Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))):
        assert open_backbone(DEFAULT, pixels=64, head=False, spec=spec)[0].spec.size == 64
