"""Features: computed once, kept, and computed again where the cache is damaged."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_data import ORIGIN, SPEC, Counted, Pixels, dataset, network, pixels_of, plain, same
from headstart.backbones.blueprint import FEATURES
from headstart.core.errors import UsageError
from headstart.core.types import ImageDataset, ImageSpec, Sample
from headstart.data.load import THUMBNAIL, content_key, decode, decode_with_thumbnail
from headstart.engines.fast import FastNetwork
from headstart.learn import features as module
from headstart.learn.feature_cache import spaces
from headstart.learn.features import extract


def database(home: Path) -> Path:
    (file,) = (home / "features").glob("*.sqlite")
    return file


@pytest.mark.parametrize("keep", [True, False])
def test_rows_are_the_networks_in_the_order_of_the_table(keep: bool) -> None:
    order = np.random.default_rng(0).permutation(130).tolist()
    found = extract(dataset(order), network(), ORIGIN, keep=keep)
    expected = plain(order)
    assert expected.std(axis=0).min() > 0
    assert found.values.dtype == np.float16
    assert np.array_equal(found.values, expected.astype(np.float16))
    assert np.array_equal(found.thumbnails, np.stack([decode_with_thumbnail(pixels_of(n), SPEC)[1] for n in order]))
    assert found.keys == [content_key(pixels_of(n)) for n in order]
    assert found.usable.all()
    assert (found.computed, found.from_store, found.problems, found.store_problem) == (130, 0, [], None)


def test_values_beyond_half_precision_are_kept_in_its_range() -> None:
    class Loud(FastNetwork):
        def runner(self, at: Sequence[str]) -> Callable[[Pixels], list[NDArray[np.float32]]]:
            run = super().runner(at)
            return lambda images: [values * np.where(np.arange(24) < 12, 1e9, 1) for values in run(images)]

    found = extract(dataset(range(3)), network(kind=Loud), ORIGIN)
    assert np.isfinite(found.values).all()
    assert found.values.max() == 65504


def test_a_network_that_sees_no_difference_is_refused() -> None:
    """As OpenVINO makes of one that overflows on the way: its ReLU of 'nan' is zero."""

    class Blind(FastNetwork):
        def runner(self, at: Sequence[str]) -> Callable[[Pixels], list[NDArray[np.float32]]]:
            return lambda images: [np.zeros((len(images), 24), np.float32)]

    with pytest.raises(UsageError, match=r"'tiny' gives the same features for all 3 images\. Its weights overflow"):
        extract(dataset(range(3)), network(kind=Blind), ORIGIN)
    assert extract(dataset([1, 1]), network(kind=Blind), ORIGIN).usable.all()  # of one image, twice


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_network_that_overflows_is_refused_and_nothing_is_kept(value: float, home: Path) -> None:
    class Broken(FastNetwork):
        def runner(self, at: Sequence[str]) -> Callable[[Pixels], list[NDArray[np.float32]]]:
            run = super().runner(at)
            return lambda images: [np.where(np.arange(24) == 7, np.float32(value), values) for values in run(images)]

    with pytest.raises(UsageError, match=r"'tiny' gives no finite numbers for 'picture 0'\. Its weights overflow"):
        extract(dataset(range(3)), network(kind=Broken), ORIGIN)
    assert extract(dataset(range(3)), network(), ORIGIN).computed == 3


def test_an_empty_table_has_no_features(home: Path) -> None:
    found = extract(dataset([]), network(), ORIGIN)
    assert found.values.shape == (0, 24)
    assert found.thumbnails.shape == (0, THUMBNAIL, THUMBNAIL)


def test_what_was_computed_once_is_read(home: Path) -> None:
    first = extract(dataset(range(40)), network(), ORIGIN)
    assert Counted.computed == 40
    second = extract(dataset(range(40)), network(), ORIGIN)
    assert Counted.computed == 0
    assert (second.computed, second.from_store) == (0, 40)
    same(second, first)


def test_ten_more_photos_compute_ten(home: Path) -> None:
    first = extract(dataset(range(40)), network(), ORIGIN)
    order = np.random.default_rng(1).permutation(50).tolist()
    more = extract(dataset(order), network(), ORIGIN)
    assert Counted.computed == 10
    assert (more.computed, more.from_store) == (10, 40)
    same(more, extract(dataset(order), network(), ORIGIN, keep=False))
    assert np.array_equal(more.values[np.argsort(order)][:40], first.values)


def test_names_do_not_count_but_content_does(home: Path) -> None:
    extract(dataset(range(10)), network(), ORIGIN)
    renamed = ImageDataset("elsewhere", [Sample(f"other {n}", "b") for n in range(10)], pixels_of)
    assert extract(renamed, network(), ORIGIN).computed == 0
    altered = ImageDataset("", renamed.samples, lambda index: pixels_of(index) ^ np.uint8(index == 3))
    assert extract(altered, network(), ORIGIN).computed == 1


@pytest.mark.parametrize("change", ["weights", "pixels", "precision"])
def test_another_space_shares_nothing(change: str, home: Path) -> None:
    extract(dataset(range(10)), network(), ORIGIN)
    other = network()
    if change == "pixels":
        other.spec = ImageSpec(32, crop=1.0)
    if change == "precision":
        other.precision = "bf16"
        other.check_precision = lambda images, at=FEATURES: 0.0  # type: ignore[method-assign]
        other.runner = other.at_precision("fp32").runner  # type: ignore[method-assign]
    found = extract(dataset(range(10)), other, "cd34" if change == "weights" else ORIGIN)
    assert (found.computed, found.from_store) == (10, 0)
    assert len(spaces(home)) == 2


def test_the_same_photo_twice_is_kept_once(home: Path) -> None:
    found = extract(dataset([1, 2, 1, 1]), network(), ORIGIN)
    assert np.array_equal(found.values[0], found.values[2])
    assert found.keys[0] == found.keys[2]
    assert spaces(home)[0].rows == 2
    assert extract(dataset([1, 1, 2]), network(), ORIGIN).from_store == 3


def test_without_the_store_nothing_is_read_and_nothing_stays(home: Path) -> None:
    found = extract(dataset(range(20)), network(), ORIGIN, keep=False)
    assert found.computed == 20
    assert list(home.iterdir()) == []
    kept = extract(dataset(range(20)), network(), ORIGIN)
    same(kept, found)
    again = extract(dataset(range(20)), network(), ORIGIN, keep=False)
    assert (again.computed, again.from_store) == (20, 0)
    same(again, found)


def test_a_store_that_cannot_be_written_costs_a_sentence(home: Path) -> None:
    (home / "features").write_text("a file in the way")
    found = extract(dataset(range(9)), network(), ORIGIN)
    assert found.computed == 9
    assert found.store_problem is not None
    assert "could not be kept" in found.store_problem
    assert np.array_equal(found.values, plain(range(9)).astype(np.float16))


@pytest.mark.parametrize("together", [4096, 4])
def test_a_flipped_byte_is_computed_again(together: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.learn.features.READ", together)
    first = extract(dataset(range(30)), network(), ORIGIN)
    content = bytearray(database(home).read_bytes())
    place = content.find(first.values[17].tobytes())
    assert place > 0
    content[place + 5] ^= 1
    database(home).write_bytes(content)
    second = extract(dataset(range(30)), network(), ORIGIN)
    assert Counted.computed == 1
    assert (second.computed, second.from_store) == (1, 29)
    same(second, first)
    assert extract(dataset(range(30)), network(), ORIGIN).from_store == 30  # and mended


def test_a_photo_that_goes_while_its_row_is_lost_is_reported(home: Path) -> None:
    """It was there when the cache was asked, and is gone when it has to be computed after all."""
    first = extract(dataset(range(12)), network(), ORIGIN)
    content = database(home).read_bytes()
    at = content.find(first.values[4].tobytes())
    database(home).write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    reads = [0]

    def read(index: int) -> Pixels:
        reads[0] += index == 4
        if reads[0] > 1 and index == 4:
            raise FileNotFoundError(2, "No such file", "picture 4")
        return pixels_of(index)

    found = extract(ImageDataset("", dataset(range(12)).samples, read), network(), ORIGIN)
    assert [(problem.name, problem.kind) for problem in found.problems] == [("picture 4", "missing")]
    assert np.flatnonzero(~found.usable).tolist() == [4]
    assert (found.values[4] == 0).all()
    assert (found.computed, found.from_store) == (0, 11)


def test_a_file_that_is_no_database_is_replaced(home: Path) -> None:
    first = extract(dataset(range(12)), network(), ORIGIN)
    database(home).write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 40)
    second = extract(dataset(range(12)), network(), ORIGIN)
    assert second.computed == 12
    same(second, first)
    assert extract(dataset(range(12)), network(), ORIGIN).from_store == 12


@pytest.mark.parametrize("keep", [True, False])
def test_unreadable_images_are_reported_and_cost_only_themselves(keep: bool) -> None:
    broken = [0, 5, 33, 39]
    found = extract(dataset(range(40), broken), network(), ORIGIN, keep=keep)
    assert [problem.name for problem in found.problems] == [f"picture {n}" for n in broken]
    assert {problem.kind for problem in found.problems} == {"unreadable"}
    assert "it is text, not an image" in found.problems[0].detail
    assert np.flatnonzero(~found.usable).tolist() == broken
    assert (found.values[broken] == 0).all()
    sound = np.flatnonzero(found.usable)
    assert np.array_equal(found.values[sound], plain(sound.tolist()).astype(np.float16))
    again = extract(dataset(range(40), broken), network(), ORIGIN, keep=keep)
    assert (again.computed, again.from_store) == ((0, 36) if keep else (36, 0))
    assert again.problems == found.problems


def test_every_image_may_be_unreadable() -> None:
    found = extract(dataset(range(3), range(3)), network(), ORIGIN)
    assert not found.usable.any()
    assert len(found.problems) == 3
    assert Counted.computed == 0


@pytest.mark.parametrize("after", [1, 7, 20, 64])
def test_after_an_interruption_the_next_run_goes_on(after: int, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP", 6)

    def stop(done: int, count: int) -> None:
        assert count == 64
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(dataset(range(64)), network(), ORIGIN, progress=stop)
    assert spaces(home)[0].rows == after  # every image that was told of is safe
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("headstart")]
    second = extract(dataset(range(64)), network(), ORIGIN)
    assert Counted.computed == 64 - after
    assert second.from_store == after
    same(second, extract(dataset(range(64)), network(), ORIGIN, keep=False))


def test_a_failure_in_the_network_keeps_what_is_finished(home: Path) -> None:
    class Failing(FastNetwork):
        def runner(self, at: Sequence[str]) -> Callable[[Pixels], list[NDArray[np.float32]]]:
            run, bad = super().runner(at), decode(pixels_of(20), SPEC)

            def fails(images: Pixels) -> list[NDArray[np.float32]]:
                if (images == bad).all(axis=(1, 2, 3)).any():
                    raise MemoryError("no room")
                return run(images)

            return fails

    with pytest.raises(MemoryError):
        extract(dataset(range(40)), network(kind=Failing), ORIGIN)
    assert spaces(home)[0].rows == 16  # the chunks before
    assert extract(dataset(range(40)), network(), ORIGIN).from_store == 16


@pytest.mark.parametrize("start", [0, 11])
def test_progress_counts_to_the_end_once(start: int) -> None:
    extract(dataset(range(start)), network(), ORIGIN)
    told: list[tuple[int, int]] = []
    extract(dataset(range(30), [3]), network(), ORIGIN, progress=lambda *now: told.append(now))
    assert told == [(done, 30) for done in range(1, 31)]


TWO = """
import sys
sys.path.insert(0, sys.argv[1])
from feature_data import ORIGIN, dataset, network
from headstart.learn.features import extract
import numpy as np
print("ready", flush=True)
sys.stdin.readline()
found = extract(dataset(range(int(sys.argv[2]), int(sys.argv[3]))), network(), ORIGIN)
assert found.store_problem is None, found.store_problem
np.save(sys.argv[4], found.values)
"""


def test_two_processes_share_the_cache(home: Path, tmp_path: Path) -> None:
    ranges = [(0, 300), (100, 400)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(Path(__file__).parents[1]), str(a), str(b), str(tmp_path / f"{a}.npy")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for a, b in ranges
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    whole = extract(dataset(range(400)), network(), ORIGIN)
    assert (whole.computed, whole.from_store) == (0, 400)
    assert np.array_equal(whole.values, plain(range(400)).astype(np.float16))
    for a, b in ranges:
        assert np.array_equal(np.load(tmp_path / f"{a}.npy"), whole.values[a:b])
