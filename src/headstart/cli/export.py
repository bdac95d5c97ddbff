"""`headstart export`: a model for another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from headstart.cli import options
from headstart.cli.terminal import FEW, Rows, console
from headstart.core.counts import counted
from headstart.core.text import one_line

if TYPE_CHECKING:
    from headstart.export.export import Exported


def export(
    model: options.Model,
    to: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="onnx, openvino, keras, savedmodel, tflite, torch or web; or weights for keras-applications, "
            "torchvision or timm.",
        ),
    ],
    out: Annotated[str | None, typer.Option(metavar="PATH", help="Where it is written.")] = None,
    takes: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="photos: of any size, cropped and scaled inside; pixels: squares of the network's size; by default "
            "photos, where the format can.",
            show_default=False,
        ),
    ] = "auto",
    int8: Annotated[bool, typer.Option("--int8", help="tflite: in int8, with labelled photos as --data.")] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Labelled photos for int8: its ranges, and what it costs.")
    ] = None,
    weights: options.Weights = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write a model for another runtime, open it there, and hold its answers against the model's own."""
    from headstart.export.formats import default_path, find_format, input_of, target_of

    found = find_format(to, int8=int8)
    input_of(found, takes, int8=int8)
    path = default_path(found, model, int8=int8) if out is None else out
    target_of(found, path, overwrite=overwrite)  # before anything is loaded
    classifier = options.open_model(model, weights, "auto", "fp32")
    done = classifier.export(to, path, takes=takes, int8=int8, data=data, overwrite=overwrite)
    options.answer_with(done.as_json(), as_json, lambda: _show(done))


def _show(done: Exported) -> None:
    """`headstart export`: files with their sizes, what goes in and out, how near it comes, what opens it."""
    rows = Rows()
    rows.add("wrote", Text(one_line(str(done.path)), "bold green") + f"  {_size(sum(done.files.values()))}", whole=True)
    if [*done.files] != [done.path]:
        for file, count in done.files.items():
            rows.add("", f"{one_line(str(file.relative_to(done.path)))}  {_size(count)}", whole=True)
    rows.add("takes", done.expects)
    if done.format == "web":
        rows.add("gives", f"the label, calibrated probabilities, and whether it is unknown: {_names(done.classes)}")
    elif done.outputs:
        numbers, others = ", ".join(done.outputs[:2]), ", ".join(done.outputs[2:])
        rows.add("gives", f"{numbers} (N, {len(done.classes)}): {_names(done.classes)}; {others} (N,)")
    elif done.node == "logits":
        rows.add("gives", f"logits (N, {len(done.classes)}), whose softmax is the probability: {_names(done.classes)}")
    else:
        rows.add("holds", f"the trunk, up to its layer {done.node}; the head is your own")
    allowed = "" if done.tolerance is None else f"; up to {done.tolerance:g} is allowed"
    images = counted(done.images, "golden image")
    rows.add("difference", f"{done.max_difference:.1e} at most, relative to the largest logit, on {images}{allowed}")
    if loss := done.loss:
        unseen = "that the model was fitted on" if loss.fitted_on else "not used to calibrate"
        rows.add(
            "accuracy",
            f"{loss.after.value:.1%} in int8, {loss.before.value:.1%} in fp32 on {loss.before.images} photos {unseen}; "
            f"{loss.agreement:.1%} get the same label from both; ranges from {loss.calibration} photos",
        )
    if done.note:
        rows.add("holds", done.note)
    rows.add("open it with", one_line(done.opens), whole=True)
    rows.show(console())


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(one_line, names[:FEW])) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
