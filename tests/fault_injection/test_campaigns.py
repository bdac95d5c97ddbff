"""A short campaign of each kind; `make fuzz` runs long ones."""

from __future__ import annotations

import os
import sys

import pytest

from fault_injection.watched import Outcome, campaign

BEYOND = 1.5e9  # bytes of memory, at most


def check(found: Outcome, count: int) -> None:
    assert found.faults == []
    assert found.counts["tried"] == count
    assert found.beyond < BEYOND


def test_damaged_images() -> None:
    found = campaign("images", seed=0, count=400)
    check(found, 400)
    assert 100 < found.counts["refused"] < 390  # some are damaged where it does not show


def test_damaged_models() -> None:
    found = campaign("bundles", seed=0, count=60)
    check(found, 60)
    assert found.counts["refused"] > 30


def test_damaged_weights_and_blueprints() -> None:
    found = campaign("weights", seed=0, count=400)
    check(found, 400)
    assert 100 < found.counts["refused"] < 390


def test_damaged_tables_and_lists() -> None:
    found = campaign("readers", seed=0, count=800)
    check(found, 800)
    assert 100 < found.counts["refused"] < 790


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_processes() -> None:
    check(campaign("kills", seed=0, count=3, limit=60), 3)


def test_what_ends_or_stops_the_process_is_counted(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = campaign("broken_on_purpose", seed=0, count=5, limit=1)
    assert dict(found.counts) == {"tried": 5, "crashed": 2, "hung": 1, "refused": 1}
    assert found.faults[0] == "seed 1: crashed: the process ended with -9"
