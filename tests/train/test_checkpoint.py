"""Whatever happens to the process or the disk, a whole checkpoint is there, and none is taken for another's."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.backbones.families.small import mlp
from headstart.core.errors import CheckError, UsageError
from headstart.train import checkpoint as module
from headstart.train.checkpoint import (
    Checkpoint,
    Checkpoints,
    Terminated,
    all_below,
    alone,
    load,
    on_sigterm,
    room_of_checkpoints,
    save,
)
from headstart.train.identity import Identity, named
from headstart.train.initialisation import initial_weights
from headstart.train.protocol import Task
from headstart.train.recipe import Recipe

IDENTITY = Identity("net", Recipe().to_json(), {"photos": "digest", "split": "digest", "seed": 0, "trainer": "keras"})
ABOUT = {"epoch": 2, "history": [[0.5, float("inf")], []]}


def state(step: int, size: int = 50) -> dict[str, Any]:
    return {
        "weight/w": np.random.default_rng(step).normal(size=(3, size)).astype(np.float32),
        "turned": np.arange(12.0).reshape(3, 4).T,  # not in C order
        "steps_done": np.array(step),
        "moved": np.array([True, False]),
        "mass": np.float64(0.1) * step,
        "empty": np.zeros((0, 3)),
    }


def put(folder: Path, step: int, identity: Identity = IDENTITY) -> Path:
    return save(folder, step, state(step), ABOUT, identity)


def whole(found: Checkpoint | None, step: int) -> bool:
    """Whether a checkpoint is that of a step, bit by bit."""
    assert found is not None
    expected = {name: np.asarray(array) for name, array in state(step).items()}
    same = found.state.keys() == expected.keys() and found.about == ABOUT and found.step == step
    return same and all(
        (found.state[name].dtype, found.state[name].shape) == (array.dtype, array.shape)
        and found.state[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_bit_by_bit_and_the_last_two_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert load(folder, IDENTITY) is None
    for step in (8, 9, 10, 100):
        assert put(folder, step).is_file()
        assert whole(load(folder, IDENTITY), step)
    assert names(folder) == ["checkpoint-00000010.safetensors", "checkpoint-00000100.safetensors"]
    put(folder, 100)  # again, over itself
    assert whole(load(folder, IDENTITY), 100)


def test_a_training_is_known_by_its_network_recipe_and_data() -> None:
    blueprint = mlp(4, (8,), 3)
    task = Task(blueprint, initial_weights(blueprint), {"logits": 1.0})
    identity = Identity.of(task, Recipe(), "photos")
    assert identity == Identity.of(replace(task, weights=dict(task.weights)), Recipe(), "photos")
    others = [
        Identity.of(replace(task, weights=initial_weights(blueprint, seed=1)), Recipe(), "photos"),
        Identity.of(replace(task, rates={"logits": 1.0, "dense1": 1.0}), Recipe(), "photos"),
        Identity.of(replace(task, blueprint=mlp(4, (8,), 3, act="relu6")), Recipe(), "photos"),
        Identity.of(task, Recipe(seed=1), "photos"),
        Identity.of(task, Recipe(), "others"),
    ]
    assert identity not in others
    assert len({each.network for each in others}) == 4


def but(**data: Any) -> Identity:
    return replace(IDENTITY, data={**named(IDENTITY.data), **data})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(IDENTITY, network="x"), "another network, other starting weights, or other trained nodes"),
        (replace(IDENTITY, data="x"), "other photos, labels, or another split"),
        # the split follows from the photos and the seed, and so may the starting weights: they are not to blame
        (replace(but(photos="x", split="x"), network="x"), "other photos or labels, hence another split"),
        (replace(but(seed=3, split="x"), network="x"), "seed 0 there, 3 here, hence another split"),
        (replace(but(model="x"), network="x"), "another model to begin with"),
        (but(split="x"), "another split of the data"),
        (but(trainer="pytorch"), "trainer 'keras' there, 'pytorch' here"),
        (replace(IDENTITY, recipe=Recipe(seed=2).to_json()), "the recipe's seed 0 there, 2 here"),
        (
            replace(IDENTITY, recipe=Recipe(epochs=9, dropout=0.5).to_json()),
            "dropout 0.0 there, 0.5 here; epochs 8 there, 9 here",
        ),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(other: Identity, message: str, tmp_path: Path) -> None:
    put(tmp_path, 3, replace(IDENTITY, data="y") if other.data == "x" else IDENTITY)
    with pytest.raises(UsageError) as caught:
        load(tmp_path, other)
    assert f"is of another training: {message}. Resume with what it began with, or choose" in str(caught.value)


def rewrite(path: Path, **changes: Any) -> None:
    """Change the header of a checkpoint, whatever its digest says."""
    from safetensors import safe_open
    from safetensors.numpy import load as unpack
    from safetensors.numpy import save as pack

    with safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["headstart"])
    path.write_bytes(pack(unpack(path.read_bytes()), {"headstart": json.dumps(header | changes)}))


def test_a_newer_version_is_refused_and_not_taken_for_damage(tmp_path: Path) -> None:
    put(tmp_path, 3)
    rewrite(put(tmp_path, 4), format=99)
    with pytest.raises(UsageError, match="written by a newer version"):
        load(tmp_path, IDENTITY)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_file_cut_short_gives_way_to_the_one_before(kept: float, tmp_path: Path) -> None:
    put(tmp_path, 3)
    last = put(tmp_path, 4)
    content = last.read_bytes()
    last.write_bytes(content[: int(kept * len(content))])
    assert whole(load(tmp_path, IDENTITY), 3)


def test_a_bit_that_turned_is_found(tmp_path: Path) -> None:
    put(tmp_path, 3)
    last = put(tmp_path, 4)
    content = bytearray(last.read_bytes())
    for place in (3, 40, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 4
        last.write_bytes(damaged)
        assert whole(load(tmp_path, IDENTITY), 3), place


@pytest.mark.parametrize(
    "changes", [{"about": None}, {"identity": 3}, {"step": "4"}, {"format": None, "digest": "x"}, {"format": []}]
)
def test_a_header_that_says_something_else_is_damage(changes: dict[str, Any], tmp_path: Path) -> None:
    last = put(tmp_path, 4)
    rewrite(last, **changes)
    with pytest.raises(CheckError, match=r"No checkpoint in .* is whole"):
        load(tmp_path, IDENTITY)


def test_what_is_no_checkpoint_is_let_be(tmp_path: Path) -> None:
    for name in ("notes.txt", "checkpoint-x.safetensors", "checkpoint-1.safetensors.bak"):
        (tmp_path / name).write_text("mine")
    assert load(tmp_path, IDENTITY) is None
    put(tmp_path, 3)
    assert len(names(tmp_path)) == 4
    target = put(tmp_path / "elsewhere", 9)
    (tmp_path / "checkpoint-00000009.safetensors").symlink_to(target)
    assert whole(load(tmp_path, IDENTITY), 3)  # a link that leads out is not followed


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 2)
    put(tmp_path, 3)
    before = names(tmp_path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, where, full)
        with pytest.raises(UsageError, match=r"of step 4 cannot be written to .*: No space left on device"):
            put(tmp_path, 4)
        with Checkpoints(tmp_path, IDENTITY, say=said.append) as checkpoints:
            assert not checkpoints.save(4, state(4), ABOUT)
    assert len(said) == 1
    assert "Earlier ones are still there" in said[0]
    assert [name for name in names(tmp_path) if name != module.LOCK] == before
    assert whole(load(tmp_path, IDENTITY), 3)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="cannot be written to"):
        put(tmp_path / "file", 1)


@pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
def test_a_checkpoint_is_for_those_whom_new_files_are_for(tmp_path: Path) -> None:
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            assert oct(put(tmp_path, mask).stat().st_mode & 0o777) == oct(0o666 & ~mask)
        finally:
            os.umask(before)


def test_checkpoints_make_room_and_are_put_back_where_that_was_in_vain(tmp_path: Path) -> None:
    for step in (2, 3):
        put(tmp_path, step)
    save(tmp_path / "fold-2", 4, state(4, 500), ABOUT, IDENTITY)
    save(tmp_path / "fold-2", 5, state(5, 500), ABOUT, IDENTITY)
    names_meanwhile: list[str] = []

    def write() -> None:
        with room_of_checkpoints(tmp_path):
            names_meanwhile.extend(path.name for path in all_below(tmp_path))
            raise UsageError("in vain")

    with pytest.raises(UsageError, match="in vain"):
        write()
    assert names_meanwhile == ["checkpoint-00000003.safetensors"]
    assert whole(load(tmp_path, IDENTITY), 3)
    assert load(tmp_path / "fold-2", IDENTITY) is not None
    with room_of_checkpoints(tmp_path):
        pass
    assert whole(load(tmp_path, IDENTITY), 3)
    assert load(tmp_path / "fold-2", IDENTITY) is None


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_checkpoint import *
print("ready", flush=True)
with Checkpoints(sys.argv[1], IDENTITY) as checkpoints:
    for step in range(10**6):
        checkpoints.save(step, state(step), ABOUT)
        print(step, flush=True)
        checkpoints.end_if_asked(step, lambda: state(step), lambda: ABOUT)
"""


