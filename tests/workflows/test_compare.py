"""`headstart compare` and ``--backbone auto``: statistics, choice, one split for all, and nothing that leaks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, pairwise
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.core.types import ImageDataset
from headstart.data.load import content_key
from headstart.data.sources import open_source
from headstart.data.split import make_split
from headstart.engines.registry import open_backbone
from headstart.learn.significance import mcnemar, pareto
from headstart.learn.transferability import logme
from headstart.plots.comparison import draw_comparison, plot_comparison
from headstart.workflows import automatic, backbone_features
from headstart.workflows import compare as comparing
from headstart.workflows.ranking import NOISE, WITHIN, Candidate, Trial, choose, lightest, rank
from making import Shell, folder, record_of
from terminals import COLUMNS, on_a_terminal

LITE = "efficientnet_lite0"
EXACT: dict[str, Any] = {"precision": "fp32"}  # bf16 is compiled beside it, to be held against it


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of speed need not be good here."""
    monkeypatch.setattr(comparing, "REPEATS", 1)


# --- McNemar's test ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [(0, 0, 1), (1, 1, 1), (5, 0, 1 / 32), (0, 1, 1 / 2), (10, 4, (2 * (1 + 14 + 91 + 364) + 1001) / 2**14)],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-12)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_twice_the_tail_of_a_fair_coin_with_the_case_itself_counted_half(a: int, b: int) -> None:
    n, fewer = a + b, min(a, b)
    exact = Fraction(2 * sum(comb(n, k) for k in range(fewer)) + comb(n, fewer), 2**n)
    assert mcnemar(a, b) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)
    assert mcnemar(a, b) == mcnemar(b, a)
    assert 0 < mcnemar(a, b) <= 1
    assert mcnemar(a, b + n + 1) < mcnemar(a, a) == pytest.approx(1)


def test_mcnemar_of_very_many() -> None:
    assert mcnemar(100_000, 0) == 0
    assert mcnemar(50_000, 50_000) == pytest.approx(1)
    assert mcnemar(50_310, 49_690) == pytest.approx(0.05, abs=1e-3)  # 1.96 standard deviations


# --- the front --------------------------------------------------------------------------------------------------------

points = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=20)


@given(points)
def test_the_front_is_what_no_other_beats(found: list[tuple[int, int]]) -> None:
    on_front = pareto([speed for speed, _ in found], [accuracy for _, accuracy in found])
    front = {point for point, on in zip(found, on_front, strict=True) if on}
    for point, on in zip(found, on_front, strict=True):
        beaten_by = {other for other in front if other != point and other[0] >= point[0] and other[1] >= point[1]}
        assert on == (not beaten_by)
    by_speed = sorted(front)
    assert all(slow[1] > fast[1] for slow, fast in pairwise(by_speed))


def test_the_front_by_hand() -> None:
    assert pareto([10, 20, 20, 40, 30], [0.9, 0.8, 0.8, 0.5, 0.5]) == [True, True, True, True, False]


# --- rank and choice --------------------------------------------------------------------------------------------------


def tried(name: str, wrong: Sequence[int], speed: float, images: int = 200) -> Trial:
    right = np.ones(images, bool)
    right[list(wrong)] = False
    return Trial(name, 224, right, np.arange(len(right)), speed, 1_000_000, 4.0, 1.0, 0.0, 0.5)


@st.composite
def contests(draw: st.DrawFn) -> list[Candidate]:
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True))
    return rank(
        [
            tried(name, draw(st.lists(st.integers(0, 49), max_size=40)), draw(st.integers(1, 20)), images=50)
            for name in names
        ]
    )


@given(contests())
def test_the_rank_and_what_is_said_of_each(rows: list[Candidate]) -> None:
    assert rows[0].difference == 0
    assert rows[0].p == 1
    assert rows[0].pareto
    for first, second in pairwise(rows):
        assert first.accuracy.value >= second.accuracy.value
    for row in rows:
        assert row.difference == row.accuracy.value - rows[0].accuracy.value <= 0
        assert 0 < row.p <= 1


