"""The accuracy under attack, on which photos, and what tells a broken attack from a robust model."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.attack.checks import NOISE, Checks
from headstart.attack.goal import Goal
from headstart.attack.norms import NORMS
from headstart.attack.plan import attack, in_floats, plan_of
from headstart.attack.robustness import GRIDS, request_of
from headstart.data.sources import open_source
from headstart.model.held_out import drawn, held_out
from headstart.plots.robustness import FILES, draw_robustness, write_robustness
from making import SHAPES, folder, packed, picture
from trainers import one_thread  # noqa: F401
from victims import SHAPE, Array, Linear, Masked

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle, engine="torch")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos a class, nearly all unlike those that the model was fitted on."""
    return folder(tmp_path_factory.mktemp("others"), 4, start=300)


@pytest.fixture(scope="module")
def result(model: hs.Classifier, others: Path) -> hs.Robustness:
    epsilons: list[str | float] = ["4/255", 1 / 255, "16/255", "64/255"]
    return hs.robustness(model, others, epsilons=epsilons, methods=("fgsm", "pgd", "deepfool"), steps=5)


# --- the curve --------------------------------------------------------------------------------------------------------


def test_the_curve_falls_and_the_worst_is_below_each(result: hs.Robustness) -> None:
    assert [round(255 * point.epsilon) for point in result.curve] == [1, 4, 16, 64]
    for name in (NOISE, "fgsm", "pgd", "deepfool"):
        values = [result.accuracy.value, *(point.attacks[name].value for point in result.curve)]
        assert values == sorted(values, reverse=True)
    for point in result.curve:
        assert set(point.attacks) == {NOISE, "fgsm", "pgd", "deepfool"}
        assert point.accuracy.value <= min(each.value for each in point.attacks.values())
        assert point.accuracy.low <= point.accuracy.value <= point.accuracy.high
        assert point.accuracy.images == result.accuracy.images
    assert result.curve[-1].accuracy.value < result.curve[0].accuracy.value
    assert result.norm == "linf"


def test_without_an_attack_it_is_what_evaluate_measures(
    result: hs.Robustness, model: hs.Classifier, others: Path
) -> None:
    assert result.accuracy == model.evaluate(others, progress=False).accuracy


def test_a_photo_that_is_wrong_as_it_is_is_wrong_at_every_budget(model: hs.Classifier, others: Path) -> None:
    photos = [others / kind / f"{seed}.png" for kind in SHAPES for seed in range(300, 304)]
    labels = ["waves", *(photo.parent.name for photo in photos[1:])]  # the first are bars
    found = hs.robustness(model, photos, labels, epsilons=["0.1/255"], methods=["fgsm"])
    assert found.accuracy.value == 1 - 1 / found.accuracy.images == found.curve[0].accuracy.value
    assert found.curve[0].attacks[NOISE].value == found.accuracy.value


def test_one_run_for_the_smallest_change_is_held_against_every_budget(
    result: hs.Robustness, model: hs.Classifier, others: Path
) -> None:
    names = held_out(model, open_source(str(others)), 99, 0).names
    found = hs.attack_photos(model, [others / name for name in names], method="deepfool", norm="linf", steps=5)
    needed = np.where(found.reached, found.sizes("linf", saved=False), np.inf)
    for point in result.curve:
        assert point.attacks["deepfool"].value == pytest.approx((needed > point.epsilon).mean())


def test_the_photos_that_fall_are_those_that_the_attack_fools(
    result: hs.Robustness, model: hs.Classifier, others: Path
) -> None:
    """Counted again, at one budget, photo by photo."""
    photos = [others / name for name in held_out(model, open_source(str(others)), 99, 0).names]
    labels = [photo.parent.name for photo in photos]
    found = hs.attack_photos(model, photos, labels=labels, epsilon="16/255", steps=5)
    below = [hs.attack_photos(model, photos, labels=labels, epsilon=f"{e}/255", steps=5).reached for e in (1, 4)]
    left = ~(found.reached | below[0] | below[1])
    assert result.curve[2].attacks["pgd"].value == pytest.approx(left.mean())


