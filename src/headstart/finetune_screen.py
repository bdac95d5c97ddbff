"""What a person sees at the end of `headstart finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.text import Text

from headstart.card import difference, moved
from headstart.terminal import Rows, accuracy_text, console, one_line, plural, quoted
from headstart.training_screen import still_falls

if TYPE_CHECKING:
    from headstart.classifier import Classifier


def show(found: Classifier, answer: Mapping[str, Any]) -> None:
    """Before and after, what was kept and why, what the curves say, where it lies, how to go on."""
    rows, images, verdict, epochs = Rows(), answer["images"], answer["verdict"], len(answer["epochs"])
    rows.add("photos", f"{images['train']} trained on, {images['validation']} chosen by, {images['test']} measured on")
    rows.add("before", _figures(answer["before"]))
    rows.add("after", _figures(answer["after"]))
    rows.add("difference", difference(answer))
    _add_choice(rows, answer)
    rows.add("curves", Text(verdict["sentence"], "" if verdict["kind"] == "healthy" else "yellow"))
    early = f". It ended early: {answer['stopped']}" if answer["stopped"] else ""
    rows.add("training", f"{epochs} epoch{plural(epochs)} by {answer['trainer']}, rate {answer['rate']:.2g}{early}")
    rows.add("moved", moved(answer, sum(found.blueprint.parameters().values())))
    stages = " + ".join(f"{name} {took:.1f}" for name, took in answer["stages"].items() if took >= 0.05)
    rows.add("seconds", Text(f"{answer['seconds']:.1f}", "bold") + Text(f"  = {stages}", "dim"))
    rows.add("log", Text(one_line(answer["log"])), whole=True)
    rows.add("model", Text(one_line(answer["model"]), "bold"), whole=True)
    rows.add("next", Text(f"headstart predict {quoted(answer['model'])} PHOTO …", "cyan"), whole=True)
    rows.show(console())


def _figures(part: Mapping[str, Any]) -> Text:
    if part["accuracy"] is None:
        return Text("not measured: no photo was held out", "yellow")
    return accuracy_text(part["accuracy"], *part["interval"])


def _add_choice(rows: Rows, answer: Mapping[str, Any]) -> None:
    before, after = (answer[side]["val_calibrated"] for side in ("before", "after"))
    if answer["best"] < 0:
        why = f"no epoch had a lower calibrated validation loss than its {before:.4f}"
        rows.add("kept", Text(f"{answer['chosen']}: {why}", "bold"))
        return
    rows.add("kept", Text(f"{answer['chosen']}: calibrated validation loss {before:.4f} → {after:.4f}", "bold"))
    if answer["refit"]:
        rows.add("", "It was trained once more as long, with the photos that it was chosen by." + _why_longer(answer))
    if still_falls(answer, before):
        rows.add("", "It still fell in the last epoch: a recipe with more epochs may do more.")


def _why_longer(answer: Mapping[str, Any]) -> str:
    """Where another epoch than the last was best."""
    best = answer["best"] + 1
    if answer["kept"] == best:
        return ""
    loss = answer["epochs"][answer["best"]]["val_calibrated"]
    return f" Epoch {best} had {loss:.4f}, which so few cannot tell from the last."
