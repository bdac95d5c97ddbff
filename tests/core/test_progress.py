"""Progress of functions called from Python: where somebody looks, and nowhere else."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.core.progress import WIDEST, Shown, amount, function_of, in_notebook, one_step, shown, shows_progress
from headstart.train.recipe import open_recipe

ONE_EPOCH, SCRATCH = hs.Recipe(epochs=1, unfreeze="head"), replace(open_recipe("scratch"), epochs=1)
ROWS, LABELS = np.random.default_rng(0).normal(size=(40, 3)), [0, 1] * 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """A function that puts one in the place of standard error: in the test, for pytest has its own before."""

    def put() -> Terminal:
        for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
            monkeypatch.setenv(name, value)
        found = Terminal()
        monkeypatch.setattr(sys, "stderr", found)
        return found

    return put


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))


@shows_progress
def work(steps: int, *, progress: Shown = True) -> bool:
    """Some steps, and something that cannot be counted; returns whether anybody was told."""
    report = function_of(progress)
    for done in range(steps):
        if report:
            report("steps", done + 1, steps)
    with one_step(report, "the rest"):
        pass
    return report is not None


def test_a_terminal_gets_bars(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    assert work(7)
    assert "steps" in screen.getvalue()


@pytest.mark.parametrize(("soon", "told"), [(1e9, False), (0.0, True)])
def test_what_was_ready_at_once_is_no_speed(
    soon: float, told: bool, terminal: Callable[[], Terminal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.core.progress.SOON", soon)
    screen = terminal()
    with shown() as report:
        assert report
        for done in range(8, 80, 8):
            report("images", done, 100)
    assert ("/s" in screen.getvalue()) == told


@pytest.mark.parametrize(
    ("stage", "done", "count", "said"),
    [
        ("steps", 7, 9, "7/9"),
        ("steps", 7, 0, "7"),
        ("head", 0, 1, ""),
        ("weights", 2_500_000, 10**7, "2.5/10.0 MB"),
    ],
)
def test_how_much_is_done(stage: str, done: int, count: int, said: str) -> None:
    assert amount(stage, done, count) == said


def test_the_bar_of_a_stage_goes_when_the_next_begins(terminal: Callable[[], Terminal]) -> None:
    """A bar that stands at 100 % while something else is computed looks as if the program hung."""
    screen = terminal()
    with shown() as report:
        assert report
        report("steps", 5, 5)
        screen.truncate(0)
        report("the rest", 0, 1)
    last = screen.getvalue()
    assert "the rest" in last
    assert "steps" not in last.rpartition("the rest")[2]


def test_a_notebook_gets_one_line_that_changes(notebook: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert in_notebook()
    assert work(7)
    out = capsys.readouterr().out
    assert "steps 7/7" in out
    assert "\n" not in out
    assert "\x1b" not in out
    assert out.endswith(f"\r{' ' * WIDEST}\r")


@pytest.mark.parametrize("progress", [True, False, None])
def test_elsewhere_nothing_is_printed(progress: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    assert not work(7, progress=progress)
    assert capsys.readouterr() == ("", "")


def test_false_is_quiet_on_a_terminal_too(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    assert not work(7, progress=False)
    assert screen.getvalue() == ""


def test_a_function_of_ones_own_is_called_everywhere(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    told: list[tuple[str, int, int]] = []
    assert work(2, progress=lambda *what: told.append(what))
    assert told == [("steps", 1, 2), ("steps", 2, 2), ("the rest", 0, 1), ("the rest", 1, 1)]
    assert screen.getvalue() == ""


def test_an_error_leaves_no_bar_behind(terminal: Callable[[], Terminal]) -> None:
    screen = terminal()
    with pytest.raises(ZeroDivisionError):
        fails()
    assert "\x1b[?25l" in screen.getvalue()  # the cursor, hidden beside bars
    assert screen.getvalue().rfind("\x1b[?25h") > screen.getvalue().rfind("\x1b[?25l")


@shows_progress
def fails(*, progress: Shown = True) -> float:
    report = function_of(progress)
    assert report
    report("steps", 1, 2)
    return 1 / 0


@pytest.mark.parametrize(
    ("call", "stage"),
    [
        (lambda data: hs.fit(data, pixels=32, cache=False), "features"),
        (hs.check, "images"),
        (lambda data: hs.compare(data, backbones=["efficientnet_lite0"], pixels=[32]), "efficientnet_lite0 at 32 px"),
        (
            lambda data: hs.fit(data, pixels=32, cache=False, progress=False).evaluate(data, fitted_on_too=True),
            "images",
        ),
        (lambda data: hs.train_photos(data, pixels=32, recipe=SCRATCH, trainer="pytorch"), "1/1"),
        (lambda data: hs.train_rows(ROWS, LABELS, recipe=SCRATCH), "1/1"),
        (lambda data: hs.finetune(hs.fit(data, pixels=32, progress=False), data, recipe=ONE_EPOCH), "1/1"),
    ],
)
def test_every_long_function_shows_it(
    call: Callable[[str], Any], stage: str, photos: Path, terminal: Callable[[], Terminal]
) -> None:
    screen = terminal()
    call(str(photos))
    assert stage in screen.getvalue()
