"""What a person sees of an export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from headstart.terminal import Rows, console, one_line, plural

if TYPE_CHECKING:
    from headstart.export.frame import Exported

FEW = 8  # names in a line


def show_export(done: Exported) -> None:
    """`headstart export`: files with their sizes, what goes in and out, how near it comes, what opens it."""
    rows = Rows()
    rows.add("wrote", Text(one_line(str(done.path)), "bold green") + f"  {_size(sum(done.files.values()))}", whole=True)
    if [*done.files] != [done.path]:
        for file, count in done.files.items():
            rows.add("", f"{one_line(str(file.relative_to(done.path)))}  {_size(count)}", whole=True)
    rows.add("takes", done.expects)
    if done.node == "logits":
        rows.add("gives", f"logits (N, {len(done.classes)}), whose softmax is the probability: {_names(done.classes)}")
    else:
        rows.add("holds", f"the trunk, up to its layer {done.node}; the head is your own")
    allowed = "" if done.tolerance is None else f"; up to {done.tolerance:g} is let through"
    images = f"{done.images} image{plural(done.images)}"
    rows.add("difference", f"{done.max_difference:.1e} of the largest value at most, on {images}{allowed}")
    if loss := done.loss:
        unseen = "that the model was fitted on" if loss.fitted_on else "not used to calibrate"
        rows.add(
            "accuracy",
            f"{loss.after.value:.1%} in int8, {loss.before.value:.1%} in fp32 on {loss.before.images} photos {unseen}; "
            f"{loss.agreement:.1%} get the same label from both; ranges from {loss.calibration} photos",
        )
    rows.add("open it with", one_line(done.opens), whole=True)
    rows.show(console())


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(one_line, names[:FEW])) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
