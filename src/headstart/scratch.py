"""Photos to a classifier whose network starts from nothing: for comparison, and for pictures that are no photos."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import Blueprint
from headstart.backbones.catalogue import DEFAULT
from headstart.backbones.families.small import mlp, small_cnn
from headstart.backbones.weights import weights_digest
from headstart.classifier import Classifier, Images, labelled_table
from headstart.clock import Clock
from headstart.conducting import Conduct, Say
from headstart.data.folds import folds_of
from headstart.data.load import decode, open_image
from headstart.data.sources import PathLike
from headstart.engines.base import get_engine, open_backbone
from headstart.errors import UnreadableImageError, UsageError, did_you_mean
from headstart.finishing import finish
from headstart.learn.evaluate import evaluate
from headstart.learn.features import Features, extract
from headstart.planning import HOLDOUT, VALIDATION, Plan, check_settings, plan_split, plan_validation
from headstart.train.base import Callback, Task
from headstart.train.batches import PhotoBatches
from headstart.train.initialise import initial_weights
from headstart.train.recipe import Recipe, open_recipe
from headstart.train.schedule import rates_by_layer
from headstart.types import Evaluation, ImageSpec, Table

NETWORKS = ("small_cnn", "mlp")
HIDDEN = (512, 256)
SCRATCH = "scratch"  # the preset for photos
SMALL = 64  # pixels: what is no larger is trained on at its own size, what is larger at this one
LEAST, MOST = 5, 512  # pixels: three halvings need so many; more are for networks that know how to see already
CROP = 0.875  # share of the shorter side that is seen of photos; of small pictures all
LOOKED_AT, WEIGHED = 32, 256  # images that tell whether all are alike, and what their colours are
FLAT = 0.02  # least deviation of a colour that pixels are divided by

Progress = Callable[[str, int, int], None]  # stage, done, of how many
Mask = NDArray[np.bool_]


def train_photos(
    data: Images,
    labels: Sequence[str] | None = None,
    *,
    network: str = NETWORKS[0],
    hidden: Sequence[int] = HIDDEN,
    pixels: int | None = None,
    recipe: str | Recipe = SCRATCH,
    trainer: str = "pytorch",
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
    find_rate: bool = False,
    holdout: float = HOLDOUT,
    validation: float = VALIDATION,
    folds: int = 0,
    seed: int = 0,
    folder: PathLike | None = None,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    say: Say | None = None,
) -> Classifier:
    """Train a small network from nothing, and measure it on the photos that `fit` with this seed measures on.

    Args:
        data, labels: as `fit` takes them.
        network: "small_cnn" or "mlp".
        hidden: units of the perceptron's hidden layers, the lowest first; none make it one layer.
        pixels: default: the size of the images where they are all alike and small, else 64.
        recipe: a preset, a JSON file or a `Recipe`. The preset "scratch" mirrors, turns and crops photos; small grey
            pictures it leaves as they are, for a mirrored digit is none.
        trainer, device, devices, nodes, strategy, find_rate, folder, resume, callbacks, say: see `Conduct`.
        holdout: share of every class to measure on, where the data brings no part of its own for that.
        validation: share of every class of the rest that the training is steered by: the epoch with the lowest loss on
            it is the one that is kept.
        folds: measure by cross-validation instead, with as many trainings; one more, on all photos, gives the model.
        seed: of the split; that of the weights and the order is the recipe's.
        progress: called with (stage, done, of how many).

    Raises:
        UsageError: a name or setting that is not there or out of range.
        DataError: a class with too few photos to train, validate and measure.
        MissingExtraError: the trainer's framework is not installed.
    """
    check_settings("lda", "flat", holdout, seed)
    check_shares(validation, folds, devices * nodes)
    if network not in NETWORKS:
        raise UsageError(f"There is no network '{network}' to train from nothing. {did_you_mean(network, NETWORKS)}")
    if pixels is not None and not LEAST <= pixels <= MOST:
        raise UsageError(f"--pixels: from nothing, expected {LEAST} to {MOST}. Received: {pixels}.")
    conduct = Conduct(
        trainer, device, devices, nodes, strategy, find_rate, folder, resume, callbacks, say or (lambda sentence: None)
    )
    conduct.check()
    chosen = open_recipe(recipe)
    check_recipe(chosen, norms=network == "small_cnn")

    clock = Clock()
    with clock("split"):
        table = labelled_table(data, labels)
        if folds and table.own_test:
            raise UsageError(f"--folds: the data brings a part to measure on ({table.own_test}/). Leave --folds out.")
        seen = _features(table, progress)
        plan = plan_split(table, seen, 0.0 if folds else holdout, seed)
    size, grey = look(table, np.flatnonzero(plan.train))
    if grey and recipe == SCRATCH:
        chosen = replace(chosen, augmentation="none")
        conduct.say("Small grey pictures are trained on as they are: a mirrored or turned digit is another, or none.")
    pixels = pixels or (size if size >= LEAST else SMALL)
    spec = ImageSpec(pixels, crop=1.0 if pixels == size else CROP)
    classes = len(plan.classes)
    blueprint = (
        mlp(3, hidden, classes, size=pixels, dropout=chosen.dropout)
        if network == "mlp"
        else small_cnn(pixels, classes, dropout=chosen.dropout)
    )
    job = _Job(table, seen, spec, blueprint, chosen, validation, seed)

    each: list[dict[str, Any]] = []
    pooled = None
    if folds:
        with clock("folds"):
            each, pooled = _cross_validate(job, plan, folds, conduct, progress)
    model, _ = job.train(plan, conduct, clock, progress)
    record = model.record
    if pooled is not None:
        record |= {"result": asdict(pooled), "test": int(plan.train.sum()), "test_part": "cross-validation"}
    record |= {
        "data": os.path.basename(os.path.abspath(data)) if isinstance(data, str | os.PathLike) else "in memory",
        "holdout": holdout,
        "seconds": clock.seconds,
    }
    record["scratch"] |= {
        "network": network,
        "hidden": list(hidden) if network == "mlp" else [],
        "folds": each,
    }
    return model


def check_shares(validation: float, folds: int, processes: int) -> None:
    """Refuse what can be known to be wrong before any data is looked at."""
    if not 0 < validation <= 0.5:
        raise UsageError(f"validation: expected a share above 0, up to 0.5. Received: {validation}.")
    if folds and not 2 <= folds <= 1000:
        raise UsageError(f"--folds: expected 2 to 1000, or 0 for none. Received: {folds}.")
    if folds and processes > 1:
        raise UsageError("--folds trains on one device, for the folds are many. Leave --devices and --nodes out.")


def check_recipe(recipe: Recipe, *, norms: bool) -> None:
    """Refuse a recipe that would leave a part of the network as chance made it."""
    if recipe.unfreeze != "all":
        raise UsageError(
            f"Recipe, unfreeze: from nothing, all moves. Expected 'all'. Received: {recipe.unfreeze!r}. "
            'Recipes of your own are best begun with: {"preset": "scratch"}'
        )
    if norms and recipe.batch_norm != "train":
        raise UsageError(
            f"Recipe, batch_norm: from nothing, there are no statistics to keep. Expected 'train'. "
            f'Received: {recipe.batch_norm!r}. Recipes of your own are best begun with: {{"preset": "scratch"}}'
        )


def look(table: Table, rows: NDArray[np.int_]) -> tuple[int, bool]:
    """The images' own size where they are small squares, all alike, else 0; and whether those have no colours."""
    sizes, grey = set(), True
    for row in some_of(rows, LOOKED_AT):
        try:
            raw = table.read(row)
            width, height = open_image(raw).size
            sizes.add((width, height))
            if len(sizes) > 1 or width != height or width > SMALL:
                return 0, False
            pixels = decode(raw, ImageSpec(width, crop=1.0))
        except (OSError, UnreadableImageError):  # it could be read before; the training will say so
            continue
        grey = grey and bool((pixels == pixels[..., :1]).all())
    return (sizes.pop()[0], grey) if sizes else (0, False)


