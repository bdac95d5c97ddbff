"""`headstart imagine`: files that give the probability that was printed, JSON, a screen, and nothing overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.imagine import images as making_of
from making import Shell

QUICK = ("--engine", "torch", "--steps", 12)


def test_the_file_gives_the_probability_that_was_printed(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "imagined"
    answer = shell("imagine", bundle, "--class", "discs", "--class", "bars", *QUICK, "--out", out, "--gif", "--json")
    assert (answer.code, answer.err) == (0, "")
    said = [json.loads(line) for line in answer.out.splitlines()]
    assert [each["class"] for each in said] == ["discs", "bars"]
    for each in said:
        assert {"class", "layer", "channel", "probability", "judges", "files", "seconds", "steps", "seed"} <= set(each)
        assert [Path(file).name for file in each["files"]] == [
            f"{each['class']}{end}" for end in (".png", "_steps.png", ".gif")
        ]
        asked = ("predict", bundle, each["files"][0], "--engine", "torch", "--all-probabilities", "--json")
        read = shell(*asked, "--no-crop").json["probabilities"][each["class"]]
        assert read == pytest.approx(each["probability"], abs=1e-5)
        assert shell(*asked).json["probabilities"][each["class"]] != pytest.approx(each["probability"], abs=1e-3)


def test_a_judge_of_the_same_classes(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    asked = ("imagine", bundle, "--class", "discs", *QUICK, "--judge", other)
    (judge,) = shell(*asked, "--out", tmp_path / "one", "--json").json["judges"]
    assert (judge["judge"], judge["place"]) == (str(other), 1)
    assert judge["top"][0] == {"label": "discs", "probability": judge["probability"]}
    screen = shell(*asked, "--out", tmp_path / "two").out
    assert "discs first, with" in screen
    assert str(tmp_path / "two" / "discs.png") in screen


def test_a_model_is_no_judge_of_its_own_images(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    answer = shell("imagine", bundle, "--class", "discs", "--judge", f"{bundle}/", "--out", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "")
    assert "has made the images, and is no judge of them" in answer.err
    assert not (tmp_path / "out").exists()


def test_what_comes_before_a_class_is_not_the_class_itself() -> None:
    from headstart.cli.imagine import _in_words
    from headstart.imagine.judges import Judgement

    said = Judgement("other", (("bars", 0.6), ("discs", 0.3), ("waves", 0.1)), 2, 0.3)
    assert _in_words(said, "discs") == "discs in place 2, with 30.0%; before it bars 60.0%"


def test_a_judge_without_the_class_says_what_it_sees(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    answer = shell(
        "imagine", bundle, "--class", "discs", *QUICK, "--judge", "efficientnet_lite0", "--out", tmp_path / "out"
    )
    assert "efficientnet_lite0: has no class of that name; it sees" in answer.out


def test_nothing_is_overwritten_and_that_is_said_before_any_work(
    shell: Shell, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bars_steps.png").write_bytes(b"mine")
    asked = ("imagine", bundle, "--class", "bars", *QUICK, "--judge", "efficientnet_lite0", "--out", tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(making_of, "ideal_images", lambda *_, **__: pytest.fail("work was done"))
        answer = shell(*asked)
    assert (answer.code, answer.out) == (2, "")
    assert "bars_steps.png' exists already" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["bars_steps.png"]
    assert shell(*asked, "--overwrite").code == 0
    assert np.asarray(Image.open(tmp_path / "bars_steps.png")).ndim == 3


def test_a_channel(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    asked = ("imagine", bundle, "--layer", "blocks.3.2.bn2.act", "--channel", 7, *QUICK, "--out", tmp_path)
    answer = shell(*asked, "--json").json
    assert (answer["class"], answer["probability"], answer["channel"]) == (None, None, 7)
    assert answer["values"][1] > answer["values"][0]
    assert Path(answer["files"][0]).name == "blocks.3.2.bn2.act_channel_7.png"
    assert "in the beginning" in shell(*asked, "--overwrite").out


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (("--class", "disc"), "no class 'disc'. Did you mean discs"),
        (("--layer", "bn2.act", "--channel", 99999), "has the channels 0 to 1279. Received: 99999"),
        (("--layer", "bn2.ac", "--channel", 1), "no layer 'bn2.ac'. Did you mean bn2.act"),
        ((), "name a class, --class NAME, or a channel, --layer NAME --channel NUMBER"),
        (("--class", "discs", "--preset", "worst"), "no preset 'worst'"),
        (("--class", "discs", "--from", "nowhere.jpg"), "nowhere.jpg"),
        (("--class", "discs", "--judge", "resnet5"), "no model 'resnet5'"),
        (("--class", "discs", "--steps", 0), "--steps: expected a whole number, 1 or more. Received: 0"),
        (("--class", "discs", "--seed", -1), "--seed: expected a whole number, 0 to 9223372036854775807. Received: -1"),
        (("--class", "discs", "--seed", 10**23), "--seed: expected a whole number, 0 to 9223372036854775807"),
    ],
)
def test_bad_input_is_one_sentence(
    shell: Shell, bundle: Path, tmp_path: Path, given: tuple[object, ...], complaint: str
) -> None:
    answer = shell("imagine", bundle, *given, "--engine", "torch", "--out", tmp_path / "out")
    assert (answer.code, answer.out) == (2, "")
    assert complaint in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_of_rows_is_refused(shell: Shell, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    hs.train_rows(rows, (rows[:, 0] > 0).tolist(), progress=False).save(tmp_path / "rows")
    answer = shell("imagine", tmp_path / "rows", "--class", "True", "--out", tmp_path / "out")
    assert answer.code == 2
    assert "model of rows of numbers" in answer.err
