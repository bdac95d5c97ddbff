"""What a classifier answers in Python: labels, the first few, "unknown", features."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from making import SHAPES, picture

SEEN = [picture(kind, seed, 64) for kind in SHAPES for seed in range(8)]
STRANGE = np.full((64, 64, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def by_name() -> hs.Classifier:
    return hs.fit(SEEN, [kind for kind in SHAPES for _ in range(8)], pixels=64, holdout=0, cache=False)


@pytest.fixture(scope="module")
def by_number() -> hs.Classifier:
    return hs.fit(SEEN, [10 * k for k in range(len(SHAPES)) for _ in range(8)], pixels=64, holdout=0, cache=False)


def test_the_first_few_are_the_most_probable(by_name: hs.Classifier) -> None:
    probabilities = by_name.predict_proba(SEEN)
    for count in (1, 2, 3, 99):
        found = by_name.predict(SEEN, top=count)
        assert len(found) == len(SEEN)
        for row, pairs in zip(probabilities, found, strict=True):
            assert [chance for _, chance in pairs] == sorted(row, reverse=True)[:count]
            assert all(row[list(by_name.classes_).index(label)] == chance for label, chance in pairs)
    assert [pairs[0][0] for pairs in by_name.predict(SEEN, top=1)] == list(by_name.predict(SEEN))


def test_labels_among_the_first_few_are_as_they_were_given(by_number: hs.Classifier) -> None:
    ((first, chance),) = by_number.predict(SEEN[0], top=1)[0]
    assert (type(first), type(chance)) == (int, float)


@pytest.mark.parametrize("top", [0, -1, 1.5, "3", True])
def test_a_wrong_number_of_them_is_a_sentence(by_name: hs.Classifier, top: Any) -> None:
    with pytest.raises(hs.UsageError, match=r"^top: expected a whole number, 1 or more"):
        by_name.predict(SEEN, top=top)


def test_top_and_unknown_do_not_go_together(by_name: hs.Classifier) -> None:
    with pytest.raises(hs.UsageError, match="do not go together"):
        by_name.predict(SEEN, top=1, unknown="unknown")  # type: ignore[call-overload]


def test_what_is_unlike_the_training_photos_gets_the_word_that_is_asked_for(by_name: hs.Classifier) -> None:
    images = [*SEEN, STRANGE]
    strange = [item.unknown for item in by_name.predictions(images) if isinstance(item, hs.Prediction)]
    assert strange[-1]
    assert not all(strange)
    plain, found = by_name.predict(images), by_name.predict(images, unknown="none of these")
    assert list(found) == ["none of these" if one else label for one, label in zip(strange, plain, strict=True)]
    assert found.dtype.kind == "U"


def test_which_are_unlike_the_training_photos_is_what_predictions_say(by_name: hs.Classifier) -> None:
    size = by_name.spec.size
    pixels = np.stack([np.resize(image, (size, size, 3)) for image in (*SEEN, STRANGE)]).astype(np.uint8)
    said = [item.unknown for item in by_name.predictions(pixels, crop=False) if isinstance(item, hs.Prediction)]
    assert by_name.unlike_training(pixels).tolist() == said
    assert any(said)


@pytest.mark.parametrize(("word", "kind"), [(-1, "i"), ("unknown", "O"), (np.nan, "O")])
def test_numbers_stay_numbers_beside_it(by_number: hs.Classifier, word: object, kind: str) -> None:
    found = by_number.predict([SEEN[0], STRANGE], unknown=word)
    assert found.dtype.kind == kind
    assert found[1] is word or found[1] == word
    assert found[0] == by_number.predict(SEEN[0])[0]
    assert not isinstance(found[0], str)


def test_no_images_give_nothing(by_name: hs.Classifier, by_number: hs.Classifier) -> None:
    assert by_name.predict([], top=2) == []
    for model in (by_name, by_number):
        for unknown in (None, "unknown", -1):
            assert model.predict([], unknown=unknown).shape == (0,)
    assert by_name.embed([]).shape == (0, by_name.embed(STRANGE).shape[1])


def test_features_are_what_the_head_is_given(by_name: hs.Classifier) -> None:
    found = by_name.embed(SEEN)
    assert len(found) == len(SEEN)
    assert found.dtype == np.float32
    logits = found @ by_name.weights["logits.weight"].T + by_name.weights["logits.bias"]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances, by_name.predict_proba(SEEN), atol=1e-5)


def test_a_photo_that_cannot_be_read_is_named(by_name: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no photo")
    for ask in (by_name.predict, by_name.embed, by_name.predict_proba, by_name.nearest):
        with pytest.raises(hs.DataError, match=r"a\.jpg' cannot be read"):
            ask(tmp_path / "a.jpg")
    with pytest.raises(hs.DataError, match=r"a\.jpg' cannot be read"):
        by_name.predict(tmp_path / "a.jpg", unknown="unknown")


@pytest.mark.parametrize(
    ("method", "function"), [("finetune", hs.finetune), ("export", hs.export_model), ("save", hs.save)]
)
def test_a_method_has_the_arguments_of_its_function(method: str, function: Any) -> None:
    """A signature that an editor shows, and one error for a wrong name."""
    own, whole = inspect.signature(getattr(hs.Classifier, method)), inspect.signature(function)
    first, *rest = whole.parameters.values()
    assert first.name == "classifier"
    assert [each.replace(annotation="") for each in [*own.parameters.values()][1:]] == [
        each.replace(annotation="") for each in rest
    ]
    with pytest.raises(TypeError, match="recip"):
        hs.Classifier.finetune(None, [], recip="fast")  # type: ignore[call-arg,arg-type]


def test_the_card_of_a_model_without_a_test_set_claims_none(by_name: hs.Classifier, tmp_path: Path) -> None:
    by_name.save(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "24 images: training set 24, and no test set." in card
    assert "held out" not in card.partition("## Figures")[0]


def test_the_card_says_what_chance_makes_of_the_calibration_error(bundle: Path) -> None:
    card, result = (bundle / "README.md").read_text(), hs.load(bundle).record.result
    assert result is not None
    noise = result.calibration_noise
    assert noise is not None
    assert f"| expected calibration error | {result.calibration_error:.3f}; chance alone gives {noise:.3f} " in card


def test_pixels_of_the_networks_own_size_go_in_as_they_are(by_name: hs.Classifier) -> None:
    pixels = np.stack(SEEN)
    inside = by_name.network.forward(pixels)
    whole = np.exp(inside - inside.max(axis=1, keepdims=True))
    whole /= whole.sum(axis=1, keepdims=True)
    assert by_name.spec.crop < 1  # what photos get, of which the middle is seen
    assert np.abs(by_name.predict_proba(pixels) - whole).max() > 0.01
    assert by_name.predict_proba(pixels, crop=False) == pytest.approx(whole, abs=0.02)  # bf16 of other batches
    assert list(by_name.predict(pixels, crop=False)) == list(by_name.classes_[inside.argmax(axis=1)])
    assert by_name.embed(pixels, crop=False).shape == by_name.embed(pixels).shape
    said = [item.probability for item in by_name.predictions(pixels, crop=False) if isinstance(item, hs.Prediction)]
    assert said == pytest.approx(whole.max(axis=1), abs=0.02)
