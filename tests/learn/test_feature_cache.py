"""The feature cache: reading, writing and listing."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from feature_caches import ABOUT, WIDTH, cache, files, fill, make, sound
from headstart.learn.feature_cache import FeatureCache


def test_rows_come_back_in_any_order_and_repeated(home: Path) -> None:
    keys, features, thumbnails = fill(home, 1203)
    order = np.random.default_rng(1).permutation(np.r_[np.arange(1203), np.arange(700)])
    with cache(home) as opened:
        assert opened.known == frozenset(keys)
        assert sound(opened, ([keys[i] for i in order], features[order], thumbnails[order])).all()


def test_unknown_keys_are_not_found_and_nothing_is_an_empty_request(home: Path) -> None:
    fill(home, 10)
    with cache(home) as opened:
        assert sound(opened, make(range(5, 15))).tolist() == [True] * 5 + [False] * 5
        assert sound(opened, make([])).shape == (0,)
        opened.write(*make([]))


def test_known_is_what_was_there_at_opening(home: Path) -> None:
    with cache(home) as opened:
        opened.write(*make(range(3)))
        assert opened.known == frozenset()
        assert sound(opened, make(range(3))).all()


def test_extreme_values_keep_their_bits(home: Path) -> None:
    keys, features, thumbnails = make(range(1))
    features[0, :5] = [np.nan, np.inf, -0.0, 65504, 6e-8]
    with cache(home) as opened:
        opened.write(keys, features, thumbnails)
        out = np.zeros_like(features)
        assert opened.read(keys, out, np.zeros_like(thumbnails)).all()
    assert out.tobytes() == features.tobytes()


def test_writing_again_replaces(home: Path) -> None:
    keys, features, thumbnails = fill(home, 20)
    with cache(home) as opened:
        opened.write(keys, features + 1, thumbnails)
        assert sound(opened, (keys, features + 1, thumbnails)).all()


@pytest.mark.parametrize("other", [{**ABOUT, "pixels": 160}, {**ABOUT, "weights": "57934424"}, {}])
def test_another_space_shares_nothing(home: Path, other: dict[str, object]) -> None:
    rows = fill(home, 20)
    with FeatureCache(other, WIDTH, home) as opened:
        assert opened.known == frozenset()
        assert not sound(opened, rows).any()
    with FeatureCache(dict(reversed(ABOUT.items())), WIDTH, home) as opened:
        assert sound(opened, rows).all()


def test_a_file_renamed_into_another_space_is_not_believed(home: Path) -> None:
    rows = fill(home, 20)
    FeatureCache({}, WIDTH, home).close()
    mine, other = sorted((home / "features").iterdir(), key=lambda path: -path.stat().st_size)
    shutil.copy(mine, other)
    with FeatureCache({}, WIDTH, home) as opened:
        assert not sound(opened, rows).any()


@pytest.mark.parametrize("name", ["two words", "a?mode=memory", "per%41cent", "hash#", "q'uo\"te", "😀", "new\nline"])
def test_homes_with_any_name(tmp_path: Path, name: str) -> None:
    rows = fill(tmp_path / name / "deep", 5)
    assert len(files(tmp_path / name / "deep")) == 1
    with cache(tmp_path / name / "deep") as opened:
        assert sound(opened, rows).all()


def test_wrong_shapes_are_refused(home: Path) -> None:
    keys, features, thumbnails = make(range(4))
    with cache(home) as opened:
        for bad in [
            (keys, features[:, :-1], thumbnails),
            (keys[:-1], features, thumbnails),
            (keys, features, thumbnails[:, :8]),
        ]:
            with pytest.raises(ValueError, match=r"expected shapes \(\(\d, 40\), \(\d, 16, 16\)\)"):
                opened.write(*bad)
            with pytest.raises(ValueError, match="expected shapes"):
                opened.read(*bad)


def test_the_python_memory_of_reading_and_writing_is_bounded(home: Path) -> None:
    rows = make(range(4000), 1280)
    out_features, out_thumbnails = np.empty_like(rows[1]), np.empty_like(rows[2])
    with cache(home, 1280) as opened:
        tracemalloc.start()
        opened.write(*rows)
        found = opened.read(rows[0], out_features, out_thumbnails)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found.all()
    assert np.array_equal(out_features, rows[1])
    assert peak < 5e6  # of 11 MB of rows
