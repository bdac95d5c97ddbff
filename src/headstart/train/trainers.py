"""The four trainers by name, each imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headstart.core.errors import UsageError, did_you_mean
from headstart.engines.names import framework_of
from headstart.engines.registry import check_present, keras_engine, torch_engine
from headstart.train.protocol import TRAINERS, Task
from headstart.train.recipe import Recipe
from headstart.train.stepper import Stepper

if TYPE_CHECKING:
    from headstart.train.loop import Trainer


def resolve_trainer(name: str, source: str = "") -> str:
    """The trainer, "auto" resolved: pytorch, or tensorflow where Keras alone can run a network of that ``source``.

    Both are plain loops, which resume bit by bit.
    """
    if name != "auto":
        return name
    return "tensorflow" if framework_of(source) == "keras" else "pytorch"


def check_trainer(name: str, devices: int = 1, nodes: int = 1, strategy: str = "auto") -> None:
    """Refuse an unknown trainer, and several devices for one that takes one.

    Raises:
        UsageError: either.
    """
    if name not in TRAINERS:
        raise UsageError(f"There is no trainer '{name}'. {did_you_mean(name, TRAINERS)}")
    if devices < 1 or nodes < 1:
        raise UsageError(f"Expected at least one device and one node. Received: devices={devices}, nodes={nodes}.")
    if name != "lightning" and (devices, nodes, strategy) != (1, 1, "auto"):
        raise UsageError(
            f"The trainer '{name}' takes one device. Received: devices={devices}, nodes={nodes}, "
            f"strategy='{strategy}'. Several are Lightning's: --trainer lightning"
        )


def check_device(trainer: str, device: str) -> None:
    """Refuse a device that is not there.

    Raises:
        UsageError: the trainer's framework finds no such device.
        MissingExtraError: it is not installed.
    """
    get_trainer(trainer)
    check_present("torch" if trainer in ("pytorch", "lightning") else "keras", device)


def get_trainer(name: str) -> Trainer:
    """The trainer called ``name``.

    Raises:
        UsageError: there is no such trainer.
        MissingExtraError: its framework is not installed.
    """
    check_trainer(name)
    trainer: Trainer
    if name in ("pytorch", "lightning"):
        torch_engine()
        if name == "pytorch":
            from headstart.train.torch.plain_loop import train_pytorch as trainer
        else:
            from headstart.train.torch.lightning import train_lightning as trainer
    else:
        keras_engine()
        if name == "tensorflow":
            from headstart.train.tensorflow.plain_loop import train_tensorflow as trainer
        else:
            from headstart.train.tensorflow.keras import train_keras as trainer
    return trainer


def get_stepper(trainer: str, task: Task, recipe: Recipe, steps: int, device: str = "auto", **more: Any) -> Stepper:
    """A network in training, one step at a time, in the framework of a trainer; for a loop of one's own.

    Raises:
        UsageError: there is no such trainer, or it cannot train the task.
        MissingExtraError: its framework is not installed.
    """
    check_trainer(trainer)
    if trainer in ("pytorch", "lightning"):
        torch_engine()
        from headstart.train.torch.stepper import TorchStepper

        return TorchStepper(task, recipe, steps, device, **more)
    keras_engine()
    from headstart.train.tensorflow.stepper import TensorFlowStepper

    return TensorFlowStepper(task, recipe, steps, device, **more)
