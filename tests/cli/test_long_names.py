"""Classes with long names, on the screen of every command: without their middle, and whole in JSON and in paths."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import headstart as hs
from headstart.core.text import all_shortened
from making import SHAPES, Shell
from terminals import COLUMNS, on_a_terminal

LONG = [f"Tomato___Spider_mites_{each}_spotted_spider_mite_with_a_very_long_name_indeed" for each in ("Two", "Three")]
SHORT = all_shortened([*LONG, "discs"])


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with long names, which differ in their middle, and a third."""
    root = tmp_path_factory.mktemp("long")
    for shape, name in zip(SHAPES, (LONG[0], "discs", LONG[1]), strict=True):
        shutil.copytree(photos / shape, root / name)
    return root


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("long") / "model"
    hs.fit(str(data), pixels=64, holdout=0, cache=False, progress=False).save(where)
    return where


def check_short(words: str) -> None:
    """The long names are short, but for paths, which have them as folders."""
    prose = "\n".join(line for line in words.splitlines() if "/" not in line)
    assert not any(name in "".join(prose.split()) for name in LONG)
    assert any(SHORT[name] in words for name in LONG)


def test_check_and_fit(data: Path, tmp_path: Path) -> None:
    for arguments in (("check", data), ("fit", data, "--pixels", 64, "--out", tmp_path / "model")):
        code, _, lines = on_a_terminal(*arguments)
        assert code == 0
        check_short("\n".join(lines))
        (first,) = [place for place, line in enumerate(lines) if line.startswith(("images  ", "data  "))]
        assert max(map(len, lines[first : first + 5])) <= COLUMNS


def test_evaluate_and_predict(data: Path, model: Path, shell: Shell) -> None:
    screen = shell("evaluate", model, data, "--include-training-set").out
    check_short(screen)
    assert "hardest" in screen
    answer = shell("evaluate", model, data, "--include-training-set", "--json").json
    assert set(answer["per_class"]) == {*LONG, "discs"}
    lines = shell("predict", model, data / LONG[0], "--top", 3).out.splitlines()
    assert any(line.startswith(SHORT[LONG[0]]) for line in lines)
    assert not any(line.startswith(LONG[0]) for line in lines)
    assert shell("predict", model, data / LONG[0] / "5.png", "--json").json["label"] in answer["per_class"]


def test_mistakes_name_both_classes(data: Path, model: Path, shell: Shell, tmp_path: Path) -> None:
    """Photos of one class in the folder of another."""
    shutil.copytree(data / LONG[0], tmp_path / LONG[1])
    shutil.copytree(data / "discs", tmp_path / "discs")
    screen = shell("evaluate", model, tmp_path, "--include-training-set").out
    assert f"{SHORT[LONG[1]]} predicted as {SHORT[LONG[0]]}" in screen
    assert f"{SHORT[LONG[1]]} as {SHORT[LONG[0]]} " in screen


def test_train_says_what_it_left_out(data: Path, tmp_path: Path, shell: Shell) -> None:
    root = shutil.copytree(data, tmp_path / "data")
    shutil.copy(root / LONG[0] / "3.png", root / "discs" / "copy.png")
    (tmp_path / "once.json").write_text('{"preset": "scratch", "epochs": 1}')
    done = shell("train", root, "--network", "mlp", "--recipe", tmp_path / "once.json", "--out", tmp_path / "model")
    (line,) = [each for each in done.out.splitlines() if each.startswith("left out")]
    assert line.startswith(
        f"left out       2 conflicting labels: {LONG[0]}/3.png … (the same file as 'discs/copy.png', labelled discs)"
    )
