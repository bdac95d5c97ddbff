"""`headstart predict`: what is on photos, a line each; or a table, or folders of them."""

from __future__ import annotations

import json
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli import options
from headstart.cli.terminal import Rows, console
from headstart.core.errors import UsageError
from headstart.core.text import LONGEST, all_shortened, one_line
from headstart.core.types import UNKNOWN, Problem

if TYPE_CHECKING:
    from rich.console import Console

    from headstart.core.progress import Progress
    from headstart.data.listing import Listing
    from headstart.model.answers import Answer
    from headstart.model.batch import PredictedTable
    from headstart.model.classifier import Classifier

STANDARD_INPUT = "-"
COUNTED = 12  # labels that a summary counts
MOST_LIST, PIECE = 1 << 30, 1 << 20  # bytes of standard input, and read at a time


def predict(
    model: options.Model,
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images, folders of images, patterns, or - for a list on standard input; of numbers, CSV files.",
        ),
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
    urls: Annotated[bool, typer.Option("--urls", help="Fetch addresses among the paths, http and https.")] = False,
    crop: options.Crop = True,
    engine: options.Engine = "auto",
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    precision: options.Precision = "auto",
    device: options.Device = "auto",
    runner: options.Runner = None,
    store: options.Store = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Say what is on photos: label and calibrated probability, or "unknown". A line, or a JSON object, a photo.

    With --out the rows are in the table, and --json gives one object: how many there are of each label.
    """
    from headstart.core.progress import shown
    from headstart.model.stored import is_tabular_model

    if every and not as_json and out is None:
        raise UsageError("--all-probabilities goes with --json, or with a table: --out FILE.")
    if paths.count(STANDARD_INPUT) > 1:
        raise UsageError(f"'{STANDARD_INPUT}' stands for standard input, which is read once. Name it once.")
    _check(top, out, sort_into, links=links, overwrite=overwrite)
    _check_for_cluster(runner, store, out, sort_into, urls=urls)
    summary = out is not None or sort_into is not None
    with shown(summary and not as_json) as report:
        screen = _Screen(top, report, every=every, as_json=as_json, summary=summary)
        if is_tabular_model(model):
            _of_rows(model, paths, out, sort_into, screen)
        else:
            spec = options.normalisation(mean, std)
            classifier = options.open_model(model, weights, engine, precision, device, spec)
            if runner is not None and out is not None:
                more = {"runner": runner, "store": store, "crop": crop, "overwrite": overwrite}
                _on_cluster(classifier, paths, out, screen, **more)
            else:
                listing = _listing(paths)
                _check_addresses(listing, sort_into, urls=urls)
                _of_photos(classifier, listing, out, sort_into, screen, links=links, crop=crop)
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


def _check_for_cluster(
    runner: str | None, store: str | None, out: str | None, sort_into: str | None, *, urls: bool
) -> None:
    """Refuse what does not go with --runner."""
    if runner is None:
        if store is not None:
            raise UsageError("--store goes with --runner.")
        return
    if out is None:
        raise UsageError("--runner goes with a table: --out FILE.")
    if sort_into is not None or urls:
        raise UsageError(f"{'--urls' if urls else '--sort-into'} does not go with --runner.")


def _listing(paths: Sequence[str]) -> Listing:
    """The images that the paths name."""
    from headstart.data.listing import Listing

    listing = Listing()
    for path in paths:
        if path == STANDARD_INPUT:
            listing.paths += _standard_input()
        else:
            listing.add(path)
    return listing


def _check_addresses(listing: Listing, sort_into: str | None, *, urls: bool) -> None:
    """Refuse addresses that are to be sorted, or may not be fetched; and an empty list."""
    from headstart.data.web_address import is_address

    address = None if sort_into is None else next((path for path in listing.paths if is_address(path)), None)
    if address is not None:
        raise UsageError(
            f"'{address}' is an address, and has no file that could be copied. Leave --sort-into out, or save it "
            "first, and name the file."
        )
    listing.check(urls=urls)


def _standard_input() -> list[str]:
    """The names on standard input.

    Raises:
        UsageError: there is none, or more than a list may have.
    """
    from headstart.data.listing import names_in

    pieces = iter(lambda: sys.stdin.buffer.read(PIECE), b"")
    content = b"".join(islice(pieces, MOST_LIST // PIECE + 1))
    if len(content) > MOST_LIST:
        raise UsageError(f"Standard input: expected a list of paths, up to {MOST_LIST:,} bytes. Received: more.")
    if not (names := names_in(content)):
        raise UsageError("Standard input has no paths in it. Expected one a line, or NULs between them.")
    return names


def _on_cluster(classifier: Classifier, paths: Sequence[str], out: str, screen: _Screen, **more: Any) -> None:
    """The answers of workers on a cluster, in a table."""
    from headstart.scale.predict import predict_on_ray

    screen.of(classifier.classes)
    named = [name for path in paths for name in (_standard_input() if path == STANDARD_INPUT else [path])]
    found = predict_on_ray(
        classifier, named, out, top=screen.top, every=screen.every, progress=screen.report or False, **more
    )
    screen.count(found)


def _of_rows(model: str, paths: Sequence[str], out: str | None, sort_into: str | None, screen: _Screen) -> None:
    """The answers of a model of numbers to the rows of CSV files."""
    from headstart.model.answers import write_answers
    from headstart.model.tabular_classifier import load_rows

    if sort_into is not None:
        raise UsageError(f"'{model}' is a model of numbers, and rows cannot be sorted into folders.")
    rows = load_rows(model)
    files = [name for path in paths for name in (_standard_input() if path == STANDARD_INPUT else [path])]
    screen.of(rows.classes)

    def told() -> Iterator[Answer]:
        for done, (count, answer) in enumerate(rows.answers(files), 1):
            screen.tell(done, count, answer, in_table=out is not None)
            yield answer

    if out is not None:
        write_answers(told(), rows.classes, Path(out).absolute(), top=screen.top, every=screen.every)
    else:
        deque(told(), maxlen=0)


def _of_photos(
    classifier: Classifier,
    listing: Listing,
    out: str | None,
    sort_into: str | None,
    screen: _Screen,
    *,
    links: bool,
    crop: bool,
) -> None:
    """The answers to photos, which are put into their folders on the way."""
    from headstart.model.answers import Answer, put_into
    from headstart.model.batch import answers, fill_table

    screen.of(classifier.classes)

    def told(row: int, done: int, item: Answer | Problem) -> None:
        screen.tell(done, len(listing), item, in_table=out is not None)
        if sort_into is not None and isinstance(item, Answer):
            label = UNKNOWN if item.unknown else item.top(classifier.classes)[0][0]
            put_into(Path(sort_into), label, listing.paths[row], link=links)

    if out is None:
        for row, item in answers(classifier, listing, crop=crop):
            told(row, row + 1, item)
        return
    target = Path(out).absolute()
    found = fill_table(classifier, listing, target, top=screen.top, every=screen.every, crop=crop, told=told)
    screen.count(found)


class _Screen:
    """What is printed: a line each, or how many of each label in the end."""

    def __init__(self, top: int, report: Progress | None, *, every: bool, as_json: bool, summary: bool) -> None:
        self.top, self.report, self.every, self.as_json, self.summary = top, report, every, as_json, summary
        self.classes: Sequence[str] = ()
        self.short: Mapping[str, str] = {}
        self.labels: Counter[str] = Counter()  # of what was not unknown
        self.unknown = self.unreadable = self.kept = 0

    @cached_property
    def out(self) -> Console:
        """Standard output, opened once: that takes longer than to print a line."""
        return console()

    def of(self, classes: Sequence[str]) -> None:
        """The classes of the model."""
        self.classes, self.short = classes, all_shortened((UNKNOWN, *classes))

    def tell(self, done: int, count: int, item: Answer | Problem, *, in_table: bool) -> None:
        """An answer, when it comes; one that is in a table needs no line."""
        if self.report:
            self.report("images", done, count)
        if isinstance(item, Problem):
            self.unreadable += 1
            if not (in_table and self.as_json):
                show_problem(item, self.as_json)
            return
        if item.unknown:
            self.unknown += 1
        else:
            self.labels[item.top(self.classes)[0][0]] += 1
        if self.as_json and not in_table:
            _json(item.as_json(self.classes, self.top, every=self.every))
        elif not self.summary:
            _show_answer(self.out, item.top(self.classes, self.top), item, self.short)

    def count(self, found: PredictedTable) -> None:
        """What is in a table."""
        self.labels, self.unknown, self.unreadable = Counter(found.labels), found.unknown, found.unreadable
        self.kept = found.kept

    def end(self, out: str | None, sort_into: str | None) -> None:
        """The summary, where there was no line each."""
        if self.as_json and out is not None:
            _json(self._counts(out, sort_into))
        if not self.summary or self.as_json:
            return
        from rich.text import Text

        rows = Rows()
        found = Counter({self.short[label]: count for label, count in self.labels.items()})
        if self.unknown:
            found[UNKNOWN] += self.unknown
        counts = [f"{label} {count}" for label, count in found.most_common(COUNTED)]
        more = f", and {len(found) - COUNTED} more labels" if len(found) > COUNTED else ""
        rows.add("answers", f"{found.total()}: {', '.join(counts)}{more}")
        if self.unreadable:
            rows.add("unreadable", f"{self.unreadable}{', each a row with its error' if out is not None else ''}")
        for word, path in (("wrote", out), ("sorted into", sort_into)):
            if path is not None:
                rows.add(word, Text(one_line(path), "bold"), whole=True)
        rows.show(self.out)

    def _counts(self, out: str, sort_into: str | None) -> dict[str, Any]:
        rows = self.labels.total() + self.unknown + self.unreadable
        found = {"path": out, "rows": rows, "labels": dict(self.labels.most_common()), "unknown": self.unknown}
        sorted_into = {} if sort_into is None else {"sorted_into": sort_into}
        return found | {"unreadable": self.unreadable, "kept": self.kept} | sorted_into


def _show_answer(out: Console, top: Sequence[tuple[str, float]], item: Answer, short: Mapping[str, str]) -> None:
    """One line for one image; the next most probable classes below it."""
    from rich.text import Text

    (label, chance), *others = top
    label, path = short[label], one_line(item.name)
    if item.unknown:
        others = [*top] if others else []  # none of them has a line yet
        why = f"   (unlike the training photos; closest class: {label})"
        line = Text(f"{'unknown':<{LONGEST}}", "yellow") + Text(f" {'':6}  {path}") + Text(why, "dim")
    else:
        line = Text(f"{label:<{LONGEST}}", "bold") + Text(f" {chance:6.1%}  {path}")
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
