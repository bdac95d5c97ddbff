"""Sound files are read, and damage is of every kind: else the campaign would see nothing but refusals."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from fault_injection.readers import CHANGES, FINE, KINDS, damaged, with_photos


@pytest.mark.parametrize(("make", "read"), KINDS)
def test_sound_files_are_read(make: object, read: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert callable(make)
    assert callable(read)
    rng = random.Random(0)
    assert {read(make(rng), tmp_path) for _ in range(20)} == {FINE}


def test_damage_is_the_same_for_a_seed_and_of_every_kind() -> None:
    content = bytes(range(256)) * 4
    assert damaged(content, random.Random(5)) == damaged(content, random.Random(5))
    made = {damaged(content, random.Random(seed)) for seed in range(300)}
    assert len(made) > 200
    assert {len(each) > len(content) for each in made} == {True, False}
    for change in CHANGES:  # also of nothing
        Counter(change(b"", random.Random(seed)) for seed in range(50))
