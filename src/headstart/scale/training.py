"""A training on a Ray cluster: Lightning's steps by several workers, and what they tell, here."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np

from headstart.core.arguments import whole
from headstart.core.counts import counted
from headstart.core.errors import MachineError, UsageError
from headstart.engines.registry import torch_engine
from headstart.scale.cluster import answers, cluster
from headstart.scale.nodes import Watchdog, check_nodes
from headstart.scale.relay import Question, Relay
from headstart.scale.training_answers import TrainingAnswers
from headstart.scale.training_worker import Begin, Job, work
from headstart.train.checkpoint import Checkpoints
from headstart.train.protocol import Batches, Callback, Task, Trained
from headstart.train.recipe import Recipe

FAILURES = 3  # losses of a worker after which a training goes on
_WAIT = 1.0  # seconds for a question, between two looks at signals
_END = 20.0  # seconds for workers to end


class RayTrainer:
    """Trains on the cluster that this process is connected to; see `cluster.cluster` and `loop.Trainer`.

    The workers share every batch, and take the same steps as a single process. Callbacks are called, and checkpoints
    are written, in this process: the workers need no folder that they share. Where one is lost, the training goes on
    from the last checkpoint; without checkpoints, from its start. The same workers do one training after the other,
    until the end of the context.

    Args:
        workers: how many train together: each has a CPU, and on "cuda" a GPU. "auto" is "cuda" where the cluster has
            as many GPUs.
        failures: how often a worker may be lost.
    """

    trainer = "lightning"  # whose steps it takes

    def __init__(self, workers: int = 1, failures: int = FAILURES) -> None:
        self.workers = whole(1).of("--workers", workers)
        self.failures = whole(0).of("failures", failures)
        self._run: _Run | None = None
        self._trainings = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(in_order=kind is None)

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

        device = self._device(device)
        if self._run is None or self._run.device != device:
            self._end(in_order=True)
            self._run = _Run(self.workers, device, self.failures)
        self._trainings += 1
        with _by_value(ray):
            job = ray.put(Job(task, batches, validation, recipe, device, checkpoints is not None, os.getcwd()))
        training = TrainingAnswers(self._trainings, [job], callbacks, say, checkpoints)
        try:
            with Watchdog(self._run.wants, say=say or (lambda _: None)) as dog:
                self._run.attend(training, self._trainings, dog.done)
        except BaseException:
            self._end(in_order=False)
            raise
        if training.trained is None:  # which `attend` raises an error for
            raise MachineError("The training on Ray ended without a result.")
        return training.trained

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

    def _end(self, *, in_order: bool) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.end(in_order=in_order)


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
        with trainer:
            yield trainer


class _Run:
    """Workers that are at hand: a run of Ray Train, in a thread, for in the main one it takes over Ctrl-C."""

    def __init__(self, workers: int, device: str, failures: int) -> None:
        import ray

        self.device = device
        self.wants = f"1 CPU{' and 1 GPU' if device == 'cuda' else ''}, and {workers} of them begin together"
        self._most = failures + 1
        self._files = ExitStack()
        folder = self._files.enter_context(tempfile.TemporaryDirectory(prefix="headstart-ray-"))
        self._relay = ray.remote(num_cpus=0)(Relay).remote()
        self._trainer = _ray_trainer({"relay": self._relay}, folder, workers, device, failures)
        self._idle: list[int] = []  # questions of workers that wait for the next training
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._fit, name="headstart-ray-training", daemon=True)
        self._thread.start()

    def attend(self, training: TrainingAnswers, number: int, told: Callable[[], None]) -> None:
        """Answer the workers until a training has ended.

        Raises:
            HeadstartError: what it failed with.
        """
        for question in self._idle:
            self._relay.answer.remote(question, training.begin())
        self._idle = []
        while not training.over:
            if not self._thread.is_alive():
                raise self._lost()
            asked: Question | None = answers(self._relay.next.remote(_WAIT))
            if asked is None:
                continue
            told()
            question, kind, content = asked
            if kind == "begin" and content == number:  # it has done this one, and another worker has not yet
                self._idle.append(question)
            else:
                answer = training.begin() if kind == "begin" else training.answer(kind, content)
                self._relay.answer.remote(question, answer)
        if training.failed is not None:
            raise training.failed

    def end(self, *, in_order: bool) -> None:
        """Let the workers go; else they end with the relay, at their next question."""
        import ray

        with self._files, suppress(MachineError):
            stop = threading.Event()
            timer = threading.Timer(_END, stop.set)
            timer.start()
            while in_order and self._thread.is_alive() and not stop.is_set():
                for question in self._idle:
                    self._relay.answer.remote(question, Begin())
                asked = answers(self._relay.next.remote(_WAIT))
                self._idle = [asked[0]] if asked else []
            timer.cancel()
            ray.kill(self._relay)

    def _fit(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:  # told by who waits
            self._error = error

    def _lost(self) -> MachineError:
        error = self._error or RuntimeError("no result")
        cause = next(iter(getattr(error, "worker_failures", {}).values()), error)
        found = MachineError(
            f"The training on Ray ended without a result; it was begun {counted(self._most, 'time')}. "
            f"{_last_line(cause)} What was saved is kept: --resume goes on from there."
        )
        found.__cause__ = error
        return found


def _ray_trainer(config: dict[str, Any], folder: str, workers: int, device: str, failures: int) -> Any:
    torch_engine()
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    return TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=device == "cuda"),
        run_config=RunConfig(
            name=f"headstart-{uuid4().hex}",
            storage_path=folder,  # else Ray writes to the home folder
            failure_config=FailureConfig(max_failures=failures),
        ),
    )


@contextmanager
def _by_value(ray: Any) -> Iterator[None]:
    """Memory maps as arrays, which workers of one machine share; else each would get a copy of its own."""
    ray.util.register_serializer(np.memmap, serializer=np.asarray, deserializer=lambda array: array)
    try:
        yield
    finally:
        ray.util.deregister_serializer(np.memmap)


def _last_line(error: BaseException) -> str:
    """What is said last, which is the cause: of a traceback, its error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{lines[-1] if lines else type(error).__name__}"[:300].rstrip(".") + "."
