"""What changes of the code gain, whole commands of several commits by turns: python benchmarks/commits.py

The first commit is what the others are compared with; "." is the code as it lies here. COMMIT:PRECISION fits in that
precision: f5a0ad7:fp32 .:int8 is what a processor without bf16 gains.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import scale_data
from harness import HEADSTART, ROOT, Run, arguments, finish, in_child, median, shared, timed

OF_MODEL = "fit of 820 photos"
BEFORE = "f5a0ad7"  # the code that the figures of docs/benchmarks.md start from


@dataclass(frozen=True)
class Task:
    """A command, and which seconds of it count."""

    name: str
    words: tuple[str, ...]
    warm: bool = False  # whether it uses the cache and the model of earlier runs
    seconds: Callable[[Run], float] = field(default=lambda run: run.seconds)


@dataclass(frozen=True)
class Code:
    """The code of one commit, and a folder for its cache and its model."""

    name: str
    source: Path
    place: Path
    precision: str = "auto"

    def run(self, task: Task) -> Run:
        """Do a task with this code."""
        places = {"MODEL": self.place / "model", "OTHER": self.place / "other"}
        words = [str(places.get(word, word)) for word in task.words]
        if task.words[0] == "fit":
            words += ["--precision", self.precision]
        there = {"PYTHONPATH": str(self.source)}
        return timed((*HEADSTART, *words), str(self.place / "home") if task.warm else None, there)


def main() -> None:
    """All tasks with all code, by turns."""
    parser = arguments(__doc__, repeats=5)
    parser.add_argument("--commits", nargs="+", default=[BEFORE, "."])
    parser.add_argument("--tasks", nargs="+", help="some of them, by the first words of their names")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        codes = [_code(name, place / f"code{at}") for at, name in enumerate(options.commits)]
        rows: dict[str, Any] = {}
        print(
            f"{'seconds, median (CPU seconds)':<34}" + "".join(f"{code.name[:14]:>16}" for code in codes) + "   ratio"
        )
        tasks = _tasks(place / "data", quick=options.quick)
        chosen = [task for task in tasks if task.name.startswith(tuple(options.tasks or ("",)))]
        fitted = False  # the model of the warm tasks
        for task in chosen:
            if task.warm and not fitted:
                _fit_model(tasks, codes)
            fitted = fitted or task.warm or task.name == OF_MODEL
            rows[task.name] = _measured(task, codes, options.repeats)
    finish("commits", {"commits": _full_names(options.commits), "tasks": rows}, [], options)


def _fit_model(tasks: Sequence[Task], codes: Sequence[Code]) -> None:
    """The model that the warm tasks use, where its own task is not among the chosen."""
    for code in codes:
        code.run(next(task for task in tasks if task.name == OF_MODEL))


def _measured(task: Task, codes: Sequence[Code], repeats: int) -> dict[str, Any]:
    """The figures of one task for each code; printed."""
    runs: dict[str, list[Run]] = {code.name: [] for code in codes}
    for code in codes:
        code.run(task)  # compiles Python's files, fills caches, reads photos into memory
    for _ in range(repeats):
        for code in codes:
            runs[code.name].append(code.run(task))
    row: dict[str, dict[str, Any]] = {
        name: {
            "seconds": [task.seconds(run) for run in found],
            "cpu": [run.cpu for run in found],
            "accuracy": _accuracy(found[0].output),
            "stages": {each: median([run.stages[each] for run in found]) for each in found[0].output.get("stages", {})},
        }
        for name, found in runs.items()
    }
    first = row[codes[0].name]["seconds"]
    cells = "".join(f"{median(each['seconds']):>9.2f} ({median(each['cpu']):.1f})".rjust(16) for each in row.values())
    ratios = [median([a / b for a, b in zip(first, each["seconds"], strict=True)]) for each in [*row.values()][1:]]
    print(f"{task.name:<34}{cells}   {'  '.join(f'{ratio:.2f}' for ratio in ratios)}", flush=True)
    accuracies = {each["accuracy"] for each in row.values()}
    if len(accuracies) > 1:
        print(f"{'':<34}" + "".join(f"{each['accuracy']:>16.4f}" for each in row.values()) + "   accuracy")
    return row


def _accuracy(output: Mapping[str, Any]) -> float | None:
    found = output.get("accuracy")
    return float(found) if isinstance(found, int | float) else None


def _tasks(data: Path, *, quick: bool) -> list[Task]:
    """The tasks, in an order in which each finds the model that it needs."""
    data.mkdir()
    pets = shared("data", "cats_dogs")
    told = ("--overwrite", "--json")
    fit = ("--out", "MODEL", *told)
    many = scale_data.photos(data / "many", 20 if quick else 1000)
    one = sorted((pets / "test").rglob("*.jpg"))[0]
    tables = {}
    for count in (300,) if quick else (20_000, 50_000):
        tables[count] = data / f"cifar{count}.parquet"
        in_child(_Cifar(tables[count], count))
    found = [Task(f"fit of {n} CIFAR images", ("fit", str(at), "--pixels", "64", *fit)) for n, at in tables.items()]
    if not quick:
        found.append(Task("fit of caltech101", ("fit", str(shared("data", "caltech101")), *fit)))
    return [
        *found,
        Task(OF_MODEL, ("fit", str(pets), *fit)),
        Task("second fit, seconds of work", ("fit", str(pets), *fit), True, lambda run: run.work),
        Task("evaluate 280 photos", ("evaluate", "MODEL", str(pets / "test"), "--json"), warm=True),
        Task("predict one photo", ("predict", "MODEL", str(one), "--json"), warm=True),
        Task(f"predict {'20' if quick else '1000'} photos", ("predict", "MODEL", str(many), "--json"), warm=True),
        Task("train digits", ("train", "digits", *(("--epochs", "1") if quick else ()), "--out", "OTHER", *told)),
        Task("finetune 540 photos", ("finetune", "MODEL", str(pets / "train"), "--out", "OTHER", *told), warm=True),
    ]


@dataclass(frozen=True)
class _Cifar:
    """Writes a table of images, in a process of its own: what it imports is large."""

    target: Path
    count: int

    def __call__(self) -> None:
        scale_data.cifar(self.target, self.count)


def _code(name: str, place: Path) -> Code:
    """The code of a commit, laid in a folder."""
    place.mkdir()
    commit, _, precision = name.partition(":")
    if commit == ".":
        return Code(name, ROOT / "src", place, precision or "auto")
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit, "src"], capture_output=True, check=False)
    if archive.returncode:
        sys.exit(f"There is no commit '{commit}': {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as tar:
        tar.extractall(place, filter="data")
    return Code(name, place / "src", place, precision or "auto")


def _full_names(names: Sequence[str]) -> list[str]:
    commits = [name.partition(":")[0] for name in names]
    git = ["git", "-C", str(ROOT), "rev-parse", *("HEAD" if name == "." else name for name in commits)]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.split()


if __name__ == "__main__":
    os.chdir(tempfile.gettempdir())  # some commands write beside where they are called
    main()