@given(contests(), st.integers(1, 25))
def test_a_budget_takes_the_most_accurate_that_meets_it(rows: list[Candidate], budget: int) -> None:
    chosen, sentence = choose(rows, budget=budget)
    met = [row for row in rows if row.images_per_second >= budget]
    fastest = max(rows, key=lambda row: row.images_per_second)
    if chosen is None:
        assert not met
        assert f"with {fastest.images_per_second:.0f}." in sentence
    else:
        assert chosen in met
        assert all(row.accuracy.value <= chosen.accuracy.value for row in met)


@given(contests(), st.floats(0, 60))
def test_the_lightest_is_the_fastest_that_is_not_worse(rows: list[Candidate], within: float) -> None:
    assert choose(rows) == lightest(rows, WITHIN) == lightest(rows)
    chosen, _ = lightest(rows, within)
    near = [row for row in rows if -100 * row.difference <= within + 1e-9]
    assert chosen in near
    assert all(row.images_per_second <= chosen.images_per_second for row in near)


def test_noise_is_not_read_as_rank() -> None:
    """Five errors more than the best: noise where both err apart, and more than that where only one errs."""
    best = tried("best", range(10), 100)
    apart, alone = tried("apart", range(50, 65), 300), tried("alone", range(15), 200)
    first, *others = rank([alone, best, apart])
    assert first.backbone == "best"
    p = {row.backbone: row.p for row in others}
    assert p == {"apart": pytest.approx(0.327, abs=1e-3), "alone": pytest.approx(1 / 32)}
    chosen, sentence = lightest([first, *others], 2.5)
    assert chosen.backbone == "apart"
    assert sentence == (
        "apart at 224 px: the fastest within 2.5 points of the most accurate; 2.5 points below best at 224 px, the "
        "most accurate (within noise on 200 photos, p = 0.33); 3.0 times as fast."
    )
    without = rank([alone, best])
    assert lightest(without)[1] == (
        "best at 224 px: 95.0% right, 100 images a second, the most accurate of all; no faster one is within 1 point "
        "of it."
    )
    assert "more than noise, p = 0.031" in lightest(without, 3)[1]
    assert lightest(without, 3)[1].startswith("alone at 224 px: the fastest within 3 points of the most accurate; 2.5 ")
    assert choose(without, budget=150)[0] == without[1]
    assert choose(without, budget=201) == (
        None,
        "None manages 201 images a second: the fastest is alone at 224 px with 200.",
    )
    (only,) = rank([best])
    assert lightest([only])[1] == "best at 224 px: 95.0% right, 100 images a second, the only one."


def test_what_twelve_photos_cannot_tell_apart_is_not_taken_for_as_good() -> None:
    """Two errors more of twelve may well be noise, and may well be none."""
    best, worse = tried("best", [3], 100, images=12), tried("worse", [3, 5, 7], 900, images=12)
    rows = rank([best, worse])
    assert rows[1].may_be_noise
    assert choose(rows)[0] == rows[0]


# --- compare ----------------------------------------------------------------------------------------------------------


def features_of_training_set(photos: Path, pixels: int) -> tuple[NDArray[np.float32], NDArray[np.int_]]:
    """What the head of a fit was given, and the class of each."""
    model, dataset = hs.fit(str(photos), pixels=pixels, **EXACT), hs.open_source(str(photos))
    known = [row for row in range(len(dataset)) if content_key(dataset.read(row)) in model.fitted_on]
    part = dataset.part(known)
    return model.embed(part), np.array([model.classes.index(sample.label) for sample in part.samples])


