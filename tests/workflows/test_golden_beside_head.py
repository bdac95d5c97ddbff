"""`hs.fit` runs its golden images beside the head."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import headstart as hs
from headstart.core.errors import DataError
from headstart.model.assemble import in_fp32
from headstart.workflows import fit as module

LONG = 10  # seconds for what takes none


def test_golden_images_are_seen_while_the_head_is_fitted(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, seen, head = threading.Event(), threading.Event(), module._fit_head
    waits: list[bool] = []

    def golden(*given: Any) -> Any:
        waits.append(begun.wait(LONG))
        found = in_fp32(*given)
        seen.set()
        return found

    def fit_head(*given: Any) -> Any:
        begun.set()
        waits.append(seen.wait(LONG))
        return head(*given)

    monkeypatch.setattr(module, "in_fp32", golden)
    monkeypatch.setattr(module, "_fit_head", fit_head)
    model = hs.fit(str(photos), pixels=32)
    assert waits == [True, True]
    assert model.golden is not None
    assert "golden" in model.record.seconds


@pytest.mark.parametrize("head_too", [False, True])
def test_what_goes_wrong_with_golden_images_comes_first(
    head_too: bool, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = module._fit_head

    def golden(*given: Any) -> Any:
        raise DataError("of the golden images")

    def fit_head(*given: Any) -> Any:
        if head_too:
            raise DataError("of the head")
        return head(*given)

    monkeypatch.setattr(module, "in_fp32", golden)
    monkeypatch.setattr(module, "_fit_head", fit_head)
    with pytest.raises(DataError, match="of the golden images"):
        hs.fit(str(photos), pixels=32)


def test_ctrl_c_leaves_no_thread_behind(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()

    def fit_head(*given: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_fit_head", fit_head)
    with pytest.raises(KeyboardInterrupt):
        hs.fit(str(photos), pixels=32)
    assert threading.active_count() == before
