"""Adversarial examples of a fitted classifier: in floats, in bytes, and out of a PNG file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.attack.examples import classes_of, too_small, victim_of
from headstart.attack.norms import NORMS
from headstart.attack.plan import METHODS, in_floats, plan_of
from headstart.plots.attack import CHANGE, FILES, ORIGINAL, RESULT, magnified, write_attack
from making import SHAPES, picture
from trainers import one_thread  # noqa: F401

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle, engine="torch")


@pytest.fixture(scope="module")
def pictures(photos: Path) -> list[Path]:
    """Two of each class."""
    return [photos / kind / f"{seed}.png" for kind in SHAPES for seed in range(2)]


@pytest.fixture(scope="module")
def attacked(model: hs.Classifier, pictures: list[Path]) -> hs.Attacked:
    return hs.attack_photos(model, pictures, "discs", epsilon="64/255", steps=20)


def test_the_goal_is_reached_within_the_budget(attacked: hs.Attacked, model: hs.Classifier) -> None:
    assert attacked.success.all()
    assert (attacked.labels == "discs").all()
    assert attacked.already.tolist() == [name == "discs" for name in model.predict([*attacked.names])]
    assert (attacked.sizes("linf") <= 64 / 255 + 1e-6).all()
    assert (attacked.sizes("linf", saved=False) <= 64 / 255 + 1e-6).all()
    assert (attacked.sizes("linf")[~attacked.already] > 0).all()
    np.testing.assert_array_equal(attacked.saved[attacked.already], attacked.originals[attacked.already])
    assert "6 of 6" in repr(attacked)


def test_probabilities_are_those_of_predict(attacked: hs.Attacked, model: hs.Classifier, pictures: list[Path]) -> None:
    np.testing.assert_allclose(attacked.before, model.predict_proba(pictures), atol=1e-6)
    np.testing.assert_allclose(attacked.after, model.predict_proba(attacked.saved, crop=False), atol=1e-6)
    in_the_network = victim_of(model).forward(attacked.found)
    assert (attacked.reached == attacked.goal.reached(in_the_network)).all()


def test_sizes_by_hand(attacked: hs.Attacked) -> None:
    bytes_ = (attacked.saved.astype(float) - attacked.originals).reshape(len(attacked.saved), -1) / 255
    floats = (attacked.found - in_floats(attacked.originals)).reshape(len(attacked.saved), -1)
    for norm, order in zip(NORMS, (np.inf, 2, 1), strict=True):
        np.testing.assert_allclose(attacked.sizes(norm), np.linalg.norm(bytes_, order, axis=1), rtol=1e-5)
        np.testing.assert_allclose(
            attacked.sizes(norm, saved=False), np.linalg.norm(floats, order, axis=1), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("method", METHODS)
def test_a_png_of_every_method_fools_the_model_when_it_is_read_back(
    method: str, model: hs.Classifier, pictures: list[Path], tmp_path: Path
) -> None:
    answers = model.predict(pictures)
    wanted = np.where(answers != "bars", "bars", "waves") if METHODS[method].targeted else None
    steps = None if METHODS[method].steps == 1 else {"descent": 60}.get(method, 15)
    epsilon = 64 / 255 if METHODS[method].budget else None
    found = hs.attack_photos(model, pictures, wanted, method=method, steps=steps, epsilon=epsilon)
    assert found.success.sum() >= (1 if method == "fgsm" else 3)
    for k in np.flatnonzero(found.success):
        files = write_attack(found, tmp_path / str(k), int(k))
        assert [path.name for path in files] == [*FILES]
        read = model.predict(tmp_path / str(k) / RESULT, crop=False)[0]
        assert (read != answers[k]) if wanted is None else (read == wanted[k])
        assert read == found.labels[k]
        with Image.open(tmp_path / str(k) / ORIGINAL) as photo:
            np.testing.assert_array_equal(np.asarray(photo), found.originals[k])


def test_without_a_target_it_leads_away_from_the_label_or_the_answer(
    model: hs.Classifier, pictures: list[Path]
) -> None:
    answers = model.predict(pictures)
    away = hs.attack_photos(model, pictures, method="deepfool")
    assert away.success.all()
    assert not away.already.any()
    assert (away.labels != answers).all()
    wrong = ["bars" if name != "bars" else "waves" for name in answers]
    already = hs.attack_photos(model, pictures, labels=wrong, method="deepfool")
    assert already.already.all()
    assert already.success.all()
    np.testing.assert_array_equal(already.saved, already.originals)


def test_the_same_seed_gives_the_same_pixels(model: hs.Classifier, pictures: list[Path]) -> None:
    runs = [
        hs.attack_photos(model, pictures[:2], "discs", epsilon="1/255", steps=2, restarts=3, seed=seed)
        for seed in (4, 4)
    ]
    np.testing.assert_array_equal(runs[0].found, runs[1].found)
    np.testing.assert_array_equal(runs[0].saved, runs[1].saved)


def test_photos_of_any_size_depth_and_transparency_are_taken_as_predict_takes_them(model: hs.Classifier) -> None:
    colours = picture("bars", 1, 150)
    alpha = np.concatenate([colours, np.full((150, 150, 1), 128, np.uint8)], axis=2)
    grey = colours[:, :90, 0]
    found = hs.attack_photos(model, [colours, alpha, grey], method="deepfool")
    assert found.success.all()
    np.testing.assert_allclose(found.before, model.predict_proba([colours, alpha, grey]), atol=1e-6)
    side = model.spec.size
    exact = hs.attack_photos(model, [picture("bars", 1, side)], method="deepfool", crop=False)
    np.testing.assert_array_equal(exact.originals[0], picture("bars", 1, side))


def test_no_photos_are_no_problem(model: hs.Classifier) -> None:
    found = hs.attack_photos(model, [])
    assert (len(found.success), found.after.shape, found.labels.shape) == (0, (0, 3), (0,))
    assert found.sizes("l2").shape == (0,)


def test_a_half_precision_network_is_attacked_in_fp32(small_bundle: Path) -> None:
    low = hs.load(small_bundle, engine="torch", precision="bf16")
    assert low.network.precision == "bf16"
    assert victim_of(low).precision == "fp32"  # type: ignore[attr-defined]


def test_a_photo_that_only_fp32_takes_for_another_class_is_led_on(
    model: hs.Classifier, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the boundary, bf16 may give the right answer and fp32 a wrong one; it is bf16 that shall be fooled."""
    photo, exact = pictures[0], model.predict_proba
    wrong, right = 1, 2  # neither is what it is
    unchanged = hs.attack_photos(model, [photo], labels=[model.classes[wrong]]).originals

    def coarse(pixels: Any, *, crop: bool = True) -> Any:
        same = np.array([np.array_equal(each, unchanged[0]) for each in pixels])
        return np.where(same[:, None], np.eye(3)[wrong], np.eye(3)[right])

    assert exact(photo).argmax() == 0
    monkeypatch.setattr(model, "predict_proba", coarse)
    for method in ("pgd", "deepfool", "cw"):
        found = hs.attack_photos(model, [photo], labels=[model.classes[wrong]], method=method)
        assert found.success.all()
        assert not found.already.any()
        assert 0 < found.sizes("linf")[0] <= 1 / 255 + 1e-6


