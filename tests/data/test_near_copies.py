"""Copies of one photo are found by their thumbnails, in any order and in sets of any shape."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from headstart.data import chains as chains_module
from headstart.data import near_copies as module
from headstart.data.chains import GAP, LINK, Links
from headstart.data.fingerprints import Fingerprints
from headstart.data.near_copies import Components, near_copies

Sets = set[frozenset[int]]


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles and samples so small that a handful of photos crosses all of their borders."""
    for name, value in {"_TILE": 7, "_SAMPLE": 16, "_BLOCK": 300}.items():
        monkeypatch.setattr(module, name, value)


def groups(group_of: NDArray[Any]) -> Sets:
    found: defaultdict[int, set[int]] = defaultdict(set)
    for index, group in enumerate(group_of):
        found[int(group)].add(index)
    return {frozenset(members) for members in found.values() if len(members) > 1}


def scenes(count: int, seed: int) -> NDArray[np.float64]:
    """Smooth random pictures (count, 64, 64) in [0, 255]: a few waves each, as much alike as photos are."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:64, 0:64] / 64
    pictures = np.zeros((count, 64, 64))
    for _ in range(6):
        fx, fy = r.uniform(-3, 3, (2, count, 1, 1))
        pictures += r.uniform(0.3, 1, (count, 1, 1)) * np.sin(2 * np.pi * (fx * x + fy * y + r.random((count, 1, 1))))
    low, high = pictures.min(axis=(1, 2), keepdims=True), pictures.max(axis=(1, 2), keepdims=True)
    scaled: NDArray[np.float64] = (pictures - low) / (high - low) * 255
    return scaled


def thumbs_of(pictures: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(pictures.reshape(-1, 16, 4, 16, 4).mean(axis=(2, 4)) + 0.5).astype(np.uint8)


def crop(pictures: NDArray[np.float64]) -> NDArray[np.float64]:
    cut = [Image.fromarray(picture.astype(np.uint8)).crop((3, 3, 61, 61)).resize((64, 64)) for picture in pictures]
    return np.stack([np.asarray(picture) for picture in cut]).astype(np.float64)


CHANGES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "noisy": lambda x: np.clip(x + np.random.default_rng(5).normal(scale=6, size=x.shape), 0, 255),
    "brightened": lambda x: np.minimum(x * 1.25, 255),
    "mirrored": lambda x: x[:, :, ::-1],
    "cropped": crop,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_found_and_nothing_else(change: str) -> None:
    pictures = scenes(80, seed=1)
    all_of_them = np.concatenate([pictures, CHANGES[change](pictures[:20])])
    found = groups(near_copies(thumbs_of(all_of_them)))
    copies = {frozenset({index, 80 + index}) for index in range(20)}
    assert len(found & copies) >= 19
    assert not found - copies
    turned = groups(near_copies(thumbs_of(all_of_them)[::-1]))
    assert len({frozenset(99 - index for index in group) for group in turned} & copies) >= 19


def brute_force(thumbnails: NDArray[np.uint8]) -> tuple[Sets, float]:
    """The rule of the docstring, pair by pair in float64; and how near any pair is to being decided otherwise."""
    count = len(thumbnails)
    inner = module._inner()

    def blurred(picture: NDArray[np.float64]) -> NDArray[np.float64]:
        for axis in (0, 1):
            wide = np.pad(picture, [(1, 1) if axis == k else (0, 0) for k in (0, 1)], mode="edge")
            before, after = (np.delete(wide, cut, axis) for cut in ((-2, -1), (0, 1)))
            picture = picture * (1 - 2 * module.BLUR) + (before + after) * module.BLUR
        return picture

    def shape(picture: NDArray[np.float64]) -> NDArray[np.float64]:
        centred = blurred(picture).ravel() - blurred(picture).mean()
        return np.asarray(centred / np.linalg.norm(centred))

    def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    pictures = thumbnails.astype(float)
    views = [[shape(picture) for picture in pictures], [shape(picture[:, ::-1]) for picture in pictures]]
    views.append([shape(inner @ picture @ inner.T) for picture in pictures])
    places = np.stack(np.divmod(np.arange(256), 16), axis=1)
    usual = np.exp(-np.linalg.norm(places[:, None] - places[None], axis=2) / 8)
    centring = np.eye(256) - 1 / 256
    usual = centring @ usual @ centring
    sample, prior = np.array(views[0] + views[1]), module.PRIOR
    mean = sample.sum(axis=0) / (len(sample) + prior)
    spread = sum(np.outer(vector - mean, vector - mean) for vector in sample) + prior * usual / np.trace(usual)
    variances, axes = np.linalg.eigh(spread / (len(sample) + prior))
    scaled = axes[:, -module.AXES :] / np.sqrt(variances[-module.AXES :])
    whole, mirrored, cropped = ([(vector - mean) @ scaled for vector in view] for view in views)

    units = []
    for i in range(count):
        others = sorted(1 - cosine(whole[i], point) for point in whole)
        others = [distance for distance in others if distance >= module.SAME]
        units.append(min([*others[4:5], module.FAR]))
    units = [max(unit, float(np.median(units)) / 2) for unit in units]

    found = Components(count)
    margin = 1.0
    distances = np.full((count, count), np.inf)
    for i in range(count):
        for j in range(i):
            pairs = ((whole, whole), (whole, mirrored), (whole, cropped), (cropped, whole))
            distances[i, j] = distances[j, i] = 1 - max(cosine(a[i], b[j]) for a, b in pairs)
            thumbnail = distances[i, j] / max(units[i], units[j]) / module.ALIKE
            margin = min(margin, abs(thumbnail - 1))
            if thumbnail < 1:
                found.join(np.array([i]), np.array([j]))
    chains, more = brute_force_chains(distances)
    for members in map(sorted, chains):
        found.join(np.array(members[:-1]), np.array(members[1:]))
    return groups(found.group_of), min(margin, more)


def brute_force_chains(distances: NDArray[np.float64]) -> tuple[Sets, float]:
    """Components at every length of a link that stand alone, and how near any is to being decided otherwise."""
    distances = np.maximum(np.round(distances, 6), 0)  # of the same picture, rounding is all there is
    count, known, chains = len(distances), set[frozenset[int]](), set[frozenset[int]]()
    lengths = np.unique(distances[np.isfinite(distances)])
    margin = float(np.abs(lengths / LINK - 1).min())
    for length in lengths[lengths <= LINK]:
        linked = Components(count)
        linked.join(*np.nonzero(distances <= length))
        for members in groups(linked.group_of) - known:  # those that this link makes
            known.add(members)
            inside = np.isin(np.arange(count), [*members])
            nearest = distances[inside][:, ~inside].min(initial=np.inf)
            margin = min(margin, abs(nearest - GAP * length) / nearest)
            if nearest >= GAP * length and len(members) > 2:
                chains.add(members)
    return chains, margin


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6, 7, 9])
def test_the_search_equals_all_pairs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SAMPLE", 512)  # the reference takes its covariance from all rows
    r = np.random.default_rng(seed)
    pictures = scenes(int(r.integers(2, 40)), seed)
    parts = [pictures] + [CHANGES[name](pictures[r.random(len(pictures)) < 0.3]) for name in CHANGES]
    if seed % 2:  # a family of few members, so that module are nearer than in sets of photos, on a common ground
        bases = scenes(4, seed + 100)
        few = r.uniform(0, 0.2, (40, 4)) @ bases.reshape(4, -1)
        parts.append(few.reshape(-1, 64, 64) + 0.2 * np.linspace(0, 255, 64))
    blend = r.uniform(0, 0.5, (len(pictures), 1, 1))  # from a copy to another photo by degrees
    blended = pictures * (1 - blend) + pictures[::-1] * blend
    pictures = np.concatenate([*parts, blended, pictures[:3], parts[1][:2]])
    thumbnails = thumbs_of(pictures)
    expected, margin = brute_force(thumbnails)
    assert margin > 1e-5, "pick another seed: here rounding alone may decide"
    assert groups(near_copies(thumbnails)) == expected


def test_whitening_leaves_one_variance_in_all_directions() -> None:
    shapes = module._shapes(thumbs_of(scenes(1000, seed=3)), np.eye(16), np.eye(16))
    mean, axes = module._whitening(shapes)
    covariance = np.cov((shapes - mean) @ axes, rowvar=False)
    np.testing.assert_allclose(covariance, np.eye(32), atol=0.4)  # the prior has a share in it


def test_the_inner_view_shows_what_a_cropped_copy_shows() -> None:
    pictures = scenes(40, seed=5)
    inner = module._inner()
    np.testing.assert_allclose(inner.sum(axis=1), 1, atol=1e-12)
    shown = inner @ thumbs_of(pictures).astype(float) @ inner.T
    cropped = thumbs_of(crop(pictures)).astype(float)
    assert np.abs(shown - cropped).mean() < np.abs(thumbs_of(pictures) - cropped).mean() / 8


def test_what_all_photos_of_a_set_share_makes_none_of_them_alike() -> None:
    bars = 255.0 * (np.arange(64) // 8 % 2)[None, None, :]
    pictures = 0.9 * bars + 0.1 * scenes(200, seed=3)
    thumbnails = thumbs_of(pictures)
    correlations = np.corrcoef(thumbnails.reshape(200, -1).astype(float))
    assert correlations.min() > 0.98  # by plain correlation all are copies of all
    pictures = np.concatenate([pictures, 0.8 * pictures[:20], pictures[20:40, :, ::-1]])
    group_of = near_copies(thumbs_of(pictures))
    np.testing.assert_array_equal(group_of[:200], np.arange(200))
    assert (group_of[200:] == np.arange(40)).mean() >= 0.95


@pytest.mark.usefixtures("small_tiles")
def test_the_order_of_the_photos_changes_no_group() -> None:
    pictures = scenes(120, seed=4)
    pictures = np.concatenate([pictures, crop(pictures[:10]), pictures[20:40, :, ::-1]])
    thumbnails = thumbs_of(pictures)
    first = groups(near_copies(thumbnails))
    assert len(first) > 20
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(pictures))
        again = groups(near_copies(thumbnails[order]))
        assert {frozenset(int(order[i]) for i in group) for group in again} == first


# --- frames of videos and bursts ------------------------------------------------------------------------------------


def clips(scene: NDArray[np.float64], frames: int, step: int) -> NDArray[np.float64]:
    """A camera that moves over each of the scenes by some of its 64 pixels a frame, with noise."""
    large = np.stack([np.asarray(Image.fromarray(each.astype(np.uint8)).resize((256, 256))) for each in scene])
    shots = [large[:, t * step : t * step + 128, t * step : t * step + 128] for t in range(frames)]
    small = np.stack(shots, axis=1)[..., ::2, ::2].reshape(-1, 64, 64).astype(float)
    noisy: NDArray[np.float64] = np.clip(small + np.random.default_rng(0).normal(scale=2, size=small.shape), 0, 255)
    return noisy


@pytest.mark.parametrize(("frames", "step", "scale"), [(20, 2, 12), (40, 1, 12), (40, 2, 2)])
def test_frames_of_a_video_stay_together_though_the_first_and_the_last_differ(
    frames: int, step: int, scale: int
) -> None:
    """Of many clips or of two, and the photos beside them stay alone."""
    pictures = clips(scenes(scale, seed=2), frames, step)
    group_of = near_copies(thumbs_of(np.concatenate([pictures, scenes(50, seed=6)])))
    count = scale * frames
    np.testing.assert_array_equal(group_of[:count], np.arange(count) // frames * frames)
    np.testing.assert_array_equal(group_of[count:], np.arange(count, count + 50))


def test_neighbours_as_near_as_frames_are_no_chain_where_others_are_near_too() -> None:
    """A family of shapes, each like some others, as handwritten digits are."""
    bases = scenes(6, seed=11).reshape(6, -1)
    family = np.random.default_rng(1).uniform(0, 1, (400, 6)) @ bases
    pictures = (family / family.max() * 255).reshape(-1, 64, 64)
    views = module._whitened_views(thumbs_of(pictures))
    nearest = np.sort(module._distances(views, slice(None), slice(None)), axis=1)[:, 1]
    assert np.median(nearest) < LINK
    assert sum(map(len, groups(near_copies(thumbs_of(pictures))))) < 40


def test_links_are_thinned_out_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    r = np.random.default_rng(4)
    points = np.concatenate([centre + r.normal(scale=0.004, size=(30, 2)) for centre in r.uniform(0, 1, (8, 2))])
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    first, second = np.triu_indices(len(points), 1)
    found = []
    for held in (10**6, 50):
        monkeypatch.setattr(chains_module, "_HELD", held)
        links = Links(len(points))
        for part in np.array_split(r.permutation(len(first)), 20):
            links.add(first[part], second[part], distances[first[part], second[part]])
        assert held > 50 or sum(map(len, links._pairs)) < 2000
        chains, clusters = links.clusters()
        found.append(({frozenset(each) for each in chains}, {frozenset(each.members) for each in clusters}))
    assert found[0] == found[1]
    assert min(map(len, found[0])) > 1


def test_sets_of_many_copies_of_each_photo() -> None:
    pictures = scenes(30, seed=9).repeat(8, axis=0)  # the 5th neighbour is a copy too, and says nothing of others
    pictures = np.clip(pictures + np.random.default_rng(0).normal(scale=10, size=pictures.shape), 0, 255)
    group_of = near_copies(thumbs_of(pictures))
    np.testing.assert_array_equal(group_of, np.arange(240) // 8 * 8)


@given(count=st.integers(1, 30), pairs=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
@settings(max_examples=150, deadline=None)
def test_components_equal_a_search_through_the_graph(count: int, pairs: list[tuple[int, int]]) -> None:
    pairs = [(i % count, j % count) for i, j in pairs]
    components = Components(count)
    for start in range(0, len(pairs), 7):
        part = np.array(pairs[start : start + 7])
        components.join(part[:, 0], part[:, 1])
    for start in range(count):
        reached, edge = {start}, {start}
        while edge:
            edge = {b for i, j in pairs for a, b in ((i, j), (j, i)) if a in edge} - reached
            reached |= edge
        assert components.group_of[start] == min(reached)


@pytest.mark.slow
def test_thousands_of_the_same_photo_stay_small_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_THREADS", "2")  # each holds a tile of pairs, and two more wait
    picture = scenes(1, seed=6)
    thumbnails = thumbs_of(picture).repeat(4000, axis=0)
    tracemalloc.start()
    group_of = near_copies(thumbnails)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (group_of == 0).all()
    assert peak < 90e6  # 8 million pairs would be 128 MB as indices alone


@pytest.mark.parametrize("count", range(7))
def test_few_photos(count: int) -> None:
    pictures = scenes(count, seed=7)
    pictures[-1:] = pictures[:1]
    group_of = near_copies(thumbs_of(pictures))
    assert group_of.shape == (count,)
    assert groups(group_of) == ({frozenset({0, count - 1})} if count > 1 else set())


def test_what_shows_nothing_is_nobodys_copy() -> None:
    pictures = scenes(20, seed=8)
    pictures = np.concatenate([pictures, pictures[:4]])
    thumbnails = thumbs_of(pictures)[:20]
    thumbnails[3] = 128  # a blank picture ...
    thumbnails[13] = 130  # ... and another
    thumbnails[4] = thumbnails[5] = 128 + np.eye(16, dtype=np.uint8)  # a grey level here and there is noise
    assert not groups(near_copies(thumbnails))


def test_thumbnails_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(N, 16, 16\). Received: \(2, 8, 8\)"):
        near_copies(np.zeros((2, 8, 8), np.uint8))


def test_a_sample_is_chosen_by_content() -> None:
    thumbnails = np.random.default_rng(4).integers(0, 256, (50, 16, 16)).astype(np.uint8)
    order = np.random.default_rng(5).permutation(50)
    sample = module._sample_of
    np.testing.assert_array_equal(sample(thumbnails, 9), order[sample(thumbnails[order], 9)])
    np.testing.assert_array_equal(sample(thumbnails, 50), np.arange(50))


def test_exact_copies_are_of_one_group_and_bring_their_near_copies_together() -> None:
    pictures = scenes(60, seed=11)
    thumbnails = thumbs_of(np.concatenate([pictures, pictures[7:8], crop(pictures[7:9])]))
    keys = [bytes([row]) for row in range(60)] + [bytes([7]), b"crop of 7", b"crop of 8"]
    usable = np.ones(63, bool)
    usable[[3, 8]] = False
    thumbnails[3] = thumbnails[5]  # of an unreadable image nothing is believed
    found = Fingerprints(keys=keys, thumbnails=thumbnails, usable=usable).copies()
    assert groups(found) == {frozenset({7, 60, 61})}
    assert found[60] == found[61] == 7


def test_fingerprints_of_nothing() -> None:
    assert Fingerprints.of(0).copies().shape == (0,)
    np.testing.assert_array_equal(Fingerprints.of(3).copies(), [0, 1, 2])  # none can be read