def test_all_are_fitted_and_judged_as_fit_does_it(photos: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = hs.compare(
        str(photos), backbones=[LITE], pixels=[32, 64], progress=lambda *what: told.append(what), **EXACT
    )
    assert sorted(row.pixels for row in found.rows) == [32, 64]
    for row in found.rows:
        model = hs.fit(str(photos), pixels=row.pixels, **EXACT)
        assert row.accuracy.value == record_of(model)["left_one_out"]["accuracy"]
        assert (found.train, found.test) == (record_of(model)["train"], record_of(model)["test"])
        assert row.parameters == sum(model.blueprint.parameters().values())
        assert row.megabytes == pytest.approx(sum(array.nbytes for array in model.weights.values()) / 1e6)
        assert row.seconds > 36 / row.images_per_second
        features, labels = features_of_training_set(photos, row.pixels)
        assert row.logme == pytest.approx(logme(features, labels), abs=1e-3)
        assert 0 <= row.train_error <= 1 - row.accuracy.value
        assert found.images == record_of(model)["left_one_out"]["images"]
    assert found.judged_on == "left out in turn"
    assert found.chosen in found.rows
    assert [done for _, done, _ in told] == [*range(1, 73), 72]
    assert {doing for doing, _, _ in told} == {f"{LITE} at {n} px" for n in (32, 64)} | {"measuring the speeds"}
    assert {count for _, _, count in told} == {72}


def test_the_split_is_made_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []

    def spy(*arguments: Any) -> Any:
        plans.append(make_split(*arguments))
        return plans[-1]

    monkeypatch.setattr(comparing, "make_split", spy)
    hs.compare(str(photos), backbones=[LITE], pixels=[32, 48], **EXACT)
    assert len(plans) == 1


def test_speed_is_measured_without_what_is_kept(photos: Path) -> None:
    source = open_source(str(photos))
    reads: list[int] = []

    def read(index: int) -> Any:
        reads.append(index)
        return source.read(index)

    dataset = ImageDataset(source.root, source.samples, read)
    first = hs.compare(dataset, backbones=[LITE], pixels=[32], **EXACT)
    reads.clear()
    second = hs.compare(dataset, backbones=[LITE], pixels=[32], **EXACT)
    assert first.rows[0].accuracy == second.rows[0].accuracy
    assert len(reads) >= 2 * len(dataset)  # hashed for the feature cache, and then decoded for the speed
    assert second.rows[0].images_per_second < 1e5  # nobody decodes so fast


@pytest.mark.parametrize("holdout", [0, 0.3])
def test_a_choice_is_not_made_on_the_test_set(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holdout: float
) -> None:
    """Whatever the labels of the test photos, the candidates do as well, and the fit is measured on the same ones."""
    split, plans = make_split, list[Any]()

    def spy(*arguments: Any) -> Any:
        plans.append(split(*arguments))
        return plans[-1]

    def all_wrong(*arguments: Any) -> Any:
        spy(*arguments)
        plan = plans[-1]
        plan.labels[plan.test] = (plan.labels[plan.test] + 1) % len(plan.classes)
        return plan

    monkeypatch.setattr(comparing, "make_split", spy)
    found = hs.compare(str(photos), backbones=[LITE], pixels=[32], holdout=holdout, **EXACT)
    monkeypatch.setattr(comparing, "make_split", all_wrong)
    wrong = hs.compare(str(photos), backbones=[LITE], pixels=[32], holdout=holdout, **EXACT)
    assert wrong.rows[0].accuracy == found.rows[0].accuracy
    model = hs.fit(str(photos), pixels=32, holdout=holdout, **EXACT)
    assert found.test == record_of(model)["test"] == plans[0].test.sum()
    assert found.images == record_of(model)["left_one_out"]["images"]


def test_a_photo_that_vanishes_meanwhile_is_a_sentence(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))

    def vanish(_: str, done: int, count: int) -> None:
        if done == count // 2:  # the first network has seen them all
            (data / "bars" / "3.png").unlink()

    with pytest.raises(hs.DataError, match=r"bars/3\.png"):
        hs.compare(str(data), backbones=[LITE], pixels=[32, 48], progress=vanish, **EXACT)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"backbones": ["eficientnet_lite0"]}, "Did you mean efficientnet_lite0"),
        ({"backbones": [LITE, LITE]}, "named twice"),
        ({"backbones": []}, "Received: none"),
        ({"pixels": [32, 7]}, "pixels: expected 32 to 1024. Received: 7"),
        ({"pixels": [32, 32]}, "named twice"),
        ({"within": -1}, "within"),
        ({"within": float("nan")}, "within"),
        ({"budget": 0}, "budget"),
        ({"budget": float("inf")}, "budget"),
        ({"budget": 1, "within": 1}, "one of them"),
        ({"weights": {"efficientnet_lite1": "x.pth"}}, "none of the networks"),
        ({"weights": {LITE: "nowhere.pth"}}, r"Received: 'nowhere\.pth'"),
        ({"backbones": ["mobilenet_v2"]}, "No network can be had. mobilenet_v2"),
        ({"head": "lad"}, "lda"),
        ({"holdout": 2}, "holdout"),
        ({"precision": "fp23"}, "fp32"),
        ({"engine": "fats"}, "fast"),
    ],
)
def test_a_wrong_setting_is_a_sentence(
    photos: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], sentence: str
) -> None:
    nothing_to_be_had(monkeypatch)
    settings: dict[str, Any] = {"backbones": [LITE], "pixels": [32]} | options
    with pytest.raises(hs.UsageError, match=sentence):
        hs.compare(str(photos), **settings)