def writer(folder: Path) -> subprocess.Popen[str]:
    """A process that saves step after step, from the moment of its first line on."""
    code = WRITER.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals as POSIX has them")
def test_killed_at_any_moment_a_whole_checkpoint_is_there(tmp_path: Path) -> None:
    for wait in (0.05, 0.0731, 0.1117):
        process = writer(tmp_path)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(wait)
        process.kill()
        written = [int(line) for line in process.communicate()[0].split()]
        found = load(tmp_path, IDENTITY)
        assert found is not None
        assert found.step >= max(written, default=0)
        assert whole(found, found.step)
    leftover = tmp_path / ".checkpoint-left"
    leftover.write_bytes(b"half")
    put(tmp_path, 10**7)  # the lock of a dead process is no lock, and what it left behind goes
    assert not leftover.exists()
    with alone(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals as POSIX has them")
def test_on_sigterm_the_step_ends_and_is_saved(tmp_path: Path) -> None:
    process = writer(tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline()
    with pytest.raises(UsageError, match="Another training writes to"), alone(tmp_path):
        pass  # another process holds it
    process.terminate()
    out, err = process.communicate(timeout=20)
    found = load(tmp_path, IDENTITY)
    assert found is not None
    assert found.step == int((first + out).split()[-1])
    assert f"Terminated: Ended after step {found.step}, as the system asked; --resume goes on." in err
    assert process.returncode != 0


def test_sigterm_asks_once_and_then_ends_at_once(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    asked: list[bool] = []
    with on_sigterm(lambda: asked.append(True)):
        signal.raise_signal(signal.SIGTERM)
        assert asked == [True]
        with pytest.raises(Terminated, match="asked twice"):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        nothing = lambda: pytest.fail("computed")  # noqa: E731
        checkpoints.end_if_asked(1, nothing, nothing)
        signal.raise_signal(signal.SIGTERM)
        assert checkpoints.asked
        assert checkpoints.latest() is None
        with pytest.raises(Terminated, match="--resume goes on"):
            checkpoints.end_if_asked(2, lambda: state(2), lambda: ABOUT)
        assert whole(checkpoints.latest(), 2)
    assert issubclass(Terminated, KeyboardInterrupt)  # which the command line ends with 130 for


def test_two_runs_into_one_folder_are_refused(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, IDENTITY):
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(UsageError, match="Another training writes to"), Checkpoints(tmp_path, IDENTITY):
            pass
        assert signal.getsignal(signal.SIGTERM) is before
    with Checkpoints(tmp_path, IDENTITY):
        pass


def test_in_another_thread_there_are_no_signals_and_no_error(tmp_path: Path) -> None:
    done: list[Mapping[str, Any]] = []

    def run() -> None:
        with Checkpoints(tmp_path, IDENTITY) as checkpoints:
            checkpoints.save(1, state(1), ABOUT)
            done.append({})

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done
