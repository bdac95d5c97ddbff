"""What a person sees of a training: readable in 80 columns without colours, quiet off a terminal."""

from __future__ import annotations

import io
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from rich.text import Text

from headstart.cli.ended_early import EndedEarlyError, ended_early
from headstart.cli.figures import still_falls
from headstart.core.progress import Shown
from headstart.engines.registry import torch_engine
from headstart.train.callbacks import Watch
from headstart.train.checkpoint import Terminated
from headstart.train.overfitting_watch import Verdict
from headstart.train.protocol import Epoch
from headstart.train.screen import HEADER, LINES, TrainingScreen, epoch_line, shows_training, training_screen
from headstart.train.training_record import TrainingRecord
from making import Shell

NAN = float("nan")


def history(*losses: float, error: float = 0.2) -> list[Epoch]:
    return [Epoch(n, 0.9**n, 0.1, loss, error, 2e-4, 3.25) for n, loss in enumerate(losses)]


def terminal(width: int = 80) -> Console:
    """A terminal without colours that remembers what it was shown."""
    return Console(record=True, force_terminal=True, width=width, file=io.StringIO(), no_color=True, highlight=False)


def lines_of(out: Console) -> list[str]:
    """What was printed, bars that were drawn over included: a line may begin with one."""
    return [line.rstrip() for line in out.export_text(clear=False).splitlines() if line.strip()]


def epochs_of(out: Console) -> list[str]:
    """Of every line that tells of an epoch, the part from its number on."""
    found = [re.search(r"\d+/\d+ +[\d.]+ +[\d.]+% .*e-\d\d .*", line) for line in lines_of(out)]
    return [line.group() for line in found if line]


def test_an_epoch_is_one_line_with_training_beside_validation() -> None:
    before, last = history(0.5, 0.4)
    line = epoch_line([before, replace(last, val_calibrated=0.375)], 8).plain
    assert line.split() == [
        "2/8", "0.9000", "10.0%", "0.4000", "20.0%", "0.3750", "2.0e-04", "3.2", "←", "best"
    ]  # fmt: skip
    for title, value in (
        ("epoch", "2/8"),
        ("calibrated", "0.3750"),
        ("rate", "2.0e-04"),
        ("s", "3.2"),
    ):  # each ends below its title
        assert HEADER[1].index(f" {title}") + 1 + len(title) == line.index(value) + len(value)
    for place, value in enumerate(("10.0%", "20.0%")):
        assert [n for n in range(80) if HEADER[1].startswith("error", n)][place] + 5 == line.index(value) + len(value)


@pytest.mark.parametrize(
    "last",
    [
        Epoch(9998, 123.45678, 1.0, 123.4, 1.0, 1.25e-10, 86399.9, 123.45678),
        Epoch(0, math.inf, 0.5, math.inf, 0.5, 10.0, 0.0),
        Epoch(0, NAN, NAN, NAN, NAN, 1e-3, 0.0),
    ],
)
def test_no_line_is_longer_than_80_columns(last: Epoch) -> None:
    assert Text(epoch_line([last], 9999).plain).cell_len <= 80
    assert max(map(len, HEADER)) <= 80


def test_the_best_is_the_lowest_calibrated_loss() -> None:
    epochs = [replace(epoch, val_calibrated=1 - epoch.val_loss) for epoch in history(0.5, 0.505, 0.4)]
    assert [number for number in (1, 2, 3) if "best" in epoch_line(epochs[:number]).plain] == [1, 2]


def test_only_an_epoch_below_all_before_it_is_marked() -> None:
    epochs = history(0.5, 0.6, 0.5, 0.4)
    marked = [number for number in range(1, 5) if "best" in epoch_line(epochs[:number]).plain]
    assert marked == [1, 4]
    assert "best" not in epoch_line(history(NAN)).plain  # nothing was validated
    assert epoch_line(history(NAN)).plain.count("–") == 3


