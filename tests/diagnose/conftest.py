"""What the tests of the diagnosis share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headstart.learn.regularisation_path import HALF_OF_THE_CORES


@pytest.fixture(autouse=True)
def half_of_the_cores() -> Iterator[None]:
    """As `diagnose_head` computes: threads of many small systems wait for each other."""
    with HALF_OF_THE_CORES:
        yield
