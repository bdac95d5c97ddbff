"""The cost model of a fit on a cluster: what it adds up, from figures that are given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from benchmark_modules import benchmark


@pytest.fixture(scope="module")
def model() -> Iterator[ModuleType]:
    with benchmark("scale_model") as found:
        yield found


@pytest.fixture(scope="module")
def costs(model: ModuleType) -> Any:
    """5 ms an image and core: 2 + 1 + 1, times 1.25, and nothing to write it."""
    return model.Costs(
        cores=2,
        read=0.002,
        decode=0.001,
        forward=0.001,
        store=0.0,
        together=1.25,
        alone={},
        image_bytes=1e5,
        shard_bytes=5e3,
        width=1000,
        classes=10,
        fixed={"start": 4, "plan": 1, "golden": 1, "report": 1, "rest": 2, "open": 1, "save": 0},
        each={"open": 1e-3, "save": 0},
        first=3.0,
        unit=0.004,
        listed=1e-5,
        line_bytes=100,
        pair=2e-8,
        near_pair=1e-7,
        near=0.0,
        split=1e-4,
        curves={
            "head": [(100, 1.0), (200, 3.0), (400, 4.0)],
            "evaluation": [(100, 0.0), (200, 0.0)],
            "diagnosis": [(100, 1.0), (200, 1.0)],
            "plenty": [(10_000, 20.0), (20_000, 30.0)],
        },
        scatter=1e-3,
        split_bytes=1000,
    )


def test_stages_add_up(model: ModuleType, costs: Any) -> None:
    said = model.predict(costs, 1000, 2)
    assert said["features"] == pytest.approx(3 + 0.005 * 1000 / 2)
    assert said["split"] == pytest.approx(0.1 + 0.01)
    assert said["open"] == pytest.approx(2)
    assert said["head"] == pytest.approx(7)
    assert said["total"] == pytest.approx(sum(value for stage, value in said.items() if stage != "total"))
    without = model.predict(costs, 1000, 2, diagnose=False)
    assert without["total"] == pytest.approx(said["total"] - said["diagnosis"] - said["report"])
    assert model.predict(costs, 1000, 8)["features"] == pytest.approx(3 + 0.005 * 1000 / 8)


def test_a_curve_goes_through_its_points_and_on(model: ModuleType) -> None:
    points = [(100, 1.0), (200, 3.0), (400, 4.0)]
    assert [model.along(points, at) for at in (50, 100, 150, 200, 300, 400, 600)] == [0, 1, 2, 3, 3.5, 4, 5]


def test_plenty_of_images_have_a_diagnosis_of_their_own(model: ModuleType, costs: Any) -> None:
    assert model.predict(costs, 9_000, 2)["diagnosis"] == pytest.approx(1)
    assert model.predict(costs, 15_000, 2)["diagnosis"] == pytest.approx(25)


def test_beyond_the_images_that_choose_the_strength_only_sums_grow(model: ModuleType, costs: Any) -> None:
    few, more, wider = (
        model.predict(costs, images, cores)["head"] for images, cores in ((12_500, 2), (112_500, 2), (112_500, 8))
    )
    assert more - few == pytest.approx(1e-3 * 0.8 * 100_000 / 2)
    assert wider - few == pytest.approx((more - few) / 4)


def test_images_with_near_neighbours_are_looked_at_again(model: ModuleType, costs: Any) -> None:
    assert model.near_copies(costs, 1000, 2) == pytest.approx(0.01)
    all_near = replace(costs, near=1.0)
    assert model.near_copies(all_near, 1000, 2) == pytest.approx(0.01 + 0.1)


def test_pairs_of_very_many_images_are_shared_by_all_cores(model: ModuleType, costs: Any) -> None:
    two, eight = (model.near_copies(costs, 10**6, cores) for cores in (2, 8))
    assert two == pytest.approx(1e4)
    assert eight == pytest.approx(two / 4)


def test_tables_of_what_nobody_measured(model: ModuleType, costs: Any) -> None:
    row = model.table(costs, 10**8, 10)
    assert row["hours of the features"] == pytest.approx((3 + 5e5 / 640) / 3600)
    assert row["dollars of the features"] == pytest.approx(5e5 / 3600 * 0.05)
    assert row["dollars a million"] == pytest.approx(row["dollars of the features"] / 100)
    assert row["terabytes of shards"] == pytest.approx(0.5)
    assert row["gigabytes of the model"] == pytest.approx(0.8 * 27.2)


def test_what_gives_way_comes_in_order_with_a_remedy(model: ModuleType, costs: Any) -> None:
    found = model.limits(costs)
    assert [images for images, _ in found] == sorted(images for images, _ in found)
    assert {name for _, name in found} == {*model.REMEDIES}
    by_name = {name.split(":")[0]: images for images, name in found}
    assert by_name["near copies"] == pytest.approx(0.005 / 2e-8)
    assert by_name["memory of the split, one task"] == pytest.approx(256e6)
