"""What the screens say and draw, and what their buttons do, without a browser."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.diagnose.records import Diagnosis, Verdict
from headstart.studio.jobs import State
from headstart.studio.page import Tab, bar_of, figures, slider
from headstart.studio.project import Project
from headstart.studio.screens import fit, inside, label_more, networks, playground, take_away
from headstart.studio.words import STAGES
from headstart.train.recipe import PRESETS
from headstart.workflows.ranking import Candidate
from making import picture

pytestmark = pytest.mark.filterwarnings("default")  # of Gradio, about what it uses itself
SOURCE = Path(hs.__file__).parent


@pytest.fixture
def tab(bundle: Path, photos: Path, tmp_path: Path) -> Tab:
    """One with a project and a model."""
    project = Project(tmp_path / "project")
    project.bring_in(str(photos))
    return Tab(project=project, classifier=hs.load(bundle))


@pytest.mark.parametrize(("typed", "counts"), [(99, 12), (-5, 1), (7, 7), (None, 2)])
def test_a_number_out_of_range_counts_as_the_nearer_end(typed: float | None, counts: float) -> None:
    assert slider(1, 12, 2, 1).preprocess(typed) == counts


def test_a_bar_says_its_stage_as_people_do() -> None:
    assert "looking at the photos 3/10" in bar_of(State("features", 3, 10))
    assert "lite0 at 9 px &lt;b&gt;" in bar_of(State("lite0 at 9 px <b>", 1, 1))
    assert 'aria-label=""' not in bar_of(State())


def test_every_stage_has_words() -> None:
    told = re.compile(r"(?:one_step|stage)\([^()]*(?:\([^()]*\))?[^()]*\"([a-z ]+)\"\)")
    files = [file for file in SOURCE.rglob("*.py") if "scale" not in file.parts]  # it does not show those on a cluster
    found = {name for file in files for name in told.findall(file.read_text("utf-8"))}
    assert {"features", "head", "near copies", "reading", "writing"} <= found
    assert found <= set(STAGES)


def test_words_below_pictures_are_no_html() -> None:
    assert "<figcaption>&lt;b&gt;</figcaption>" in figures([("a.jpg", "<b>")])


def test_the_verdict_is_said_once_and_begins_with_a_capital(tab: Tab) -> None:
    model = tab.the_classifier()

    def said(kind: str, sentence: str) -> str:
        verdict = Verdict(kind, sentence, "Go on.")
        record = replace(model.record, diagnosis=replace(cast("Diagnosis", model.record.diagnosis), verdict=verdict))
        return fit.verdict_of(cast("hs.Classifier", SimpleNamespace(record=record)))

    assert "<strong>Healthy: all went well.</strong>" in said("healthy", "Healthy: all went well.")
    assert "<strong>Too little data: so few.</strong>" in said("too little data", "so few.")


def candidate(name: str, pixels: int, speed: float, right: float) -> Candidate:
    accuracy = hs.Accuracy(right, right - 0.1, min(right + 0.1, 1.0), 40)
    return Candidate(name, pixels, accuracy, 0, 1, speed, 1, 1, 1, True, 0, 0)


def test_a_comparison_is_a_line_for_each_network_and_a_row_for_each_size() -> None:
    rows = (candidate("a", 128, 300, 0.9), candidate("a", 224, 100, 0.95), candidate("b", 128, 200, 0.8))
    chart = networks.chart_of(rows, rows[1], "in words")
    assert [(line.name, [x for x, _ in line.points]) for line in chart.lines] == [("a", [100, 300]), ("b", [200])]
    assert chart.marks[0].x == 100
    page = networks.page_of(cast("hs.Comparison", SimpleNamespace(rows=rows, chosen=rows[1], sentence="in words")))
    assert page.count("<th scope='row'>") == 3
    assert "<td>224</td><td>95.0% (85.0 to 100.0)</td><td>100</td><td>proposed</td>" in page


@pytest.mark.parametrize(
    ("epsilon", "steps", "advice"),
    [(4, 20, "A larger ε or more steps may"), (16, 20, "More steps may"), (4, 100, "A larger ε may"), (16, 100, "")],
)
def test_an_attack_that_failed_gets_advice_that_can_be_followed(epsilon: float, steps: int, advice: str) -> None:
    answers = np.array([[0.9, 0.1]])
    found = SimpleNamespace(
        before=answers, after=answers, already=[False], success=[False], classes=("one", "other"),
        plan=SimpleNamespace(epsilon=epsilon / 255, steps=steps),
    )  # fmt: skip
    words = inside.outcome_of(cast("hs.Attacked", found))
    assert "may do it" in words if advice else "may do it" not in words
    assert advice in words


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ([(0, 0), (1, 2), (2, 0)], [(0, 0), (0.5, 1), (0, math.nan), (1, math.nan), (1.5, 1), (2, 0)]),
        ([(0, -1), (1, 2)], [(0, math.nan), (1 / 3, 0), (2 / 3, 1), (0, math.nan)]),
        ([(0, 0.5), (1, 0.5)], [(0, 0.5), (1, 0.5)]),
        ([(0, 3), (1, 3)], [(0, math.nan)]),
    ],
)
def test_a_curve_that_leaves_the_picture_is_cut(line: list[tuple[float, float]], seen: list[Any]) -> None:
    found = playground.within(line, 0, 1)
    assert [y for _, y in found] == pytest.approx([y for _, y in seen], nan_ok=True)
    assert [x for x, y in found if y == y] == pytest.approx([x for x, y in seen if y == y])


def test_the_playground_has_one_figure_for_one_thing() -> None:
    page = playground.page_of(7, 5, 1, 0)
    assert "0.0 in training, 20.0 on held-out points (squared error, summed over the points)" in page
    assert "<td>0.0</td>" in page
    assert "<td>20.0</td>" in page
    found = hs.fit_polynomial(7)
    heights = {round(y, 1) for line in playground.errors_chart(found).lines for x, y in line.points if x == 7}
    assert heights == {0.0, 20.0}


def test_lines_of_code_include_the_finetuning_and_the_export_that_were_made(tab: Tab) -> None:
    project, model = tab.the_project(), tab.the_classifier()
    assert "finetune" not in take_away.python_lines(tab) + take_away.shell_lines(tab)
    assert "export" not in take_away.python_lines(tab) + take_away.shell_lines(tab)
    tuned = SimpleNamespace(recipe=PRESETS["fast"].to_json(), trainer="pytorch")
    record = SimpleNamespace(backbone="a", pixels=64, finetune=tuned)
    tab.classifier = cast("hs.Classifier", SimpleNamespace(record=record, classes=model.classes))
    place = project.folder / "model-tflite.tflite"
    lines = take_away.python_lines(tab, "tflite")
    compile(lines, "lines", "exec")
    assert f"model.finetune({str(project.photos_folder)!r}, recipe='fast', trainer='pytorch')" in lines
    assert f"model.export('tflite', {str(place)!r}, overwrite=True)" in lines
    shell = take_away.shell_lines(tab, "tflite")
    assert "--recipe fast --trainer pytorch --overwrite" in shell
    assert f"--to tflite --out {place}" in shell


def test_a_recipe_without_a_name_is_what_differs() -> None:
    changed = replace(PRESETS["careful"], epochs=3).to_json()
    assert take_away.recipe_of(cast("Any", SimpleNamespace(recipe=changed))) == {"epochs": 3}
    assert take_away.recipe_of(cast("Any", SimpleNamespace(recipe=PRESETS["full"].to_json()))) == "full"


def test_formats_that_are_not_installed_say_so_and_are_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else there(name))
    found = take_away.formats()
    missing = [name for words, name in found if "not installed" in words]
    assert {"onnx", "web"} <= set(missing)
    assert found[0][1] not in missing
    assert [name for _, name in found[-len(missing) :]] == missing
    assert sorted(name for _, name in found) == sorted(take_away.NAMES)


def test_photos_that_wait_are_counted_and_those_that_cannot_be_read_are_named(tab: Tab, tmp_path: Path) -> None:
    project, model = tab.the_project(), tab.the_classifier()
    assert label_more.waiting_in_words(project) == "No photo waits for a label."
    broken = project.folder / "new photos" / "broken.png"
    broken.parent.mkdir()
    broken.write_bytes(b"\x89PNG no photo")
    Image.fromarray(picture("bars", 5, 64)).save(broken.with_name("good.png"))
    assert label_more.waiting_in_words(project).startswith("2 photos wait for a label.")
    told: list[tuple[str, int, int]] = []
    found, names = label_more.least_certain_first(model, project.new_photos(), lambda *step: told.append(step))
    assert ([Path(guess.path).name for guess in found], names) == (["good.png"], ["broken.png"])
    assert told[-1] == ("photos", 2, 2)
    assert label_more.unreadable_in_words(names) == "1 cannot be read: `broken.png`."


def test_a_key_counts_for_the_photo_that_is_shown_or_not_at_all(tab: Tab) -> None:
    first, second = (label_more.Guess(f"{name}.png", "bars", 0.5) for name in "ab")
    moved: list[str] = []

    def take(project: Project, guess: label_more.Guess) -> str:
        moved.append(guess.path)
        return "there"

    look: Callable[..., Any] = lambda tab, queue, done: {"queue": queue, "done": done}  # noqa: E731
    taken = label_more.taker(take, cast("Any", look), "version")
    assert taken(tab, "a.png", (first, second), (), 1) == {
        "queue": (second,), "done": (label_more.Done(first, "there"),), "version": 2,
    }  # fmt: skip
    taken(tab, "a.png", (second,), (), 2)  # the page still shows the first
    taken(tab, "", (), (), 2)
    assert moved == ["a.png"]


def test_a_label_is_taken_off(tab: Tab) -> None:
    project = tab.the_project()
    photo = project.photos("bars")[0]
    back = project.take_label_off(photo)
    assert project.new_photos() == [back]
    assert photo not in project.photos("bars")


def test_fits_are_not_joined_and_show_their_intervals() -> None:
    points = (label_more.Fitted(48, 0.9, 0.64, 0.98), label_more.Fitted(52, 0.95, 0.7, 0.99))
    chart = label_more.chart_of(points)
    (line,) = chart.lines
    assert not line.joined
    assert line.whiskers
    assert chart.y.low == 0.6
