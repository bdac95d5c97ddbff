"""What a report is made of, and what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.core.counts import counted
from headstart.core.display import Described
from headstart.core.types import Accuracy, Evaluation, ImageDataset, Problem
from headstart.diagnose.records import Corrupted, Diagnosis, FromScratch, ImageNetDistance
from headstart.model.classifier import Classifier
from headstart.model.files import PAGE, PAGE_VALUES

if TYPE_CHECKING:
    from headstart.attack.robustness import Robustness

FILES = (PAGE, PAGE_VALUES)


@dataclass(frozen=True, eq=False)
class Content:
    """All that a report shows; None for what there is nothing to say of."""

    classifier: Classifier
    evaluation: Evaluation | None = None
    diagnosis: Diagnosis | None = None
    robustness: Robustness | None = None
    corrupted: tuple[Corrupted, ...] = ()
    distance: ImageNetDistance | None = None
    from_scratch: FromScratch | None = None
    photos: ImageDataset | None = None  # where the pictures come from, by the names of the images
    measured_on: str = ""  # the name of other photos than those of the fit
    note: str = ""  # why something is missing, in a sentence


@dataclass(frozen=True, repr=False)
class Report(Described):
    """A report that was written."""

    html: Path
    json: Path
    verdict: str | None  # its kind; None where the model has no diagnosis
    sentence: str  # of the verdict; "" where there is none
    next_step: str | None
    accuracy: Accuracy | None  # on the test set
    left_out: tuple[Problem, ...]  # photos that were not counted, and why
    note: str  # why something is missing, in a sentence
    size: int  # of the page, bytes
    pictures: int  # different ones on the page

    @property
    def size_mb(self) -> float:
        """The size of the page, in millions of bytes."""
        return round(self.size / 1e6, 2)

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        return {
            "verdict": self.verdict or "no diagnosis",
            **({"next": self.next_step} if self.next_step else {}),
            "page": f"{self.html} ({self.size_mb} MB, {counted(self.pictures, 'picture')})",
        }
