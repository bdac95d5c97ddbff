"""The trainer ``pytorch``: a plain loop."""

from __future__ import annotations

from headstart.train.loop import make_trainer
from headstart.train.torch.stepper import TorchStepper

train_pytorch = make_trainer("pytorch", TorchStepper)