def test_a_training_as_it_is_seen_on_a_terminal() -> None:
    torch_engine()
    from headstart.train.torch.plain_loop import train_pytorch
    from trainers import SGD, batches_of, small_task

    out, recipe = terminal(), replace(SGD, epochs=3)
    task = small_task(recipe)
    with training_screen(recipe.epochs, out) as screen:
        screen("views", 3, 12)
        screen.say("A sentence.")
        (line,) = bar_of(screen)
        assert line.split()[0] == "views"
        assert "3/12" in line
        train_pytorch(task, batches_of(task), batches_of(task, seed=1, shuffle=False), recipe, [screen])
        (line,) = bar_of(screen)
        assert line.startswith("epoch 3 of 3 ")
        assert "15/15 loss " in line
        assert line.endswith("0:00:00")
    told = epochs_of(out)
    assert [line.split()[0] for line in told] == ["1/3", "2/3", "3/3"]
    assert "← best" in told[0]
    assert [sum(line.endswith(header) for line in lines_of(out)) for header in HEADER] == [1, 1]
    assert sum(line.endswith("A sentence.") for line in lines_of(out)) == 1


def bar_of(screen: TrainingScreen) -> list[str]:
    """The live part as it would be drawn now."""
    page = Console(width=80, file=io.StringIO(), record=True)
    assert screen._bar is not None
    page.print(screen._bar.get_renderable())
    return lines_of(page)


def test_the_watch_speaks_as_soon_as_the_curves_have_turned() -> None:
    out = terminal()
    with training_screen(8, out) as screen:
        watch = Watch(screen.say)
        epochs = history(0.5, 0.4, 0.6, 0.8, 1.0, 1.2)
        for number in range(1, 7):
            watch.epoch(epochs[:number])
            screen.epoch(epochs[:number])
    lines = lines_of(out)
    (said,) = [place for place, line in enumerate(lines) if "Overfitting since epoch 3: validation" in line]
    told = [place for place, line in enumerate(lines) if line in {each.rjust(len(line)) for each in epochs_of(out)}]
    assert told[0] < said < told[-1]


def test_a_training_that_goes_on_shows_what_was_before_and_another_begins_anew() -> None:
    out = terminal()
    epochs = history(0.5, 0.4, 0.3)
    with training_screen(3, out) as screen:
        screen.epoch(epochs[:2])
        screen.epoch(epochs)
        screen.epoch(epochs[:1])
    numbers = [line.split()[0] for line in epochs_of(out)]
    assert numbers == ["1/3", "2/3", "3/3", "1/3"]
    assert sum(line.endswith(HEADER[0]) for line in lines_of(out)) == 2


def test_of_many_epochs_some_are_shown() -> None:
    out, epochs = terminal(), history(*(1 / n for n in range(1, 201)))
    with training_screen(200, out) as screen:
        for number in range(1, 201):
            screen.epoch(epochs[:number])
    numbers = [int(line.split("/")[0]) for line in epochs_of(out)]
    assert numbers == list(range(5, 201, 5))
    assert len(numbers) <= LINES


def test_off_a_terminal_there_is_a_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    with training_screen(2) as screen:
        screen("views", 1, 2)
        screen.step(0, 2, 0.5)
        screen.epoch(history(0.5))
        screen.epoch(history(0.5, 0.4))
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[0] for line in err.splitlines() if "e-04" in line] == ["1/2", "2/2"]
    assert "\x1b" not in err


def test_for_machines_only_sentences_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with training_screen(2, quiet=True) as screen:
        screen("views", 1, 2)
        screen.step(0, 2, 0.5)
        screen.epoch(history(0.5))
        assert capsys.readouterr() == ("", "")
        screen.say("Out of memory;\nhalf as many.")
    assert capsys.readouterr() == ("", "headstart: Out of memory;\\nhalf as many.\n")


