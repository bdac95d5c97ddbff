"""docs/diagnosis.md: its table is that of the rules, its code runs, and its figures are those of the example."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from headstart.diagnose import bias_variance, learning_curve, verdict, wrong_labels
from headstart.diagnose.diagnose import OUTLIERS
from headstart.diagnose.records import BiasVariance, Diagnosis

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", DOC, re.DOTALL)


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield import_module("overfitting")


def rules() -> list[tuple[str, str]]:
    """Kind and condition, row by row."""
    table = DOC.partition("| verdict | if |")[2].partition("\n\n")[0]
    return [(kind, condition) for kind, condition in re.findall(r"^\| ([\w ]+) \| (.+?) \| ", table, re.MULTILINE)]


def test_the_table_has_every_rule_in_order() -> None:
    assert [kind for kind, _ in rules()] == [rule.kind for rule in (*verdict.RULES, verdict.HEALTHY)]


def test_the_table_has_the_thresholds() -> None:
    conditions = [condition for _, condition in rules()]
    points = f"{100 * verdict.WORTH:.0f} points"
    errors = f"{verdict.SURE:.0f} standard errors"
    for place, words in enumerate(
        [
            [f"more than {100 * verdict.LEAKED:.0f} %", "twice"],
            ["size", "kind of the files"],
            [f"more than {100 * verdict.KNOWN:.0f} points"],
            [f"more than {verdict.STRANGE:.0f} standard errors", "not mixed up"],
            [errors, points, "a tenth"],
            [f"within {errors}", "half"],
            [f"within {errors}"],
            [f"{verdict.LIKELY:.0f} standard errors", points],
            [f"more than {100 * verdict.WRONG:.0f} %", f"more than {100 * verdict.MIXED_UP:.0f} %"],
            [f"{verdict.LIKELY:.0f} standard errors", points],
            ["more than half"],
        ]
    ):
        assert all(word in conditions[place] for word in words), conditions[place]
    assert verdict.TIMES == 2
    assert verdict.FITTED == verdict.MOST == 0.5


def test_other_figures() -> None:
    for words in (
        f"{bias_variance.RESAMPLES} resamples",
        f"the {OUTLIERS} training images",
        f"and {wrong_labels.MOST}.",
    ):
        assert words in DOC
    assert (learning_curve.DRAWS, wrong_labels.LISTED) == (5, 0.25)


def test_every_part_has_its_place() -> None:
    named = set(re.findall(r"`(\w+)`", DOC))
    later = {"corrupted", "distance", "from_scratch", "seconds", "verdict"}  # of the report, or named otherwise
    assert {field.name for field in fields(Diagnosis)} - later <= named
    assert {field.name for field in fields(BiasVariance)} - {"resamples", "images", "judged_on"} <= named


def test_the_code_runs(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    (tmp_path / "script.py").write_text(block, encoding="utf-8")
    assert isinstance(runpy.run_path(str(tmp_path / "script.py"))["diagnosis"], Diagnosis)


def test_screens_are_those_of_a_terminal() -> None:
    screens = [block for block in BLOCKS if "verdict  " in block]
    assert len(screens) == 3
    kinds = {rule.kind for rule in (*verdict.RULES, verdict.HEALTHY)}
    for screen in screens:
        assert all(len(line) <= 80 for line in screen.splitlines())
        assert re.findall(r"^verdict +([\w ]+):", screen, re.MULTILINE)[0] in kinds


def test_the_lesson_is_that_of_the_example(example: ModuleType) -> None:
    """To a last digit, which another processor may round otherwise."""
    rows = re.findall(r"^ +(\d)  +([\d.]+) +([\d.]+)  ", DOC, re.MULTILINE)
    assert [int(degree) for degree, *_ in rows] == [*example.DEGREES]
    for degree, *errors in rows:
        assert [float(error) for error in errors] == pytest.approx(example.polynomial_errors(int(degree)), abs=1.1e-3)


def test_the_sizes_are_those_of_the_example(example: ModuleType) -> None:
    table = np.array([row.split() for row in DOC.splitlines() if re.fullmatch(r"( +[\d.-]+){7}", row)], float)
    assert tuple(table[:, 0].astype(int)) == example.SIZES
    np.testing.assert_allclose(table[:, 1], table[:, 2] + table[:, 3], atol=2e-3)
    np.testing.assert_allclose(table[:, 4], table[:, 5] + table[:, 6], atol=2e-3)
