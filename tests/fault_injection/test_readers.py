"""Damaged tables, IDX and Parquet files and lists of paths are read or refused; and every kind of fault is found."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import readers
from readers import CRASHED, FINE, HUNG, KINDS, LOST, PHOTOS, WRONG, campaign, damaged


def test_damaged_files_are_read_or_refused() -> None:
    told: list[str] = []
    found = campaign(1, 1500, told.append)
    assert told == []
    assert found == {"tried": 1500, CRASHED: 0, HUNG: 0, WRONG: 0, LOST: 0}


@pytest.fixture
def beside_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*(f"{row}.png" for row in range(PHOTOS)), "sub folder/ä.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("make", "read"), KINDS)
def test_sound_files_are_read(make: object, read: object, beside_photos: Path) -> None:
    """Else nothing would be tested but refusals; and some of the damaged ones are read, too."""
    assert callable(make)
    assert callable(read)
    rng = random.Random(0)
    assert {read(make(rng), beside_photos) for _ in range(20)} == {FINE}


def test_damage_is_the_same_for_a_seed_and_of_every_kind() -> None:
    content = bytes(range(256)) * 4
    assert damaged(content, random.Random(5)) == damaged(content, random.Random(5))
    made = {damaged(content, random.Random(seed)) for seed in range(300)}
    assert len(made) > 200
    assert {len(each) > len(content) for each in made} == {True, False}
    for change in readers.CHANGES:  # also of nothing
        Counter(change(b"", random.Random(seed)) for seed in range(50))


FAULTY = """
import os, sys, time
import readers

def acts(what):
    def read(content, folder):
        if what == "raises":
            raise KeyError("x")
        if what == "refuses":
            from headstart.core.errors import DataError
            raise DataError("no")
        if what == "dies":
            os.abort()
        if what == "waits":
            time.sleep(60)
        return what
    return lambda rng: b"abc", read

readers.KINDS = tuple(map(acts, ("raises", "dies", "refuses", "waits", "wrong", "lost", "fine")))
readers.main()
"""


def test_every_kind_of_fault_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.setattr(readers, "SECONDS", 2.0)
    told: list[str] = []
    found = campaign(3, 7, told.append, str(tmp_path / "faulty.py"))
    assert found == {"tried": 7, CRASHED: 2, HUNG: 1, WRONG: 1, LOST: 1}
    assert "KeyError: 'x'" in told[0]
    assert "the process ended: -6" in told[1]
    assert [each.split(":")[0] for each in told] == [CRASHED, CRASHED, HUNG, WRONG, LOST]


def test_what_does_not_begin_is_no_campaign(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("import no_such_module")
    with pytest.raises(RuntimeError, match="no_such_module"):
        campaign(0, 5, script=str(tmp_path / "faulty.py"))