@pytest.mark.parametrize("name", ["LOCAL_RANK", "NODE_RANK"])
def test_of_several_processes_the_first_alone_speaks(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv(name, "1")
    with training_screen(2) as screen:
        screen("views", 1, 2)
        screen.epoch(history(0.5))
        screen.say("Heard by nobody.")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv(name, "0")
    with training_screen(2) as screen:
        screen.epoch(history(0.5))
        screen.say("Heard.")
    told = capsys.readouterr()
    assert told.out == ""
    assert "1/2" in told.err
    assert "Heard." in told.err


@pytest.mark.parametrize(
    ("error", "checkpoint", "code", "sentence"),
    [
        (Terminated("Ended after step 5."), True, 143, "Ended after step 5."),
        (KeyboardInterrupt(), True, 130, "interrupted; --resume goes on after the last whole epoch."),
        (KeyboardInterrupt(), False, 130, "interrupted; no epoch was whole."),
    ],
)
def test_an_early_end_says_how_to_go_on(
    error: BaseException, checkpoint: bool, code: int, sentence: str, tmp_path: Path
) -> None:
    if checkpoint:
        (tmp_path / "checkpoint-00000005.safetensors").touch()
    with pytest.raises(EndedEarlyError) as caught, ended_early(str(tmp_path)):
        raise error
    assert (caught.value.exit_code, caught.value.args[0]) == (code, sentence)


@pytest.mark.parametrize(
    ("losses", "before", "best", "stopped", "falls"),
    [
        ([1.0, 0.9], math.inf, 1, "", True),
        ([1.0, 0.99], math.inf, 1, "", False),  # by less than is told from nothing
        ([0.9, 1.0], math.inf, 0, "", False),
        ([1.0, 0.9], math.inf, 1, "somebody had enough", False),
        ([0.9], 1.0, 0, "", True),
        ([0.99], 1.0, 0, "", False),
        ([0.9], math.inf, 0, "", True),
    ],
)
def test_a_training_that_could_go_on_is_told_from_one_that_has_ended(
    losses: list[float], before: float, best: int, stopped: str, falls: bool
) -> None:
    epochs = tuple(Epoch(n, 0.5, 0.1, 0.5, 0.1, 1e-3, 1.0, loss) for n, loss in enumerate(losses))
    record = TrainingRecord(
        trainer="pytorch", recipe={}, rate=1e-3, epochs=epochs, best=best, stopped=stopped,
        verdict=Verdict("healthy", ""), moving=0,
    )  # fmt: skip
    assert still_falls(record, before) == falls


def test_a_notebook_gets_lines_without_what_moves_a_cursor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kernel says that it is a terminal, and would show each state of a bar as a line of its own."""
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.setenv(name, "1")

    @shows_training
    def training(*, progress: Shown = True) -> None:
        assert isinstance(progress, TrainingScreen)
        progress.epochs = 2
        progress("images", 5, 5)
        for number in range(4):
            progress.step(number, 4, 1.0)
            if number % 2:
                progress.epoch(history(0.5, 0.4)[: (number + 1) // 2])

    training()
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "images 5/5" in printed
    assert "epoch 2 of 2 4/4" in printed
    left = [line.rpartition("\r")[2].split() for line in printed.split("\n")]  # what is seen in the end
    assert [line[0] for line in left if line] == ["training", "epoch", "1/2", "2/2"]
    assert not left[-1]


def test_off_a_terminal_and_a_notebook_python_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    @shows_training
    def training(*, progress: Shown = True) -> None:
        assert progress is None

    training()
    assert capsys.readouterr() == ("", "")


def test_a_command_that_writes_to_a_file_prints_each_epoch_once(photos: Path, tmp_path: Path, shell: Shell) -> None:
    torch_engine()
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"preset": "scratch", "epochs": 3}')
    small = ("--network", "mlp", "--hidden", "none", "--pixels", 8)
    done = shell("train", photos, *small, "--recipe", recipe, "--out", tmp_path / "model")
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert [sum(line.endswith(header) for line in lines) for header in HEADER] == [1, 1]
    assert re.findall(r"^ *(\d)/3 ", done.err, re.MULTILINE) == ["1", "2", "3"]
