"""The command `finetune`: its answer, where it writes, and nothing lost however it ends."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.cli.finetune import show
from headstart.model.model_card import difference, model_card, moved
from headstart.model.records import FinetuneRecord, ImageCounts, Side, ViewsRecord
from headstart.train.checkpoint import alone, unfinished
from headstart.train.overfitting_watch import Verdict
from headstart.train.protocol import Epoch
from making import SHAPES, Shell, record_of
from studio_fixtures import all_processors

HEADSTART = [sys.executable, "-m", "headstart"]
HEAD = {"unfreeze": "head", "epochs": 3, "augmentation": "none", "views": 1, "learning_rate": 1e-3, "averaging": "none"}

KEYS = {
    "before", "after", "chosen", "verdict", "accuracy", "interval", "model", "epochs", "stopped", "trainer", "recipe",
    "cut", "views", "seconds", "stages", "kept", "refit", "p", "best", "moving", "images", "rate", "tested_on",
    "classes", "log", "plot", "folds",
}  # fmt: skip


@pytest.fixture(scope="module")
def given(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of few pixels. Not to be changed: copy it first."""
    where = tmp_path_factory.mktemp("given") / "model"
    hs.fit(str(photos), pixels=32, cache=False).save(where)
    return where


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write(tmp_path / "recipe.json")


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(HEAD | changes))
    return path


# --- the answer -------------------------------------------------------------------------------------------------------


def test_the_answer_in_json_and_what_is_left_behind(
    shell: Shell, photos: Path, given: Path, recipe: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(given, tmp_path / "model"))
    before = (model / "model.safetensors").read_bytes()
    done = shell("finetune", model, photos, "--recipe", recipe, "--json")
    assert done.code == 0
    answer = done.json
    assert set(answer) >= KEYS
    new = tmp_path / "model-finetuned"
    assert (answer["model"], answer["classes"]) == (str(new), list(SHAPES))
    assert (answer["accuracy"], answer["interval"]) == (answer["after"]["accuracy"], answer["after"]["interval"])
    assert answer["recipe"]["epochs"] == len(answer["epochs"]) == 3
    assert (model / "model.safetensors").read_bytes() == before  # the one that was given is as it was

    found = hs.load(new)
    assert record_of(found)["finetune"]["chosen"] == answer["chosen"]
    assert shell("evaluate", new, photos, "--json").json["accuracy"] == answer["accuracy"]
    (log,) = [path for path in Path(answer["log"]).iterdir() if path.suffix == ".csv"]
    assert Path(answer["log"]) == tmp_path / "model-finetuned.training"
    with log.open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["number"]) for line in lines] == [epoch["number"] for epoch in answer["epochs"]] == [0, 1, 2]
    assert answer["folds"] == 5  # of which this is the first
    assert not unfinished(answer["log"])

    # the same again is allowed, over the model and beside the log, where that is asked for
    for out in (new, model):
        refused = shell("finetune", model, photos, "--recipe", recipe, "--out", out)
        assert (refused.code, "is a model already" in refused.err) == (2, True)
    again = shell("finetune", model, photos, "--recipe", recipe, "--out", model, "--overwrite", "--json")
    assert (again.code, again.json["model"]) == (0, str(model))
    assert "finetune" in record_of(hs.load(model))
    assert again.json["after"] == answer["after"]


