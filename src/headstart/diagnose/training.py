"""The diagnosis of a model whose network was trained: from the curves of the training."""

from __future__ import annotations

from dataclasses import replace

from headstart.diagnose.records import Diagnosis, Verdict
from headstart.train.training_record import TrainingRecord

WIDE = 0.3  # an interval of the validation error that says little
FEW = "Add images: the training, and its judgement, need more of them."
NEXT_STEPS = {
    "healthy": "Use it: headstart predict MODEL PHOTO …",
    "overfitting": "Add images. Or train less of the network, or with more augmentation: docs/training_tricks.md.",
    "underfitting": "Train more of the network, longer, or at a higher learning rate: docs/training_tricks.md.",
    "diverging": "Train again at a lower learning rate, or with more warm-up: docs/training_tricks.md.",
    "too early to say": "Train for more epochs.",
}


def diagnosis_of_training(record: TrainingRecord, before: Diagnosis | None = None) -> Diagnosis:
    """The verdict on the curves.

    Args:
        before: of a head on the same photos, of which what it says of the data is kept.
    """
    found, gap = record.verdict, record.gap
    figures = {} if gap is None else {"train_error": gap.train_error, "val_error": gap.val_error}
    sentence = found.sentence if gap is None or gap.large else f"{found.sentence} {gap.sentence}"
    verdict = Verdict(found.kind, sentence, NEXT_STEPS[found.kind], figures)
    if found.kind == "healthy" and gap is not None and gap.high - gap.low > WIDE:
        verdict = Verdict("too little data", f"The validation set says little. {gap.sentence}", FEW, figures)
    if before is None:
        return Diagnosis(verdict)
    return replace(before, verdict=verdict, learning_curve=None, complexity=None, bias_variance=None)
