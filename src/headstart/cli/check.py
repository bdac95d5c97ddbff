"""`headstart check`: what in a data set cannot be read, is repeated, or is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from headstart.cli import options
from headstart.cli.fit import fit
from headstart.cli.terminal import FEW, Rows, console, names_of_classes, quoted
from headstart.core.counts import counted
from headstart.core.text import all_shortened, one_line
from headstart.core.types import Problem

if TYPE_CHECKING:
    from headstart.data.check import Health, Repeat


def check(
    data: options.Data,
    label: options.LabelColumn = None,
    image: options.ImageColumn = None,
    group: options.GroupColumn = None,
    split: options.SplitColumn = None,
    label_from: options.LabelFrom = None,
    as_json: options.Json = False,
) -> None:
    """Look for unreadable, wrongly named and repeated images, tiny classes and imbalance."""
    from headstart.data.check import check as check_data

    columns = options.again(fit, label=label, image=image, group=group, split=split, label_from=label_from)
    health = check_data(options.source(data, label, image, group, split, label_from))
    options.answer_with(health.as_json(), as_json, lambda: _show(health, data, columns))


def _show(health: Health, data: str, columns: str) -> None:
    """What `headstart check` found."""
    out, rows = console(), Rows()
    sizes = sorted(health.classes.items(), key=lambda item: -item[1])
    rows.add("images", f"{health.images} in {counted(len(sizes), 'class')}: {names_of_classes([*health.classes])}")
    if sizes:
        largest, smallest = sizes[0], sizes[-1]
        short = all_shortened(health.classes)
        text = f"{short[largest[0]]} has most ({largest[1]}), {short[smallest[0]]} fewest ({smallest[1]})"
        rows.add("balance", Text(text, "yellow" if health.imbalanced else ""))
    if len(health.splits) > 1:
        rows.add("parts", ", ".join(f"{name or 'none'} {sum(of.values())}" for name, of in health.splits.items()))
    if health.levels:
        black, white = health.levels
        rows.add("depth", f"more than 8 bits: {black:g} is black and {white:g} is white in all images")
    if health.tiny_classes:
        names = names_of_classes(health.tiny_classes)
        rows.add("tiny classes", Text(f"{len(health.tiny_classes)}: {names}", "yellow"))
    rows.show(out)
    _list(out, "cannot be read", health.unreadable)
    _list(out, "with a name that does not fit the content (read all the same)", health.wrong_names)
    _list(out, "passed over", health.passed_over)
    _repeats(out, "exact copies", health.duplicates)
    _repeats(out, "near copies of each other", health.near_duplicates)
    fine = not (
        health.unreadable or health.wrong_names or health.passed_over or health.duplicates or health.near_duplicates
    )
    from headstart.data.hold_out import FEWEST

    if fine:
        out.print(Text("\nEvery image can be read, and none is repeated.", "green"))
    if sum(count >= FEWEST for count in health.classes.values()) < 2:
        out.print(Text(f"\nNothing to fit yet: that needs two classes with {FEWEST} images each.", "yellow"))
        return
    last = Rows()
    last.add("next", Text(f"headstart fit {quoted(data)}{columns}", "cyan"), whole=True)
    out.print()
    last.show(out)


def _list(out: Console, title: str, problems: Sequence[Problem]) -> None:
    if problems:
        out.print(Text(f"\n{len(problems)} {title}", "bold yellow"))
        for problem in problems[:FEW]:
            out.print(
                Text(f"  {problem.kind:<11} {one_line(problem.name)}  ") + Text(one_line(problem.detail), "dim"),
                soft_wrap=True,
            )
        if len(problems) > FEW:
            out.print(Text(f"  and {len(problems) - FEW} more: --json has them all", "dim"))


def _repeats(out: Console, title: str, repeats: Sequence[Repeat]) -> None:
    if not repeats:
        return
    images = sum(len(repeat.names) for repeat in repeats)
    out.print(Text(f"\n{images} {title}, in {counted(len(repeats), 'group')}", "bold yellow"))
    worst = {"across classes": 0, "across splits": 1, "same class": 2}
    for repeat in sorted(repeats, key=lambda repeat: worst[repeat.relation])[:FEW]:
        names = "  =  ".join(one_line(name) for name in repeat.names[:3]) + (
            f"  … {len(repeat.names)} in all" if len(repeat.names) > 3 else ""
        )
        out.print(
            Text(f"  {repeat.relation:<15}", "red" if worst[repeat.relation] < 2 else "dim") + Text(names),
            soft_wrap=True,
        )
    if len(repeats) > FEW:
        out.print(Text(f"  and {counted(len(repeats) - FEW, 'more group')}: --json has them all", "dim"))