def test_the_answer_in_words(shell: Shell, photos: Path, given: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    done = shell("finetune", given, photos, "--recipe", recipe, "--out", out)
    assert done.code == 0
    lines = {line[:15].strip(): line[15:] for line in done.out.splitlines() if line[:15].strip()}
    assert list(lines) == ["split", "before", "after", "difference", "kept", "curves", "gap", "training", "trained",
                           "seconds", "log", "plot", "model", "next"]  # fmt: skip
    story = record_of(hs.load(out))["finetune"]
    assert lines["kept"].startswith(f"{story['chosen']}: ")
    assert lines["after"].startswith(f"{story['after']['accuracy']:.1%}   95 % interval")
    assert lines["curves"] == story["verdict"]["sentence"]
    assert lines["next"] == f"headstart predict {out} PHOTO …"
    epochs = [line for line in done.err.splitlines() if line and not line.startswith("headstart: ")]
    assert len(epochs) >= 2 + len(story["epochs"])  # a head of two lines, and one an epoch; of each fold
    assert "━" not in done.err  # no bar off a terminal
    card = (out / "README.md").read_text()
    assert "## Fine-tuning" in card
    assert f"| kept | {story['chosen']}" in card
    assert "headstart finetune MODEL DATA" in card


@pytest.mark.parametrize(("flags", "expected"), [((), True), (("--refit",), True), (("--no-refit",), False)])
def test_the_validation_photos_may_be_left_out_in_the_end(
    flags: tuple[str, ...], expected: bool, shell: Shell, photos: Path, given: Path, recipe: Path, tmp_path: Path
) -> None:
    answer = shell("finetune", given, photos, "--recipe", recipe, "--out", tmp_path / "new", *flags, "--json").json
    assert answer["best"] >= 0
    assert answer["refit"] == expected


BEFORE = Side(0.9, (0.8, 0.95), 0.3, 0.4)
AFTER = Side(0.95, (0.86, 0.98), 0.3, 0.3)


def epochs_of(*losses: float) -> tuple[Epoch, ...]:
    return tuple(Epoch(n, 0.5, 0.1, 0.5, 0.1, 1e-3, 1.0, loss) for n, loss in enumerate(losses))


def record_with(**changes: Any) -> FinetuneRecord:
    """What a model says of a fine-tuning."""
    usual = FinetuneRecord(
        before=BEFORE, after=AFTER, chosen="fine-tuned, epoch 2", best=1, kept=2, p=0.03, refit=False,
        trainer="keras", recipe={"epochs": 2}, rate=2e-4, epochs=epochs_of(0.35, 0.3), stopped="",
        verdict=Verdict("healthy", "Healthy."), moving=2_000_000, cut="blocks.4", views=ViewsRecord(4, 12.0),
        images=ImageCounts(70, 10, 100), seconds={"views": 1.0},
    )  # fmt: skip
    return replace(usual, **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "5.0 points higher, more than chance (McNemar, mid-p 0.03)"),
        ({"p": 0.4}, "5.0 points higher, which may be chance (McNemar, mid-p 0.4)"),
        ({"p": 0.0001}, "5.0 points higher, more than chance (McNemar, mid-p < 0.001)"),
        ({"after": replace(AFTER, accuracy=0.85)}, "5.0 points lower, more than chance (McNemar, mid-p 0.03)"),
        ({"after": replace(AFTER, accuracy=0.9), "p": 1.0}, "as accurate (McNemar, mid-p 1)"),
        ({"kept": 0, "p": 1.0}, "none: it is the model that was given"),
        ({"before": replace(BEFORE, accuracy=None), "p": None}, "not known: there is no test set"),
    ],
)
def test_the_difference_in_words(changes: dict[str, Any], sentence: str) -> None:
    assert difference(record_with(**changes)) == sentence


def test_what_moved_in_words() -> None:
    below = "2.00 of 4.00 million weights, above blocks.4; the part below ran once for each of 4 views a photo"
    assert moved(record_with(), 4_000_000) == below
    assert moved(record_with(cut=""), 4_000_000).endswith("every step went through the whole network")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            [
                "fine-tuned, epoch 2: calibrated loss on held-out images 0.4000 → 0.3000",
                "a recipe with more epochs",
                "2 epochs, trainer keras",
            ],
        ),
        ({"stopped": "Enough."}, ["It ended early: Enough."]),
        ({"stopped": "Enough.", "refit": True}, ["trained once more on all photos, for as many epochs."]),
        (
            {"best": 0, "refit": True},
            ["for as many epochs. Epoch 1 had 0.3500; so few images cannot tell the two apart."],
        ),
        ({"epochs": epochs_of(0.301, 0.3)}, ["held-out images 0.4000 → 0.3000"]),
        (
            {"best": -1, "kept": 0, "chosen": "the given model"},
            ["the given model: no epoch had a lower calibrated loss on held-out images than its 0.4000"],
        ),
        (
            {"kept": 0, "chosen": "the given model", "tuned_loss": 0.45},
            [
                "its calibrated loss on held-out images is 0.4000, that of the fine-tuned 0.4500",
                "none: it is the model",
            ],
        ),
        (
            {"folds": 5, "images": ImageCounts(40, 40, 10), "p": 0.03},
            [
                "training set 40, all of it held out in turn by 5 trainings, test set 10",
                "40 photos cannot show a small",
            ],
        ),
        (
            {"folds": 2, "images": ImageCounts(300, 120, 10), "p": 0.03},
            ["training set 300, 120 of it held out in turn by 2 trainings, test set 10"],
        ),
        (
            {"before": Side(None, None, None, 0.4), "after": Side(None, None, None, 0.3), "p": None},
            ["not measured: there is no test set", "not known"],
        ),
    ],
)
def test_the_screen_and_the_card_say_what_became_of_it(
    changes: dict[str, Any], words: list[str], given: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = hs.load(given)
    finetuned = record_with(**changes)
    model = replace(model, record=replace(model.record, finetune=finetuned))
    show(model, {"seconds": 3.0, "log": "a b.training", "plot": "a b.training/training.png", "model": "a b"})
    out = capsys.readouterr().out
    for each in words:
        assert each in out
    assert "headstart predict 'a b' PHOTO" in out
    assert ("more epochs" in out) == (changes == {} or "p" in changes)
    card = model_card(model)
    assert difference(finetuned) in card.replace("\\", "")
    assert finetuned.chosen in card


# --- bad input, before any work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--recipe", "carefull"), "There is no recipe 'carefull'. Did you mean careful"),
        (("--recipe", "RECIPE"), "A recipe has no field 'epoch'. Did you mean epochs?"),
        (("--trainer", "torch"), "There is no trainer 'torch'. Did you mean pytorch?"),
        (("--devices", "2"), "Several are Lightning's: --trainer lightning"),
        (("--out", __file__), "is a file. A model is a folder"),
        (("--out", str(Path(__file__).parent)), "is a folder with other things in it"),
        (("--holdout", "2"), "--holdout"),
    ],
)
def test_a_wrong_option_costs_no_work(
    shell: Shell, photos: Path, given: Path, home: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"epoch": 3}')
    named = [str(wrong) if argument == "RECIPE" else argument for argument in arguments]
    out = [] if "--out" in arguments else ["--out", tmp_path / "new"]
    done = shell("finetune", given, photos, *out, *named)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert sentence in done.err
    assert not (home / "features").exists()
    assert not (tmp_path / "new").exists()


