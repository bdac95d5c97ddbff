"""The trainer ``lightning``: the same steps inside a LightningModule, on as many devices as its Trainer takes."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from headstart.core.errors import DivergedError, MissingExtraError, UsageError
from headstart.core.shared_change import SharedChange, ignored_warnings
from headstart.engines.torch.network import choose_device
from headstart.train.checkpoint import Checkpoints, Terminated
from headstart.train.loop import TrainingLoop
from headstart.train.protocol import Batch, Batches, Callback, Task, Trained
from headstart.train.recipe import Recipe
from headstart.train.stepper import Sums
from headstart.train.torch.optimiser import place_memory
from headstart.train.torch.stepper import TorchStepper

try:
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import LightningModule
    from lightning.pytorch import Trainer as LightningTrainer
    from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
    from lightning.pytorch.utilities.exceptions import SIGTERMException
except ModuleNotFoundError as error:
    raise MissingExtraError("lightning", "torch", "The trainer 'lightning'") from error

ACCELERATORS = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}


def train_lightning(
    task: Task,
    batches: Batches,
    validation: Batches | None,
    recipe: Recipe,
    callbacks: Sequence[Callback] = (),
    *,
    device: str = "auto",
    say: Callable[[str], None] | None = None,
    checkpoints: Checkpoints | None = None,
    devices: int | str | list[int] = 1,
    nodes: int = 1,
    strategy: Any = "auto",
    plugins: Sequence[Any] = (),
) -> Trained:
    """Train with Lightning's Trainer; see `loop.Trainer`.

    Several processes share every batch, and take the same steps as a single one; where batch norm's statistics
    are updated, each process has those of its own part. The first process alone calls the callbacks and saves.

    Args:
        devices, nodes, strategy, plugins: as Lightning's Trainer takes them.

    Raises:
        UsageError: as Lightning refuses the devices; or a strategy whose processes return no result.
    """
    stepper = TorchStepper(task, recipe, recipe.epochs * batches.steps, device, say=say)
    with _quiet():
        try:
            trainer = LightningTrainer(
                accelerator=ACCELERATORS[choose_device(device)],
                devices=devices,
                num_nodes=nodes,
                strategy=strategy,
                plugins=[*plugins],
                max_epochs=-1,  # the loop decides
                use_distributed_sampler=False,  # which would shuffle
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
            wish = f"devices={devices!r}, nodes={nodes}, strategy='{strategy}' on {choose_device(device)}"
            raise UsageError(f"Lightning refuses {wish}: {error}") from error
        if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
            raise UsageError(
                f"The strategy '{strategy}' trains in processes that return no result to this one. "
                "Take 'ddp', which starts the program once for each device."
            )
        own = callbacks if trainer.global_rank == 0 else ()
        loop = TrainingLoop("lightning", stepper, batches, validation, own, checkpoints)
        if loop.running:
            handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
            _fit(trainer, _Module(loop, stepper, handler), _Stream(loop))
    return loop.trained()


class _Module(LightningModule):  # type: ignore[misc]
    """The steps of the stepper, called by the Trainer."""

    def __init__(self, loop: TrainingLoop, stepper: TorchStepper, on_sigterm: Any) -> None:
        super().__init__()
        self.on_sigterm = on_sigterm
        self.automatic_optimization = False  # the stepper clips over all groups, and can take batches in parts
        self.loop, self.stepper = loop, stepper
        self.network = stepper.network.module

    def configure_optimizers(self) -> Any:
        """The recipe's; the stepper sets its rate."""
        return self.stepper.optimiser

    def on_train_start(self) -> None:
        """Have SIGTERM do what it did before: Lightning's own handler makes it an exit that looks like success.

        Processes beside the first let it pass, for they end with that one.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.on_sigterm if self.trainer.is_global_zero else signal.SIG_IGN)

    def on_fit_start(self) -> None:
        """Set which of several processes this is; what belongs to the network follows it to its device."""
        place_memory(self.stepper.optimiser)  # Lightning leaves the number of steps behind
        average = self.stepper.average
        average.load({name: value.to(self.device) for name, value in average.values.items()}, average.mass)
        self.stepper.rank, self.stepper.ranks = self.trainer.global_rank, self.trainer.world_size
        if self.trainer.world_size > 1:
            self.stepper.total = self._total
            self.loop.agree = self.trainer.strategy.broadcast

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One step."""
        try:
            loss = self.stepper.gradients(batch, self.stepper.rate(), self.manual_backward)
        except DivergedError as error:
            self.loop.diverged(error)
            self.trainer.should_stop = True
            return
        self.optimizers().step()
        self.stepper.finish_step()
        self.trainer.should_stop = not self.loop.after_step(loss)

    def on_train_epoch_end(self) -> None:
        """Validate, keep the best weights, call the callbacks."""
        self.loop.after_epoch()
        self.trainer.should_stop = not self.loop.running

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The stepper does that, a part at a time."""
        return batch

    def _total(self, sums: Sums) -> Sums:
        """Over all processes."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        mine = torch.tensor(sums, dtype=dtype, device=self.device)
        return np.asarray(self.trainer.strategy.reduce(mine, reduce_op="sum").cpu().numpy(), np.float64)


class _Stream:
    """The batches of the current epoch, from the next step on. It has no length: the first may be shorter."""

    def __init__(self, loop: TrainingLoop) -> None:
        self._loop = loop

    def __iter__(self) -> Iterator[Batch]:
        loop = self._loop
        yield from loop.batches.epoch(loop.epoch, loop.start)


def _fit(trainer: Any, module: _Module, stream: _Stream) -> None:
    """Fit; Ctrl-C and SIGTERM raise what they do elsewhere, not Lightning's SystemExit."""
    try:
        trainer.fit(module, stream)
    except SIGTERMException as end:  # it came between Lightning's handler and `on_train_start`
        raise Terminated("Ended at once, as the system asked.") from end
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise


def _quiet() -> SharedChange:
    """Without Lightning's own messages."""
    return _QUIET


@contextmanager
def _without_messages() -> Iterator[None]:
    logs = [logging.getLogger(name) for name in ("lightning", "lightning.pytorch", "lightning.fabric")]
    before = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        with ignored_warnings(r"lightning\."):
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


_QUIET = SharedChange(_without_messages)
