"""From a table of images to a matrix of features: each core decodes an image and runs the network on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES
from headstart.core.types import ImageDataset
from headstart.data.fingerprints import Fingerprints
from headstart.data.load import THUMBNAIL, Decoded, fetch, in_chunks
from headstart.engines.protocol import Network
from headstart.learn.feature_cache import FeatureCache

Progress = Callable[[int, int], None]
TRIAL = 16  # images that bf16 is tried on before it is trusted
READ = 4096  # rows read from the store at a time: all at once would double the memory
KEEP = 256  # rows computed between two writes: what an interruption can cost


@dataclass(kw_only=True)
class Features(Fingerprints):
    """Features of a data set's images, row by row, and what else was seen of them; zero for unreadable ones."""

    values: NDArray[np.float16]  # (N, D)
    computed: int = 0
    from_store: int = 0
    store_problem: str | None = None


def extract(
    dataset: ImageDataset, network: Network, origin: str, *, keep: bool = True, progress: Progress | None = None
) -> Features:
    """The features of every image, read from the store where they are kept, else computed and kept.

    Features are rounded to float16 whether they come from the store or not, so both give the same model. Before bf16
    computes anything it is held against fp32 on a few of these images.

    Args:
        origin: hexadecimal digest of the trunk's weights.
        keep: whether to read and write the store.
        progress: called with (images done, images).
    """
    width = network.shape(FEATURES)[0]
    count = len(dataset)
    found = Features(**vars(Fingerprints.of(count)), values=np.zeros((count, width), np.float16))
    with _choose_store(dataset, network, origin, width, keep) as store:
        run = _Run(dataset, network, store, found, progress)
        run.over(range(count), store.known)
        found.from_store = int(found.usable.sum())
        lost = run.read_known()
        found.from_store -= found.computed + len(lost)
        run.over(lost, ())
        found.store_problem = store.problem
    return found


def observe(
    dataset: ImageDataset,
    network: Network,
    at: Sequence[str],
    indices: Sequence[int] | None = None,
    known: Container[bytes] = (),
) -> Iterator[tuple[Decoded, list[NDArray[np.float32]] | None]]:
    """What the network says of images of a table, in order: each image with its values at the nodes ``at``.

    The values are None where the image could not be read, or is ``known``. Memory does not grow with the table.
    """
    local = threading.local()

    def see(pixels: list[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.float32]]]:
        if not hasattr(local, "run"):  # one inference request a thread
            local.run = network.runner(at)
        for start in range(0, len(pixels), network.micro_batch):
            values = local.run(np.stack(pixels[start : start + network.micro_batch]))
            yield from (list(row) for row in zip(*values, strict=True))

    def work(chunk: Sequence[int]) -> list[tuple[Decoded, list[NDArray[np.float32]] | None]]:
        items = [fetch(dataset, index, network.spec, known) for index in chunk]
        rows = see([item.pixels for item in items if item.pixels is not None])
        return [(item, None if item.pixels is None else next(rows)) for item in items]

    return in_chunks(work, range(len(dataset)) if indices is None else indices)


class _Run:
    def __init__(
        self, dataset: ImageDataset, network: Network, store: _Store, found: Features, progress: Progress | None
    ) -> None:
        self.dataset, self.network, self.store, self.found, self.progress = dataset, network, store, found, progress
        self._pending: list[int] = []
        self._known: list[int] = []
        self._done = 0

    def over(self, indices: Sequence[int], known: Container[bytes]) -> None:
        """Decode and compute these images but for the ``known``; what is finished is kept, whatever ends the run."""
        try:
            for item, values in observe(self.dataset, self.network, (FEATURES,), indices, known):
                self._take(item, values[0] if values else None)
                self._done += 1
                if self.progress:  # may raise, to stop the run: this image is safe by then
                    self.progress(min(self._done, len(self.dataset)), len(self.dataset))
                if len(self._pending) >= KEEP:
                    self._flush()
        finally:
            self._flush()

    def read_known(self) -> list[int]:
        """Fill the rows that the store has; returns those that it has lost."""
        lost = []
        for start in range(0, len(self._known), READ):
            rows = self._known[start : start + READ]
            values = np.zeros((len(rows), self.found.values.shape[1]), np.float16)
            thumbnails = np.zeros((len(rows), THUMBNAIL, THUMBNAIL), np.uint8)
            sound = self.store.read([self.found.keys[row] for row in rows], values, thumbnails)
            self.found.values[rows], self.found.thumbnails[rows] = values, thumbnails
            lost += [row for row, fine in zip(rows, sound, strict=True) if not fine]
        return lost

    def _take(self, item: Decoded, row: NDArray[np.float32] | None) -> None:
        found = self.found
        found.take(item, self.dataset.samples[item.index].name)
        if item.error is not None:
            return
        if row is None or item.thumbnail is None:
            self._known.append(item.index)
            return
        found.values[item.index] = np.clip(row, -65504, 65504)  # the range of float16
        found.computed += 1
        self._pending.append(item.index)

    def _flush(self) -> None:
        rows, self._pending = self._pending, []
        if rows:
            self.store.write(
                [self.found.keys[row] for row in rows], self.found.values[rows], self.found.thumbnails[rows]
            )


class _Nothing(AbstractContextManager["_Nothing"]):
    """A store that keeps nothing."""

    known: Container[bytes] = ()
    problem: str | None = None

    def __exit__(self, *_: object) -> None:
        return None

    def read(
        self, keys: Sequence[bytes], out_features: NDArray[np.float16], out_thumbs: NDArray[np.uint8]
    ) -> NDArray[np.bool_]:
        return np.zeros(len(keys), bool)

    def write(self, keys: Sequence[bytes], features: NDArray[np.float16], thumbnails: NDArray[np.uint8]) -> None:
        return None


_Store = FeatureCache | _Nothing


def _choose_store(dataset: ImageDataset, network: Network, origin: str, width: int, keep: bool) -> _Store:
    """The store of the precision that these images can bear. Where all of the trial are known, it was tried before."""
    store = _open(network, origin, width, keep)
    if network.precision == "fp32":
        return store
    places = np.unique(np.linspace(0, max(len(dataset) - 1, 0), TRIAL).astype(int))[: len(dataset)]
    trial = [fetch(dataset, int(place), network.spec, store.known) for place in places]
    images = [item.pixels for item in trial if item.pixels is not None]
    if images:
        network.check_precision(np.stack(images))
    if network.precision == "bf16":
        return store
    with store:
        return _open(network, origin, width, keep)


def _open(network: Network, origin: str, width: int, keep: bool) -> _Store:
    if not keep:
        return _Nothing()
    return FeatureCache(describe(network, origin, FEATURES), width)


def describe(network: Network, origin: str, at: str) -> dict[str, object]:
    """What the values of a node depend on but the image: the space of the feature store that they are kept in."""
    description: dict[str, object] = {
        "backbone": network.name,
        "weights": origin,
        "node": at,
        "image": asdict(network.spec),
        "precision": network.precision,
    }
    if network.engine != "fast":  # each rounds in its own way
        description["engine"] = network.engine
    return description
