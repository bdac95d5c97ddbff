"""Labels keep their kind: text for the classes inside, and what was given for whoever compares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.core.labels import TEXT, as_given, as_kind, in_order, kind_of


@pytest.mark.parametrize(
    ("labels", "kind", "back"),
    [
        ([10, 2, 10, 1], "integer", [1, 2, 10]),
        (np.array([10, 2, -1], np.int8), "integer", [-1, 2, 10]),
        ([True, False], "bool", [False, True]),
        (np.array([True, False]), "bool", [False, True]),
        ([1.0, 0.5, 10.0], "float", [0.5, 1.0, 10.0]),
        (["10", "2", "b"], TEXT, ["10", "2", "b"]),
        ([1, "a"], TEXT, ["1", "a"]),
        ([1, True], TEXT, ["1", "True"]),
        ([], TEXT, []),
    ],
)
def test_labels_come_back_as_they_were(labels: Any, kind: str, back: list[Any]) -> None:
    assert kind_of(labels) == kind
    names = in_order(map(str, labels), kind)
    found = as_given(names, kind)
    assert found.tolist() == back
    assert set(found.tolist()) == {type(back[0])(label) for label in labels} if back and kind != TEXT else True


@pytest.mark.parametrize(
    ("names", "kind"), [(["cat"], "integer"), (["0"], "bool"), (["a"], "object"), (["x"], "float")]
)
def test_a_name_that_is_none_of_its_kind_is_refused(names: list[str], kind: str) -> None:
    with pytest.raises(ValueError, match=r"kind|invalid literal|could not convert"):
        as_given(names, kind)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([1, 2.5], "float"),
        ([2**70, 2**70 + 1], TEXT),
        (np.array([2**63 + 5, 1], np.uint64), TEXT),
        ([-(2**63)], "integer"),
    ],
)
def test_numbers_of_two_kinds_and_those_beyond_64_bits(labels: Any, kind: str) -> None:
    assert kind_of(labels) == kind
    assert len(as_given(in_order(map(str, labels), kind), kind)) == len(labels)


@pytest.mark.parametrize(
    ("label", "kind", "found"),
    [(5.0, "integer", 5), (True, "integer", 1), (5.5, "integer", 5.5), (5, "float", 5.0), (0, "bool", False),
     (2, "bool", 2), ("5", "integer", "5"), (5.0, TEXT, 5.0), (None, "integer", None)],
)  # fmt: skip
def test_a_label_is_compared_by_its_value(label: object, kind: str, found: object) -> None:
    assert as_kind(label, kind) == found
    assert type(as_kind(label, kind)) is type(found)
