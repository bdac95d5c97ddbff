"""Ideal images of a real network: sure of the class, the same for the same seed, exactly what the network takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.imagine.ascent import loss_gradient, variation, variation_gradient
from headstart.imagine.judges import family, judge_for
from headstart.imagine.target import Target
from making import Shell, packed, picture

STEPS = 64  # after fewer the network is not sure of every image


@pytest.fixture(scope="module")
def network() -> hs.Classifier:
    """The default backbone with its own head, at few pixels."""
    return hs.pretrained("efficientnet_lite0", pixels=64, engine="torch")


@pytest.fixture(scope="module")
def made(network: hs.Classifier) -> list[hs.IdealImage]:
    """Of two classes."""
    return hs.ideal_images(network, ["peacock", "pizza"], steps=STEPS, judges=[])


def test_the_network_is_sure_of_the_class_that_it_gave_no_chance_before(
    network: hs.Classifier, made: list[hs.IdealImage]
) -> None:
    for image in made:
        before = network.predict_proba(image.frames[0], crop=False)[0, network.classes.index(image.name)]
        assert before < 0.05
        assert image.probability is not None
        assert image.probability > 0.5
        assert image.values[1] > image.values[0] + 5


def test_its_pixels_are_what_the_network_takes_and_give_the_probability(
    network: hs.Classifier, made: list[hs.IdealImage], tmp_path: Path
) -> None:
    for image in made:
        assert image.pixels.dtype == np.uint8
        assert image.pixels.shape == (64, 64, 3)
        path = tmp_path / f"{image.name}.png"
        Image.fromarray(image.pixels).save(path)
        place = network.classes.index(image.name)
        assert network.predict_proba(path, crop=False)[0, place] == pytest.approx(image.probability, abs=1e-6)


def test_the_way_to_it_is_kept(made: list[hs.IdealImage]) -> None:
    for image in made:
        assert (image.steps[0], image.steps[-1]) == (0, STEPS)
        assert len(image.frames) == len(image.steps)
        assert np.array_equal(image.frames[-1], image.pixels)
        assert image.seconds > 0


def test_an_image_depends_on_its_seed_and_on_no_other_image(network: hs.Classifier, made: list[hs.IdealImage]) -> None:
    (alone,) = hs.ideal_images(network, "pizza", steps=4, judges=[])
    beside = hs.ideal_images(network, ["peacock", "pizza"], steps=4, judges=[])[1]
    other = hs.ideal_images(network, "pizza", steps=4, seed=1, judges=[])[0]
    assert np.abs(alone.pixels.astype(int) - beside.pixels).max() <= 2
    assert np.abs(alone.pixels.astype(int) - other.pixels).mean() > 5


def test_two_engines_make_the_same_image(network: hs.Classifier) -> None:
    """The step of Adam is the sign of the gradient at first, so pixels may differ where it is nearly 0."""
    networks = [network, hs.pretrained("efficientnet_lite0", pixels=64, engine="keras")]
    fast = hs.pretrained("efficientnet_lite0", pixels=64)
    networks += [fast] if hasattr(fast.network, "vjp") else []
    found = [hs.ideal_images(each, "pizza", steps=STEPS, judges=[]) for each in networks]
    for images in zip(*found, strict=True):
        chances = [image.probability or 0 for image in images]
        assert max(chances) - min(chances) < 0.02


def test_the_lesson_s_image_is_smoother_the_larger_the_weight_of_its_variation(network: hs.Classifier) -> None:
    from dataclasses import replace

    from headstart.imagine.preset import PRESETS

    lesson = replace(PRESETS["lesson"], steps=STEPS)
    rough, smooth = (
        hs.ideal_images(network, "zebra", preset=replace(lesson, variation=weight), judges=[])[0]
        for weight in (0.0, 100.0)
    )
    planes = [image.pixels.transpose(2, 0, 1)[None] / 255 for image in (rough, smooth)]
    assert variation(planes[1])[0] < 0.7 * variation(planes[0])[0]
    assert rough.probability is not None
    assert rough.probability > 0.5


def test_the_gradient_of_variation() -> None:
    rng = np.random.default_rng(0)
    images, direction = rng.uniform(size=(2, 3, 5, 6)), rng.standard_normal((2, 3, 5, 6))
    measured = (variation(images + 1e-6 * direction) - variation(images - 1e-6 * direction)) / 2e-6
    assert (variation_gradient(images) * direction).sum(axis=(1, 2, 3)) == pytest.approx(measured, rel=1e-4)


def test_the_gradient_of_the_loss_is_the_network_s_and_0_outside_of_the_range(network: hs.Classifier) -> None:
    images = np.random.default_rng(0).uniform(0.2, 0.8, (1, 3, 64, 64)).astype(np.float32)
    images[:, :, :8] = 1.5
    target = [Target("zebra", "logits", 340)]
    gradient = loss_gradient(network.network, images, target, others=0.0)
    assert (gradient[:, :, :8] == 0).all()
    step = 0.005 * gradient / np.abs(gradient).max()
    seen = [np.clip(images - sign * step, 0, 1).transpose(0, 2, 3, 1) for sign in (1, -1)]
    better, worse = (network.network.forward(each)[0, 340] for each in seen)
    assert better > worse


def test_channels_and_classes_of_one_request(network: hs.Classifier) -> None:
    layer = "blocks.3.2.bn2.act"
    images = hs.ideal_images(network, "zebra", layer=layer, channels=[7, 9], steps=STEPS, judges=[])
    assert [image.name for image in images] == ["zebra", f"{layer} channel 7", f"{layer} channel 9"]
    for image in images[1:]:
        assert image.probability is None
        before, after = image.values
        assert after > before + 0.1
        place = int(image.name.rpartition(" ")[2])
        assert network.network.forward(image.pixels[None], layer)[0, place].mean() == pytest.approx(after, rel=1e-3)


# --- where it begins --------------------------------------------------------------------------------------------------


def test_a_photo_to_begin_with_may_have_any_size_and_transparent_parts(network: hs.Classifier, tmp_path: Path) -> None:
    photo = picture("waves", 0, 96)
    Image.fromarray(photo).convert("RGBA").crop((0, 0, 96, 90)).save(tmp_path / "photo.png")
    (image,) = hs.ideal_images(network, "zebra", start=tmp_path / "photo.png", steps=2, judges=[])
    middle = np.asarray(Image.fromarray(photo).crop((3, 0, 93, 90)).resize((64, 64), Image.Resampling.BICUBIC))
    assert np.abs(image.frames[0].astype(int) - middle).mean() < 12
    assert not np.array_equal(image.frames[0], image.pixels)


def test_the_mean_colour_to_begin_with(network: hs.Classifier) -> None:
    (image,) = hs.ideal_images(network, "zebra", start="mean", steps=1, judges=[])
    assert np.abs(image.frames[0].astype(int) - 127.5).max() <= 1


def test_arrays_and_pillow_s_images_do_as_well(network: hs.Classifier) -> None:
    photo = picture("waves", 0, 64)
    begun = [
        hs.ideal_images(network, "zebra", start=start, steps=1, preset="lesson", judges=[])[0].frames[0]
        for start in (photo, Image.fromarray(photo))
    ]
    assert np.array_equal(*begun)
    assert np.abs(begun[0].astype(int) - photo).max() <= 1


# --- judges -----------------------------------------------------------------------------------------------------------


def test_a_judge_says_where_the_class_stands_or_that_it_has_none(
    network: hs.Classifier, bundle: Path, made: list[hs.IdealImage]
) -> None:
    from headstart.imagine.judges import judgements

    pixels = [image.pixels for image in made]
    first, second = judgements(network, pixels, ["peacock", "pizza"])
    assert (first.place, first.top[0][0], first.among_first) == (1, "peacock", True)
    assert first.probability == pytest.approx(made[0].probability, abs=1e-6)
    (last,) = judgements(network, pixels[:1], ["pizza"])
    assert last.place is not None
    assert last.place > 5
    assert last.among_first is False
    (foreign,) = judgements(hs.load(bundle), pixels[:1], ["zebra"])
    assert (foreign.place, foreign.probability, foreign.among_first) == (None, None, None)
    assert len(foreign.top) == 3
    assert second.place == 1


def test_a_network_of_another_family_judges_unless_there_is_none(
    network: hs.Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.backbones.published import BACKBONES
    from headstart.imagine import judges

    def here(*names: str) -> Any:
        records = [BACKBONES[name].weights for name in names]
        monkeypatch.setattr(judges, "at_hand", lambda record: record in records)
        monkeypatch.setattr(judges, "pretrained", lambda name, progress: name)
        return judge_for(network)

    assert (
        here("efficientnet_lite0", "efficientnet_lite1", "squeezenet1_1", "mobilenet_v3_small") == "mobilenet_v3_small"
    )
    assert here("efficientnet_lite0", "efficientnet_lite1", "cifar_resnet20") == "efficientnet_lite1"
    assert here("efficientnet_lite0") is None


def test_families() -> None:
    names = {"efficientnet_lite0": "efficientnet", "timm/mobilenetv2_100": "mobilenet", "resnet50.timm": "resnet"}
    names |= {"mobilenet_v3_small.tf": "mobilenet", "vgg16_bn": "vgg", "keras/MobileNetV2": "mobilenet"}
    assert {name: family(name) for name in names} == names


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"classes": "zebr"}, "no class 'zebr'. Did you mean zebra"),
        ({}, "Nothing to make: name a class, classes=NAME, or a channel, layer=NAME, channels=NUMBER"),
        ({"layer": "bn2.act"}, "go together: layer=NAME, channels=NUMBER"),
        ({"channels": [1]}, "go together"),
        ({"classes": "zebra", "preset": "bset"}, "no preset 'bset'. Did you mean best"),
        ({"classes": "zebra", "steps": 0}, "steps: expected a whole number, 1 or more. Received: 0"),
        ({"classes": "zebra", "start": "none.jpg"}, "none.jpg"),
        ({"classes": "zebra", "start": np.zeros((2, 8, 8, 3), np.uint8)}, "Expected one photo.*Received: 2 images"),
    ],
)
def test_bad_input_is_a_sentence(network: hs.Classifier, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(hs.HeadstartError, match=complaint):
        hs.ideal_images(network, judges=[], **given)


def test_a_photo_that_cannot_be_read(network: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(packed(picture("bars", 0))[:500])
    with pytest.raises(hs.DataError, match=r"cut\.png' cannot be read"):
        hs.ideal_images(network, "zebra", start=tmp_path / "cut.png", judges=[])


def test_a_model_of_rows_makes_none(tmp_path: Path, shell: Shell) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    model = hs.train_rows(rows, (rows[:, 0] > 0).tolist(), progress=False)
    with pytest.raises(hs.UsageError, match="classifier of photos"):
        hs.ideal_images(model, "True")  # type: ignore[arg-type]
