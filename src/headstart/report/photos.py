"""The pictures of a report: few photos, small, encoded anew, with no more bytes than there is room for."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.core.errors import UnreadableImageError
from headstart.core.progress import Progress
from headstart.core.types import ImageDataset, Mistake, Problem
from headstart.data.load import content_key, decode_whole, in_chunks, load_images
from headstart.diagnose.records import Diagnosis
from headstart.explain.closed_form import linear_head
from headstart.explain.explain import explanations
from headstart.model.classifier import Classifier
from headstart.plots.explanation import over_photo
from headstart.report.records import Content

MISTAKES, SUSPECTS, PAIRS, OUTLIERS = 12, 16, 8, 8  # that are shown
TOGETHER = 2  # images of one group of look-alikes
SIDE = 224  # pixels, of the longer side
LARGEST = 20_000  # bytes of one picture; with the numbers above at most 1.7 MB as text
QUALITIES = (82, 60, 35)  # of JPEG, tried in this order

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A small picture, as the page holds it."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class MistakePictures:
    """A photo as the network saw it, and where the evidence for its label lies."""

    photo: Picture
    evidence: Picture | None


@dataclass(frozen=True)
class Pictures:
    """All pictures of a report, by the names of the images."""

    mistakes: dict[str, MistakePictures] = field(default_factory=dict)
    data: dict[str, Picture] = field(default_factory=dict)  # of the training set

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(2 if each.evidence else 1 for each in self.mistakes.values()) + len(self.data)


def pictures_of(content: Content, *, maps: bool = True, progress: Progress | None = None) -> Pictures:
    """The pictures of the worst mistakes and of problems of the data; none where there are no photos.

    Args:
        maps: whether to lay the class activation over the mistakes, for which the network runs on these few.
    """
    if content.photos is None:
        return Pictures()
    place = {sample.name: row for row, sample in reversed([*enumerate(content.photos.samples)])}
    wrong = (content.evaluation.wrong or ())[:MISTAKES] if content.evaluation else ()
    rows = [place[each.name] for each in wrong if each.name in place]
    seen = _explained(content.classifier, content.photos, rows, wrong) if maps else {}
    rest = [row for row in rows if content.photos.samples[row].name not in seen]
    seen |= _as_seen(content.classifier, content.photos, rest)
    names = [name for name in _shown(content.diagnosis) if name in place] if content.diagnosis else []
    data = _of_the_data(content.classifier, content.photos, [place[name] for name in names])
    if progress:
        progress("pictures", 1, 1)
    return Pictures(seen, data)


def jpeg(pixels: Pixels) -> Picture:
    """Pixels (height, width, 3) as a JPEG file without any metadata: coarser, then smaller, until it is small."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    while True:
        for quality in QUALITIES:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=quality)
            if file.tell() <= LARGEST:
                text = base64.b64encode(file.getvalue()).decode("ascii")
                return Picture(f"data:image/jpeg;base64,{text}", image.width, image.height)
        image = image.reduce(2)


def _explained(
    classifier: Classifier, photos: ImageDataset, rows: Sequence[int], wrong: Sequence[Mistake]
) -> dict[str, MistakePictures]:
    """With class activation, of the class that each photo was taken for; none where the network has no such map."""
    labels = {each.name: each.label for each in wrong}
    found: dict[str, MistakePictures] = {}
    if not rows or not has_maps(classifier):
        return found
    for each in explanations(classifier, photos.part(rows)):
        if isinstance(each, Problem):  # the photo cannot be read any more
            continue
        same = each.predicted == labels[each.name] and not each.empty
        found[each.name] = MistakePictures(jpeg(each.pixels), jpeg(over_photo(each)) if same else None)
    return found


def has_maps(classifier: Classifier) -> bool:
    """Whether class activation costs one forward pass, as it does wherever the head is linear in averages."""
    return linear_head(classifier.blueprint) is not None


def _as_seen(classifier: Classifier, photos: ImageDataset, rows: Sequence[int]) -> dict[str, MistakePictures]:
    def work(chunk: Sequence[int]) -> list[tuple[str, Picture | None]]:
        items = load_images(photos, chunk, classifier.spec)
        return [(photos.samples[item.index].name, None if item.pixels is None else jpeg(item.pixels)) for item in items]

    return {name: MistakePictures(picture, None) for name, picture in in_chunks(work, rows) if picture}


def _of_the_data(classifier: Classifier, photos: ImageDataset, rows: Sequence[int]) -> dict[str, Picture]:
    """Whole photos; none of them where this is not the data that the classifier was fitted on."""

    def work(chunk: Sequence[int]) -> list[tuple[bytes, str, Picture | None]]:
        return [_whole(photos, row, classifier) for row in chunk]

    found = [*in_chunks(work, rows)]
    keys = [key for key, _, picture in found if picture]
    if not any(key in classifier.fitted_on for key in keys) and len(set(keys)) == len(keys):
        return {}  # other photos that have the same names
    return {name: picture for _, name, picture in found if picture}


def _whole(photos: ImageDataset, row: int, classifier: Classifier) -> tuple[bytes, str, Picture | None]:
    name = photos.samples[row].name
    try:
        raw = photos.read(row)
        return content_key(raw), name, jpeg(decode_whole(raw, SIDE, classifier.spec.levels))
    except (UnreadableImageError, OSError):  # it is named on the page, without a picture
        return b"", name, None


def _shown(diagnosis: Diagnosis) -> Iterable[str]:
    """The names of the images of the training set that the page shows, each once."""
    suspects = diagnosis.wrong_labels.suspects[:SUSPECTS] if diagnosis.wrong_labels else ()
    names = [each.name for each in suspects]
    names += [name for group in diagnosis.look_alikes[:PAIRS] for name in group.names[:TOGETHER]]
    names += [each.name for each in diagnosis.outliers[:OUTLIERS]]
    return dict.fromkeys(names)
