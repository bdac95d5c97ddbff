"""The trainer ``tensorflow``: a plain loop with a gradient tape."""

from __future__ import annotations

from headstart.engines.registry import keras_engine

keras_engine()  # imports TensorFlow in the safe order, or says what is missing

from headstart.train.loop import make_trainer  # noqa: E402
from headstart.train.tensorflow.stepper import TensorFlowStepper  # noqa: E402

__all__ = ["TensorFlowStepper", "train_tensorflow"]

train_tensorflow = make_trainer("tensorflow", TensorFlowStepper)
