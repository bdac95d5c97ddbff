"""Evidence for a class: in closed form as by gradients, by layers and pixels; what cannot be explained says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import headstart as hs
from headstart.backbones.blueprint import FEATURES, LOGITS, Blueprint
from headstart.backbones.catalogue import find_backbone
from headstart.backbones.families.small import mlp
from headstart.backbones.ops import Node
from headstart.core.types import ImageSpec
from headstart.explain.closed_form import LinearHead, evidence, linear_head
from headstart.explain.explain import explain_photos, explanations, scaled
from headstart.explain.gradients import integrated_gradients, layer_evidence, with_gradients
from headstart.explain.request import check_spatial, last_spatial, plan_of, spatial_layers
from headstart.train.initialisation import initial_weights
from making import picture

LAST = "bn2.act"


@pytest.fixture(scope="module")
def fitted(bundle: Path) -> hs.Classifier:
    """Two layers as features, under a square root."""
    return hs.load(bundle)


@pytest.fixture(scope="module")
def with_torch(bundle: Path) -> hs.Classifier:
    """The same, with gradients."""
    return hs.load(bundle, engine="torch")


@pytest.fixture(scope="module")
def own_head() -> hs.Classifier:
    """A network with the head of its own thousand classes."""
    return hs.pretrained("efficientnet_lite0", pixels=64, engine="torch")


def seen(kind: str = "discs") -> NDArray[np.uint8]:
    return picture(kind, 99, 64)


# --- closed form ------------------------------------------------------------------------------------------------------


def test_the_closed_form_is_the_gradient_of_the_logit_times_the_activation(own_head: hs.Classifier) -> None:
    (found,) = explain_photos(own_head, [seen()], crop=False)
    network = with_gradients(own_head.network)
    for averaged in (False, True):  # with an average as feature, HiResCAM and Grad-CAM are the same
        wanted = layer_evidence(network, seen(), found.index, LAST, averaged=averaged)
        (layer,) = found.layers
        np.testing.assert_allclose(layer.values, wanted, atol=1e-4 * np.abs(wanted).max())
    bias = own_head.weights["logits.bias"]
    rest = (bias[found.index] - bias.mean()) / layer.values.size
    np.testing.assert_allclose(found.values, layer.values + rest, atol=1e-6)
    assert found.label == found.predicted == own_head.predict([seen()], crop=False)[0]
    assert found.probability == pytest.approx(own_head.predict_proba([seen()], crop=False).max(), abs=1e-5)


def test_under_a_square_root_every_layer_has_the_gradient_of_its_averages(with_torch: hs.Classifier) -> None:
    (found,) = explain_photos(with_torch, [seen()], "waves", crop=False)
    network: Any = with_torch.network
    logits, pullback = network.vjp(seen()[None], LOGITS, FEATURES)
    gradient = pullback(np.eye(3, dtype=np.float32)[with_torch.classes.index("waves")][None])[0]
    start = 0
    for layer in found.layers:
        values = network.forward(seen()[None], layer.layer)[0]
        part = gradient[start : start + len(values)]
        wanted = np.einsum("c,chw->hw", part, values) / values[0].size
        np.testing.assert_allclose(layer.values, wanted, atol=1e-4 * np.abs(wanted).max())
        start += len(values)
    assert start == len(gradient)
    centred = logits[0, found.index] - logits[0].mean()  # the rows of a fitted head add up to zero
    assert 2 * found.values.sum() == pytest.approx(centred, rel=0.01)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert found.label == "waves"


def test_the_fast_engine_gives_the_same(fitted: hs.Classifier, with_torch: hs.Classifier) -> None:
    one, other = (explain_photos(each, [seen()], "bars", crop=False)[0] for each in (fitted, with_torch))
    np.testing.assert_allclose(
        one.values, other.values, atol=0.05 * np.abs(other.values).max()
    )  # bf16, where it has it
    assert [layer.layer for layer in one.layers] == [LAST, "blocks.5.1.bn2.act"]


def test_a_coarse_layer_shares_its_evidence_among_the_fine_places_that_it_covers() -> None:
    nodes = (
        Node("input", "input", (), {"channels": 3}),
        Node("fine", "act", ("input",), {"kind": "relu"}),
        Node("coarse", "max_pool", ("fine",), {"kernel": (4, 4), "stride": 4, "padding": (0,) * 4, "ceil": False}),
    )
    blueprint = Blueprint("two", nodes, 16).trunk(("coarse", "fine")).with_head(2, sqrt=False)
    classifier = hs.Classifier(blueprint, initial_weights(blueprint), ImageSpec(16), ("a", "b"))
    (found,) = explain_photos(classifier, [seen()], crop=False)
    assert [layer.values.shape for layer in found.layers] == [(4, 4), (16, 16)]
    assert found.values.shape == (16, 16)
    assert found.values.sum() == pytest.approx(sum(layer.values.sum() for layer in found.layers), rel=1e-3)
    coarse = scaled(found.layers[0].values, (16, 16)) / 16
    np.testing.assert_allclose(found.values - found.layers[1].values, coarse, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("mobilenet_v2", LinearHead((LAST,), LOGITS, None)),
        ("squeezenet1_1", LinearHead(("classifier.2",), None, None)),  # each logit is the average of one channel
        ("mobilenet_v3_small", None),
        ("vgg16", None),
    ],
)
def test_which_heads_are_linear(name: str, head: LinearHead | None) -> None:
    assert linear_head(find_backbone(name).blueprint()) == head


def test_a_logit_that_is_the_average_of_a_channel_has_that_channel_as_its_map() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    (found,), rest = evidence(LinearHead(("last",), None, None), {}, [values], 1)
    np.testing.assert_allclose(found, values[1] / 16, atol=1e-7)
    assert rest == 0


# --- by gradients -----------------------------------------------------------------------------------------------------


def test_another_layer_is_explained_by_gradients(with_torch: hs.Classifier) -> None:
    at = "blocks.3.0.bn1.act"
    hires, grad = (explain_photos(with_torch, [seen()], method=m, at=at, crop=False)[0] for m in ("auto", "gradcam"))
    network: Any = with_torch.network
    _, pullback = network.vjp(seen()[None], LOGITS, at)
    gradient = pullback(np.eye(3, dtype=np.float32)[[hires.index]])[0]
    values = network.forward(seen()[None], at)[0]
    np.testing.assert_allclose(hires.values, (gradient * values).sum(0), rtol=1e-3, atol=1e-4)
    weights = gradient.mean((1, 2))
    np.testing.assert_allclose(grad.values, np.einsum("c,chw->hw", weights, values), rtol=1e-3, atol=1e-4)
    assert (hires.method, hires.at, hires.layers[0].layer, hires.layers[0].share) == ("hirescam", at, at, 1)


MEAN = (0.25, 0.5, 0.5)
START = np.broadcast_to(np.array(MEAN, np.float32), (4, 4, 3))  # the mean colour


class Squares:
    """A logit that is the sum of the squares of the pixels, and one that is the opposite."""

    spec = ImageSpec(4, mean=MEAN)

    def forward(self, images: Any, at: str = LOGITS) -> Any:
        total = np.square(images).sum((1, 2, 3))
        return np.stack([total, -total], 1)

    def vjp(self, images: Any, at: str = LOGITS, wrt: str = "input") -> tuple[Any, Callable[[Any], Any]]:
        return self.forward(images), lambda g: 2 * images * (g[:, 0] - g[:, 1])[:, None, None, None]


class Steps(Squares):
    """A logit that rises in the middle of the way, where few steps do not see it."""

    def forward(self, images: Any, at: str = LOGITS) -> Any:
        total = 1 / (1 + np.exp(-400 * (images.mean((1, 2, 3)) - 0.61)))
        return np.stack([total, -total], 1)

    def vjp(self, images: Any, at: str = LOGITS, wrt: str = "input") -> tuple[Any, Callable[[Any], Any]]:
        values = self.forward(images)
        slope = 400 * values[:, 0] * (1 - values[:, 0]) / images[0].size
        return values, lambda g: np.ones_like(images) * (slope * (g[:, 0] - g[:, 1]))[:, None, None, None]


def test_integrated_gradients_of_squares_are_differences_of_squares() -> None:
    x = np.random.default_rng(0).uniform(0, 1, (4, 4, 3))
    for index, sign in ((0, 1), (1, -1)):
        found, steps, gap = integrated_gradients(Squares(), x, index)
        np.testing.assert_allclose(found, sign * (x**2 - START**2).sum(-1), rtol=1e-4)
        assert (steps, gap < 1e-4) == (8, True)


def test_the_number_of_steps_grows_until_the_sum_is_complete() -> None:
    x = np.full((4, 4, 3), 0.9, np.float32)
    found, steps, gap = integrated_gradients(Steps(), x, 0)
    ends = Steps().forward(np.stack([START, x]))[:, 0]
    assert 8 < steps < 128
    assert gap <= 0.05
    assert abs(found.sum() - (ends[1] - ends[0])) == pytest.approx(gap * abs(ends[1] - ends[0]), abs=1e-5)
    assert integrated_gradients(Steps(), x, 0, gap=0, most=32)[1] == 32


def test_methods_of_pixels(own_head: hs.Classifier) -> None:
    plain, whole = (explain_photos(own_head, [seen()], method=m, crop=False)[0] for m in ("gradient", "integrated"))
    network: Any = own_head.network
    x, mean = seen() / np.float32(255), np.array(own_head.spec.mean, np.float32)
    logits, pullback = network.vjp(x[None])
    gradient = pullback(np.eye(1000, dtype=np.float32)[[plain.index]])[0]
    wanted = (gradient * (x - mean)).sum(-1)
    np.testing.assert_allclose(plain.values, wanted, atol=1e-4 * np.abs(wanted).max())
    start = network.forward(np.broadcast_to(mean, x.shape)[None])
    rise = float((logits - start)[0, whole.index])
    assert whole.gap is not None
    assert abs(whole.values.sum() - rise) <= (whole.gap + 1e-3) * abs(rise)
    assert whole.layers == plain.layers == ()
    assert whole.values.shape == (64, 64)


# --- photos -----------------------------------------------------------------------------------------------------------


def test_photos_of_any_size_and_with_alpha(fitted: hs.Classifier, tmp_path: Path) -> None:
    wide = np.concatenate([picture("bars", 1, 96)] * 2, axis=1)
    Image.fromarray(np.dstack([wide, np.full(wide.shape[:2], 128, np.uint8)])).save(tmp_path / "wide.png")
    middle, whole = (explain_photos(fitted, tmp_path / "wide.png", crop=crop)[0] for crop in (True, False))
    assert middle.pixels.shape == whole.pixels.shape == (64, 64, 3)
    assert middle.probability == pytest.approx(fitted.predict_proba(tmp_path / "wide.png").max(), abs=1e-5)
    assert (middle.pixels != whole.pixels).any()


def test_one_that_cannot_be_read_is_named_and_the_others_go_on(fitted: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand then nothing")
    Image.fromarray(seen()).save(tmp_path / "sound.png")
    paths = [tmp_path / "broken.png", tmp_path / "sound.png"]
    problem, found = explanations(fitted, paths)
    assert isinstance(problem, hs.Problem)
    assert isinstance(found, hs.Explanation)
    assert found.name.endswith("sound.png")
    with pytest.raises(hs.DataError, match=r"broken\.png' cannot be read"):
        explain_photos(fitted, paths)
    told: list[tuple[str, int, int]] = []
    explain_photos(fitted, paths[1:] * 2, progress=lambda *step: told.append(step))
    assert told == [("photos", 1, 2), ("photos", 2, 2)]


def test_a_class_against_which_everything_speaks_is_told(fitted: hs.Classifier) -> None:
    (found,) = explain_photos(fitted, [seen()], crop=False)
    others = [explain_photos(fitted, [seen()], name, crop=False)[0] for name in fitted.classes if name != found.label]
    assert found.warnings == ()
    assert {each.predicted for each in others} == {found.label}
    dark = [each for each in others if each.values.max() <= 0]
    assert dark
    assert f"No place speaks for '{dark[0].label}'" in dark[0].warnings[0]


# --- what cannot be explained -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "more", "said"),
    [
        ("wave", {}, "no class 'wave'. Did you mean waves?"),
        ("bras", {}, "no class 'bras'. Did you mean bars?"),
        (None, {"method": "hires-cam"}, "no method of explanation 'hires-cam'. Did you mean hirescam"),
        (None, {"at": "bn2.cat"}, "no layer 'bn2.cat'. Did you mean bn2.act"),
        (None, {"at": "features"}, "'features' of 'efficientnet_lite0' has no places on the photo"),
        (None, {"at": "input"}, "'input' of 'efficientnet_lite0' has no places on the photo"),
        (None, {"method": "gradient", "at": LAST}, "explains the pixels, and takes no layer"),
    ],
)
def test_what_is_not_there(label: str | None, more: dict[str, str], said: str, fitted: hs.Classifier) -> None:
    with pytest.raises(hs.UsageError, match=said):
        explain_photos(fitted, [seen()], label, **more)  # type: ignore[arg-type]


def test_a_network_without_places_has_no_class_activation_but_gradients() -> None:
    blueprint = mlp(3, (8,), 2, size=16, dropout=0.0)
    classifier = hs.Classifier(blueprint, initial_weights(blueprint), ImageSpec(16), ("a", "b"), engine="torch")
    with pytest.raises(hs.UsageError, match=r"no layer with places .* method='gradient' or method='integrated'"):
        explain_photos(classifier, [seen()])
    with pytest.raises(hs.UsageError, match=r"no layer with places .* no feature maps"):
        hs.feature_maps(classifier, [seen()])
    (found,) = explain_photos(classifier, [seen()], method="gradient")
    assert found.values.shape == (16, 16)
    assert not found.empty


def test_tokens_are_no_places() -> None:
    """Of a transformer: heads × tokens × numbers, which has three numbers, too."""
    shapes = {"input": (3, 32, 32), "patches": (8, 4, 4), "attention": (3, 17, 8), "tokens": (17, 24), "logits": (2,)}
    network: Any = SimpleNamespace(name="vit", layers=tuple(shapes), shape=shapes.__getitem__)
    assert spatial_layers(network) == ["patches"]
    assert last_spatial(network) == "patches"
    for layer in ("attention", "tokens"):
        with pytest.raises(hs.UsageError, match=r"has no places .* Among its layers with places: patches\."):
            check_spatial(network, layer)


def test_an_engine_without_gradients_says_which_has_them(fitted: hs.Classifier) -> None:
    if hasattr(fitted.network, "vjp"):
        pytest.skip("every engine has gradients")
    with pytest.raises(hs.UsageError, match=r"gradients of 'efficientnet_lite0'.* engine='torch'"):
        plan_of(fitted, method="integrated")
