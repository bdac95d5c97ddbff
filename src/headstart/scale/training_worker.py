"""What each worker of a training on Ray does: Lightning's steps, as one of several processes.

It has no files. Its callbacks, messages and checkpoints are those of the process that began the training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headstart.core.errors import HeadstartError
from headstart.train.checkpoint import Checkpoint, Checkpoints, State, Terminated
from headstart.train.identity import Identity
from headstart.train.memory import kept_memory
from headstart.train.protocol import Batches, Epoch, Task, Trained
from headstart.train.recipe import Recipe

Ask = Callable[[str, Any], Any]


@dataclass(frozen=True, eq=False)
class Job:
    """All that a worker needs."""

    task: Task
    batches: Batches
    validation: Batches | None
    recipe: Recipe
    device: str
    checkpoints: bool  # whether some are kept
    folder: str  # in which the paths of photos begin


@dataclass(frozen=True, eq=False)
class Begin:
    """What a worker is told that asks for a training; without a job, that there is no other."""

    number: int = 0  # of the training
    job: Sequence[Any] = ()  # a reference to the `Job`
    checkpoint: Sequence[Any] = ()  # to the latest one, if any


def work(config: Mapping[str, Any]) -> None:
    """Train as one of several, again and again."""
    import ray
    from ray import train

    relay, first, done = config["relay"], train.get_context().get_world_rank() == 0, 0  # the last that was done

    def ask(kind: str, content: Any = None) -> Any:
        return ray.get(relay.ask.remote(kind, content))

    def next_one() -> Begin:
        try:
            found: Begin = ask("begin", done)
        except ray.exceptions.RayActorError:  # who began this has gone
            return Begin()
        return found

    while (begin := next_one()).job:
        job: Job = ray.get(begin.job[0])
        found = ray.get(begin.checkpoint[0]) if begin.checkpoint else None
        with suppress(OSError):
            os.chdir(job.folder)
        try:
            with kept_memory():
                trained = _train(job, ask, found, first=first)
        except HeadstartError as error:  # it would be the same again
            ask("failed", error)
            raise
        done = begin.number
        if first:
            ask("trained", [ray.put(trained)])


def _train(job: Job, ask: Ask, found: Checkpoint | None, *, first: bool) -> Trained:
    from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

    from headstart.engines.registry import torch_engine

    torch_engine()
    from headstart.train.torch.lightning import train_lightning

    checkpoints = FarCheckpoints(ask, found, writes=first) if job.checkpoints else None
    return train_lightning(
        job.task,
        job.batches,
        job.validation,
        job.recipe,
        [FarCallback(ask, checkpoints)],
        device=job.device,
        say=(lambda sentence: ask("say", sentence)) if first else None,
        checkpoints=checkpoints,
        devices="auto",
        strategy=RayDDPStrategy(),
        plugins=[RayLightningEnvironment()],
    )


class FarCheckpoints(Checkpoints):
    """Checkpoints that another process keeps."""

    def __init__(self, ask: Ask, found: Checkpoint | None, *, writes: bool) -> None:
        super().__init__("", Identity("", {}, ""))
        self._ask_far, self._found, self._writes = ask, found, writes

    def latest(self) -> Checkpoint | None:
        """The one that this worker was told of at its start."""
        return self._found

    def save(self, step: int, state: State, about: Mapping[str, Any]) -> bool:
        """Have it saved, if this is the first worker; returns whether it was."""
        import ray

        if not self._writes:
            return False
        return bool(self._ask_far("save", [ray.put(Checkpoint(step, dict(state), dict(about)))]))

    def save_meanwhile(self, step: int, state: State, about: Mapping[str, Any]) -> None:
        """As `save`: the other process has it when this returns."""
        self.save(step, state, about)

    def end_if_asked(self, step: int, state: Callable[[], State], about: Callable[[], Mapping[str, Any]]) -> None:
        """As `Checkpoints`; the other process raises `Terminated`, which Lightning takes for Ctrl-C."""
        try:
            super().end_if_asked(step, state, about)
        except Terminated as end:
            self._ask_far("ended", str(end))
            raise RuntimeError(str(end)) from end  # with which the other workers end


class FarCallback:
    """The callbacks of another process; the first worker alone calls them."""

    def __init__(self, ask: Ask, checkpoints: FarCheckpoints | None) -> None:
        self._ask, self._checkpoints = ask, checkpoints

    def step(self, number: int, of: int, loss: float) -> str | None:
        """After a step, counted through the epochs."""
        return self._called("step", (number, of, loss))

    def epoch(self, history: Sequence[Epoch]) -> str | None:
        """After an epoch."""
        return self._called("epoch", tuple(history))

    def _called(self, kind: str, content: Any) -> str | None:
        reason, asked = self._ask(kind, content)
        if self._checkpoints is not None:
            self._checkpoints.asked = asked
        return None if reason is None else str(reason)
