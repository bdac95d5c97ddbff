"""Activations where the frozen part ends, computed once by the fast engine for several augmented views of each photo.

They are kept in the feature cache, a part for each view, by the content of the photo: a second training finds them.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.core.cache_folder import cache_dir, free_disk
from headstart.core.counts import counted, verb
from headstart.core.errors import UnreadableImageError, UsageError
from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset
from headstart.data.augment import augment, margin_of
from headstart.data.load import THUMBNAIL, became_unreadable, content_key, decode, in_chunks
from headstart.engines.memory import available_memory
from headstart.engines.protocol import Network
from headstart.learn.feature_cache import FeatureCache
from headstart.learn.features import describe, to_half
from headstart.train.batches import draw

IN_MEMORY = 1 << 30  # bytes of activations that may be in memory; more are in a file
IN_CACHE = 8 << 30  # bytes that are cached for the next training
TOGETHER = 64  # photos whose views are computed between two writes
TRIAL = 16  # photos that bf16 is tried on before it is trusted
PLAIN, FLIPS = "none", "flips"
DISTINCT = {PLAIN: 1, FLIPS: 2}  # views that there are, where they are not random
_VIEW = 5  # purpose of `batches.draw`, beside those of `batches` and `dropout`

Activations = NDArray[np.float16]


@dataclass(frozen=True)
class ViewPlan:
    """Which views of which photos are computed, and their size."""

    rows: tuple[int, ...]  # of the data set
    strength: str  # of the augmentation; "none" for the photos as they are
    count: int  # views of each photo
    seed: int
    shape: tuple[int, ...]  # of one view's activations
    keep: bool = True  # whether the feature cache reads and writes them

    @property
    def photos(self) -> int:
        """Number of views of all photos."""
        return self.count * len(self.rows)

    @property
    def bytes(self) -> int:
        """Size of all activations, in float16."""
        return 2 * self.count * len(self.rows) * math.prod(self.shape)


def plan_views(
    rows: Sequence[int], shape: tuple[int, ...], strength: str, count: int, seed: int, *, keep: bool = True
) -> tuple[ViewPlan, str]:
    """A plan for ``count`` views, or as many as there is space for; and a sentence with their size.

    Raises:
        UsageError: there is no space for a single view of each photo.
    """
    count = min(count, DISTINCT.get(strength, count))
    each, free = 2 * len(rows) * math.prod(shape), free_disk()
    most = max(free, IN_MEMORY if _free_memory() > 4 * IN_MEMORY else 0)
    fitting = min(count, most // max(each, 1))
    if fitting < 1:
        raise UsageError(
            f"A view of each of {counted(len(rows), 'photo')} takes {each / 1e6:.0f} MB of disk, {free / 1e6:.0f} MB "
            f"are free in '{cache_dir()}'. Free some space, set HEADSTART_HOME to another disk, or unfreeze less."
        )
    taken = each * fitting if each * fitting > IN_MEMORY else 0
    keep = keep and each * fitting <= min(IN_CACHE, free - taken)
    plan = ViewPlan(tuple(map(int, rows)), strength, int(fitting), seed, shape, keep)
    fewer = "" if fitting == count else f", as there is space for only {fitting} of {count}"
    where = "memory" if plan.bytes <= IN_MEMORY else "a file of the cache"
    again = ", and as much of the cache for the next time" if keep else ""
    amount = f"{plan.bytes / 1e6:.0f} MB" if plan.bytes >= 1e6 else "less than 1 MB"
    return plan, (
        f"{counted(plan.count, 'view')} of {counted(len(rows), 'photo')} where the frozen part ends "
        f"{verb(plan.count, 'takes', 'take')} {amount} of {where}{again}{fewer}."
    )


def compute_views(
    dataset: ImageDataset,
    network: Network,
    at: str,
    origin: str,
    plan: ViewPlan,
    *,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Activations:
    """The activations at a node of every view of every photo: (views, photos, *shape), float16.

    Args:
        network: forward only; of the part below ``at``, or the whole.
        origin: hexadecimal digest of its weights.
        progress: called with (views done, views).
        say: called with a sentence if they cannot be cached.

    Raises:
        DataError: a photo can no longer be read.
    """
    if network.precision != "fp32":
        trial = evenly_spread(plan.rows, TRIAL)
        network.check_precision(np.stack([_plain(dataset, row, network) for row in trial]), at)
    with ExitStack() as open_caches:
        caches = [
            open_caches.enter_context(FeatureCache(each, math.prod(plan.shape)))
            for each in (_descriptions(network, at, origin, plan) if plan.keep else ())
        ]
        out = _Computation(dataset, network, at, plan, caches).run(progress or (lambda done, of: None))
        if say and (problem := next((cache.problem for cache in caches if cache.problem), None)):
            say(problem)
    return out


class _Computation:
    """The activations of all views: read from the feature caches, or computed and written to them."""

    def __init__(
        self, dataset: ImageDataset, network: Network, at: str, plan: ViewPlan, caches: Sequence[FeatureCache]
    ) -> None:
        self._dataset, self._network, self._at, self._plan, self._caches = dataset, network, at, plan, caches
        self._out = _allocate((plan.count, len(plan.rows), *plan.shape))
        self._pending: list[tuple[int, bytes, list[int]]] = []  # photo, its key, views of it that were computed
        self._damaged: list[tuple[int, int]] = []  # view and photo, where a row of a cache cannot be read
        self._local = threading.local()
        # a cache keeps a thumbnail with each row; these photos have theirs elsewhere
        self._thumbnails = np.zeros((TOGETHER, THUMBNAIL, THUMBNAIL), np.uint8)

    def run(self, progress: Callable[[int, int], None]) -> Activations:
        """Read or compute all of them."""
        plan, places = self._plan, range(len(self._plan.rows))
        for count, (place, key, computed, values) in enumerate(in_chunks(self._compute, places), 1):
            self._out[computed, place] = to_half(values)
            self._pending.append((place, key, computed))
            if len(self._pending) == TOGETHER:
                self._write_and_read()
            progress(count * plan.count, len(plan.rows) * plan.count)
        self._write_and_read()
        for number, place in self._damaged:
            pixels = self._views_of(place, ())[2]
            self._out[number, place] = to_half(self._network.runner((self._at,))(pixels[number][None])[0][0])
        return self._out

    def _compute(self, places: Sequence[int]) -> list[tuple[int, bytes, list[int], NDArray[np.float32]]]:
        """Of each photo its place, its key, which views of it had to be computed, and those; on several threads."""
        if not hasattr(self._local, "run"):  # one inference request a thread
            self._local.run = self._network.runner((self._at,))
        found = [(place, *self._views_of(place, self._caches)) for place in places]
        pixels, size = [each for *_, views in found for each in views], self._network.micro_batch
        parts = [self._local.run(np.stack(pixels[first : first + size]))[0] for first in range(0, len(pixels), size)]
        values = np.concatenate(parts) if parts else np.zeros((0, *self._plan.shape), np.float32)
        ends = np.cumsum([len(missing) for _, _, missing, _ in found])
        return [
            (place, key, missing, values[end - len(missing) : end])
            for (place, key, missing, _), end in zip(found, ends.tolist(), strict=True)
        ]

    def _write_and_read(self) -> None:
        """Write to the caches what was computed, and read the rest from them."""
        for number, cache in enumerate(self._caches):
            computed = [(place, key) for place, key, views in self._pending if number in views]
            cached = [(place, key) for place, key, views in self._pending if number not in views]
            if computed:
                flat = self._out[number, [place for place, _ in computed]].reshape(len(computed), -1)
                cache.write([key for _, key in computed], flat, self._thumbnails[: len(computed)])
            if cached:
                values = np.zeros((len(cached), cache.width), np.float16)
                sound = cache.read([key for _, key in cached], values, self._thumbnails[: len(cached)].copy())
                places = np.array([place for place, _ in cached])
                self._out[number, places[sound]] = values[sound].reshape(-1, *self._plan.shape)
                self._damaged.extend((number, place) for place in places[~sound].tolist())
        self._pending.clear()

    def _views_of(self, place: int, caches: Sequence[FeatureCache]) -> tuple[bytes, list[int], list[NDArray[np.uint8]]]:
        """The content key of a photo, which views of it no cache has, and their pixels."""
        dataset, plan, spec = self._dataset, self._plan, self._network.spec
        row = plan.rows[place]
        try:
            raw = dataset.read(row)
            key = content_key(raw)
            missing = [number for number in range(plan.count) if not caches or key not in caches[number].known]
            if not missing:
                return key, [], []
            wide = min(spec.crop * margin_of(plan.strength), 1.0)
            source = replace(spec, size=round(spec.size * margin_of(plan.strength)), crop=wide)
            pixels = decode(raw, source)
        except (OSError, UnreadableImageError) as error:
            raise became_unreadable(dataset, row, error) from error
        if plan.strength == PLAIN:
            return key, missing, [pixels]
        if plan.strength == FLIPS:  # both views, not a random one, which would be the same twice for half of the photos
            return key, missing, [pixels[:, ::-1] if number else pixels for number in missing]
        draws = [draw(_VIEW, plan.seed, number, int.from_bytes(key[:8], "little")) for number in missing]
        return key, missing, [augment(pixels, rng, plan.strength, spec.size, spec.crop / wide) for rng in draws]


def _plain(dataset: ImageDataset, row: int, network: Network) -> NDArray[np.uint8]:
    try:
        return decode(dataset.read(row), network.spec)
    except (OSError, UnreadableImageError) as error:
        raise became_unreadable(dataset, row, error) from error


def _descriptions(network: Network, at: str, origin: str, plan: ViewPlan) -> list[dict[str, object]]:
    """All that the activations of each view depend on, except the photo."""
    common = describe(network, origin, at)
    if plan.strength == PLAIN:
        return [{**common, "view": PLAIN}]
    if plan.strength == FLIPS:
        return [{**common, "view": view} for view in (PLAIN, "mirrored")[: plan.count]]
    return [{**common, "view": f"{plan.strength} {number + 1}", "seed": plan.seed} for number in range(plan.count)]


def _allocate(shape: tuple[int, ...]) -> Activations:
    """An array in memory, or in a file that is deleted with the array; all space is allocated at once."""
    size = 2 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.zeros(shape, np.float16)
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would crash the process later
            return np.memmap(file, np.float16, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
    except OSError as error:
        raise UsageError(
            f"{size / 1e6:.0f} MB for views of the photos cannot be allocated in '{folder}': "
            f"{error.strerror or error}. Free some space, set HEADSTART_HOME to another disk, or take fewer views."
        ) from error


def _free_memory() -> int:
    known = available_memory()
    return IN_MEMORY if known is None else known
