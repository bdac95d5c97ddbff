"""What is kept of runs on a cluster: shown and removed by `headstart cache`, and what killed workers left."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from test_shards import SPACE, rows_of

from headstart.core.errors import UsageError
from headstart.scale.shards import write_shard
from headstart.scale.store import IN_USE, LEFT, kept_spaces, place_of, prune_store, remove_left
from making import Shell


@pytest.fixture
def space(home: Path) -> Path:
    """Two shards in the store of the cache folder, written an hour ago; and an unfinished table and list."""
    folder = home / "scale" / "shards" / "a0"
    write_shard(folder / "1.arrow", rows_of(4), SPACE)
    write_shard(folder / "2.arrow", rows_of(3), SPACE)
    for file in ("lists/x.jsonl", "predictions/b1/1.arrow"):
        (home / "scale" / file).parent.mkdir(parents=True, exist_ok=True)
        (home / "scale" / file).write_bytes(b"0")
    for path in [*(home / "scale").rglob("*"), home / "scale"]:
        os.utime(path, (time.time() - 3600,) * 2)
    return folder


def test_the_cache_shows_them(space: Path, shell: Shell) -> None:
    (found,) = kept_spaces()
    assert (found.space, found.rows, dict(found.description)) == ("a0", 7, SPACE)
    assert found.size == sum(path.stat().st_size for path in space.iterdir())
    said = shell("cache", "--json").json
    assert [(each["id"], each["images"], each["precision"]) for each in said["spaces"]] == [("a0", 7, "bf16")]


def test_they_are_removed(space: Path, home: Path, shell: Shell) -> None:
    size = kept_spaces()[0].size
    assert prune_store(older_than_days=1) == 0
    assert prune_store(max_bytes=size) == 0
    assert len(kept_spaces()) == 1
    os.utime(space / "1.arrow")
    assert prune_store(everything=True) == 2  # not what was written a moment ago
    os.utime(space / "1.arrow", (time.time() - IN_USE - 5,) * 2)
    assert shell("cache", "--prune", "--json").json["freed"] == size
    assert [path for path in (home / "scale").rglob("*") if path.is_file()] == []


def test_what_killed_workers_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / ".shard-0", tmp_path / ".shard-1"
    for path, age in ((old, LEFT + 60), (new, LEFT - 60), (tmp_path / "a.arrow", 2 * LEFT)):
        path.write_bytes(b"")
        os.utime(path, (time.time() - age,) * 2)
    remove_left(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".shard-1", "a.arrow"]


def test_a_store_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cannot be made.*store"):
        place_of(tmp_path / "file" / "store")