def test_a_network_without_a_head_of_ones_own_is_refused(shell: Shell, photos: Path, tmp_path: Path) -> None:
    done = shell("finetune", "efficientnet_lite0", photos, "--out", tmp_path / "new")
    assert (done.code, done.out) == (2, "")
    assert "Fit a head on it first: headstart fit" in done.err


def test_two_runs_into_one_folder_and_an_unfinished_one(
    shell: Shell, photos: Path, given: Path, recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "new.training"
    command = ("finetune", given, photos, "--recipe", recipe, "--out", tmp_path / "new")
    with alone(folder):
        done = shell(*command)
    assert (done.code, done.out) == (2, "")
    assert f"Another training writes to '{folder}'" in done.err
    assert [path.name for path in folder.iterdir() if path.suffix == ".csv"] == []
    (folder / "checkpoint-00000001.safetensors").touch()
    done = shell(*command)
    assert (done.code, done.out) == (2, "")
    assert "--resume" in done.err
    assert not (tmp_path / "new").exists()


def test_what_is_no_model_is_told_what_makes_one(shell: Shell, photos: Path) -> None:
    """Other commands take backbones in its place, which have no head to go on from."""
    done = shell("finetune", "nowhere/model", photos)
    assert (done.code, done.out) == (2, "")
    assert "There is no model 'nowhere/model'. Make one with: headstart fit" in done.err
    assert "cifar_resnet" not in done.err
    assert "is a folder, but no model: it has no config.json" in shell("finetune", photos, photos).err


def test_train_lists_the_sets_of_photos_and_of_rows(shell: Shell) -> None:
    done = shell("train", "nowhere")
    assert (done.code, done.out) == (2, "")
    assert "No such file or folder: 'nowhere'. Known: breast_cancer, digits, elpv, iris, mnist, wine." in done.err


# --- nothing is lost --------------------------------------------------------------------------------------------------


def start(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    command = [*HEADSTART, *map(str, arguments)]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(env or {})}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def once_saved(process: subprocess.Popen[str], folder: Path, after: int) -> int:
    """Wait until there is a checkpoint of a later step than ``after``, and give its step."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        steps = [int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.safetensors")]
        if max(steps, default=0) > after:
            return max(steps)
        time.sleep(0.002)
    process.kill()
    raise AssertionError(f"no checkpoint came: {process.communicate()}")


@pytest.mark.slow
def test_killed_and_resumed_it_is_bit_by_bit_the_same(shell: Shell, photos: Path, given: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path / "recipe.json", epochs=24, batch_size=8, patience=0, dropout=0.3, averaging="ema")
    new, folder = tmp_path / "new", tmp_path / "new.training"
    command = ("finetune", given, photos, "--recipe", recipe, "--json", "--out")

    asked = start(*command, new)
    once_saved(asked, folder, 0)
    asked.send_signal(signal.SIGTERM)
    told = asked.communicate()
    assert (asked.returncode, told[0]) == (143, "")
    assert "Ended after step " in told[1]
    assert "; --resume goes on." in told[1]
    assert "Traceback" not in told[1]
    assert not new.exists()

    step = max(int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.safetensors"))
    killed = start(*command, new, "--resume")
    assert once_saved(killed, folder, step) > step
    killed.kill()
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not new.exists()
    assert unfinished(folder)

    whole = shell(*command, tmp_path / "whole")  # which nobody ends
    last = shell(*command, new, "--resume")
    assert (whole.code, last.code) == (0, 0), last.err
    losses = [[epoch["val_loss"] for epoch in each.json["epochs"]] for each in (whole, last)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 24
    assert (new / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert not unfinished(folder)


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        pytest.param(signal.SIGTERM, 143, "Ended after step ", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, "interrupted; --resume goes on", marks=pytest.mark.slow),
    ],
)
def test_lightning_ends_as_the_others_do_where_every_step_ends_an_epoch(
    tmp_path: Path, number: signal.Signals, code: int, said: str
) -> None:
    recipe, new = tmp_path / "recipe.json", tmp_path / "new"
    recipe.write_text(json.dumps({"preset": "table", "epochs": 5000, "batch_size": 4096}))
    process = start("train", "iris", "--trainer", "lightning", "--recipe", recipe, "--out", new)
    once_saved(process, tmp_path / "new.training", 2)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert said in err
    assert not new.exists()


# --- several processes ------------------------------------------------------------------------------------------------


def test_a_process_that_follows_says_and_writes_nothing(
    shell: Shell, photos: Path, given: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    done = shell("finetune", given, photos, "--recipe", recipe, "--out", tmp_path / "new", "--json")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


@pytest.mark.slow
@pytest.mark.parametrize("several", ["devices", "nodes", "workers"])
def test_two_processes_are_as_one_and_answer_once(
    shell: Shell, photos: Path, given: Path, tmp_path: Path, several: str
) -> None:
    """Over gloo; the image that is left over in an epoch joins its last batch."""
    if several == "workers":
        pytest.importorskip("ray", reason="needs the extra 'ray'")
        if (os.cpu_count() or 1) < 2:
            pytest.skip("each of two workers wants a processor")
    recipe = write(
        tmp_path / "recipe.json", unfreeze="blocks.6", optimiser="momentum", batch_size=23, learning_rate=0.01,
        dropout=0.3, label_smoothing=0.1, averaging="ema", clip=0.0, precision="fp32",
    )  # fmt: skip
    command = ("finetune", given, photos, "--recipe", recipe, "--no-refit", "--trainer", "lightning", "--device", "cpu")
    out = together(several, *command, "--out", tmp_path / "new", "--json")
    answer, alone = json.loads(out), shell(*command, "--out", tmp_path / "alone", "--json").json
    assert answer["trainer"] == record_of(hs.load(tmp_path / "new"))["finetune"]["trainer"] == "lightning"
    assert answer["images"]["train"] * (answer["folds"] - 1) // answer["folds"] % 23 == 1
    for part in ("train_loss", "train_error", "val_loss", "val_error", "val_calibrated"):
        found, expected = ([epoch[part] for epoch in each["epochs"]] for each in (answer, alone))
        assert found == pytest.approx(expected, abs=1e-4), part
    mine, theirs = (weights_of(tmp_path / name) for name in ("new", "alone"))
    assert mine.keys() == theirs.keys()
    assert max(float(np.abs(mine[name] - theirs[name]).max()) for name in mine) < 1e-4
    assert len(answer["epochs"]) == 3
    (log,) = Path(answer["log"]).glob("*.csv")  # from the first of them alone
    assert log.read_text().count("\n") == 4


def weights_of(model: Path) -> dict[str, Any]:
    return {name: np.asarray(array) for name, array in hs.load(model).weights.items()}


def together(several: str, *command: object) -> str:
    """What two processes print that train together; the second of two nodes prints nothing."""
    if several == "nodes":  # each is begun by hand
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        here = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
        options: tuple[object, ...] = ("--nodes", 2, "--strategy", "ddp")
        started = [start(*command, *options, env=here | {"NODE_RANK": str(rank)}) for rank in range(2)]
    else:
        options = ("--runner", "ray", "--workers", 2) if several == "workers" else ("--devices", 2, "--strategy", "ddp")
        with all_processors():  # which these tests may have shared out
            started = [start(*command, *options)]
    told = [each.communicate(timeout=180) for each in started]
    for process, (_, err) in zip(started, told, strict=True):
        assert process.returncode == 0, err
        assert "Traceback" not in err
    assert [out for out, _ in told[1:]] == [""] * (len(told) - 1)
    return told[0][0]