def nothing_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights but those of the default network."""

    def opened(name: object, weights: Any = None, *others: Any, **named: Any) -> Any:
        if name != LITE and weights is None:
            raise hs.UsageError(f"{name} is nowhere. Name a file: --weights FILE")
        return open_backbone(name, weights, *others, **named)

    monkeypatch.setattr(backbone_features, "open_backbone", opened)


def test_on_real_photos(shared: Path) -> None:
    found = hs.compare(str(shared / "data" / "oxford_pets"), backbones=[LITE], pixels=[64, 128])
    best, other = found.rows
    assert (best.pixels, other.pixels) == (128, 64)
    assert best.accuracy.value > 0.6 > 0.5 > other.accuracy.value
    assert other.p < NOISE
    assert found.chosen == best
    assert (found.judged_on, found.images, found.test) == ("left out in turn", 296, 74)
    assert lightest(found.rows, within=50)[0].images_per_second == max(row.images_per_second for row in found.rows)


# --- the plot ---------------------------------------------------------------------------------------------------------


def many(count: int) -> list[Candidate]:
    rng = np.random.default_rng(1)
    rates = 0.8 + 0.15 * rng.random(count)
    return rank(
        [
            tried(f"network_{place}", np.flatnonzero(rng.random(200) > rate).tolist(), float(rng.uniform(20, 900)))
            for place, rate in enumerate(rates)
        ]
    )


@pytest.mark.parametrize("count", [1, 2, 9, 40])
def test_names_in_the_plot_lie_on_nothing(count: int) -> None:
    rows = many(count)
    chosen, _ = lightest(rows)
    figure = draw_comparison(rows, chosen)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    names = {text.get_text(): text for text in axes.texts}
    assert len(names) == count or count > 20
    assert f"{chosen.backbone} 224" in names
    from matplotlib.text import Text

    boxes = [Text.get_window_extent(text) for text in names.values()]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    marks = axes.transData.transform([(row.images_per_second, row.accuracy.value) for row in rows])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


def test_the_plot_is_written_twice_alike(tmp_path: Path) -> None:
    rows = many(4)
    for name in ("a", "b"):
        png, svg = plot_comparison(rows, rows[0], tmp_path / name / "new")
        with Image.open(png) as picture:
            assert picture.size == (1200, 750)
        assert all(f">{row.backbone} 224<" in svg.read_text() for row in rows)
    assert (tmp_path / "a/new/compare.svg").read_bytes() == (tmp_path / "b/new/compare.svg").read_bytes()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(hs.UsageError, match="cannot be written"):
        plot_comparison(rows, None, tmp_path / "file")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_in_json(shell: Shell, photos: Path, tmp_path: Path) -> None:
    answer = shell("compare", photos, "--backbones", LITE, "--pixels", "32, 64", "--out", tmp_path / "plot", "--json")
    assert (answer.code, answer.err) == (0, "")
    said = answer.json
    assert {"rows", "chosen", "sentence", "files"} <= set(said)
    for row in said["rows"]:
        assert set(row) == {
            "backbone", "pixels", "accuracy", "interval", "difference", "p", "images_per_second", "parameters",
            "megabytes", "seconds", "pareto", "train_error", "logme", "assumed",
        }  # fmt: skip
        assert row["interval"][0] < row["accuracy"] <= row["interval"][1]
    assert said["chosen"] in said["rows"]
    assert [Path(file).name for file in said["files"]] == ["compare.png", "compare.svg"]
    assert all(Path(file).stat().st_size > 1000 for file in said["files"])


def test_the_command_in_words(photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "with a blank"))
    code, raw, lines = on_a_terminal("compare", data, "--backbones", LITE, "--pixels", "32,48", "--seed", "3")
    assert code == 0
    assert "━" in raw
    rows = [line for line in lines if f" {LITE} " in f" {line} " and "–" in line]
    assert len(rows) == 2
    assert sum(row.startswith("→") for row in rows) == 1
    assert sum("best" in row for row in rows) == 1
    (head,) = [line.split() for line in lines if "network" in line and "accuracy" in line]
    assert head == ["network", "px", "accuracy", "95", "%", "points", "p", "LogME", "img/s", "MB", "s"]
    words = [line for line in lines if line and "━" not in line]
    assert all(len(line) <= COLUMNS or line.startswith("next ") for line in words)
    chosen = next(row for row in rows if row.startswith("→")).split()
    assert words[-1] == f"next           headstart fit '{data}' --backbone {LITE} --pixels {chosen[2]} --seed 3"


def test_a_network_without_weights_is_passed_over(shell: Shell, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_to_be_had(monkeypatch)
    answer = shell("compare", photos, "--backbones", f"mobilenet_v2,{LITE}", "--pixels", 32)
    assert answer.code == 0
    assert "mobilenet_v2: mobilenet_v2 is nowhere. Name a file: --weights mobilenet_v2=FILE" in answer.out
    assert answer.out.count(f"{LITE} ") >= 2
    alone = shell("compare", photos, "--backbones", "mobilenet_v2", "--pixels", 32)
    assert (alone.code, alone.out, alone.err.count("\n")) == (2, "", 1)


def test_a_budget_that_none_meets_still_shows_the_table(shell: Shell, photos: Path) -> None:
    command = ("compare", photos, "--backbones", LITE, "--pixels", 32, "--budget", 1e7, "--precision", "fp32")
    answer = shell(*command)
    assert answer.code == 2
    assert answer.err.startswith(f"headstart: None manages 1e+07 images a second: the fastest is {LITE} at 32 px with ")
    assert LITE in answer.out
    assert "→" not in answer.out
    answer = shell(*command, "--json")
    assert (answer.code, answer.json["chosen"], len(answer.json["rows"])) == (2, None, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--pixels", "many"), "--pixels: expected sizes"),
        (("--backbones", ","), "--backbones: expected one value, or several with commas between them. Received: ','"),
        (("--weights", "x.pth"), "expected NAME=FILE"),
        (("--weights", f"{LITE}=a", "--weights", f"{LITE}=b"), "two files"),
        (("--within", "-1"), "--within"),
        (("--out", __file__), "cannot be written to"),
    ],
)
def test_a_wrong_option_costs_no_work(
    shell: Shell, photos: Path, home: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    answer = shell("compare", photos, *arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert sentence in answer.err
    assert not (home / "features").exists()


# --- fit with a backbone chosen for it --------------------------------------------------------------------------------


@pytest.fixture
def one_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "at_hand", lambda: [LITE])


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The content keys of the photos that the choice is made on, filled as it is made."""
    keys: list[bytes] = []

    def spy(dataset: ImageDataset, *arguments: Any) -> Any:
        for index in range(len(dataset)):
            raw = dataset.read(index)
            keys.append(content_key(raw))
        return comparing.run_trials(dataset, *arguments)

    monkeypatch.setattr(automatic, "run_trials", spy)
    return keys


