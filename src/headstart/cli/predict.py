"""`headstart predict`: what is on photos, a line each; or a table, or folders of them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.terminal import Rows, console
from headstart.core.errors import UsageError
from headstart.core.text import LONGEST, all_shortened, one_line
from headstart.core.types import Problem

if TYPE_CHECKING:
    from headstart.model.answers import Answer

COUNTED = 12  # labels that a summary counts


def predict(
    model: options.Model,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, or folders of images; for a model of numbers, CSV files."),
    ],
    top: Annotated[int, typer.Option(metavar="K", help="So many classes of each, the most probable first.")] = 1,
    every: Annotated[
        bool, typer.Option("--all-probabilities", help="With --json or --out: the probability of every class.")
    ] = False,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a table instead, .csv or .parquet, a row each.")
    ] = None,
    sort_into: Annotated[
        str | None, typer.Option(metavar="DIR", help="Copy each photo into DIR/LABEL, or DIR/unknown.")
    ] = None,
    links: Annotated[bool, typer.Option("--links", help="With --sort-into: links in place of copies.")] = False,
    crop: options.Crop = True,
    engine: options.Engine = "auto",
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Say what is on photos: label and calibrated probability, or "unknown". A line, or a JSON object, a photo."""
    from headstart.core.progress import shown
    from headstart.model.answers import write_answers
    from headstart.model.tabular_classifier import is_tabular_model, load_rows

    _check(top, out, sort_into, links=links, overwrite=overwrite)
    asked: Iterator[tuple[int, Answer | Problem]]
    if is_tabular_model(model):
        if sort_into is not None:
            raise UsageError(f"'{model}' is a model of numbers, and rows cannot be sorted into folders.")
        rows = load_rows(model)
        asked, classes = rows.answers(paths), rows.classes
    else:
        normalisation = options.normalisation(mean, std)
        classifier = options.open_model(model, weights, engine, precision, device, normalisation)
        asked, classes = _of_photos(classifier, paths, sort_into, links=links, crop=crop), classifier.classes
    screen = _Screen(classes, top, every=every, as_json=as_json, summary=out is not None or sort_into is not None)
    with shown(screen.summary and not as_json) as report:
        answers = screen.told(asked, report)
        if out is not None:
            write_answers(answers, classes, Path(out).absolute(), top=top, every=every)
        else:
            for _ in answers:
                pass
    screen.end(out, sort_into)
    if screen.unreadable:
        raise typer.Exit(3)


def _check(top: int, out: str | None, sort_into: str | None, *, links: bool, overwrite: bool) -> None:
    """Refuse what cannot be, before anything is opened."""
    from headstart.model.answers import check_table

    if top < 1:
        raise UsageError(f"--top: expected 1 or more. Received: {top}.")
    if links and sort_into is None:
        raise UsageError("--links goes with --sort-into DIR.")
    if sort_into is not None and Path(sort_into).exists() and not Path(sort_into).is_dir():
        raise UsageError(f"--sort-into: expected a folder. Received: the file '{sort_into}'.")
    if out is None:
        return
    check_table(out)
    options.check_new_files(str(Path(out).parent), [Path(out).name], overwrite)


def _of_photos(
    classifier: Any, paths: list[str], sort_into: str | None, *, links: bool, crop: bool
) -> Iterator[tuple[int, Answer | Problem]]:
    """Each answer with the number of all; photos are put into their folders on the way."""
    from headstart.data.sources import images_in
    from headstart.data.tables import file_dataset
    from headstart.model.answers import UNKNOWN, Answer, put_into

    found, problems = images_in(paths)
    count = len(found) + len(problems)
    yield from ((count, problem) for problem in problems)
    judged = classifier.judge(file_dataset("", found, in_order=True), crop=crop)
    for (item, unknown), (_, path) in zip(judged, found, strict=True):
        if isinstance(item, Problem):
            yield count, item
            continue
        answer = Answer(item.name, item.probabilities, unknown)
        if sort_into is not None:
            label = UNKNOWN if unknown else answer.top(classifier.classes)[0][0]
            put_into(Path(sort_into), label, path, link=links)
        yield count, answer


class _Screen:
    """What is printed: a line each, or how many of each label in the end."""

    def __init__(self, classes: Any, top: int, *, every: bool, as_json: bool, summary: bool) -> None:
        self.classes, self.top, self.every, self.as_json, self.summary = classes, top, every, as_json, summary
        self.short = all_shortened(("unknown", *classes))
        self.counts: Counter[str] = Counter()
        self.unreadable = 0

    def told(self, asked: Iterator[tuple[int, Answer | Problem]], report: Any) -> Iterator[Answer]:
        """The answers; each is told when it comes."""
        for done, (count, item) in enumerate(asked, 1):
            if report:
                report("images", done, count)
            if isinstance(item, Problem):
                self.unreadable += 1
                show_problem(item, self.as_json)
                continue
            self.counts["unknown" if item.unknown else item.top(self.classes)[0][0]] += 1
            if self.as_json:
                _json(item.as_json(self.classes, self.top, every=self.every))
            elif not self.summary:
                show_answer(item.top(self.classes, self.top), item, self.short)
            yield item

    def end(self, out: str | None, sort_into: str | None) -> None:
        """The summary, where there was no line each."""
        if not self.summary or self.as_json:
            return
        rows = Rows()
        counts = [f"{self.short[label]} {count}" for label, count in self.counts.most_common(COUNTED)]
        more = f", and {len(self.counts) - COUNTED} more labels" if len(self.counts) > COUNTED else ""
        rows.add("answers", f"{self.counts.total()}: {', '.join(counts)}{more}")
        for word, path in (("wrote", out), ("sorted into", sort_into)):
            if path is not None:
                rows.add(word, Text(one_line(path), "bold"), whole=True)
        rows.show(console())


def show_answer(top: Sequence[tuple[str, float]], item: Answer, short: Mapping[str, str]) -> None:
    """One line for one image; the next most probable classes below it."""
    (label, chance), *others = top
    label, path = short[label], one_line(item.name)
    if item.unknown:
        why = f"   (unlike the training photos; closest class: {label})"
        line = Text(f"{'unknown':<{LONGEST}}", "yellow") + Text(f" {'':6}  {path}") + Text(why, "dim")
    else:
        line = Text(f"{label:<{LONGEST}}", "bold") + Text(f" {chance:6.1%}  {path}")
    out = console()
    out.print(line, soft_wrap=True)
    for label, chance in others:
        out.print(Text(f"{short[label]:<{LONGEST}} {chance:6.1%}", "dim"), soft_wrap=True)


def show_problem(item: Problem, as_json: bool) -> None:
    """One line for one image that could not be read: an object with an error in it, or words on standard error."""
    if as_json:
        _json({"path": item.name, "error": item.kind, "detail": item.detail})
    else:
        sys.stderr.write(f"{item.kind}: {one_line(item.name)}: {one_line(item.detail)}\n")


def _json(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
