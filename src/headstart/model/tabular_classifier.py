"""A classifier of rows of numbers: a perceptron small enough for NumPy, and its folder."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT, LOGITS, Blueprint
from headstart.core.arguments import PATH, PROGRESS, YES_NO, checks, text, whole
from headstart.core.counts import counted
from headstart.core.display import Described, names_in_short
from headstart.core.errors import DataError, UsageError
from headstart.core.labels import TEXT, as_given, as_kind
from headstart.core.progress import Shown
from headstart.core.types import Evaluation, Prediction, Problem
from headstart.data.frames import is_frame, names_of
from headstart.data.inputs import one_each
from headstart.data.mistaken import why_no_rows
from headstart.data.rows import PathLike, Rows, matrix_of, rows_to_judge, rows_to_predict
from headstart.data.sources import label_text
from headstart.learn.calibrate import softmax
from headstart.learn.evaluate import evaluate, mistakes_of
from headstart.model import files, stored
from headstart.model.answers import Answer, check_unknown, top_of, with_unknown
from headstart.model.measure import UNKNOWN_CLASS
from headstart.model.mistaken import MAKE_OF_ROWS, no_model
from headstart.model.records import TabularRecord, from_json, to_json

LISTED = 12  # columns in one message
TOLERANCE = 1e-3  # of golden logits, relative to the largest
BEYOND = 0.5  # of a column's range in training: a number further out than this is like none that was trained on

Matrix = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Scale:
    """What the columns were like in training, (C,) each."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]  # 1 for a column that did not vary
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, values: Matrix) -> Scale:
        """That of rows (N, C)."""
        std = values.std(axis=0)
        return cls(values.mean(axis=0), np.where(std > 0, std, 1.0), values.min(axis=0), values.max(axis=0))

    def __call__(self, values: Matrix) -> NDArray[np.float32]:
        """Mean 0 and deviation 1 (N, C)."""
        scaled: NDArray[np.float32] = ((values - self.mean) / self.std).astype(np.float32)
        return scaled

    def beyond(self, values: Matrix) -> NDArray[np.bool_]:
        """Whether a number of a row lies further outside the training's range than half of its width (N,)."""
        margin = BEYOND * (self.high - self.low)
        outside = (values < self.low - margin) | (values > self.high + margin)
        return np.asarray(outside.any(axis=1))

    def margin(self, values: Matrix) -> NDArray[np.float64]:
        """As that of photos (N,): below zero for a row that is beyond. There are no degrees."""
        return np.where(self.beyond(values), -1.0, 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class TabularClassifier(Described):
    """A perceptron for rows of numbers; `train_rows` and `load_rows` make one."""

    blueprint: Blueprint
    weights: Mapping[str, NDArray[np.float32]]  # calibrated: the softmax of the logits is the probability
    scale: Scale
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    record: TabularRecord  # how it was trained, and how it did
    label_kind: str = TEXT  # what the labels were that it was trained on, see `core.labels`

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes in their order (K,), as the labels were given: whole numbers stay whole numbers."""
        return as_given(self.classes, self.label_kind)

    def facts(self) -> dict[str, str]:
        """What is said of it in one line, and in a notebook."""
        accuracy, how = self.record.accuracy, "cross-validation" if self.record.folds else "test set"
        return {
            "classes": names_in_short(self.classes),
            "columns": counted(len(self.columns), "column"),
            how: accuracy.in_words("row") if accuracy else "accuracy not measured",
        }

    def predict_proba(self, values: Any) -> NDArray[np.float64]:
        """Calibrated probabilities (N, K) of rows (N, C), whose columns are in the order of ``columns``.

        Of a table, a CSV file or a named set the columns are taken by their names.
        """
        return np.asarray(softmax(forward(self.blueprint, self.weights, self.scale(self._matrix(values)))))

    @overload
    def predict(self, values: Any, *, unknown: object = None) -> NDArray[Any]: ...

    @overload
    def predict(self, values: Any, *, top: int) -> list[list[tuple[Any, float]]]: ...

    @checks(top=whole(1))
    def predict(
        self, values: Any, *, unknown: object = None, top: int | None = None
    ) -> NDArray[Any] | list[list[tuple[Any, float]]]:
        """The most probable class of each row (N,), as the labels were given; ``unknown`` and ``top`` as of photos.

        Raises:
            UsageError: other columns, a ``top`` below 1, or both.
        """
        check_unknown(unknown, self.classes_)
        if top is not None:
            if unknown is not None:
                raise UsageError("top= and unknown= do not go together: `predictions` gives both.")
            return top_of(self.predict_proba(values), self.classes_, top)
        matrix = self._matrix(values)
        chosen = self.predict_proba(matrix).argmax(axis=1)
        if unknown is not None:
            return with_unknown(chosen, self.scale.beyond(matrix), self.classes_, unknown)
        labels: NDArray[Any] = self.classes_[chosen]
        return labels

    def predictions(self, rows: Rows) -> Iterator[Prediction]:
        """Row by row: label, probability, and whether a number of it is beyond all that was trained on."""
        for each in self._answers(rows):
            ((label, chance),) = each.top(self.classes)
            yield Prediction(each.name, label, chance, each.unknown)

    def answers(self, files: Sequence[PathLike]) -> Iterator[tuple[int, Answer]]:
        """Row by row of CSV files, as `predict_file`, with the probabilities of all classes, and the number of rows."""
        tables = [rows_to_predict(file, self.columns) for file in files]
        count = sum(map(len, tables))
        yield from ((count, answer) for rows in tables for answer in self._answers(rows))

    def _answers(self, rows: Rows) -> Iterator[Answer]:
        beyond = self.scale.beyond(rows.values)
        for name, chances, unknown in zip(rows.names, self.predict_proba(rows.values), beyond, strict=True):
            yield Answer(name, chances, bool(unknown))

    def predict_file(self, path: PathLike) -> Iterator[Prediction]:
        """As `predictions`, for a CSV file with columns of the same names."""
        return self.predictions(rows_to_predict(path, self.columns))

    @checks(label=text("the name of a column"), progress=PROGRESS)
    def evaluate(
        self,
        data: PathLike | Any,
        labels: Iterable[object] | None = None,
        *,
        label: str | None = None,
        progress: Shown = True,
    ) -> Evaluation:
        """Hold the classifier against rows with labels: a CSV file, a named set, a table, or numbers with ``labels``.

        All rows count, those that it was trained on too: it keeps none of them. Rows of other classes are left out and
        named. ``label`` is the column of the labels; default: one with a usual name, or the only one of text.
        ``progress`` is as for photos, but rows take no time, so there is none to show.

        Raises:
            DataError: none of the labels is known.
        """
        own = labels is None or isinstance(labels, str)
        if isinstance(data, str | os.PathLike) or (is_frame(data) and own):
            rows = rows_to_judge(data, self.columns, labels if isinstance(labels, str) else label)
            values, names = rows.values, rows.names
            words = [label_text(as_kind(each, self.label_kind)) for each in as_given(rows.labels, rows.label_kind)]
        elif labels is None:
            raise UsageError(why_no_rows(data))
        else:
            words = [label_text(as_kind(each, self.label_kind)) for each in one_each(labels)]
            values, names = self._matrix(data), tuple(f"row {place}" for place in range(len(words)))
            if len(words) != len(values):
                raise UsageError(
                    f"Expected a label for each row. Received: {counted(len(values), 'row')}, "
                    f"{counted(len(words), 'label')}."
                )
        place = {name: k for k, name in enumerate(self.classes)}
        known = np.array([word in place for word in words], bool)
        if not known.any():
            raise DataError(
                f"The classifier knows none of the labels, {words[0] if words else ''!r} first. It knows: "
                f"{', '.join(self.classes[:10])}{' …' if len(self.classes) > 10 else ''}."
            )
        probabilities = self.predict_proba(values[known])
        right = np.array([place[word] for word in words if word in place])
        result = evaluate(
            probabilities,
            right,
            self.classes,
            self.scale.margin(values[known]),
        )
        others = [(name, word) for name, word in zip(names, words, strict=True) if word not in place]
        why = "class {!r} is none of the classifier's"
        return replace(
            result,
            left_out=tuple(Problem(name, UNKNOWN_CLASS, why.format(word)) for name, word in others),
            wrong=mistakes_of(probabilities, right, self.classes, list(compress(names, known))),
        )

    def score(self, data: PathLike | Any, labels: Iterable[object] | None = None) -> float:
        """The accuracy of `evaluate`, over all rows, those that it was trained on too.

        A label that the classifier does not know counts as a wrong answer.
        """
        result = self.evaluate(data, labels)
        right = result.accuracy.value * result.accuracy.images
        return right / (result.accuracy.images + len(result.left_out or ()))

    def _matrix(self, values: Any) -> NDArray[np.float64]:
        """Rows of numbers in the order of ``columns``: an array, or a table or file with columns of these names."""
        if isinstance(values, str | os.PathLike) or (is_frame(values) and {*self.columns} & {*names_of(values)}):
            return rows_to_predict(values, self.columns).values
        try:
            matrix = matrix_of(values, len(self.columns))
        except DataError as error:
            columns = (
                f"The columns, in this order: {', '.join(self.columns[:LISTED])}{' …' * (len(self.columns) > LISTED)}."
            )
            raise UsageError(f"{error} {columns}") from error
        if len(bad := np.argwhere(~np.isfinite(matrix))):
            row, column = bad[0].tolist()
            raise UsageError(
                f"Row {row}, {self.columns[column]}: expected a finite number. Received: {matrix[row, column]}."
            )
        return matrix

    @checks(path=PATH, overwrite=YES_NO)
    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write a folder that `load_rows` opens. Until it is whole nothing is there, or what was there before.

        With ``overwrite`` a model that is there is replaced.

        Raises:
            UsageError: there is something at ``path``, or it cannot be written.
        """
        config = {
            "kind": stored.ROWS,
            "columns": list(self.columns),
            **files.labels_of(self.classes, self.label_kind),
            "blueprint": self.blueprint.to_json(),
            "fit": to_json(self.record),
        }
        arrays = {f"network.{name}": array for name, array in self.weights.items()}
        arrays |= {f"scale.{name}": array for name, array in asdict(self.scale).items()}
        rows = np.stack([self.scale.low, self.scale.mean, self.scale.high])
        golden = {"rows": rows, "logits": forward(self.blueprint, self.weights, self.scale(rows))}
        return files.write_folder(path, arrays, golden, config, _card(self), overwrite=overwrite)


def forward(blueprint: Blueprint, weights: Mapping[str, NDArray[np.float32]], x: Matrix) -> Matrix:
    """Logits (N, K) of rows (N, C) as the network sees them.

    Raises:
        UsageError: a node that no perceptron has.
    """
    for node in blueprint.nodes:
        if node.op == "dense":
            x = x @ weights[f"{node.name}.weight"].T + weights[f"{node.name}.bias"]
        elif node.op == "act" and node["kind"] == "relu":
            x = np.maximum(x, 0)
        elif node.op not in (INPUT, "flatten", "dropout"):
            raise UsageError(f"'{blueprint.name}' is no perceptron: it has a node '{node.name}' ({node.op}).")
    return x


@checks(path=PATH)
def load_rows(path: PathLike) -> TabularClassifier:
    """Open what `TabularClassifier.save` wrote.

    Raises:
        UsageError: there is none at ``path``, or it is from a newer version.
        CheckError: a file of it is missing or was altered.
    """
    folder = Path(path)
    if not stored.has_config(folder):
        raise no_model(str(path), networks=False, make=MAKE_OF_ROWS)
    if not stored.is_tabular_model(folder):
        raise UsageError(f"'{folder}' is no model of rows. {MAKE_OF_ROWS}")
    found = stored.read(folder)
    with stored.assembling(folder):
        return _assemble(found)


def _assemble(found: stored.Stored) -> TabularClassifier:
    config, arrays = found.config, found.arrays(stored.MODEL)
    columns, (classes, kind) = tuple(map(str, config["columns"])), stored.read_classes(config)
    blueprint, weights = stored.read_network(config, arrays)
    if blueprint.shapes()[LOGITS] != (len(classes),) or blueprint.nodes[0]["channels"] != len(columns):
        raise ValueError(
            f"{counted(len(columns), 'column')} and {counted(len(classes), 'class')} do not fit the network"
        )
    scale = Scale(**{name: arrays[f"scale.{name}"] for name in ("mean", "std", "low", "high")})
    if any(array.shape != (len(columns),) or not np.isfinite(array).all() for array in asdict(scale).values()):
        raise ValueError(f"the scale is not one of {counted(len(columns), 'column')}")
    forward(blueprint, weights, np.zeros((1, len(columns)), np.float32))  # refuses what is no perceptron
    if golden := found.arrays(stored.GOLDEN):
        _check_answers(forward(blueprint, weights, scale(golden["rows"])), golden["logits"])
    record = from_json(TabularRecord, config["fit"])
    return TabularClassifier(blueprint, weights, scale, columns, classes, record, kind)


def _check_answers(logits: Matrix, expected: Matrix) -> None:
    """Hold the answers for a few rows against those that were recorded."""
    difference = stored.greatest_difference(logits, expected)
    if not difference <= TOLERANCE:
        raise ValueError(f"its golden rows get other answers: they differ by {difference:.2g} of the largest logit")


def _card(model: TabularClassifier) -> str:
    record, accuracy, parts = model.record, model.record.accuracy, model.record.parts
    how = f"in {len(record.folds)}-fold cross-validation" if record.folds else "that were held out"
    figure = "Not measured: no row was held out."
    if accuracy:
        low, high = accuracy.low, accuracy.high
        rows = counted(accuracy.images, "row")
        figure = f"Accuracy {accuracy.value:.3f} (95 % interval {low:.3f} to {high:.3f}) on {rows} {how}."
    test = "" if record.folds or not record.test else f", test set {record.test}"
    split = f"training set {parts.train}, validation set {parts.validation}{test}"
    hidden = ",".join(map(str, record.hidden)) or "none"
    made = f"--hidden {hidden} --holdout {record.holdout} --seed {record.seed}"
    folds = f" --folds {len(record.folds)}" if record.folds else ""
    columns = "\n".join(f"- {name}" for name in model.columns)
    return (
        f"---\nlibrary_name: headstart\npipeline_tag: tabular-classification\n---\n\n# {record.data}\n\n"
        f"Tells {counted(len(model.classes), 'class')} apart: {', '.join(model.classes)}.\n\n"
        f"{counted(record.images, 'row')}: {split}.\n\n{figure}\n\n"
        f"A perceptron, trained from random weights on the columns\n\n{columns}\n\n"
        "each scaled to mean 0 and deviation 1. Probabilities are calibrated on the validation set. "
        'A row is "unknown" where one of its numbers lies far outside what was trained on.\n\n'
        f"    headstart train DATA {made}{folds}\n"
    )
