"""What `headstart show` says of the small networks that are trained from random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import headstart as hs
from headstart.train.recipe import PRESETS
from making import Shell


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_it_shows_the_network_that_train_builds(name: str, shell: Shell, photos: Path) -> None:
    """But for the number of classes, which it cannot know."""
    shown = shell("show", name, "--json").json
    trained = hs.train_photos(str(photos), network=name, recipe=replace(PRESETS["scratch"], epochs=1), progress=False)
    shapes, ops = trained.blueprint.shapes(), {node.name: node.op for node in trained.blueprint.nodes}
    *layers, logits = [(row["name"], row["op"], tuple(row["shape"])) for row in shown["layers"]]
    assert layers == [(each, ops[each], shapes[each]) for each in trained.blueprint.layers[:-1]]
    assert (logits, shown["pixels"]) == (("logits", "dense", (10,)), 64)
    assert any("for 10 classes" in note and f"--network {name}" in note for note in shown["notes"])


def test_another_size(shell: Shell) -> None:
    """The perceptron's first layer grows with the images; the other network's do not."""
    counts = {
        name: [shell("show", name, "--pixels", size, "--json").json["parameters"] for size in (16, 32)]
        for name in ("mlp", "small_cnn")
    }
    assert counts["mlp"][1] - counts["mlp"][0] == 3 * (32**2 - 16**2) * 512
    assert counts["small_cnn"][0] == counts["small_cnn"][1]
    words = shell("show", "small_cnn", "--pixels", 32).out
    assert "small_cnn at 32 pixels: 94,762 parameters" in words
    assert "for 10 classes" in words
    assert "expected 5 to 512. Received: 4" in shell("show", "mlp", "--pixels", 4).err


def test_a_small_network_is_drawn(shell: Shell, tmp_path: Path) -> None:
    assert shell("show", "mlp", "--graph", tmp_path / "mlp.svg").out.endswith(f"graph: {tmp_path / 'mlp.svg'}\n")
    assert "3×64×64" in (tmp_path / "mlp.svg").read_text(encoding="utf-8")


def test_a_model_in_a_folder_of_that_name_comes_first(
    shell: Shell, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlp").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    assert shell("show", "mlp", "--json").json["layers"][-1]["shape"] == [3]
