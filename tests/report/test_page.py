"""The page: sections that are there or not, names that are hostile, many classes and few, pictures within bounds."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.core.types import ImageDataset, Sample
from headstart.data.check import Repeat
from headstart.diagnose.records import Diagnosis, Outlier, Suspect, Verdict, WrongLabels
from headstart.model.files import PAGE, PAGE_VALUES
from headstart.report.photos import LARGEST, MISTAKES, OUTLIERS, PAIRS, SIDE, SUSPECTS, TOGETHER, Pictures, jpeg
from headstart.report.records import Content
from headstart.report.write import content_of, report_files
from making import packed
from reports import HOSTILE, Page, evaluated, full_diagnosis, full_measures, mistaken, trained

EVERY = {
    *("verdict", "accuracy", "mistakes", "confusion", "classes", "learning", "complexity", "bias-variance"),
    *("training-1", "training-2", "data", "calibration", "corruptions", "distance", "from-scratch", "robustness"),
    *("left-out", "reproduce"),
}
LARGEST_PAGE = 3_000_000


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle)


def with_classes(model: hs.Classifier, classes: Sequence[str]) -> hs.Classifier:
    """The same, so far as a report asks."""
    found = hs.Classifier.__new__(hs.Classifier)
    vars(found).update(vars(model) | {"classes": tuple(classes)})
    return found


def full(model: hs.Classifier, classes: Sequence[str], names: Sequence[str] = tuple("abcd")) -> Content:
    """A content with all sections."""
    found = with_classes(model, classes)
    scratch, tuned = trained()
    found.record = replace(model.record, scratch=scratch, finetune=tuned)
    return Content(found, evaluated(classes, names=names), full_diagnosis(names, classes), **full_measures())


def page_and_json(content: Content) -> tuple[Page, dict[str, Any]]:
    written = report_files(content)
    assert len(written.files[PAGE]) < LARGEST_PAGE
    return Page(written.files[PAGE].decode("utf-8")), json.loads(written.files[PAGE_VALUES])


def sections(page: Page) -> set[str]:
    return {str(found["id"]) for tag, found in page.attributes if tag == "section"}


def test_everything_has_its_section(model: hs.Classifier) -> None:
    page, values = page_and_json(full(model, ("bars", "discs", "waves")))
    assert sections(page) == EVERY
    assert page.faults == []
    assert page.shown.count("What this means.") >= len(EVERY) - 3
    assert values["next_step"] in page.shown
    for charted in ("learning", "complexity"):
        assert charted in page.ids
    assert page.tags["svg"] > 20
    assert all(found.get("aria-label") for tag, found in page.attributes if tag == "svg" and found.get("role") == "img")


def test_a_model_without_anything_has_a_page_too(model: hs.Classifier) -> None:
    bare = with_classes(model, ("a", "b"))
    bare.record = type(model.record)(images=0, train=0, test=0)
    page, values = page_and_json(Content(bare))
    assert page.faults == []
    assert sections(page) == {"accuracy", "reproduce"}
    assert "not measured" in page.shown
    assert (values["verdict"], values["evaluation"]) == (None, None)


def test_an_empty_diagnosis_is_its_verdict(model: hs.Classifier) -> None:
    verdict = Verdict("healthy", "All is well.", "Use it.")
    page, values = page_and_json(Content(model, model.record.result, Diagnosis(verdict)))
    assert sections(page) <= {"verdict", "accuracy", "confusion", "classes", "calibration", "left-out", "reproduce"}
    assert page.shown.index("All is well.") < page.shown.index("Accuracy")
    assert page.faults == []
    assert values["next_step"] == "Use it."


def test_without_a_test_set_the_figure_says_so(photos: Path) -> None:
    found = hs.fit(str(photos), pixels=32, holdout=0, cache=False)
    content = content_of(found, str(photos))
    page, values = page_and_json(content)
    assert "There is no test set. This is the leave-one-out accuracy: " in page.shown
    assert content.note in page.shown
    assert content.note.startswith("The figures are those of the fit")
    assert values["note"] == content.note
    assert page.faults == []


@pytest.mark.parametrize("count", [2, 40, 41, 101, 1000])
def test_few_classes_and_many(model: hs.Classifier, count: int) -> None:
    classes = tuple(f"class {k}" for k in range(count))
    page, values = page_and_json(full(model, classes))
    assert page.faults == []
    assert sections(page) == EVERY
    matrices = [found for tag, found in page.attributes if tag == "table" and "matrix" in (found.get("class") or "")]
    assert len(matrices) == (1 if count <= 40 else 0)
    assert len(values["evaluation"]["per_class"]) > 0.3 * count
    assert ("The most frequent" in page.shown) == (count > 2)


def test_hostile_names_are_only_text(model: hs.Classifier) -> None:
    assert len(HOSTILE) >= 4
    content = full(model, HOSTILE, HOSTILE)
    content.classifier.record = replace(content.classifier.record, data=HOSTILE[0], backbone=HOSTILE[1])
    plain = full(model, tuple(f"class {k}" for k in range(len(HOSTILE))), tuple(f"{k}" for k in range(len(HOSTILE))))
    page, values = page_and_json(content)
    other, _ = page_and_json(plain)
    assert page.faults == []
    assert {tag: page.tags[tag] for tag in ("script", "b", "style", "title")} == {
        tag: other.tags[tag] for tag in ("script", "b", "style", "title")
    }
    assert page.tags["script"] == 0
    assert "<script>alert(1)</script>" in page.shown
    assert "{{ 7 * 7 }}" in page.shown
    assert "\u202e" not in page.text
    assert "x" * 70 not in page.shown
    assert values["classes"] == list(HOSTILE)
    assert not any(key.startswith("on") for _, found in page.attributes for key in found)


def test_the_page_asks_for_nothing_else(model: hs.Classifier) -> None:
    page, _ = page_and_json(full(model, ("bars", "discs")))
    policy = [found["content"] for tag, found in page.attributes if "http-equiv" in found]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert all(str(found["src"]).startswith("data:image/jpeg") for tag, found in page.attributes if "src" in found)
    assert not any("href" in found for _, found in page.attributes)
    assert "url(" not in page.text
    assert "@import" not in page.text


def test_json_is_the_same_content(model: hs.Classifier) -> None:
    content = full(model, ("bars", "discs", "waves"))
    page, values = page_and_json(content)
    assert content.evaluation
    assert content.diagnosis
    assert content.diagnosis.learning_curve
    assert content.robustness
    result, diagnosis, attacked = values["evaluation"], values["diagnosis"], values["robustness"]
    assert result["accuracy"]["value"] == content.evaluation.accuracy.value
    assert len(result["wrong"]) == len(content.evaluation.wrong or ())
    assert diagnosis["verdict"]["sentence"] == content.diagnosis.verdict.sentence
    assert [one["error"] for one in diagnosis["learning_curve"]["points"]] == [
        point.error for point in content.diagnosis.learning_curve.points
    ]
    assert attacked["curve"][0]["accuracy"]["value"] == content.robustness.curve[0].accuracy.value
    assert values["trainings"]["scratch"]["epochs"][0]["val_loss"] is None  # it was not a number
    assert f"{content.evaluation.accuracy.value:.1%}" in page.shown
    assert "data:image" not in json.dumps(values)


# --- pictures ---------------------------------------------------------------------------------------------------------


def decoded(page: Page) -> list[Image.Image]:
    found: list[Image.Image] = []
    for tag, values in page.attributes:
        if tag == "img":
            assert values.get("alt")
            raw = base64.b64decode(str(values["src"]).partition("base64,")[2], validate=True)
            image = Image.open(io.BytesIO(raw))
            image.load()
            assert image.size == (int(str(values["width"])), int(str(values["height"])))
            found.append(image)
    return found


def test_mistakes_are_shown_with_their_evidence(bundle: Path, photos: Path) -> None:
    model = hs.load(bundle)
    dataset = hs.open_source(photos)
    names = [sample.name for sample in dataset.samples if sample.label == "bars"][:2]
    seen = mistaken(names, ("bars", "discs"))
    labels = dict(zip(names, model.predict([str(photos / name) for name in names]), strict=True))
    wrong = tuple(replace(each, label=str(labels[each.name])) for each in seen.wrong or ())
    written = report_files(Content(model, replace(seen, wrong=wrong), photos=dataset))
    page = Page(written.files[PAGE].decode())
    images = decoded(page)
    assert (len(images), written.pictures) == (4, 4)
    assert all(image.size == (64, 64) for image in images)
    assert "bright places are the evidence" in page.shown
    first, evidence = (np.asarray(image, float) for image in images[:2])
    assert np.abs(first - evidence).mean() > 10
    without = report_files(Content(model, replace(seen, wrong=wrong), photos=dataset), maps=False)
    assert len(decoded(Page(without.files[PAGE].decode()))) == 2


def test_evidence_for_another_answer_is_not_shown(bundle: Path, photos: Path) -> None:
    """Such as that of another precision: the map would be of a class that the caption does not name."""
    model = hs.load(bundle)
    dataset = hs.open_source(photos)
    name = next(sample.name for sample in dataset.samples if sample.label == "bars")
    assert str(model.predict(str(photos / name))[0]) == "bars"
    page = Page(report_files(Content(model, mistaken([name], ("bars", "discs")), photos=dataset)).files[PAGE].decode())
    assert len(decoded(page)) == 1


def noise(names: Sequence[str]) -> ImageDataset:
    """Large photos of noise, which no encoder makes small."""
    raw = packed(np.random.default_rng(0).integers(0, 256, (640, 480, 3), dtype=np.uint8), "PNG")
    return ImageDataset("", [Sample(name, "bars") for name in names], lambda index: raw)


def test_the_page_stays_small_whatever_the_photos(model: hs.Classifier) -> None:
    names = [f"{k}.png" for k in range(200)]
    dataset = noise(names)
    diagnosis = Diagnosis(
        Verdict("suspicious data", "Many labels are wrong.", "Look at them."),
        wrong_labels=WrongLabels(0.5, 200, tuple(Suspect(name, "bars", "discs", 0.1, 0.9) for name in names[:60])),
        look_alikes=tuple(Repeat(tuple(names[k : k + 5]), ("bars",), ("train",)) for k in range(60, 160, 5)),
        outliers=tuple(Outlier(name, "bars", 0.0) for name in names[160:]),
    )
    written = report_files(Content(model, mistaken(names[:50], ("bars", "discs")), diagnosis, photos=dataset))
    page = Page(written.files[PAGE].decode())
    assert len(decoded(page)) == written.pictures
    assert MISTAKES + SUSPECTS + PAIRS * TOGETHER + OUTLIERS <= written.pictures <= 2 * MISTAKES + 40
    assert 500_000 < len(written.files[PAGE]) < LARGEST_PAGE
    assert page.shown.count("more are in report.json") == 3


def test_a_picture_is_small_and_says_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for shape in ((640, 480, 3), (10, 2000, 3), (3, 3, 3)):
        found = jpeg(rng.integers(0, 256, shape, dtype=np.uint8))
        raw = base64.b64decode(found.uri.partition(",")[2])
        assert len(raw) <= LARGEST
        image = Image.open(io.BytesIO(raw))
        assert max(image.size) <= SIDE
        assert "exif" not in image.info
        assert len(image.getexif()) == 0


def test_a_photo_is_turned_as_its_exif_says_and_has_none_after(model: hs.Classifier, tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[:, None], 40, 1))  # dark above
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Somebody"
    image.save(tmp_path / "a.jpg", exif=exif)
    raw = (tmp_path / "a.jpg").read_bytes()
    dataset = ImageDataset("", [Sample(name, "bars") for name in ("a", "b")], lambda index: raw)
    verdict = Verdict("suspicious data", "One.", "Look.")
    diagnosis = Diagnosis(verdict, look_alikes=(Repeat(("a", "b"), ("bars", "discs"), ("train",)),))
    written = report_files(Content(model, None, diagnosis, photos=dataset))
    assert b"Somebody" in raw
    for found in decoded(Page(written.files[PAGE].decode())):
        assert found.size == (100, 40)
        assert len(found.getexif()) == 0
        grey = np.asarray(found.convert("L"), float)
        assert grey[:, -10:].mean() + 50 < grey[:, :10].mean()


def test_other_photos_of_the_same_names_are_not_shown(model: hs.Classifier, photos: Path) -> None:
    dataset = hs.open_source(photos)
    names = [sample.name for sample in dataset.samples][:8]
    diagnosis = replace(full_diagnosis(names, model.classes), wrong_labels=None)
    assert report_files(Content(model, None, diagnosis, photos=dataset)).pictures > 2
    others = replace(dataset, read=lambda index: packed(np.full((20, 20, 3), index, np.uint8)))
    assert report_files(Content(model, None, diagnosis, photos=others)).pictures == 0


def test_a_photo_that_is_gone_is_named(model: hs.Classifier, photos: Path) -> None:
    def gone(index: int) -> bytes:
        raise FileNotFoundError(2, "No such file")

    dataset = replace(hs.open_source(photos), read=gone)
    names = [sample.name for sample in dataset.samples][:4]
    content = Content(model, mistaken(names, model.classes), full_diagnosis(names, model.classes), photos=dataset)
    written = report_files(content)
    assert written.pictures == 0
    assert names[0] in Page(written.files[PAGE].decode()).shown


def test_there_are_no_pictures_without_photos() -> None:
    assert Pictures().count == 0


def test_all_mistakes_are_counted_where_some_are_named(model: hs.Classifier) -> None:
    names = [f"{k}.jpg" for k in range(30)]
    seen = mistaken(names, ("bars", "discs"))
    page, _ = page_and_json(Content(model, replace(seen, wrong=(seen.wrong or ())[:4])))
    assert "30 photos got a wrong class" in page.shown