def normalised(table: Table, rows: NDArray[np.int_], spec: ImageSpec) -> ImageSpec:
    """The same with the mean and deviation that colours have in these images: nobody else's fit what starts anew."""
    seen = []
    for row in some_of(rows, WEIGHED):
        try:
            seen.append(decode(table.read(row), spec).reshape(-1, 3) / 255)
        except (OSError, UnreadableImageError):  # it could be read before; the training will say so
            continue
    if not seen:
        return spec
    pixels = np.concatenate(seen)
    red, green, blue = pixels.mean(axis=0).round(4).tolist()
    r, g, b = np.maximum(pixels.std(axis=0), FLAT).round(4).tolist()
    return replace(spec, mean=(red, green, blue), std=(r, g, b))


def some_of(rows: NDArray[np.int_], count: int) -> list[int]:
    """At most so many, evenly spread."""
    places = np.unique(np.linspace(0, len(rows) - 1, count).astype(int))
    found: list[int] = rows[places].tolist()
    return found


def fingerprint(*parts: object) -> str:
    """Hexadecimal, of bytes and of what JSON can say: stands for data and how they are split."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = part if isinstance(part, bytes) else json.dumps(part).encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Job:
    """What all trainings of one call have in common."""

    table: Table
    seen: Features
    spec: ImageSpec  # but for its mean and deviation, which are those of the part that is trained on
    blueprint: Blueprint
    recipe: Recipe
    validation: float
    seed: int

    def train(
        self, plan: Plan, conduct: Conduct, clock: Clock, progress: Progress | None
    ) -> tuple[Classifier, NDArray[np.float64]]:
        """A classifier, trained and measured as the plan says, and its probabilities for the test photos."""
        validation = plan_validation(plan, self.seen.keys, self.seed, self.validation)
        parts = {"train": np.flatnonzero(plan.train & ~validation), "validation": np.flatnonzero(validation)}
        spec = normalised(self.table, parts["train"], self.spec)
        task = Task(
            self.blueprint,
            initial_weights(self.blueprint, self.recipe.initialisation, self.recipe.seed),
            rates_by_layer(self.blueprint, self.recipe),
            spec,
        )
        batches, steering = (
            PhotoBatches(self.table, rows, spec, self.recipe, train=part == "train", classes=plan.classes)
            for part, rows in parts.items()
        )
        data = fingerprint(*(self.seen.keys[row] for rows in parts.values() for row in rows.tolist()),
                           *(plan.labels[rows].tolist() for rows in parts.values()))  # fmt: skip
        with clock("training"):
            trained, recipe = conduct.train(task, batches, steering, self.recipe, data, len(plan.classes))
        counts = {"train": len(parts["train"]), "validation": len(parts["validation"]), "test": int(plan.test.sum())}
        record = plan.record(self.table) | {
            "backbone": self.blueprint.name,
            "licence": "your own",
            "pixels": self.spec.size,
            "seed": self.seed,
            "scratch": conduct.record(trained, recipe, task, counts["validation"], len(plan.classes))
            | {"images": counts},
        }
        with clock("finish"):
            return finish(
                self.blueprint, trained.weights, spec, self.table, plan, validation, self.seen.keys, record,
                seed=self.seed, progress=progress,
            )  # fmt: skip


def _features(table: Table, progress: Progress | None) -> Features:
    """What the default backbone says of every image: by it `fit` finds near copies, and so splits."""
    trunk, _ = open_backbone(DEFAULT, head=False, progress=progress)
    network = get_engine("auto", trunk.blueprint, trunk.weights, trunk.spec)
    report = None if progress is None else (lambda done, count: progress("features", done, count))
    seen = extract(table, network, weights_digest(trunk.weights), progress=report)
    network.release()
    return seen


def _cross_validate(
    job: _Job, plan: Plan, folds: int, conduct: Conduct, progress: Progress | None
) -> tuple[list[dict[str, Any]], Evaluation]:
    """The accuracy of each fold, trained on the others, and how all of them did together."""
    rows = np.flatnonzero(plan.train)
    keys = [job.seen.keys[row] for row in rows.tolist()]
    fold = np.full(len(plan.labels), -1)
    fold[rows] = folds_of(plan.labels[rows], keys, plan.groups[rows], folds, job.seed, plan.classes)
    quiet = alone(conduct)
    results: list[dict[str, Any]] = []
    probabilities = np.zeros((len(fold), len(plan.classes)))
    for number in range(folds):
        part = replace(plan, train=plan.train & (fold != number), test=fold == number)
        model, probabilities[part.test] = job.train(part, quiet, Clock(), None)
        results.append(model.record["result"])
        if progress:
            progress("folds", number + 1, folds)
    pooled = evaluate(probabilities[rows], plan.labels[rows], plan.classes, np.zeros(len(rows), bool))
    unknown = sum(result["unknown"] * result["accuracy"]["images"] for result in results) / len(rows)
    return [result["accuracy"] for result in results], replace(pooled, unknown=unknown)


def alone(conduct: Conduct) -> Conduct:
    """The same for one of many trainings: it leaves nothing behind, and only the last one speaks."""
    return replace(conduct, folder=None, resume=False, callbacks=(), say=lambda sentence: None)
