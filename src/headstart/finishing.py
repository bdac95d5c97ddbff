"""From trained weights to a classifier: calibrated, with "unknown", measured, and with golden images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import LOGITS, Blueprint
from headstart.classifier import Classifier, Golden
from headstart.data.load import fetch, gone
from headstart.engines.base import Network, get_engine
from headstart.learn.calibrate import fit_sharpness, sharpened, softmax
from headstart.learn.evaluate import evaluate
from headstart.learn.features import observe
from headstart.learn.heads import Head, HeadFit
from headstart.learn.paths import Design
from headstart.learn.unknown import Unknown, fit_unknown
from headstart.planning import Plan
from headstart.types import Evaluation, ImageSpec, Table

GOLDEN = 4  # images kept with the model, to hold every engine that opens it against

Matrix = NDArray[np.float32]


def finish(
    blueprint: Blueprint,
    weights: Mapping[str, Matrix],
    spec: ImageSpec,
    table: Table,
    plan: Plan,
    validation: NDArray[np.bool_],
    keys: list[bytes],
    record: Mapping[str, Any],
    *,
    seed: int = 0,
    engine: str = "auto",
    precision: str = "auto",
    module: object | None = None,
    steering: Mapping[str, Matrix] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Classifier, NDArray[np.float64]]:
    """A classifier of trained weights, and its probabilities for the test photos, (T, classes).

    The temperature is that of the validation part; what is typical of known photos comes from the part that was trained
    on, as the validation part sees it; the figures are those of the test part.

    Args:
        plan: what becomes of every photo of the table.
        validation: (N,) those of the plan's training part that the training was steered by.
        keys: of the photos' content.
        record: what else there is to say; figures are added.
        steering: the weights that have not seen the validation part, where ``weights`` have.
        progress: called with (stage, done, of how many).
    """
    network = get_engine(engine, blueprint, weights, spec, precision, module)
    train = np.flatnonzero(plan.train)
    images = golden_images(table, network.spec, train)
    below, known = blueprint[LOGITS].inputs[0], np.flatnonzero(validation)
    network.check_precision(images, below)
    x, logits = _see(table, network, below, np.flatnonzero(plan.train | plan.test), progress)
    unseen = logits[known]
    if steering is not None:
        network.load(steering)
        unseen = _see(table, network, below, known, None)[1][known]

    sharpness, nll = fit_sharpness(unseen, plan.labels[known])
    calibrated = sharpened(weights, sharpness)
    network.load(calibrated)
    logits *= np.float32(sharpness)

    held_out = HeadFit(
        Head(calibrated[f"{LOGITS}.weight"], calibrated[f"{LOGITS}.bias"], sqrt=False),
        kind="trained",
        prior="empirical",
        strength=0.0,
        temperature=1 / sharpness,
        path=(),
        rows=np.searchsorted(train, known),
        logits=unseen * np.float32(sharpness),
    )
    unknown = fit_unknown(Design(x, train), plan.labels[train], plan.groups[train], held_out, seed)
    probabilities, result = _measure(x, logits, plan, unknown)
    right = unseen.argmax(axis=1) == plan.labels[known]
    head_record = {name: getattr(held_out, name) for name in ("kind", "prior", "strength", "temperature", "path")}
    record = {
        **record,
        "result": None if result is None else asdict(result),
        "validation": {"accuracy": float(right.mean()), "nll": float(nll), "images": len(known)},
        "left_one_out": None,
        "precision": network.precision,
        "head": head_record | {"path": []},
    }
    exact = network if network.precision == "fp32" else network.at_precision("fp32")
    golden = Golden(images, exact.forward(images))
    exact.release()
    finished = Classifier(
        blueprint,
        calibrated,
        spec,
        plan.classes,
        unknown,
        tuple(table.samples[train[row]].name for row in unknown.rows),
        record,
        golden,
        frozenset(keys[row] for row in train.tolist()),
        network.engine,
        network.precision,
        module,
    )
    return finished, probabilities


def golden_images(table: Table, spec: ImageSpec, rows: NDArray[np.int_]) -> NDArray[np.uint8]:
    """A few images of some rows of a table, as the network sees them."""
    places = rows[np.unique(np.linspace(0, len(rows) - 1, GOLDEN).astype(int))]
    read = [fetch(table, int(place), spec).pixels for place in places]
    return np.stack([pixels for pixels in read if pixels is not None])


def _see(
    table: Table,
    network: Network,
    below: str,
    rows: NDArray[np.int_],
    progress: Callable[[str, int, int], None] | None,
) -> tuple[NDArray[np.float16], Matrix]:
    """What the head is given, and what it says, of every row that counts; (N, …), zero elsewhere."""
    x = np.zeros((len(table), network.shape(below)[0]), np.float16)
    logits = np.zeros((len(table), network.shape(LOGITS)[0]), np.float32)
    for done, (item, values) in enumerate(observe(table, network, (below, LOGITS), rows.tolist()), 1):
        if values is None:
            raise gone(table, item.index, item.error)
        x[item.index], logits[item.index] = np.clip(values[0], -65504, 65504), values[1]
        if progress:
            progress("measuring", done, len(rows))
    return x, logits


def _measure(
    x: NDArray[np.float16], logits: Matrix, plan: Plan, unknown: Unknown
) -> tuple[NDArray[np.float64], Evaluation | None]:
    rows = np.flatnonzero(plan.test)
    probabilities = np.asarray(softmax(logits[rows]), np.float64)
    if not len(rows):
        return probabilities, None
    strange = unknown.strange(Design(x, rows), probabilities)
    return probabilities, evaluate(probabilities, plan.labels[rows], plan.classes, strange)
