"""A training on a Ray cluster: Lightning's steps by several workers, and what they tell, here."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import numpy as np

from headstart.core.arguments import whole
from headstart.core.counts import counted
from headstart.core.errors import HeadstartError, MachineError, UsageError
from headstart.engines.registry import torch_engine
from headstart.scale.cluster import answers, cluster
from headstart.scale.nodes import Watchdog, check_nodes
from headstart.scale.relay import Question, Relay
from headstart.scale.training_worker import Begin, Job, work
from headstart.train.checkpoint import Checkpoints, Terminated
from headstart.train.protocol import Batches, Callback, Task, Trained
from headstart.train.recipe import Recipe

FAILURES = 3  # losses of a worker after which a training goes on, from its last checkpoint
_WAIT = 1.0  # seconds for a question, between two looks at signals


class RayTrainer:
    """Trains on the cluster that this process is connected to; see `cluster.cluster` and `loop.Trainer`.

    The workers share every batch, and take the same steps as a single process. Callbacks are called, and checkpoints
    are written, in this process: the workers need no folder that they share. Where one is lost, the training goes on
    from the last checkpoint; without checkpoints, from its start.

    Args:
        workers: how many train together: each has a CPU, and on "cuda" a GPU. "auto" is "cuda" where the cluster has
            as many GPUs.
        failures: how often a worker may be lost.
    """

    trainer = "lightning"  # whose steps it takes

    def __init__(self, workers: int = 1, failures: int = FAILURES) -> None:
        self.workers = whole().of("--workers", workers)
        self.failures = whole(0).of("failures", failures)

    def __call__(
        self,
        task: Task,
        batches: Batches,
        validation: Batches | None,
        recipe: Recipe,
        callbacks: Sequence[Callback] = (),
        *,
        device: str = "auto",
        say: Callable[[str], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Trained:
        """Train; see `loop.Trainer`.

        Raises:
            UsageError: a device that no worker can have.
            MachineError: workers were lost again and again.
        """
        import ray

        device, desk = self._device(device), Desk(callbacks, say, checkpoints)
        with _by_value(ray), tempfile.TemporaryDirectory(prefix="headstart-ray-") as folder:
            job = ray.put(Job(task, batches, validation, recipe, device, checkpoints is not None, os.getcwd()))
            relay = ray.remote(num_cpus=0)(Relay).remote()
            run = _Run(self._trainer({"relay": relay, "job": [job]}, device, folder))
            try:
                with Watchdog(self._wants(device), say=say or (lambda _: None)) as dog:
                    self._attend(run, relay, desk, dog)
            finally:
                ray.kill(relay)  # with which the workers end, where they have not
        return self._trained(run, desk)

    def _attend(self, run: _Run, relay: Any, desk: Desk, dog: Watchdog) -> None:
        """Answer the workers until the training has ended."""
        run.start()
        while run.is_alive():
            question: Question | None = answers(relay.next.remote(_WAIT))
            if question is not None:
                number, kind, content = question
                relay.answer.remote(number, desk.answer(kind, content))
                dog.done()

    def _trained(self, run: _Run, desk: Desk) -> Trained:
        if desk.failed is not None:
            raise desk.failed
        if isinstance(run.result, Trained):
            return run.result
        error = run.error or RuntimeError("no result")
        cause = next(iter(getattr(error, "worker_failures", {}).values()), error)
        raise MachineError(
            f"The training on Ray ended without a result, after it was begun {counted(self.failures + 1, 'time')} at "
            f"most. {_last_line(cause)} What was saved is kept: --resume goes on from there."
        ) from error

    def _trainer(self, config: dict[str, Any], device: str, folder: str) -> Any:
        torch_engine()
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        return TorchTrainer(
            work,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=self.workers, use_gpu=device == "cuda"),
            run_config=RunConfig(
                name=f"headstart-{uuid4().hex}",
                storage_path=folder,  # else Ray writes to the home folder
                failure_config=FailureConfig(max_failures=self.failures),
            ),
        )

    def _device(self, device: str) -> str:
        import ray

        has = ray.cluster_resources()
        cpus, gpus = (int(has.get(name, 0)) for name in ("CPU", "GPU"))
        if device == "auto":
            device = "cuda" if gpus >= self.workers else "cpu"
        if device == "mps" or (device == "cuda" and not gpus):
            raise UsageError(f"--device {device}: the Ray cluster has {counted(gpus, 'GPU')}. Take: --device cpu")
        if cpus < self.workers and ray.get_runtime_context().gcs_address.startswith("127."):  # others may grow
            raise UsageError(
                f"--workers {self.workers}: this machine has {counted(cpus, 'CPU')} for workers, and each wants one. "
                f"Take: --workers {max(cpus, 1)}"
            )
        return device

    def _wants(self, device: str) -> str:
        return (
            f"1 CPU and 1 GPU, and {self.workers} of them begin together"
            if device == "cuda"
            else (f"1 CPU, and {self.workers} of them begin together")
        )


@contextmanager
def training_on(runner: str | None, workers: int = 1) -> Iterator[RayTrainer | None]:
    """A trainer on the cluster that ``runner`` names, while the connection lasts; None where it names none.

    Raises:
        HeadstartError: as `cluster.cluster` and `nodes.check_nodes`.
        UsageError: ``workers`` without a runner.
    """
    if runner is None:
        if workers != 1:
            raise UsageError(f"--workers {workers} belongs to --runner. Received no --runner.")
        yield None
        return
    trainer = RayTrainer(workers)
    with cluster(runner):
        check_nodes()
        yield trainer


class Desk:
    """Answers what workers ask.

    What is done again after one was lost is told to the callbacks once.
    """

    def __init__(
        self, callbacks: Sequence[Callback], say: Callable[[str], None] | None, checkpoints: Checkpoints | None
    ) -> None:
        self.failed: HeadstartError | None = None
        self._callbacks, self._say, self._checkpoints = callbacks, say, checkpoints
        self._told = {"step": -1, "epoch": -1}  # the number of the last
        self._reasons: dict[tuple[str, int], str] = {}
        self._latest: list[Any] = []  # keeps what a reference stands for

    def answer(self, kind: str, content: Any) -> Any:
        """The answer to a question.

        Raises:
            Terminated: the system asked this process to end, and the workers have.
        """
        if kind == "begin":
            return self._begin()
        if kind in self._told:
            number = content[0] if kind == "step" else len(content) - 1
            return self._reason(kind, number, content), self._checkpoints is not None and self._checkpoints.asked
        if kind == "save":
            return self._save(content[0])
        if kind == "say" and self._say is not None:
            self._say(content)
        elif kind == "failed":
            self.failed = self.failed or content
        elif kind == "ended":
            raise Terminated(content)
        return None

    def _begin(self) -> Begin:
        import ray

        if self.failed is not None:
            return Begin(over=True)
        found = self._checkpoints.latest() if self._checkpoints is not None else None
        self._latest = [] if found is None else [ray.put(found)]
        return Begin(checkpoint=tuple(self._latest))

    def _reason(self, kind: str, number: int, content: Any) -> str | None:
        if number > self._told[kind]:
            self._told[kind] = number
            found = [each.step(*content) if kind == "step" else each.epoch(content) for each in self._callbacks]
            if reason := next((reason for reason in found if reason), None):
                self._reasons[kind, number] = reason
        return self._reasons.get((kind, number))

    def _save(self, ref: Any) -> bool:
        if self._checkpoints is None:
            return False
        try:
            found = answers(ref)
        except MachineError:  # the worker was lost that had it
            return False
        return self._checkpoints.save(found.step, found.state, found.about)


class _Run(threading.Thread):
    """The training, beside the thread that answers; and Ctrl-C stays what it is, which Ray would take over."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(name="headstart-ray-training", daemon=True)
        self._trainer = trainer
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self._trainer.fit().return_value
        except BaseException as error:  # told by who waits
            self.error = error


@contextmanager
def _by_value(ray: Any) -> Iterator[None]:
    """Memory maps as arrays, which workers of one machine share; else each would get a copy of its own."""
    ray.util.register_serializer(np.memmap, serializer=np.asarray, deserializer=lambda array: array)
    try:
        yield
    finally:
        with suppress(Exception):  # the connection was lost
            ray.util.deregister_serializer(np.memmap)


def _last_line(error: BaseException) -> str:
    """What is said last, which is the cause: of a traceback, its error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1] if lines else type(error).__name__}"[:300].rstrip(".") + "."
