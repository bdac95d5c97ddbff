"""A recipe is checked as it is made, and is the same as JSON."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.core.errors import UsageError
from headstart.train import recipe as module
from headstart.train.recipe import PRESETS, Recipe, open_recipe, preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_the_same_as_json(name: str) -> None:
    made = preset(name)
    assert Recipe.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert open_recipe(name) == made
    assert Recipe.from_json({"preset": name, "seed": 7}) == replace(made, seed=7)


def test_every_field_has_a_rule_and_words_are_those_of_the_rest() -> None:
    assert list(module._RULES) == [field.name for field in fields(Recipe)]
    assert preset("careful") == Recipe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected a whole number, 1 to 10000. Received: 0."),
        ({"epochs": True}, "epochs: expected a whole number"),
        ({"epochs": 2.0}, "epochs: expected a whole number"),
        ({"batch_size": -1}, "batch_size: expected a whole number, 1 to 65536"),
        ({"learning_rate": 0}, "learning_rate: expected a number above 0 up to 10. Received: 0."),
        ({"learning_rate": float("nan")}, "learning_rate: expected a number"),
        ({"learning_rate": "0.1"}, "learning_rate: expected a number"),
        ({"warm_up": 1.0}, "warm_up: expected a number from 0 to 0.9"),
        ({"layer_decay": 1.5}, "layer_decay: expected a number above 0 up to 1"),
        ({"dropout": 0.95}, "dropout: expected a number from 0 to 0.9"),
        ({"optimiser": "adm"}, "optimiser: expected one of sgd, momentum, adam, adamw. Received: 'adm'."),
        ({"schedule": ["cosine"]}, "schedule: expected one of"),
        ({"initialisation": "zeros"}, "initialisation: expected one of he, he_uniform, xavier"),
        ({"unfreeze": ""}, "unfreeze: expected 'head', 'top', 'all', or the name of a node or stage. Received: ''."),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"averaging": "snapshots", "epochs": 1}, "'snapshots' needs at least 2 epochs"),
        ({"schedule": "one_cycle", "warm_up": 0}, "'one_cycle' rises before it falls: expected warm_up above 0"),
        ({"batch_norm": "train", "unfreeze": "head"}, "batch_norm 'train' moves statistics below the head"),
    ],
)
def test_what_is_out_of_range_or_contradicts_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe(**changes)
    assert message in str(caught.value)
    with pytest.raises(UsageError):
        Recipe.from_json(changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"epoch": 3}, "A recipe has no field 'epoch'. Did you mean epochs?"),
        ({"preset": "carefull"}, "There is no recipe 'carefull'. Did you mean careful or full?"),
        ({"preset": ["careful"]}, "There is no recipe"),
    ],
)
def test_a_near_name_is_proposed(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.from_json(data)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, "\xff", '{"epochs": NaN}', '{"epochs": null}'])
def test_a_file_that_is_no_recipe(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"no recipe|Recipe, epochs"):
        open_recipe(str(tmp_path / "r.json"))
    with pytest.raises(UsageError, match="no recipe"):
        open_recipe(str(tmp_path / "absent.json"))


def test_a_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"preset": "full", "epochs": 3}')
    assert open_recipe(str(tmp_path / "r.json")) == replace(preset("full"), epochs=3)


anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers()))


@settings(deadline=None)
@given(data=st.dictionaries(st.sampled_from([field.name for field in fields(Recipe)]), anything, max_size=3))
def test_anything_is_a_recipe_or_a_clear_error(data: dict[str, Any]) -> None:
    with suppress(UsageError):  # and nothing else
        made = Recipe.from_json(data)
        assert Recipe.from_json(json.loads(json.dumps(made.to_json()))) == made
