"""What reaches a cut, computed once: several augmented views of each photo, through the part below by the fast engine.

They are kept in the feature store, a space for each view, by the content of the photo: a second training finds them.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.core.cache_folder import cache_dir
from headstart.core.errors import UnreadableImageError, UsageError
from headstart.core.spread import evenly_spread
from headstart.core.types import ImageDataset
from headstart.data.augment import augment, margin_of
from headstart.data.load import THUMBNAIL, became_unreadable, content_key, decode, in_chunks
from headstart.engines.protocol import Network, available_memory
from headstart.learn.feature_cache import FeatureCache
from headstart.learn.features import describe, to_half
from headstart.train.batches import draw

IN_MEMORY = 1 << 30  # bytes of activations that may lie in memory; more lie in a file
IN_STORE = 8 << 30  # bytes that are kept for the next training
SPARE = 1 << 30  # bytes of the disk that are left alone
TOGETHER = 64  # photos whose views are computed between two writes
TRIAL = 16  # photos that bf16 is tried on before it is trusted
PLAIN, FLIPS = "none", "flips"
DISTINCT = {PLAIN: 1, FLIPS: 2}  # views that there are, where chance has no part in them
_VIEW = 5  # what is drawn, beside what `batches` and `dropout` draw

Activations = NDArray[np.float16]


@dataclass(frozen=True)
class Viewing:
    """Which views of which photos, and what they will take."""

    rows: tuple[int, ...]  # of the table
    strength: str  # of the augmentation; "none" for the photos as they are
    count: int  # views of each photo
    seed: int
    shape: tuple[int, ...]  # of one view's activations
    keep: bool = True  # whether the feature store reads and writes them

    @property
    def photos(self) -> int:
        """Views in all."""
        return self.count * len(self.rows)

    @property
    def bytes(self) -> int:
        """In float16."""
        return 2 * self.count * len(self.rows) * math.prod(self.shape)


def plan_views(
    rows: Sequence[int], shape: tuple[int, ...], strength: str, count: int, seed: int, *, keep: bool = True
) -> tuple[Viewing, str]:
    """As many views as were asked for, or as there is room for; and a sentence that says what they take.

    Raises:
        UsageError: there is no room for a single view of each photo.
    """
    count = min(count, DISTINCT.get(strength, count))
    each, room = 2 * len(rows) * math.prod(shape), _room()
    most = max(room, IN_MEMORY if _memory() > 4 * IN_MEMORY else 0)
    fitting = min(count, most // max(each, 1))
    if fitting < 1:
        raise UsageError(
            f"A view of each of {len(rows)} photos takes {each / 1e6:.0f} MB of disk, {room / 1e6:.0f} MB are free in "
            f"'{cache_dir()}'. Make room, set HEADSTART_HOME to another disk, or unfreeze less."
        )
    taken = each * fitting if each * fitting > IN_MEMORY else 0
    keep = keep and each * fitting <= min(IN_STORE, room - taken)
    viewing = Viewing(tuple(map(int, rows)), strength, int(fitting), seed, shape, keep)
    fewer = "" if fitting == count else f", as there is room for no more than {fitting} of {count}"
    where = "memory" if viewing.bytes <= IN_MEMORY else "a file of the cache"
    again = ", and as much of the cache for the next time" if keep else ""
    amount = f"{viewing.bytes / 1e6:.0f} MB" if viewing.bytes >= 1e6 else "less than 1 MB"
    return viewing, (
        f"{viewing.count} view{'s' if viewing.count > 1 else ''} of {len(rows)} photos where the frozen part ends take "
        f"{amount} of {where}{again}{fewer}."
    )


def compute_views(
    dataset: ImageDataset,
    network: Network,
    at: str,
    origin: str,
    viewing: Viewing,
    *,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Activations:
    """The activations at a node of every view of every photo: (views, photos, *shape), float16.

    Args:
        network: forward only; of the part below ``at``, or the whole.
        origin: hexadecimal digest of its weights.
        progress: called with (views done, views).
        say: told, in a sentence, why they cannot be kept.

    Raises:
        DataError: a photo can no longer be read.
    """
    out = _allocate((viewing.count, len(viewing.rows), *viewing.shape))
    if network.precision != "fp32":
        trial = evenly_spread(viewing.rows, TRIAL)
        network.check_precision(np.stack([_plain(dataset, row, network) for row in trial]), at)
    with ExitStack() as open_stores:
        stores = [
            open_stores.enter_context(FeatureCache(each, math.prod(viewing.shape)))
            for each in (_descriptions(network, at, origin, viewing) if viewing.keep else ())
        ]
        _fill(dataset, network, at, viewing, stores, out, progress or (lambda done, of: None))
        if say and (problem := next((store.problem for store in stores if store.problem), None)):
            say(problem)
    return out


def _fill(
    dataset: ImageDataset,
    network: Network,
    at: str,
    viewing: Viewing,
    stores: Sequence[FeatureCache],
    out: Activations,
    progress: Callable[[int, int], None],
) -> None:
    local = threading.local()

    def work(places: Sequence[int]) -> list[tuple[int, bytes, list[int], NDArray[np.float32]]]:
        """Of each photo its place, its key, which views of it had to be computed, and those."""
        if not hasattr(local, "run"):  # one inference request a thread
            local.run = network.runner((at,))
        found = [(place, *_views_of(dataset, viewing, place, network, stores)) for place in places]
        pixels = [each for *_, views in found for each in views]
        parts = [
            local.run(np.stack(pixels[first : first + network.micro_batch]))[0]
            for first in range(0, len(pixels), network.micro_batch)
        ]
        values = np.concatenate(parts) if parts else np.zeros((0, *viewing.shape), np.float32)
        ends = np.cumsum([len(wanted) for _, _, wanted, _ in found])
        return [
            (place, key, wanted, values[end - len(wanted) : end])
            for (place, key, wanted, _), end in zip(found, ends.tolist(), strict=True)
        ]

    thumbnails = np.zeros(
        (TOGETHER, THUMBNAIL, THUMBNAIL), np.uint8
    )  # the store keeps one with each row; these photos have theirs
    waiting: list[tuple[int, bytes, list[int]]] = []

    def settle() -> None:
        """Write what was computed, read what was known."""
        for number, store in enumerate(stores):
            made = [(place, key) for place, key, computed in waiting if number in computed]
            known = [(place, key) for place, key, computed in waiting if number not in computed]
            if made:
                flat = out[number, [place for place, _ in made]].reshape(len(made), -1)
                store.write([key for _, key in made], flat, thumbnails[: len(made)])
            if known:
                values = np.zeros((len(known), store.width), np.float16)
                sound = store.read([key for _, key in known], values, thumbnails[: len(known)].copy())
                places = np.array([place for place, _ in known])
                out[number, places[sound]] = values[sound].reshape(-1, *viewing.shape)
                lost.extend((number, place) for place in places[~sound].tolist())
        waiting.clear()

    lost: list[tuple[int, int]] = []
    for count, (place, key, computed, values) in enumerate(in_chunks(work, range(len(viewing.rows))), 1):
        out[computed, place] = to_half(values)
        waiting.append((place, key, computed))
        if len(waiting) == TOGETHER:
            settle()
        progress(count * viewing.count, len(viewing.rows) * viewing.count)
    settle()
    for number, place in lost:  # the store's rows were damaged
        pixels = _views_of(dataset, viewing, place, network, ())[2]
        out[number, place] = to_half(network.runner((at,))(pixels[number][None])[0][0])


def _views_of(
    dataset: ImageDataset, viewing: Viewing, place: int, network: Network, stores: Sequence[FeatureCache]
) -> tuple[bytes, list[int], list[NDArray[np.uint8]]]:
    """The content key of a photo, and pixels of those views that no store knows."""
    row, spec = viewing.rows[place], network.spec
    try:
        raw = dataset.read(row)
        key = content_key(raw)
        wanted = [number for number in range(viewing.count) if not stores or key not in stores[number].known]
        if not wanted:
            return key, [], []
        wide = min(spec.crop * margin_of(viewing.strength), 1.0)
        source = replace(spec, size=round(spec.size * margin_of(viewing.strength)), crop=wide)
        pixels = decode(raw, source)
    except (OSError, UnreadableImageError) as error:
        raise became_unreadable(dataset, row, error) from error
    if viewing.strength == PLAIN:
        return key, wanted, [pixels]
    if viewing.strength == FLIPS:  # each once, where chance would have half of the photos twice alike
        return key, wanted, [pixels[:, ::-1] if number else pixels for number in wanted]
    draws = [draw(_VIEW, viewing.seed, number, int.from_bytes(key[:8], "little")) for number in wanted]
    return key, wanted, [augment(pixels, rng, viewing.strength, spec.size, spec.crop / wide) for rng in draws]


def _plain(dataset: ImageDataset, row: int, network: Network) -> NDArray[np.uint8]:
    try:
        return decode(dataset.read(row), network.spec)
    except (OSError, UnreadableImageError) as error:
        raise became_unreadable(dataset, row, error) from error


def _descriptions(network: Network, at: str, origin: str, viewing: Viewing) -> list[dict[str, object]]:
    """What the activations of each view depend on, but the photo."""
    common = describe(network, origin, at)
    if viewing.strength == PLAIN:
        return [{**common, "view": PLAIN}]
    if viewing.strength == FLIPS:
        return [{**common, "view": view} for view in (PLAIN, "mirrored")[: viewing.count]]
    return [
        {**common, "view": f"{viewing.strength} {number + 1}", "seed": viewing.seed} for number in range(viewing.count)
    ]


def _allocate(shape: tuple[int, ...]) -> Activations:
    """In memory, or in a file that is gone with whoever holds it; room for all of it is taken at once."""
    size = 2 * math.prod(shape)
    if size <= IN_MEMORY:
        return np.zeros(shape, np.float16)
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # or a full disk would end the process while it computes
            return np.memmap(file, np.float16, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
    except OSError as error:
        raise UsageError(
            f"{size / 1e6:.0f} MB for views of the photos cannot be had in '{folder}': {error.strerror or error}. "
            "Make room, set HEADSTART_HOME to another disk, or take fewer views."
        ) from error


def _room() -> int:
    folder = cache_dir()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return max(shutil.disk_usage(folder).free - SPARE, 0)


def _memory() -> int:
    known = available_memory()
    return IN_MEMORY if known is None else known
