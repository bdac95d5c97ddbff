"""Checkpoints of a training: written whole or not at all, the last two kept, only resumed by the same training.

A checkpoint is one safetensors file, whose header holds the rest as JSON; nothing in it is ever executed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.weights import weights_digest
from headstart.core.errors import CheckError, HeadstartError, UsageError
from headstart.core.install import pip_install
from headstart.core.one_process import one_process
from headstart.core.regular_file import check_regular
from headstart.train.identity import Identity

FORMAT = 1
KEPT = 2  # checkpoints; the older one in case the newer one is damaged
LOCK = ".training.lock"
_PREFIX = ".checkpoint-"  # of a file that is being written
_NAME = re.compile(r"checkpoint-(?P<step>[0-9]{1,12})\.safetensors")
_ABOUT = "headstart"  # key in the header

State = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of a training after some steps."""

    step: int
    state: dict[str, NDArray[Any]]  # what `stepper.Stepper.load_state` takes
    about: dict[str, Any]  # JSON values: the history so far


class Terminated(KeyboardInterrupt):
    """The system asked the process to end, and the training is saved."""


def save(folder: str | os.PathLike[str], step: int, state: State, about: Mapping[str, Any], identity: Identity) -> Path:
    """Write a checkpoint, then remove all but the last two. It gets its name only when it is whole.

    Raises:
        UsageError: it cannot be written; earlier ones are kept.
    """
    from safetensors.numpy import save as pack

    folder = Path(folder)
    arrays = {name: np.asarray(array, order="C") for name, array in state.items()}
    header = {
        "format": FORMAT,
        "step": step,
        "identity": asdict(identity),
        "digest": weights_digest(arrays),
        "about": dict(about),
    }
    target = folder / f"checkpoint-{step:08d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        _write(target, pack(arrays, {_ABOUT: json.dumps(header)}))
    except OSError as error:
        earlier = " Earlier ones are still there." if _files(folder) else ""
        raise UsageError(
            f"The checkpoint of step {step} cannot be written to '{folder}': {error.strerror or error}.{earlier}"
        ) from error
    with suppress(OSError):
        for path in _files(folder)[KEPT:]:
            path.unlink()
    return target


def load(folder: str | os.PathLike[str], identity: Identity) -> Checkpoint | None:
    """The latest checkpoint that is whole, or None where there is none at all.

    Raises:
        UsageError: it is of another network, recipe, data or trainer, or from a newer version.
        CheckError: there are some, and none of them is whole.
    """
    damaged = []
    for path in _files(Path(folder)):
        try:
            header, state = _read(path)
        except CheckError as error:
            damaged.append(str(error))
            continue
        _check_identity(path, header, identity)
        return Checkpoint(header["step"], state, header["about"])
    if damaged:
        raise CheckError(f"No checkpoint in '{os.fspath(folder)}' is whole. {damaged[0]} Start again without --resume.")
    return None


