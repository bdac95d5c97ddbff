"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and weights beside the project; tests that need it skip where it is absent."""
    root = Path(os.environ.get("HEADSTART_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip(f"no real photos and weights at {root} (set HEADSTART_SHARED)")
    return root


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, so that no test reads what another wrote."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HEADSTART_HOME", str(home))
    return home
