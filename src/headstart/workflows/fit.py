"""From labelled photos to a classifier: features of a frozen backbone, and a head in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import FEATURES, LOGITS
from headstart.backbones.catalogue import DEFAULT
from headstart.core.arguments import PATH, PIXELS, YES_NO, checks, text
from headstart.core.progress import Progress, Shown, function_of, one_step, shows_progress, stage
from headstart.core.timing import StageTimer
from headstart.core.types import SPEC, Evaluation, ImageDataset, ImageSpec, Normalisation
from headstart.data.depth import common_levels
from headstart.data.inputs import Images, labelled_dataset, name_of
from headstart.data.sources import PathLike
from headstart.data.split import HOLDOUT, Split, make_split
from headstart.diagnose.diagnose import FittedHead, diagnose_head
from headstart.diagnose.records import Diagnosis
from headstart.learn.evaluate import evaluate, mistakes_of
from headstart.learn.features import Features
from headstart.learn.heads import HeadFit, fit_head_on_split
from headstart.learn.regularisation_path import Design
from headstart.learn.unknown import Unknown, fit_unknown
from headstart.model.assemble import GoldenPhotos, in_fp32
from headstart.model.classifier import Classifier
from headstart.model.records import FitRecord, HeadRecord, LeftOneOut
from headstart.workflows.automatic import AUTO, choose_backbone
from headstart.workflows.backbone_features import RULES, FitSettings, FrozenBackbone

KEPT = 100  # of the mistakes, which a model remembers by name; the accuracy and the confusions count all of them


@checks(weights=PATH, pixels=PIXELS, spec=SPEC, features=text("the name of a layer"), diagnose=YES_NO, **RULES)
@shows_progress
def fit(
    data: Images,
    labels: Iterable[object] | None = None,
    *,
    backbone: object = DEFAULT,
    weights: PathLike | None = None,
    pixels: int | None = None,
    spec: ImageSpec | Normalisation | None = None,
    features: str | None = None,
    head: str = "lda",
    prior: str = "flat",
    holdout: float = HOLDOUT,
    seed: int = 0,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    cache: bool = True,
    diagnose: bool = True,
    progress: Shown = True,
) -> Classifier:
    """Fit a classifier on labelled photos and measure it on photos that it has not seen.

    Args:
        data: a folder of class folders (or of train/ and test/), a CSV, Parquet, tar or IDX file, a named set, a list
            of paths, or arrays. A test part (else a validation part) is the test set.
        labels: of a list of paths, or of arrays.
        backbone: a catalogued network, with ``weights`` from a file of one's own if given; or "auto": the fastest of
            the networks at hand that is within a point of the best on a few photos of the training set; or
            "timm/NAME", "keras/NAME", a ".keras" file, a `torch.nn.Module` or a `keras.Model`.
        pixels: size that images are scaled to; fewer are faster and a little less accurate.
        spec: pixels that a network wants; default: what the catalogue, timm or `keras.applications` says, else 224 with
            ImageNet's mean and deviation for PyTorch's, and from 0 to 255 for Keras'; ``record.assumed`` says so.
        features: the layer of a module whose averages are the features; default: the input of its last linear layer.
        head: "lda" or "ridge".
        prior: "flat" or "empirical": whether classes are expected alike, or as often as in the data.
        holdout: share of every class held out as the test set, where the data brings none; 0 for none.
        seed: of the split; the same photos and seed give the same split everywhere.
        engine: "fast", "torch", "keras" or "auto", which is fast wherever that can run the network.
        precision: "auto", "bf16", "int8" or "fp32".
        device: "auto", "cpu", "cuda" or "mps"; the last two are for torch, which "auto" takes then, and keras.
        cache: whether to keep features for the next fit.
        diagnose: whether to find out how far the classifier can be trusted and what to do next: ``record.diagnosis``.
        progress: True for bars on a terminal and a line in a notebook, and nothing elsewhere; or a function that is
            called with (stage, done, of how many).

    Raises:
        UsageError: a path, name or setting that is not there or out of range.
        DataError: the photos do not make two classes with two photos each.
    """
    settings = FitSettings(head, prior, holdout, seed, engine, precision, cache, device, diagnose)
    timer, report = StageTimer(), function_of(progress)
    with timer("open"):
        dataset = labelled_dataset(data, labels)
    choice = None
    if backbone == AUTO:
        with timer("choice"):
            choice = choose_backbone(dataset, settings, weights, pixels, report)
        backbone, pixels = choice.backbone, choice.pixels
    with timer("open"):
        frozen = FrozenBackbone.open(
            backbone, settings, common_levels(dataset),
            weights=weights, pixels=pixels, spec=spec, features=features, progress=report,
        )  # fmt: skip
    with timer("features"):
        seen = frozen.features(dataset, cache=cache, progress=stage(report, "features"))
    frozen.network.release()
    with timer("split"):
        split = choice.split(dataset, seen) if choice else make_split(dataset, seen, holdout, seed)
    found = fit_features(frozen, dataset, seen, split, settings, timer, report)
    found.record = replace(found.record, data=name_of(data, dataset), choice=choice.record if choice else None)
    return found


def fit_features(
    frozen: FrozenBackbone,
    dataset: ImageDataset,
    seen: Features,
    split: Split,
    settings: FitSettings,
    timer: StageTimer,
    progress: Progress | None = None,
    *,
    design: type[Design] = Design,
) -> Classifier:
    """The classifier of features that are there already, of the images of a data set.

    Args:
        design: takes the sums over all rows of the features.
    """
    network, trunk, train = frozen.network, frozen.pretrained, np.flatnonzero(split.train)

    def of_golden_photos() -> tuple[GoldenPhotos, NDArray[np.float32]]:
        photos = GoldenPhotos.of(dataset, network.spec, train)
        return photos, in_fp32(network, photos.images, (FEATURES,))[0]

    with ThreadPoolExecutor(1, thread_name_prefix="headstart") as beside:  # what happens there needs no head
        seen_golden = beside.submit(of_golden_photos)
        try:
            with one_step(progress, "head"):
                found = _fit_head(dataset, seen, split, settings, timer, design)
        except Exception:
            seen_golden.result()  # what went wrong there comes first
            raise
        with timer("golden"):
            golden, exact = seen_golden.result()
    return Classifier(
        blueprint=trunk.blueprint.with_head(len(split.classes), sqrt=found.fit.head.sqrt),
        weights={**trunk.weights, f"{LOGITS}.weight": found.fit.head.weight, f"{LOGITS}.bias": found.fit.head.bias},
        spec=trunk.spec,
        classes=split.classes,
        unknown=found.unknown,
        neighbours=tuple(dataset.samples[train[row]].name for row in found.unknown.rows),
        record=replace(_record(frozen, seen, split, found, settings), seconds=timer.seconds),
        golden=golden.with_head(found.fit.head, exact, found.unknown),
        fitted_on=frozenset(seen.keys[row] for row in train.tolist()), thumbnails=seen.thumbnails[train],
        engine=network.engine, precision=network.precision, device=settings.device,
        module=frozen.module, label_kind=dataset.label_kind,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A head, and what belongs to it."""

    fit: HeadFit
    unknown: Unknown
    result: Evaluation | None  # on the test set, if there is one
    diagnosis: Diagnosis | None  # if it was asked for