class Checkpoints:
    """A folder of checkpoints that only this run writes to; handles SIGTERM, by which the system asks it to end.

    On SIGTERM, ``asked`` becomes true: the trainer ends its step, saves, and raises `Terminated`; a second SIGTERM
    raises it at once. A disk that cannot be written is reported; the training goes on. One checkpoint is written at a
    time, and all of them are when the context is left.

    Raises:
        UsageError: on entering, another run uses the folder, or it cannot be written to.
    """

    def __init__(
        self, folder: str | os.PathLike[str], identity: Identity, *, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.folder, self.identity = Path(folder), identity
        self.asked = False
        self._say = say
        self._contexts = ExitStack()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headstart-checkpoint")
        self._being_written: Future[Path] | None = None

    def __enter__(self) -> Self:
        with ExitStack() as contexts:
            contexts.enter_context(alone(self.folder))
            contexts.enter_context(on_sigterm(self._ask))
            contexts.enter_context(self._thread)  # whose end is waited for before the folder is let go
            contexts.callback(self._is_written)
            self._contexts = contexts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._contexts.close()

    def latest(self) -> Checkpoint | None:
        """As `load`."""
        self._is_written()
        return load(self.folder, self.identity)

    def save(self, step: int, state: State, about: Mapping[str, Any]) -> bool:
        """As the function `save`, but a failure is reported; returns whether it was saved."""
        self.save_meanwhile(step, state, about)
        return self._is_written()

    def save_meanwhile(self, step: int, state: State, about: Mapping[str, Any]) -> None:
        """As `save`, while the training goes on; a failure is reported by the next call, or on leaving the context.

        Args:
            state: arrays that own their memory are not changed by anybody afterwards; others are copied.
        """
        own = {name: array if array.flags.owndata else array.copy() for name, array in state.items()}
        self._is_written()
        self._being_written = self._thread.submit(save, self.folder, step, own, about, self.identity)

    def _is_written(self) -> bool:
        """Wait for the checkpoint that is being written, if one is; returns whether it was."""
        written, self._being_written = self._being_written, None
        try:
            return written is not None and written.result() is not None
        except UsageError as error:
            self._say(str(error))
            return False

    def end_if_asked(self, step: int, state: Callable[[], State], about: Callable[[], Mapping[str, Any]]) -> None:
        """After a step: if the system asked, save and raise `Terminated`; else nothing is computed."""
        if self.asked:
            kept = self.save(step, state(), about())
            raise Terminated(f"Ended after step {step}, as the system asked" + ("; --resume goes on." if kept else "."))

    def _ask(self) -> None:
        self.asked = True


class ReadOnlyCheckpoints(Checkpoints):
    """`Checkpoints` for the other processes of one training: they read and never write."""

    def __enter__(self) -> Self:
        return self

    def save(self, step: int, state: State, about: Mapping[str, Any]) -> bool:
        """Nothing: the first process saves."""
        return False

    def save_meanwhile(self, step: int, state: State, about: Mapping[str, Any]) -> None:
        """Nothing."""

    def end_if_asked(self, step: int, state: Callable[[], State], about: Callable[[], Mapping[str, Any]]) -> None:
        """Nothing: they end with the first process."""


def unfinished(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has checkpoints, whole or not."""
    return bool(_files(Path(folder)))


@contextmanager
def room_of_checkpoints(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Make room on a full disk for what is written meanwhile.

    Older checkpoints are removed, and the largest of the others is held in memory; on an error it is put back.
    """
    for path in [path for each in _places(folder) for path in _files(each)[1:]]:
        path.unlink()
    largest = max(all_below(folder), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.unlink()
    try:
        yield
    except BaseException:
        with suppress(OSError):  # somebody else took the room
            _write(largest, content)
        raise


def all_below(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints in a folder and its subfolders."""
    return [path for each in _places(folder) for path in _files(each)]


def _places(folder: str | os.PathLike[str]) -> list[Path]:
    """A folder and its subfolders, in which the other trainings of folds have theirs."""
    return [Path(folder), *(path for path in Path(folder).glob("*") if path.is_dir())]


def discard(folder: str | os.PathLike[str]) -> None:
    """Remove all checkpoints in a folder and its subfolders, once the result is saved elsewhere; logs stay."""
    for each in _places(folder):
        with suppress(OSError, UsageError):
            for path in [*_files(each), each / LOCK]:
                path.unlink(missing_ok=True)


def alone(folder: str | os.PathLike[str]) -> AbstractContextManager[None]:
    """Lock a folder against other runs.

    Raises:
        UsageError: another run uses it, or it cannot be written to.
    """
    return one_process(
        Path(folder) / LOCK,
        f"Another training writes to '{Path(folder)}'. Wait until it has ended, or choose another folder.",
        f"'{Path(folder)}' cannot be written to",
    )


@contextmanager
def on_sigterm(ask: Callable[[], None]) -> Iterator[None]:
    """Turn the first SIGTERM into a call of ``ask``, and the next into `Terminated`.

    In other threads than the main one, which get no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    times = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal times
        times += 1
        if times > 1:
            raise Terminated("Ended at once, as the system asked twice.")
        ask()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _write(target: Path, content: bytes) -> None:
    """To a temporary file that is then renamed: whatever happens, ``target`` is whole or as before."""
    temporary = target.with_name(f"{_PREFIX}{os.getpid()}")  # not by mkstemp, whose files are for their owner alone
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    with suppress(OSError):  # some file systems cannot sync a folder
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _files(folder: Path) -> list[Path]:
    """Checkpoints, the latest first."""
    try:
        found = [(int(name["step"]), path) for path in folder.iterdir() if (name := _NAME.fullmatch(path.name))]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"'{folder}' cannot be read: {error.strerror or error}.") from error
    return [path for _, path in sorted(found, reverse=True)]


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            path.unlink()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    if path.is_symlink():
        raise CheckError(f"'{path}' is a link out of its folder; it is not read.")
    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})[_ABOUT])
            if header["format"] > FORMAT:
                update = pip_install("headstart", "--upgrade")
                raise UsageError(f"'{path}' was written by a newer version of Headstart. Update with: {update}")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is not a mapping
        sound = weights_digest(state) == header["digest"] and type(header["step"]) is int and header["format"] == FORMAT
        sound = sound and isinstance(header["about"], dict) and isinstance(header["identity"], dict)
    except HeadstartError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckError(f"'{path}' is damaged or cut short: {type(error).__name__}: {error}.") from error
    if not sound:
        raise CheckError(f"'{path}' was altered: its content is not what was saved.")
    return header, state


def _check_identity(path: Path, header: Mapping[str, Any], wanted: Identity) -> None:
    if what := wanted.difference(header["identity"]):
        raise UsageError(
            f"'{path}' is of another training: {what}. Resume with what it began with, or choose another folder."
        )
