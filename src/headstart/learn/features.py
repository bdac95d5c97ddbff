"""From a data set of images to a matrix of features: threads decode images and run the network on them."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES
from headstart.core.errors import UsageError
from headstart.core.processors import cores, threads_of_network
from headstart.core.progress import StageProgress
from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset
from headstart.data.fingerprints import Fingerprints
from headstart.data.load import DRAFT, PASSES, SMALL, THUMBNAIL, Decoded, in_chunks, load_images
from headstart.engines.fast.int8 import SCHEME
from headstart.engines.protocol import LOW, Network
from headstart.engines.sound import ADVICE, check_not_all_alike
from headstart.learn.feature_cache import FeatureCache

TRIAL = 16  # images on which bf16 or int8 is compared with fp32 before it is used
READ = 4096  # rows read from the cache at a time: all at once would double the memory
KEEP = 256  # rows computed between two writes: the most that an interruption can lose once a trial is over
LARGEST = 65504  # of float16


@dataclass(kw_only=True, eq=False)
class Features(Fingerprints):
    """Features and fingerprints of a data set's images, row by row; zero for unreadable images."""

    values: NDArray[np.float16]  # (N, D)
    computed: int = 0
    from_store: int = 0  # rows read from the feature cache
    store_problem: str | None = None  # why the feature cache could not be written


def extract(
    dataset: ImageDataset, network: Network, origin: str, *, keep: bool = True, progress: StageProgress | None = None
) -> Features:
    """The features of every image: read from the feature cache where it has them, else computed and written to it.

    Features are rounded to float16 whether they come from the cache or not, so both give the same model. bf16 or int8
    is compared with fp32 on a few of these images: beside the work, of which nothing is kept until that is decided.

    Args:
        origin: hexadecimal digest of the backbone's weights.
        keep: whether to read and write the feature cache.
        progress: called with (images done, images); begins anew where fp32 takes the place of bf16 or int8.
    """
    width = network.shape(FEATURES)[0]

    def opened() -> FeatureCache | None:
        return FeatureCache(describe(network, origin, FEATURES), width) if keep else None

    cache = opened()
    if network.precision in LOW:
        low = network.at_precision(network.precision)
        with ThreadPoolExecutor(1, thread_name_prefix="headstart") as beside:
            trial = beside.submit(passes_trial, network, dataset, cache.known if cache else ())
            with suppress(_TooCoarseError):
                return _extracted(dataset, low, cache, progress, trial)
        cache = opened()  # the network computes in fp32 now
    return _extracted(dataset, network, cache, progress)


def run_network(
    dataset: ImageDataset,
    network: Network,
    at: Sequence[str],
    indices: Sequence[int] | None = None,
    known: Container[bytes] = (),
) -> Iterator[tuple[Decoded, list[NDArray[np.float32]] | None]]:
    """Run a network on images of a data set, in order: yields each image with its values at the nodes ``at``.

    The values are None where the image could not be read, or its key is ``known``. Memory does not grow with the
    number of images.
    """
    local, few, are_small = threading.local(), threading.Semaphore(cores()), False

    def run(pixels: list[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.float32]]]:
        if not hasattr(local, "runner"):  # one inference request a thread
            local.runner = network.runner(at)
        for start in range(0, len(pixels), network.micro_batch):
            values = local.runner(np.stack(pixels[start : start + network.micro_batch]))
            yield from (list(row) for row in zip(*values, strict=True))

    def work(chunk: Sequence[int]) -> list[tuple[Decoded, list[NDArray[np.float32]] | None]]:
        nonlocal are_small
        with few if are_small else nullcontext():  # more threads than processors only take turns then
            items = load_images(dataset, chunk, network.spec, known)
            are_small = sum(item.size for item in items) <= SMALL * len(items)
            rows = run([item.pixels for item in items if item.pixels is not None])
            return [(item, None if item.pixels is None else next(rows)) for item in items]

    return in_chunks(work, range(len(dataset)) if indices is None else indices, threads_of_network())