def test_auto_says_what_it_chose_and_why(
    shell: Shell, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "candidates", lambda pixels: [(LITE, 48), (LITE, 32)])
    fitted = shell("fit", photos, "--out", tmp_path / "m", "--backbone", "auto")
    assert fitted.code == 0
    (words,) = [line for line in fitted.out.splitlines() if line.startswith("choice ")]
    model = hs.load(tmp_path / "m")
    choice = record_of(model)["choice"]
    assert choice["sentence"] in words
    assert choice["sentence"].startswith(f"{LITE} at {record_of(model)['pixels']} px: ")
    assert {row["pixels"] for row in choice["rows"]} == {48, 32}
    assert choice["images"] == record_of(model)["train"]
    assert "choice" in record_of(model)["seconds"]
    assert record_of(hs.fit(str(photos), pixels=32))["choice"] is None


def test_auto_with_a_size_and_with_weights(photos: Path, one_at_hand: None) -> None:
    model = hs.fit(str(photos), backbone="auto", pixels=48, **EXACT)
    assert (record_of(model)["backbone"], record_of(model)["pixels"]) == (LITE, 48)
    assert [row["pixels"] for row in record_of(model)["choice"]["rows"]] == [48]
    with pytest.raises(hs.UsageError, match="weights"):
        hs.fit(str(photos), backbone="auto", weights="x.pth")
    with pytest.raises(hs.UsageError, match="pixels"):
        hs.fit(str(photos), backbone="auto", pixels=7)


