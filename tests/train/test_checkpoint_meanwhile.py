"""Checkpoints are written while the training goes on, one at a time, and all of them before anything else is."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from test_checkpoint import ABOUT, IDENTITY, names, state, whole
from test_steppers import train

from headstart.backbones.weights import weights_digest
from headstart.train import checkpoint as module
from headstart.train.checkpoint import Checkpoints, Terminated, load
from headstart.train.identity import Identity
from trainers import EVERYTHING, Ending, assert_equal, small_task

LONG = 20  # seconds for what takes none
STEPS = 5  # of an epoch


class SlowDisk:
    """A disk that writes nothing until it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may = threading.Event(), threading.Event()
        self.error: OSError | None = None
        sync = os.fsync

        def fsync(file: int) -> None:
            self.begun.set()
            assert self.may.wait(LONG)
            if self.error is not None:
                raise self.error
            sync(file)

        monkeypatch.setattr(os, "fsync", fsync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    slow = SlowDisk(monkeypatch)
    yield slow
    slow.may.set()


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("headstart-checkpoint")]


def test_the_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, disk: SlowDisk) -> None:
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save_meanwhile(1, state(1), ABOUT)
        assert disk.begun.wait(LONG)
        assert load(tmp_path, IDENTITY) is None  # here the training takes steps
        disk.may.set()
        assert whole(checkpoints.latest(), 1)  # which waits


def test_leaving_the_context_waits_for_the_disk_and_ends_the_thread(tmp_path: Path, disk: SlowDisk) -> None:
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save_meanwhile(1, state(1), ABOUT)
        assert disk.begun.wait(LONG)
        assert len(threads()) == 1
        threading.Timer(0.1, disk.may.set).start()
    assert whole(load(tmp_path, IDENTITY), 1)
    assert threads() == []


def test_one_at_a_time_in_their_order(tmp_path: Path, disk: SlowDisk) -> None:
    order: list[str] = []
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save_meanwhile(1, state(1), ABOUT)
        assert disk.begun.wait(LONG)

        def release() -> None:
            order.append("written")
            disk.may.set()

        threading.Timer(0.1, release).start()
        checkpoints.save_meanwhile(2, state(2), ABOUT)
        order.append("the next")
    assert order == ["written", "the next"]
    assert whole(load(tmp_path, IDENTITY), 2)


def test_what_changes_afterwards_is_not_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed, digest = threading.Event(), weights_digest

    def late(arrays: dict[str, Any]) -> str:
        assert changed.wait(LONG)
        return digest(arrays)

    monkeypatch.setattr(module, "weights_digest", late)
    given = state(1)
    buffer = given["weight/w"].copy()
    given["weight/w"] = buffer[:]  # as a framework shows its own memory
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save_meanwhile(1, given, ABOUT)
        buffer += 1
        changed.set()
    assert whole(load(tmp_path, IDENTITY), 1)


def test_a_failure_is_reported_once_where_the_training_is(tmp_path: Path, disk: SlowDisk) -> None:
    said: list[tuple[str, threading.Thread]] = []
    disk.error = OSError(errno.ENOSPC, "No space left on device")
    disk.may.set()
    with Checkpoints(tmp_path, IDENTITY, say=lambda text: said.append((text, threading.current_thread()))) as folder:
        folder.save_meanwhile(3, state(3), ABOUT)
        folder.save_meanwhile(4, state(4), ABOUT)  # tells of 3
        assert [text.split(" cannot")[0] for text, _ in said] == ["The checkpoint of step 3"]
    assert [text.split(": ")[-1] for text, _ in said] == ["No space left on device."] * 2
    assert {thread for _, thread in said} == {threading.current_thread()}
    assert names(tmp_path) == [module.LOCK]


def test_what_is_no_failure_of_the_disk_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "_write", broken)
    with pytest.raises(MemoryError), Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save_meanwhile(1, state(1), ABOUT)
    assert threads() == []
    with Checkpoints(tmp_path, IDENTITY):  # the folder was let go
        pass


def test_who_is_asked_to_end_waits_for_both(tmp_path: Path, disk: SlowDisk) -> None:
    with Checkpoints(tmp_path, IDENTITY) as checkpoints:
        checkpoints.save_meanwhile(1, state(1), ABOUT)
        assert disk.begun.wait(LONG)
        checkpoints.asked = True
        threading.Timer(0.1, disk.may.set).start()
        with pytest.raises(Terminated, match="after step 2, as the system asked; --resume goes on"):
            checkpoints.end_if_asked(2, lambda: state(2), lambda: ABOUT)
    assert [name for name in names(tmp_path) if name != module.LOCK] == [
        f"checkpoint-0000000{step}.safetensors" for step in (1, 2)
    ]


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_checkpoint import *
with Checkpoints(sys.argv[1], IDENTITY) as checkpoints:
    for step in range(10**6):
        checkpoints.save_meanwhile(step, state(step), ABOUT)
        print(step - 1, flush=True)  # the one before is whole
"""


def test_killed_at_any_moment_the_checkpoint_before_is_there(tmp_path: Path) -> None:
    code = WRITER.format(tests=str(Path(__file__).parent))
    for lines in (3, 17, 40):
        command = [sys.executable, "-c", code, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        written = [int(process.stdout.readline()) for _ in range(lines)]
        process.kill()
        written += [int(line) for line in process.communicate()[0].split()]
        found = load(tmp_path, IDENTITY)
        assert found is not None
        assert found.step >= max(written)
        assert whole(found, found.step)
        for path in tmp_path.glob("checkpoint-*"):
            path.unlink()


class AtOnce(Checkpoints):
    """Waits for each."""

    def save_meanwhile(self, *given: Any) -> None:
        super().save_meanwhile(*given)
        self.latest()


@pytest.mark.parametrize("trainer", ["pytorch", "tensorflow"])
def test_a_training_takes_steps_meanwhile_and_what_is_written_is_of_before_them(
    trainer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(EVERYTHING, optimiser="adamw", batch_norm="train", epochs=2)
    identity = Identity.of(small_task(recipe), recipe, "these")
    with AtOnce(tmp_path / "at once", identity) as checkpoints:
        train(trainer, recipe, checkpoints=checkpoints)
    disk = SlowDisk(monkeypatch)
    with Checkpoints(tmp_path / "meanwhile", identity) as checkpoints:
        train(trainer, recipe, checkpoints=checkpoints, callbacks=[Ending(STEPS + 2, disk.may.set)])
    for step in (STEPS, 2 * STEPS):
        name = f"checkpoint-{step:08d}.safetensors"
        first, second = (load_file(tmp_path / where / name) for where in ("at once", "meanwhile"))
        assert_equal(second, first)