def test_an_engine_without_gradients_is_a_sentence(model: hs.Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        engine = "blind"

    monkeypatch.setattr(model, "network", Blind())
    with pytest.raises(hs.UsageError, match=r"engine 'blind' has no gradients.*engine='torch'"):
        hs.attack_photos(model, [picture("bars", 0)])


def test_classes_are_found_by_their_names(model: hs.Classifier) -> None:
    assert classes_of(model, "discs", 3).tolist() == [1, 1, 1]
    assert classes_of(model, np.array(["waves", "bars"]), 2).tolist() == [2, 0]
    with pytest.raises(hs.UsageError, match=r"no class 'disks'. Did you mean discs"):
        classes_of(model, "disks", 1)
    with pytest.raises(hs.UsageError, match="one for each of the 2 images"):
        classes_of(model, ["bars"] * 3, 2)


def test_a_photo_that_cannot_be_read_is_a_sentence(model: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    with pytest.raises(hs.DataError, match=r"a\.jpg' cannot be read"):
        hs.attack_photos(model, [tmp_path / "a.jpg"])


def test_a_budget_below_half_a_level_is_said_to_be_none_in_bytes(model: hs.Classifier, pictures: list[Path]) -> None:
    found = hs.attack_photos(model, pictures[:2], epsilon="0.4/255", steps=3)
    np.testing.assert_array_equal(found.saved, found.originals)
    assert not found.success.any()
    assert "0.4/255 is less than half a level" in too_small(found.plan)
    assert too_small(plan_of("pgd", "linf", 0.5 / 255)) == ""
    assert too_small(plan_of("pgd", "l2", 0.001)) == ""


def test_the_change_is_magnified_around_grey(attacked: hs.Attacked) -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    changed = image + np.array([0, 1, 4], np.uint8)
    shown, times = magnified(changed, image)
    assert times == pytest.approx(127 / 4)
    assert shown[0, 0].tolist() == [128, 160, 255]
    assert magnified(image, image)[0].tolist() == np.full((2, 2, 3), 128).tolist()


def test_the_sheet_shows_all_three(attacked: hs.Attacked, tmp_path: Path) -> None:
    row = int(np.flatnonzero(~attacked.already)[0])
    write_attack(attacked, tmp_path, row)
    with Image.open(tmp_path / FILES[3]) as whole, Image.open(tmp_path / CHANGE) as change:
        assert whole.width > 3 * 224
        assert change.size == (attacked.saved.shape[1],) * 2


@pytest.mark.parametrize("engine", ["keras", "fast"])
def test_every_engine_gives_the_same_verdicts_and_nearly_the_same_pixels(
    engine: str, small_bundle: Path, pictures: list[Path], model: hs.Classifier
) -> None:
    """Of a few steps: many large ones lead a network with ReLUs far apart from differences of a rounding."""
    if engine == "keras":
        pytest.importorskip("tensorflow")
    other = hs.load(small_bundle, engine=engine, precision="fp32")
    if not hasattr(other.network, "vjp"):
        pytest.skip(f"the engine {engine} has no gradients yet")

    def both(**settings: Any) -> tuple[hs.Attacked, hs.Attacked]:
        one, two = (hs.attack_photos(each, pictures, **settings) for each in (model, other))
        assert (one.reached == two.reached).all()
        assert (one.success == two.success).all()
        return one, two

    for settings in ({"method": "fgsm", "epsilon": "8/255"}, {"epsilon": "4/255", "steps": 3}):
        one, two = both(**settings)
        assert float((one.saved != two.saved).mean()) < 0.2  # where a gradient is nearly 0, its sign is one of rounding
        np.testing.assert_allclose(one.sizes("l2"), two.sizes("l2"), rtol=0.05)
    one, _ = both(method="deepfool")
    assert one.success.all()


def test_floats_are_near_their_bytes(attacked: hs.Attacked) -> None:
    """Where nothing was stretched; else by at most a level more."""
    gap = np.abs(255 * attacked.found - 255 * in_floats(attacked.saved))
    assert float(np.median(gap)) <= 0.5
