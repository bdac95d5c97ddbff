"""Running a network on a data set, and bf16."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_data import ORIGIN, SPEC, Counted, Pixels, dataset, network, pixels_of, plain, same
from headstart.backbones.blueprint import FEATURES
from headstart.core.errors import UnreadableImageError, UsageError
from headstart.core.processors import AHEAD, CHUNK
from headstart.core.types import ImageDataset
from headstart.data.load import content_key, decode
from headstart.learn import features as module
from headstart.learn.feature_cache import FeatureCache, spaces
from headstart.learn.features import extract, run_network


class Trial(Counted):
    """Says that it computes in bf16, and whether it can be trusted with that."""

    trusted = True
    tried: list[int]

    def check_precision(self, images: Pixels, at: str = FEATURES) -> float:
        Trial.tried.append(len(images))
        if not Trial.trusted:
            self.precision = "fp32"
        return 0.0 if Trial.trusted else 1.0

    def runner(self, at: Sequence[str]) -> Callable[[Pixels], list[NDArray[np.float32]]]:
        return Counted.runner(self.at_precision("fp32"), at)  # a copy, on any processor


@pytest.mark.parametrize("trusted", [True, False])
def test_bf16_is_tried_on_some_of_the_images(trusted: bool, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "trusted", trusted)
    monkeypatch.setattr(Trial, "tried", [], raising=False)
    trunk = network(kind=Trial, precision="bf16")
    found = extract(dataset(range(50), [0]), trunk, ORIGIN)
    assert Trial.tried == [module.TRIAL - 1]  # the first one is unreadable
    assert found.computed == 49
    assert trunk.precision == ("bf16" if trusted else "fp32")
    kept = {info.description["precision"]: info.rows for info in spaces(home)}
    assert kept == ({"bf16": 49} if trusted else {"bf16": 0, "fp32": 49})

    again = extract(dataset(range(50), [0]), network(kind=Trial, precision="bf16"), ORIGIN)
    assert again.from_store == 49
    assert len(Trial.tried) == (1 if trusted else 2)  # what is known was tried before; fp32's rows are not bf16's
    same(again, found)


class Slow(Trial):
    """Is tried until it is told to end."""

    over: threading.Event

    def check_precision(self, images: Pixels, at: str = FEATURES) -> float:
        assert Slow.over.wait(60)
        return super().check_precision(images, at)


def test_nothing_is_kept_of_bf16_before_its_trial_is_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "tried", [], raising=False)
    monkeypatch.setattr(Slow, "over", threading.Event(), raising=False)
    monkeypatch.setattr(module, "KEEP", 10)
    told: list[int] = []
    writes: list[int] = []
    write = FeatureCache.write

    def written(cache: FeatureCache, keys: Sequence[bytes], *arrays: NDArray[np.generic]) -> None:
        assert Slow.over.is_set()
        writes.append(len(keys))
        write(cache, keys, *arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(FeatureCache, "write", written)

    def read(index: int) -> Pixels:
        if index == 40:
            Slow.over.set()
        return pixels_of(index)

    images = ImageDataset("", dataset(range(60)).samples, read)
    found = extract(
        images, network(kind=Slow, precision="bf16"), ORIGIN, progress=lambda done, count: told.append(done)
    )
    assert found.computed == sum(writes) == 60
    assert told == [*range(1, 61)]


def test_values_that_overflow_in_bf16_alone_are_computed_in_fp32(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Overflows(Slow):
        def runner(self, at: Sequence[str]) -> Callable[[Pixels], list[NDArray[np.float32]]]:
            run = super().runner(at)
            Slow.over.set()
            return lambda images: [
                value * np.float32(np.inf if self.precision == "bf16" else 1) for value in run(images)
            ]

    monkeypatch.setattr(Slow, "over", threading.Event(), raising=False)
    monkeypatch.setattr(Trial, "tried", [], raising=False)
    monkeypatch.setattr(Trial, "trusted", False)
    found = extract(dataset(range(20)), network(kind=Overflows, precision="bf16"), ORIGIN)
    same(found, extract(dataset(range(20)), network(), ORIGIN, keep=False))
    assert {info.description["precision"]: info.rows for info in spaces(home)} == {"bf16": 0, "fp32": 20}

    monkeypatch.setattr(Trial, "trusted", True)
    with pytest.raises(UsageError, match="gives no finite numbers"):
        extract(dataset(range(20)), network(kind=Overflows, precision="bf16"), ORIGIN, keep=False)


def test_the_others_are_kept_where_one_image_gives_no_finite_numbers(home: Path) -> None:
    class Fails(Counted):
        def runner(self, at: Sequence[str]) -> Callable[[Pixels], list[NDArray[np.float32]]]:
            run = super().runner(at)
            bad = decode(pixels_of(7), SPEC)

            def spoilt(images: Pixels) -> list[NDArray[np.float32]]:
                values = run(images)
                values[0][(images == bad).all(axis=(1, 2, 3)), 0] = np.nan
                return values

            return spoilt

    with pytest.raises(UsageError, match="gives no finite numbers for 'picture 7'"):
        extract(dataset(range(20)), network(kind=Fails), ORIGIN)
    assert [info.rows for info in spaces(home)] == [19]


@pytest.mark.parametrize("trusted", [True, False])
def test_an_interruption_during_the_trial_keeps_nothing(
    trusted: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Slow, "over", threading.Event(), raising=False)
    monkeypatch.setattr(Trial, "tried", [], raising=False)
    monkeypatch.setattr(Trial, "trusted", trusted)

    def stopped(*_: object) -> None:
        Slow.over.set()  # while the rows that wait are dealt with
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Features, "take", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract(dataset(range(60)), network(kind=Slow, precision="bf16"), ORIGIN)
    assert [info.rows for info in spaces(home)] == [0]


def test_run_network_gives_several_nodes_and_the_errors_in_order() -> None:
    seen = list(run_network(dataset(range(20), [6]), network(), (FEATURES, "act.pooled", "act"), range(19, 3, -1)))
    assert [item.index for item, _ in seen] == list(range(19, 3, -1))
    expected = plain(range(20))
    for item, values in seen:
        if item.index == 6:
            assert values is None
            assert isinstance(item.error, UnreadableImageError)
            continue
        assert values is not None
        assert [value.shape for value in values] == [(24,), (24,), (24, 16, 16)]
        assert np.array_equal(values[0], expected[item.index])
        np.testing.assert_allclose(values[2].mean(axis=(1, 2)), values[0], rtol=1e-5)


def test_run_network_passes_over_what_is_known() -> None:
    known = {content_key(pixels_of(number)) for number in (2, 3, 11)}
    seen = list(run_network(dataset(range(12)), network(), (FEATURES,), known=known))
    assert [item.index for item, values in seen if values is None] == [2, 3, 11]
    assert all(item.key == content_key(pixels_of(item.index)) for item, _ in seen)
    assert Counted.computed == 9


def test_run_network_runs_ahead_only_so_far_and_stops_with_its_taker() -> None:
    reads, lock = [0], threading.Lock()

    def read(index: int) -> Pixels:
        with lock:
            reads[0] += 1
        return pixels_of(index)

    stream = run_network(ImageDataset("", dataset(range(2000)).samples, read), network(), (FEATURES,))
    for taken, (item, _) in enumerate(itertools.islice(stream, 90)):
        assert item.index == taken
        if taken % 30:
            continue
        before = -1
        while before != reads[0]:  # until the threads have nothing more to do
            before = reads[0]
            time.sleep(0.1)
        assert taken < reads[0] <= taken + (AHEAD + 1) * CHUNK
    stream.close()  # type: ignore[attr-defined]
    after = reads[0]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("headstart")]
    assert Counted.computed <= after < 300


def test_a_node_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"no layer 'featurs'"):
        list(run_network(dataset(range(2)), network(), ("featurs",)))


@pytest.mark.parametrize("threads", [1, 5])
def test_so_many_threads_decode_and_run_the_network(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "threads_of_network", lambda: threads)
    together, names = threading.Barrier(threads), set[str]()

    def read(index: int) -> Pixels:
        if index % CHUNK == 0:
            names.add(threading.current_thread().name)
            together.wait(10)  # fails where there are fewer
        return pixels_of(index)

    plain_one = dataset(range(2 * threads * CHUNK), [])
    seen = list(run_network(ImageDataset("", plain_one.samples, read), network(), (FEATURES,)))
    assert len(seen) == len(plain_one)
    assert len(names) == threads


def test_small_images_keep_no_more_threads_busy_than_there_are_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "threads_of_network", lambda: 6)
    monkeypatch.setattr(module, "cores", lambda: 2)
    busy, most, lock = set[str](), 0, threading.Lock()

    def read(index: int) -> Pixels:
        nonlocal most
        place, name = index % CHUNK, threading.current_thread().name
        if index >= 6 * CHUNK:  # before that each thread has its first images, and does not know that they are small
            with lock:
                busy.add(name)
                most = max(most, len(busy))
                if place == CHUNK - 1:
                    busy.discard(name)
        time.sleep(0.001)
        return np.full((16, 16, 3), index, np.uint8)

    count = 30 * CHUNK
    seen = list(run_network(ImageDataset("", dataset(range(count)).samples, read), network(), (FEATURES,)))
    assert len(seen) == count
    assert most == 2
