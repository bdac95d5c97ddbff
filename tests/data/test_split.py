"""The split depends on what the photos are, never on their names, their order or the machine."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.data.hold_out import FEWEST, hold_out
from headstart.data.near_copies import join_groups

Groups = list[int]


def keys_of(count: int, salt: str = "") -> list[bytes]:
    return [hashlib.blake2b(f"{salt}{index}".encode(), digest_size=16).digest() for index in range(count)]


def split(labels: list[int], groups: Groups | None = None, share: float = 0.25, seed: int = 0) -> NDArray[np.bool_]:
    return hold_out(labels, keys_of(len(labels)), range(len(labels)) if groups is None else groups, share, seed)


sets = st.integers(1, 80).flatmap(
    lambda count: st.tuples(
        st.lists(st.integers(0, 4), min_size=count, max_size=count),
        st.lists(st.integers(0, count), min_size=count, max_size=count),
        st.floats(0, 0.9),
        st.integers(0, 2**64 - 1),
    )
)


def test_this_split_is_the_same_on_every_machine() -> None:
    """Written down once. Another result here means that everyone's held-out photos change."""
    labels = [0] * 12 + [1] * 9
    groups = [0, 0, 0, *range(3, 19), 19, 19]
    assert np.flatnonzero(split(labels, groups)).tolist() == [5, 7, 11, 12, 15]
    assert np.flatnonzero(split(labels, groups, seed=1)).tolist() == [3, 6, 7, 14, 16]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5, 0.9])
def test_every_class_gives_its_share(share: float) -> None:
    labels = np.repeat([0, 1, 2], [200, 50, 11])
    out = split(labels.tolist(), share=share)
    assert np.bincount(labels[out], minlength=3).tolist() == [
        min(round(size * share), size - FEWEST) for size in (200, 50, 11)
    ]


@settings(deadline=None)
@given(case=sets)
def test_groups_stay_whole_and_every_class_keeps_what_a_fit_needs(case: tuple[list[int], Groups, float, int]) -> None:
    labels, groups, share, seed = case
    out = split(labels, groups, share, seed)
    for group in set(groups):
        assert len({bool(out[index]) for index in range(len(groups)) if groups[index] == group}) == 1
    for label in set(labels):
        size, wanted = labels.count(label), round(labels.count(label) * share)
        own = [index for index in range(len(labels)) if labels[index] == label]
        given_up, largest = int(out[own].sum()), max(sum(groups[i] == groups[k] for i in own) for k in own)
        assert given_up <= max(0, size - FEWEST)
        if largest == max(map(groups.count, groups)) == 1:
            assert given_up == min(max(wanted, int(share > 0)), max(0, size - FEWEST))


@settings(deadline=None)
@given(case=sets, data=st.data())
def test_the_order_of_the_listing_does_not_matter(
    case: tuple[list[int], Groups, float, int], data: st.DataObject
) -> None:
    labels, groups, share, seed = case
    keys = keys_of(len(labels))
    order = data.draw(st.permutations(range(len(labels))))
    renamed = data.draw(st.permutations(range(len(labels) + 1)))  # group numbers are only names
    one = hold_out(labels, keys, groups, share, seed)
    other = hold_out(
        [labels[i] for i in order], [keys[i] for i in order], [renamed[groups[i]] for i in order], share, seed
    )
    assert np.array_equal(other, one[list(order)])


