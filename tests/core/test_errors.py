"""What a wrong name is answered with."""

from __future__ import annotations

from headstart.core.errors import LISTED, did_you_mean


def test_near_names_are_offered_and_far_ones_listed_up_to_a_number() -> None:
    assert did_you_mean("vgg15", ["vgg16", "resnet50"]) == "Did you mean vgg16?"
    assert did_you_mean("x", ["b", "a"]) == "Known: a, b."
    many = [f"layer{place:03}" for place in range(LISTED + 7)]
    assert did_you_mean("§", many) == f"Known: {', '.join(many[:LISTED])} and 7 more."