def test_the_same_seed_gives_the_same_figures(model: hs.Classifier, others: Path) -> None:
    one, two, other = (
        hs.robustness(model, others, epsilons=["16/255"], steps=3, restarts=2, images=6, seed=seed)
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one.accuracy.images == other.accuracy.images == 6
    assert one.drawn_from + one.passed_over == 12  # of pictures so simple, some are near each other


def test_its_stages_are_told_as_they_begin(model: hs.Classifier, others: Path) -> None:
    told: list[tuple[str, int, int]] = []
    hs.robustness(
        model, others, epsilons=["1/255", "4/255"], methods=["pgd"], steps=2,
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    stages = list(dict.fromkeys(name for name, _, _ in told))
    assert stages == ["reading", NOISE, "pgd", "checks"]
    assert list(dict.fromkeys(step for step in told if step[0] == "checks")) == [("checks", k, 4) for k in range(4)]
    assert list(dict.fromkeys(step for step in told if step[0] == NOISE)) == [(NOISE, k, 3) for k in range(3)]
    done = [step[1] for step in told if step[0] == "pgd"]
    assert done[0] == 0
    assert done == sorted(done)
    assert len(done) > len(set(done))  # also between the budgets


def test_one_norm_is_like_another(model: hs.Classifier, others: Path) -> None:
    for norm, epsilon in (("l2", 4.0), ("l1", 300.0)):
        found = hs.robustness(model, others, norm=norm, epsilons=[epsilon / 100, epsilon], methods=["pgd"], steps=8)
        assert found.curve[0].accuracy.value > found.curve[1].accuracy.value


def test_the_default_budgets_rise() -> None:
    for norm in NORMS:
        _, grid = request_of(("pgd",), norm, None, None, 1, 9, 0)
        assert grid == list(GRIDS[norm]) == sorted(GRIDS[norm])
    assert GRIDS["linf"][0] == pytest.approx(0.1 / 255)
    assert GRIDS["linf"][-1] == pytest.approx(8 / 255)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ["pgd", "pg"]}, "no attack 'pg'"),
        ({"methods": ["cw"]}, "cw does not work in the norm linf"),
        ({"methods": ["descent"], "norm": "l2"}, "descent leads towards a class"),
        ({"methods": []}, "methods: expected names of attacks, one or more"),
        ({"epsilons": []}, "epsilons: expected numbers above 0, one or more"),
        ({"epsilons": ["1/255", "x"]}, "epsilons: expected numbers above 0"),
        ({"norm": "l0"}, "no norm 'l0'"),
        ({"images": 0}, "images: expected a whole number, 1 or more. Received: 0"),
        ({"steps": 0}, "steps: expected a whole number, 1 or more"),
        ({"seed": -3}, "seed: expected"),
    ],
)
def test_what_cannot_be_is_a_sentence(model: hs.Classifier, others: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(hs.UsageError) as caught:
        hs.robustness(model, others, **given)
    assert said in str(caught.value)


# --- the photos -------------------------------------------------------------------------------------------------------


def test_photos_of_the_training_set_are_passed_over_as_in_evaluate(model: hs.Classifier, photos: Path) -> None:
    data = open_source(str(photos))
    found, measured = held_out(model, data, 99, 0), model.evaluate(str(photos), progress=False)
    assert (len(found.images), found.passed_over) == (measured.accuracy.images, measured.passed_over)
    every = held_out(model, data, 99, 0, training_set_too=True)
    assert (len(every.images), every.passed_over) == (36, 0)
    assert [model.classes[k] for k in every.labels] == [Path(name).parts[0] for name in every.names]


def test_a_test_part_counts_alone_and_nothing_is_dropped_in_silence(model: hs.Classifier, tmp_path: Path) -> None:
    folder(tmp_path / "train", 2, start=500)
    folder(tmp_path / "test", 3, start=300)
    (tmp_path / "test" / "bars" / "broken.png").write_bytes(b"no photo")
    for kind in ("bars", "discs"):  # one photo under two labels
        (tmp_path / "test" / kind / "both.png").write_bytes(packed(picture("waves", 700)))
    for part in ("train", "test"):
        (tmp_path / part / "cats").mkdir()
        (tmp_path / part / "cats" / "1.png").write_bytes(packed(picture("waves", 701)))
    found = held_out(model, open_source(str(tmp_path)), 99, 0)
    assert len(found.images) == found.of == 9 - found.passed_over
    assert sorted(problem.kind for problem in found.left_out) == [
        "conflicting labels", "conflicting labels", "unknown class", "unreadable",
    ]  # fmt: skip


def test_no_photo_to_count_is_a_sentence(model: hs.Classifier, photos: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    kept = {sample.name for sample in open_source(str(photos)).samples}
    test = {*held_out(model, open_source(str(photos)), 99, 0).names}
    for name in kept - test:
        (trained / name).parent.mkdir(parents=True, exist_ok=True)
        (trained / name).write_bytes((photos / name).read_bytes())
    with pytest.raises(hs.DataError, match=r"No image in .* can be counted.*fitted_on_too=True"):
        hs.robustness(model, trained)


def test_a_draw_keeps_the_share_of_each_class_and_depends_on_content() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    keys = [b"%d" % row for row in range(100)]
    rows = drawn(labels, keys, 20, 0)
    assert np.bincount(labels[rows]).tolist() == [12, 6, 2]
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == drawn(labels, keys, 20, 0).tolist()
    assert rows.tolist() != drawn(labels, keys, 20, 1).tolist()
    backwards = drawn(labels[::-1], keys[::-1], 20, 0)
    assert sorted(99 - backwards) == rows.tolist()
    assert drawn(labels, keys, 1000, 0).tolist() == list(range(100))
    assert np.bincount(labels[drawn(labels, keys, 3, 0)], minlength=3).sum() == 3


# --- the checks -------------------------------------------------------------------------------------------------------


def checks_of(network: Linear, grid: list[float], fooled: dict[str, Array] | None = None, steps: int = 5) -> Checks:
    rng = np.random.default_rng(0)
    images = rng.integers(110, 140, (30, *SHAPE), np.uint8)
    labels = network.forward(in_floats(images)).argmax(axis=1)
    right = np.ones(30, bool)
    none = np.zeros((len(grid), 30), bool)
    if fooled is None:
        reached = [
            attack(network, images, Goal(labels, False), plan_of("pgd", "linf", epsilon, steps))[0].reached
            for epsilon in grid
        ]
        fooled = {"pgd": np.stack(reached)}
    return Checks(network, images, labels, right, "linf", grid, {NOISE: none, **fooled}, steps)


def test_a_sound_attack_on_a_plain_network_passes_all() -> None:
    found = checks_of(Linear.random(3), [0.005, 0.02, 0.08]).all()
    assert [check.name for check in found] == ["gradients", "large epsilon", "more steps", "noise"]
    assert all(check.passed for check in found), found
    assert found[0].sentence == "the gradient vanishes on 0 of 30 photos"


def test_a_network_that_hides_its_gradient_is_found_out() -> None:
    """Its curve says 100 % at every budget."""
    gradients, large, *_ = checks_of(Masked.random(3), [0.005, 0.02]).all()
    assert not gradients.passed
    assert "vanishes on 30 of 30" in gradients.sentence
    assert not large.passed
    assert "30 are left where each could be made grey" in large.sentence


def test_an_attack_that_noise_beats_is_found_out() -> None:
    grid, network = [0.005, 0.02], Linear.random(3)
    few, many = np.zeros((2, 30), bool), np.zeros((2, 30), bool)
    few[:, :3], many[1, :7] = True, True
    found = checks_of(network, grid, {"pgd": few, NOISE: many}).noise()
    assert not found.passed
    assert found.sentence == "at 5.1/255 noise fools 7 photos, the best attack 3"
    assert checks_of(network, grid, {"pgd": many, NOISE: few * False}).noise().passed


def test_an_attack_that_is_nowhere_better_than_noise_is_found_out() -> None:
    some = np.zeros((2, 30), bool)
    some[1, :7] = True
    found = checks_of(Linear.random(3), [0.005, 0.02], {"pgd": some, NOISE: some}).noise()
    assert not found.passed


def test_too_few_steps_are_found_out() -> None:
    """A step is taken for a whole attack that fools nobody: twice as many fool a lot."""
    network, grid = Linear.random(3), [0.03]
    whole = checks_of(network, grid)
    assert whole.more_steps().passed
    none = {"pgd": np.zeros((1, 30), bool)}
    found = checks_of(network, grid, none).more_steps()
    assert not found.passed
    assert "give more --steps" in found.sentence
    fooled = whole.fooled["pgd"]
    assert 5 < fooled.sum() < 15
    others = np.zeros((1, 30), bool)  # as many as one step fools, but not all that can be
    others[0, np.flatnonzero(~fooled[0])[: fooled.sum()]] = True
    found = checks_of(network, grid, {"pgd": others}).more_steps()
    assert not found.passed
    assert "give more --steps" in found.sentence


def test_photos_that_are_wrong_as_they_are_are_not_asked() -> None:
    whole = checks_of(Linear.random(3), [0.005, 0.02])
    nothing = Checks(**{**vars(whole), "right": np.zeros(30, bool)})
    assert [check.passed for check in nothing.all()] == [True] * 4


# --- the picture ------------------------------------------------------------------------------------------------------


def test_the_curve_is_drawn_and_written(result: hs.Robustness, tmp_path: Path) -> None:
    paths = write_robustness(result, tmp_path / "deep")
    assert [path.name for path in paths] == [*FILES]
    with Image.open(paths[0]) as drawn_:
        assert min(drawn_.size) > 400
    with paths[1].open(encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 1 + 4 * 5
    assert (rows[0]["attack"], float(rows[0]["accuracy"])) == ("none", result.accuracy.value)
    worst = [row for row in rows if row["attack"] == "worst"]
    assert [float(row["accuracy"]) for row in worst] == [point.accuracy.value for point in result.curve]
    (axes,) = draw_robustness(result).axes
    legend = axes.get_legend()
    assert legend is not None
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["the photos as they are", "random noise", "fgsm", "pgd", "deepfool", "the worst of all"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "16", "64"]


def test_a_folder_that_cannot_be_written_to_is_a_sentence(result: hs.Robustness, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(hs.UsageError, match="cannot be written to"):
        write_robustness(result, tmp_path / "file")
