"""From a folder of labelled photos to a classifier: the one place where the rooms meet."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.automatic import AUTO, choose_backbone
from headstart.backbones.blueprint import FEATURES, LOGITS
from headstart.backbones.catalogue import DEFAULT, Pretrained
from headstart.backbones.weights import weights_digest
from headstart.classifier import Classifier, Golden, Images, labelled_table
from headstart.clock import Clock
from headstart.comparing import Settings
from headstart.data.sources import PathLike
from headstart.engines.base import Network, get_engine, open_backbone
from headstart.finishing import golden_images
from headstart.learn.calibrate import softmax
from headstart.learn.evaluate import evaluate
from headstart.learn.features import Features, extract
from headstart.learn.heads import HeadFit
from headstart.learn.paths import Design, blocks
from headstart.learn.unknown import Unknown, fit_unknown
from headstart.planning import HOLDOUT, Plan, check_settings, fit_planned_head, plan_split
from headstart.types import Evaluation, ImageSpec, Table

Progress = Callable[[str, int, int], None]  # stage, done, of how many


def fit(
    data: Images,
    labels: Sequence[str] | None = None,
    *,
    backbone: object = DEFAULT,
    weights: PathLike | None = None,
    pixels: int | None = None,
    spec: ImageSpec | None = None,
    features: str | None = None,
    head: str = "lda",
    prior: str = "flat",
    holdout: float = HOLDOUT,
    seed: int = 0,
    engine: str = "auto",
    precision: str = "auto",
    cache: bool = True,
    progress: Progress | None = None,
) -> Classifier:
    """Fit a classifier on labelled photos and measure it on photos that it has not seen.

    Args:
        data: a folder of class folders (or of train/ and test/), a CSV, Parquet or IDX file, a named set, a list of
            paths, or arrays. A test part (else a validation part) is what it is measured on.
        labels: of a list of paths, or of arrays.
        backbone: a catalogued network, with ``weights`` from a file of one's own if given; or "auto": the fastest of
            the networks at hand that is within a point of the best on a few photos of the part that is fitted on; or
            "timm/NAME", "keras/NAME", a ".keras" file, a `torch.nn.Module` or a `keras.Model`.
        pixels: size that images are scaled to; fewer are faster and a little less accurate.
        spec: pixels that a module wants; default: what timm or `keras.applications` says, else 224 with ImageNet's
            mean and deviation for PyTorch's, and from 0 to 255 for Keras'.
        features: the layer of a module whose averages are the features; default: what its last linear layer is given.
        head: "lda" or "ridge".
        prior: "flat" or "empirical": whether classes are expected alike, or as often as in the data.
        holdout: share of every class to measure on, where the data brings no part of its own for that; 0 for none.
        seed: of the split; the same photos and seed give the same split everywhere.
        engine: "fast", "torch" or "auto", which is fast wherever that can run the network.
        precision: "auto", "bf16" or "fp32".
        cache: whether to keep features for the next fit.
        progress: called with (stage, done, of how many).

    Raises:
        UsageError: a path, name or setting that is not there or out of range.
        DataError: the photos do not make two classes with two photos each.
    """
    check_settings(head, prior, holdout, seed)
    clock = Clock()
    with clock("open"):
        table = labelled_table(data, labels)
    choice = None
    if backbone == AUTO:
        with clock("choice"):
            settings = Settings(head, prior, holdout, seed, engine, precision, cache)
            choice = choose_backbone(table, settings, weights, pixels, progress)
        backbone, pixels = choice.backbone, choice.pixels
    with clock("open"):
        trunk, module = open_backbone(
            backbone, weights, pixels, head=False, spec=spec, features=features, progress=progress
        )
        network = get_engine(engine, trunk.blueprint, trunk.weights, trunk.spec, precision, module)
    with clock("features"):
        report = None if progress is None else (lambda done, count: progress("features", done, count))
        seen = extract(table, network, weights_digest(trunk.weights), keep=cache, progress=report)
    network.release()
    with clock("duplicates"):
        plan = choice.split(table, seen) if choice else plan_split(table, seen, holdout, seed)
    seen.thumbs = seen.thumbs[:0].copy()  # done with
    train = np.flatnonzero(plan.train)
    with clock("golden"):
        images, exact = _golden(table, network, train)
    with clock("head"):
        fitted = fit_planned_head(seen, plan, kind=head, prior=prior, seed=seed)
        design = Design(seen.values, train, sqrt=fitted.head.sqrt)
        unknown = fit_unknown(design, plan.labels[train], plan.groups[train], fitted, seed)
    with clock("evaluation"):
        result = _evaluate(seen, plan, fitted, unknown)
    record = _record(table, trunk, network, seen, plan, fitted, result, clock.seconds) | {
        "holdout": holdout,
        "seed": seed,
        "data": _called(data, table),
        "choice": choice.record if choice else None,
    }
    return Classifier(
        trunk.blueprint.with_head(len(plan.classes), sqrt=fitted.head.sqrt),
        trunk.weights | {f"{LOGITS}.weight": fitted.head.weight, f"{LOGITS}.bias": fitted.head.bias},
        trunk.spec,
        plan.classes,
        unknown,
        tuple(table.samples[train[row]].name for row in unknown.rows),
        record,
        Golden(images, fitted.head.logits(exact)),
        frozenset(seen.keys[row] for row in train.tolist()),
        network.engine,
        network.precision,
        module,
    )


def _called(data: Images, table: Table) -> str:
    """What a person calls the data: the folder, file or named set."""
    place = data if isinstance(data, str | os.PathLike) else table.root
    return os.path.basename(os.path.abspath(place)) if place else "in memory"


def _evaluate(features: Features, plan: Plan, fitted: HeadFit, unknown: Unknown) -> Evaluation | None:
    rows = np.flatnonzero(plan.test)
    if not len(rows):
        return None
    design = Design(features.values, rows, sqrt=fitted.head.sqrt)
    weight, bias = fitted.head.weight.T, fitted.head.bias
    probabilities = np.concatenate([softmax(design[block] @ weight + bias) for block in blocks(len(rows))])
    return evaluate(probabilities, plan.labels[rows], plan.classes, unknown.strange(design, probabilities))


def _golden(table: Table, network: Network, train: NDArray[np.int_]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A few training images, with their features in fp32, whose logits every engine must give again."""
    images = golden_images(table, network.spec, train)
    exact = network if network.precision == "fp32" else network.at_precision("fp32")
    features = exact.forward(images, FEATURES)
    exact.release()  # the head wants the memory
    return images, features


def _record(
    table: Table,
    trunk: Pretrained,
    network: Network,
    features: Features,
    plan: Plan,
    fitted: HeadFit,
    result: Evaluation | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    logits, truth = fitted.logits, plan.labels[np.flatnonzero(plan.train)[fitted.rows]]
    return plan.record(table) | {
        "result": None if result is None else asdict(result),
        "left_one_out": {"accuracy": float((logits.argmax(axis=1) == truth).mean()), "images": len(truth)},
        "backbone": trunk.backbone.name,
        "licence": trunk.backbone.weights.licence,
        "pixels": trunk.spec.size,
        "precision": network.precision,
        "head": {
            "kind": fitted.kind,
            "prior": fitted.prior,
            "strength": fitted.strength,
            "temperature": fitted.temperature,
            "path": [list(point) for point in fitted.path],
        },
        "computed": features.computed,
        "from_store": features.from_store,
        "store_problem": features.store_problem,
        "seconds": seconds,
    }
