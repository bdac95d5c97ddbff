"""The page on training tricks: every field of a recipe, figures as the benchmark left them, code that runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from headstart.train.recipe import PRESETS, Recipe

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training_tricks.md").read_text(encoding="utf-8")
RESULT = ROOT / "benchmarks" / "results" / "tricks.json"


@pytest.fixture(scope="module")
def benchmark() -> Iterator[tuple[ModuleType, ModuleType]]:
    """What it tries, and how it prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield import_module("tricks"), import_module("trick_tables")
    for name in ("harness", "trick_labs", "trick_tables", "tricks"):
        del sys.modules[name]


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe)])
def test_every_field_has_a_section(field: str) -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert any(f"`{field}`" in heading for heading in headings)


def test_presets_are_those_there_are() -> None:
    table = PAGE.split("| preset |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(PRESETS)


def test_the_benchmark_tries_every_field(benchmark: tuple[ModuleType, ModuleType]) -> None:
    """But the seed, which is in all of it. What changes whole recipes tries no field by itself."""
    single = [trick for trick in benchmark[0].TRICKS if not trick.name.startswith("overfitting")]
    tried = {name for trick in single for change in trick.changes.values() for name in change}
    assert tried >= {field.name for field in fields(Recipe)} - {"seed"}


def test_every_trick_has_its_place_and_every_table_its_rows(benchmark: tuple[ModuleType, ModuleType]) -> None:
    tricks, tables = benchmark[0].TRICKS, benchmark[1].places(PAGE)
    curves = {f"{trick.name}: curves" for trick in tricks if trick.name.startswith("overfitting")}
    assert tables.keys() == {"optimiser", *curves, *(trick.name for trick in tricks)}
    for trick in tricks:
        head, _, *rows = tables[trick.name].splitlines() or ["", ""]
        if head:
            assert head.startswith(f"| {trick.name} ({trick.base.lab}) |")
            assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(trick.changes)


def test_tables_are_filled_in(benchmark: tuple[ModuleType, ModuleType]) -> None:
    row: dict[str, Any] = {"setting": "none", "against": "", "reached": 7, "curve": []}
    row |= {"train_error": [0.5] * 3, "test_error": [0.25, 0.2, 0.3], "test_loss": [1.0, 0.9, 1234.0]}
    result = {"optimisers": None, "tricks": [{"name": "clip", "lab": "digits", "rows": [row]}]}
    page = "<!-- figures: clip -->\n| old |\n\n<!-- figures: epochs -->\n| kept |\n"
    assert benchmark[1].filled(page, result).splitlines() == [
        "<!-- figures: clip -->",
        "| clip (digits) | training error | test error | test loss | steps to a training loss of 0.2 | "
        "against the first |",
        "| --- | --- | --- | --- | --- | --- |",
        "| none | 50.0 % | 25.0 % (20.0 to 30.0) | 1.00 (0.90 to 1e+03) | 7 |  |",
        "",
        "<!-- figures: epochs -->",
        "| kept |",
    ]


@pytest.mark.skipif(not RESULT.exists(), reason="benchmarks/tricks.py has not been run to its end")
def test_every_figure_is_the_benchmarks(benchmark: tuple[ModuleType, ModuleType]) -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert benchmark[1].filled(PAGE, result) == PAGE
    assert all(trick["seeds"] >= 3 for trick in result["tricks"])


def test_the_code_runs_and_says_what_the_page_says() -> None:
    scope: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, scope)
        for line in block.splitlines():  # "expression  # value"
            if shown := re.fullmatch(r"(verdict\.\w+)  # (\".*\")", line):
                assert eval(shown[1], scope) == json.loads(shown[2])
    assert scope["recipe"] == scope["same"]
    assert scope["verdict"].kind == "overfitting"