def test_auto_splits_few_photos_as_fit_does(photos: Path, one_at_hand: None, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = looked_at(monkeypatch)
    model = hs.fit(str(photos), backbone="auto", pixels=48, **EXACT)
    assert model.fitted_on == hs.fit(str(photos), pixels=48, **EXACT).fitted_on
    assert keys
    assert set(keys) <= model.fitted_on


@pytest.mark.parametrize("whole", [automatic.WHOLE, 0])
def test_auto_never_looks_at_what_it_is_measured_on_nor_at_its_copies(
    tmp_path: Path, one_at_hand: None, monkeypatch: pytest.MonkeyPatch, whole: int
) -> None:
    monkeypatch.setattr(automatic, "WHOLE", whole)
    monkeypatch.setattr(automatic, "IMAGES", 18)
    data = folder(tmp_path / "data", 12)
    for number in range(8):  # near copies, and byte for byte
        for kind in ("bars", "waves"):
            Image.open(data / kind / f"{number}.png").save(data / kind / f"{number}.jpg", quality=85)
            shutil.copy(data / kind / f"{number}.png", data / kind / f"again{number}.png")
    keys = looked_at(monkeypatch)
    model = hs.fit(str(data), backbone="auto", pixels=64, holdout=0.3, **EXACT)
    inside = {path: content_key(path.read_bytes()) in model.fitted_on for path in data.rglob("*.*")}
    assert record_of(model)["test"] >= 6
    for path, fitted in inside.items():
        if content_key(path.read_bytes()) in keys:
            assert fitted
            copies = [other for other in inside if other.stem.removeprefix("again") == path.stem.removeprefix("again")
                      and other.parent == path.parent]  # fmt: skip
            assert all(inside[copy] for copy in copies)


def test_auto_takes_whole_groups_of_many_photos(
    photos: Path, tmp_path: Path, one_at_hand: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "WHOLE", 0)
    monkeypatch.setattr(automatic, "IMAGES", 9)
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    paths = sorted(data.rglob("*.png"))
    rows = [f"{path.relative_to(data)},{path.parent.name},{path.parent.name}{int(path.stem) // 3}" for path in paths]
    (data / "metadata.csv").write_text("file_name,label,group\n" + "\n".join(rows) + "\n")
    keys = looked_at(monkeypatch)
    model = hs.fit(str(data), backbone="auto", pixels=48, holdout=0.3, **EXACT)
    groups = {(path.parent.name, int(path.stem) // 3) for path in paths if content_key(path.read_bytes()) in keys}
    assert len(keys) == 9
    assert len(groups) == 3  # of twelve
    assert record_of(model)["test"] == 9  # as many as ever
    assert set(keys) <= model.fitted_on


def test_auto_leaves_a_test_part_alone(tmp_path: Path, one_at_hand: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, start in (("train", 0), ("val", 30), ("test", 60)):
        folder(tmp_path / part, 4, start=start)
    for whole in (automatic.WHOLE, 0):
        monkeypatch.setattr(automatic, "WHOLE", whole)
        keys = looked_at(monkeypatch)
        model = hs.fit(str(tmp_path), backbone="auto", pixels=48, **EXACT)
        assert record_of(model)["test"] == 12
        assert not set(keys) & {content_key(path.read_bytes()) for path in (tmp_path / "test").rglob("*.png")}
        assert record_of(model)["choice"]["images"] == len(set(keys)) == 24  # those of val too


def test_candidates_are_the_same_on_every_run_and_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "at_hand", lambda: [LITE, "efficientnet_lite1", "efficientnet_lite2"])
    found = automatic.candidates()
    assert found == automatic.candidates()
    assert found[0] == (LITE, 224)
    assert {(LITE, 160), (LITE, 128), ("efficientnet_lite1", 160)} <= set(found)
    assert ("efficientnet_lite2", 260) not in found  # too much work
    assert automatic.candidates(64) == [(LITE, 64), ("efficientnet_lite1", 64), ("efficientnet_lite2", 64)]
    monkeypatch.setattr(automatic, "at_hand", list)
    with pytest.raises(hs.UsageError, match="headstart backbones"):
        automatic.candidates()