def _fit_head(
    dataset: ImageDataset,
    seen: Features,
    split: Split,
    settings: FitSettings,
    timer: StageTimer,
    design: type[Design],
) -> _Fitted:
    """The head, what is unknown to it, how both do on the test set, and what else is known of them."""
    train, test = np.flatnonzero(split.train), np.flatnonzero(split.test)
    with timer("head"):
        fitted = fit_head_on_split(
            seen, split, kind=settings.head, prior=settings.prior, seed=settings.seed, design=design
        )
        x = design(seen.values, train, sqrt=fitted.head.sqrt)
        unknown, typical = fit_unknown(x, split.labels[train], split.groups[train], fitted, settings.seed)
    result, diagnosis = None, None
    if len(test):
        with timer("evaluation"):
            probabilities = fitted.head.probabilities(seen.values, test)
            margin = unknown.margin(Design(seen.values, test, sqrt=fitted.head.sqrt), probabilities)
            result = evaluate(probabilities, split.labels[test], split.classes, margin, split.groups[test])
            names = [dataset.samples[row].name for row in test.tolist()]
            wrong = mistakes_of(probabilities, split.labels[test], split.classes, names)
            result = replace(result, wrong=wrong[:KEPT])
    if settings.diagnose:
        with timer("diagnosis"):
            known = FittedHead(dataset, seen.values, seen.thumbnails, split, fitted, typical, settings.seed)
            diagnosis = diagnose_head(known)
    return _Fitted(fitted, unknown, result, diagnosis)


def _record(frozen: FrozenBackbone, seen: Features, split: Split, found: _Fitted, settings: FitSettings) -> FitRecord:
    backbone, network, fitted = frozen.pretrained.backbone, frozen.network, found.fit
    right = fitted.right_left_out
    return FitRecord(
        **vars(split.record()),
        backbone=backbone.name,
        licence=backbone.weights.licence,
        assumed=frozen.pretrained.assumed or None,
        pixels=network.spec.size,
        precision=network.precision,
        holdout=settings.holdout,
        seed=settings.seed,
        head=HeadRecord(fitted.kind, fitted.prior, fitted.strength, fitted.temperature, fitted.path),
        left_one_out=LeftOneOut(float(right.mean()), len(right)),
        result=found.result,
        diagnosis=found.diagnosis,
        computed=seen.computed,
        from_store=seen.from_store,
        store_problem=seen.store_problem,
    )