def to_half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Values in float16; those beyond its range become its largest."""
    return np.clip(values, -LARGEST, LARGEST).astype(np.float16)


class _TooCoarseError(Exception):
    """bf16 or int8 is too far from fp32 for these images."""


def passes_trial(network: Network, dataset: ImageDataset, known: Container[bytes] = ()) -> bool:
    """Whether bf16 or int8 is close enough to fp32 on a few images; else the network computes in fp32 from now on.

    Where the feature cache of bf16 or int8 knows all of these images, that was found out before.
    """
    chosen = load_images(dataset, evenly_spread(range(len(dataset)), TRIAL), network.spec, known)
    images = [item.pixels for item in chosen if item.pixels is not None]
    if images:
        network.check_precision(np.stack(images))
    return network.precision != "fp32"


def _extracted(
    dataset: ImageDataset,
    network: Network,
    cache: FeatureCache | None,
    progress: StageProgress | None,
    trial: Future[bool] | None = None,
) -> Features:
    """As `extract`, in one precision.

    Raises:
        _TooCoarseError: the ``trial`` of the precision, which goes on beside, is not passed.
    """
    count = len(dataset)
    found = Features(**vars(Fingerprints.of(count)), values=np.zeros((count, network.shape(FEATURES)[0]), np.float16))
    with cache or nullcontext():
        extraction = _Extraction(dataset, network, cache, found, progress, trial)
        extraction.run(range(count), cache.known if cache else ())
        found.from_store = int(found.usable.sum())
        lost = extraction.read_known()
        found.from_store -= found.computed + len(lost)
        extraction.run(lost, ())
        found.store_problem = cache.problem if cache else None
    check_not_all_alike(network.name, found.values[found.usable], found.thumbnails[found.usable])
    return found


class _Extraction:
    """Fills ``found`` row by row."""

    def __init__(
        self,
        dataset: ImageDataset,
        network: Network,
        cache: FeatureCache | None,
        found: Features,
        progress: StageProgress | None,
        trial: Future[bool] | None,
    ) -> None:
        self.dataset, self.network, self.cache, self.found, self.progress = dataset, network, cache, found, progress
        self._trial = trial
        self._computed: dict[int, NDArray[np.float32]] = {}  # by row, since the last were kept
        self._known: list[int] = []
        self._done = 0

    def run(self, indices: Sequence[int], known: Container[bytes]) -> None:
        """Compute the features of these images, without the ``known``; what is computed is kept, on an error too."""
        try:
            for item, values in run_network(self.dataset, self.network, (FEATURES,), indices, known):
                self._take(item, values[0] if values else None)
                self._done += 1
                if self.progress:  # may raise, to stop the run
                    self.progress(min(self._done, len(self.dataset)), len(self.dataset))
                if self._is_decided() and len(self._computed) >= KEEP:
                    self._keep()
            self._decide()
        finally:
            if self._trial is None:
                self._keep()

    def _is_decided(self) -> bool:
        """Whether the trial has been passed, or there is none.

        Raises:
            _TooCoarseError: it has not been passed.
        """
        if self._trial is None:
            return True
        if self._trial.done():
            self._decide()
        return self._trial is None

    def _decide(self) -> None:
        """Wait for the trial. Raises what `_is_decided` does."""
        if self._trial is not None:
            if not self._trial.result():
                raise _TooCoarseError
            self._trial = None

    def read_known(self) -> list[int]:
        """Fill the rows that the cache has; returns those that are damaged or no longer there."""
        lost: list[int] = []
        if self.cache is None:
            return lost
        for start in range(0, len(self._known), READ):
            rows = self._known[start : start + READ]
            values = np.zeros((len(rows), self.found.values.shape[1]), np.float16)
            thumbnails = np.zeros((len(rows), THUMBNAIL, THUMBNAIL), np.uint8)
            sound = self.cache.read([self.found.keys[row] for row in rows], values, thumbnails)
            self.found.values[rows], self.found.thumbnails[rows] = values, thumbnails
            lost += [row for row, fine in zip(rows, sound, strict=True) if not fine]
        return lost

    def _take(self, item: Decoded, values: NDArray[np.float32] | None) -> None:
        found = self.found
        found.take(item, self.dataset.samples[item.index].name)
        if item.error is not None:
            return
        if values is None:
            self._known.append(item.index)
        else:
            self._computed[item.index] = values

    def _keep(self) -> None:
        """Round what was computed, and write it to the cache.

        Raises:
            UsageError: some values are not finite; the other rows are kept.
        """
        if not self._computed:
            return
        found, values = self.found, np.stack([*self._computed.values()])
        finite = np.isfinite(values).all(axis=1)
        rows = np.array([*self._computed])
        bad, rows = rows[~finite], rows[finite]
        self._computed.clear()
        found.values[rows] = to_half(values[finite])
        found.computed += len(rows)
        if self.cache and len(rows):
            self.cache.write([found.keys[row] for row in rows], found.values[rows], found.thumbnails[rows])
        if len(bad):
            name = self.dataset.samples[bad[0]].name
            raise UsageError(f"'{self.network.name}' gives no finite numbers for '{name}'. {ADVICE}")


def describe(network: Network, origin: str, at: str) -> dict[str, object]:
    """Everything that the values of a node depend on but the image: it decides the space of the feature cache."""
    description: dict[str, object] = {
        "backbone": network.name,
        "weights": origin,
        "node": at,
        "image": network.spec.as_json() | {"draft": DRAFT, "passes": PASSES},
        "precision": network.precision,
    }
    if network.precision == "int8":
        description["int8"] = SCHEME
    if network.engine != "fast":  # each rounds in its own way
        description["engine"] = network.engine
    return description