def test_a_group_across_classes_goes_as_one() -> None:
    labels = [0, 1] * 20
    groups = [index // 2 for index in range(40)]
    out = split(labels, groups, 0.5)
    assert out.reshape(20, 2).sum(axis=1).tolist().count(1) == 0
    assert out.sum() == 20


def test_a_group_larger_than_the_share_is_fitted_on() -> None:
    labels, groups = [0] * 20, [0] * 6 + list(range(6, 20))
    for seed in range(10):
        out = split(labels, groups, 0.25, seed)
        assert not out[:6].any()
        assert out.sum() == 5


@pytest.mark.parametrize("each", [10, 20, 25, 30, 45])
def test_large_groups_are_held_out_as_near_to_the_share_as_they_come(each: int) -> None:
    """Patients with many photos: of 10 to 2 of them in each class."""
    count = 100 // each
    labels = [0] * count * each + [1] * count * each
    groups = [index // each for index in range(len(labels))]
    for seed in range(5):
        out = split(labels, groups, 0.2, seed)
        wanted = max(round(0.2 * count), 1) * each
        assert np.bincount(np.array(labels)[out]).tolist() == [wanted, wanted]


def test_every_class_with_two_groups_is_measured_and_one_with_a_single_group_is_not() -> None:
    labels = [0] * 100 + [1] * 100 + [2] * 30
    groups = [index // 5 for index in range(100)] + [100 + index // 25 for index in range(100)] + [200] * 30
    for seed in range(5):
        out = np.array(labels)[split(labels, groups, 0.2, seed)]
        assert np.bincount(out, minlength=3).tolist() == [20, 25, 0]


def test_of_several_groups_that_are_too_large_the_one_nearest_to_the_share_is_taken() -> None:
    labels = [0] * 100
    groups = [0] * 40 + [1] * 26 + [2] * 34
    for seed in range(5):
        assert np.flatnonzero(split(labels, groups, 0.2, seed)).tolist() == [*range(40, 66)]


def test_a_group_across_classes_is_counted_for_both() -> None:
    """It would bring the first class nearer to its share, and the second farther from it by more."""
    labels = [0] * 12 + [1] * 60
    groups = [0] * 4 + [1] * 8 + [0] * 50 + [*range(2, 12)]
    out = split(labels, groups, 0.25)
    assert not out[0]
    assert np.bincount(np.array(labels)[out], minlength=2)[1] == 10


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_tiny_classes_keep_what_the_fit_needs(size: int) -> None:
    labels = [0] * size + [1] * 40
    out = split(labels, share=0.9)
    assert size - out[:size].sum() == min(size, FEWEST)


def test_the_seed_decides_and_so_does_the_content() -> None:
    labels = [0] * 100 + [1] * 100
    first = split(labels)
    assert np.array_equal(first, split(labels))
    overlaps = [np.mean(split(labels, seed=seed)[first]) for seed in range(1, 9)]
    assert 0.1 < np.mean(overlaps) < 0.4  # by chance 0.25
    other = hold_out(labels, keys_of(200, "other "), range(200), 0.25, 0)
    assert not np.array_equal(first, other)


def test_more_photos_leave_most_of_the_split_as_it_was() -> None:
    """Ten more photos move few of the others: the order of the photos among themselves stays."""
    keys = keys_of(210)
    before = hold_out([0] * 200, keys[:200], range(200), 0.2, 0)
    after = hold_out([0] * 210, keys, range(210), 0.2, 0)
    assert after.sum() == 42
    assert (before != after[:200]).sum() <= 10


def test_nothing_to_split() -> None:
    assert hold_out([], [], [], 0.2, 0).shape == (0,)


# --- groups of groups ---


def components(first: Groups, second: Groups) -> set[frozenset[int]]:
    """By brute force: spread until nothing is added."""
    found = set()
    for start in range(len(first)):
        members, grown = {start}, True
        while grown:
            near = {i for i in range(len(first)) for j in members if first[i] == first[j] or second[i] == second[j]}
            grown = near != members
            members = near
        found.add(frozenset(members))
    return found


@settings(deadline=None)
@given(
    st.integers(0, 14).flatmap(
        lambda count: st.tuples(*(st.lists(st.integers(-5, 20), min_size=count, max_size=count) for _ in range(2)))
    )
)
def test_joined_groups_are_the_connected_components(pair: tuple[Groups, Groups]) -> None:
    joined = join_groups(*(np.array(groups, np.int_) for groups in pair))
    found = {frozenset(np.flatnonzero(joined == group).tolist()) for group in set(joined.tolist())}
    assert found == components(*pair)
    assert {min(members) for members in found} == set(joined.tolist())  # called by their first


def test_a_long_chain_is_one_group() -> None:
    count = 20_000
    first, second = np.arange(count) // 2, (np.arange(count) + 1) // 2
    order = np.random.default_rng(0).permutation(count)
    assert (join_groups(first[order], second[order]) == 0).all()
    assert len(set(join_groups(first, np.arange(count)).tolist())) == count // 2
