"""Batch norm whose statistics are trained: of averaged weights, and of as few images as there can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.engines.registry import keras_engine, torch_engine

to_module = torch_engine().to_module  # before TensorFlow, as the guard has it
engine = keras_engine()

import keras  # noqa: E402
import torch  # noqa: E402

from headstart.backbones.blueprint import Blueprint  # noqa: E402
from headstart.backbones.ops import Node  # noqa: E402
from headstart.core.errors import DataError, UsageError  # noqa: E402
from headstart.train.batches import ArrayBatches  # noqa: E402
from headstart.train.protocol import TRAINERS, Batch, Task  # noqa: E402
from headstart.train.torch.stepper import TorchStepper  # noqa: E402
from headstart.train.trainers import get_stepper, get_trainer  # noqa: E402
from trainers import (  # noqa: E402
    CLASSES,
    SGD,
    a_batch,
    batches_of,
    furthest,
    one_thread,  # noqa: F401
    pictures,
    small_task,
    task_of,
)

MOVING = replace(SGD, batch_norm="train")
SNAPSHOTS = replace(MOVING, schedule="cosine", averaging="snapshots")
EITHER = pytest.mark.parametrize("trainer", ["pytorch", "tensorflow"])
ALL_FOUR = pytest.mark.parametrize("trainer", TRAINERS)


# --- averaged weights -------------------------------------------------------------------------------------------------


@ALL_FOUR
def test_averaged_snapshots_have_the_statistics_that_the_photos_have_in_them(trainer: str) -> None:
    task = small_task(SNAPSHOTS)
    batches = batches_of(task, 36)
    trained = get_trainer(trainer)(task, batches, None, SNAPSHOTS, device="cpu")
    assert trained.history.best == 3
    module = to_module(task.blueprint, trained.weights, task.spec)
    module.dropout.p = 0.0
    torch.optim.swa_utils.update_bn([torch.tensor(batch.x) for batch in batches.epoch(3)], module)
    state = module.state_dict()
    assert furthest(trained.weights, {name: state[key].numpy() for name, key in module.keys.items()}) < 1e-5


@EITHER
def test_the_training_itself_goes_on_with_its_own_statistics(trainer: str) -> None:
    task = small_task(SNAPSHOTS)
    batches = list(batches_of(task).epoch(0))
    one, other = (get_stepper(trainer, task, SNAPSHOTS, 10, "cpu") for _ in range(2))
    for number, batch in enumerate(batches):  # of ten steps, those from the fifth on may be averaged
        assert one.step(batch) == other.step(batch)
        if number == 4:
            one.measure_statistics(iter(batches))
    one.average.load({}, 0.0)
    other.average.load({}, 0.0)
    assert furthest(one.weights(), other.weights()) == 0


@EITHER
def test_without_averages_there_is_nothing_to_measure(trainer: str) -> None:
    for recipe in (MOVING, replace(SNAPSHOTS, batch_norm="frozen")):
        stepper = get_stepper(trainer, small_task(recipe), recipe, 4, "cpu")
        stepper.step(a_batch(small_task(recipe)))
        stepper.measure_statistics(pytest.fail("looked at") for _ in range(1))


def wrapped_task(trainer: str) -> Task:
    """A module of somebody else, with a batch norm of its own momentum."""
    if trainer == "pytorch":
        torch.manual_seed(0)
        layers = (torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6, momentum=None), torch.nn.ReLU())
        model: Any = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        wrapped = torch_engine().wrap(model, spec=small_task().spec, features="")
    else:
        keras.utils.set_random_seed(3)
        steps = [keras.layers.Conv2D(6, 3), keras.layers.BatchNormalization(momentum=0.5), keras.layers.ReLU()]
        model = keras.Sequential([keras.Input((12, 12, 3)), *steps, keras.layers.GlobalAveragePooling2D()])
        wrapped = engine.wrap(model, features="", pixels=None)
    head = np.random.default_rng(0).normal(size=(CLASSES, 6)).astype(np.float32)
    weights = {**wrapped.trunk.weights, "logits.weight": head, "logits.bias": np.zeros(CLASSES, np.float32)}
    blueprint = wrapped.trunk.blueprint.with_head(CLASSES, sqrt=False)
    return Task(blueprint, weights, {"features": 1.0, "logits": 1.0}, wrapped.trunk.spec, wrapped.module)


@EITHER
def test_norms_inside_a_module_are_measured_too(trainer: str) -> None:
    task = wrapped_task(trainer)
    stepper = get_stepper(trainer, task, SNAPSHOTS, 2, "cpu")
    batches = list(batches_of(task, 16).epoch(0))
    for batch in batches:
        stepper.step(batch)
    counts = {name: array for name, array in stepper.state().items() if name.endswith("num_batches_tracked")}
    stepper.measure_statistics(iter(batches))
    measured = stepper.weights()
    (name,) = (name for name in measured if name.endswith(("running_mean", "moving_mean")))
    kernel = next(name for name in measured if name.endswith("weight" if trainer == "pytorch" else "kernel"))
    bias = kernel.replace("weight", "bias").replace("kernel", "bias")
    # the mean of a convolution's values is linear in its input, so the mean of all patches is enough
    spec = task.spec
    assert spec is not None
    pixels = np.concatenate([batch.x for batch in batches]) / 255
    x = (pixels - np.array(spec.mean)) / np.array(spec.std) if trainer == "pytorch" else pixels * 255
    kernels = measured[kernel] if trainer == "pytorch" else measured[kernel].transpose(3, 2, 0, 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2)).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(measured[name], np.einsum("ocij,cij->o", kernels, windows) + measured[bias], rtol=1e-3)
    for each, count in counts.items():
        assert stepper.state()[each] == count


# --- few images -------------------------------------------------------------------------------------------------------


def neck(norms: str = "train") -> Task:
    """A batch norm after the pooling, where an image has one value of each channel."""
    conv = {"filters": 6, "kernel": (3, 3), "stride": 2, "padding": (0, 0, 0, 0), "groups": 1, "bias": True}
    nodes = (
        Node("input", "input", (), {"channels": 3}),
        Node("conv", "conv", ("input",), conv),
        Node("pool", "pool", ("conv",), {"kind": "global_average"}),
        Node("neck", "norm", ("pool",), {"epsilon": 1e-5}),
        Node("features", "act", ("neck",), {"kind": "relu"}),
        Node("logits", "dense", ("features",), {"units": CLASSES}),
    )
    return task_of(Blueprint("neck", nodes, 12), replace(SGD, batch_norm=norms))


@ALL_FOUR
def test_no_batch_is_a_single_image(trainer: str) -> None:
    task, recipe = neck(), replace(MOVING, epochs=2)
    for images in (9, 3):
        trained = get_trainer(trainer)(task, batches_of(task, images), None, recipe, device="cpu")
        assert trained.history.stopped == ""
        assert len(trained.history.losses) == 2
        assert all(np.isfinite(array).all() for array in trained.weights.values())
        assert trained.weights["neck.var"].min() > 1e-3  # which the variance of one image would pull to 0


@ALL_FOUR
def test_where_there_is_but_one_image_a_sentence_says_so(trainer: str) -> None:
    x, y = pictures(12, 1)
    with pytest.raises(DataError, match=r"training set is a single image.*batch_norm 'frozen'"):
        get_trainer(trainer)(neck(), ArrayBatches(x, y, 8), None, MOVING, device="cpu")
    still = get_trainer(trainer)(neck("frozen"), ArrayBatches(x, y, 8), None, SGD, device="cpu")
    assert len(still.history.losses) == SGD.epochs
    with pytest.raises(UsageError, match=r"no variance of a single image.*Take a larger batch_size"):
        get_trainer(trainer)(neck(), batches_of(neck(), 4, 1), None, replace(MOVING, batch_size=1), device="cpu")


@EITHER
def test_a_batch_in_parts_has_no_part_of_one_image(trainer: str) -> None:
    stepper = get_stepper(trainer, neck(), MOVING, 2, "cpu")
    x, y = pictures(12, 7)
    stepper.at_a_time = 2
    assert [len(range(7)[part]) for part in stepper.parts(7)] == [2, 2, 3]
    stepper.step(Batch(x, y))
    with pytest.raises(UsageError, match=r"on 2 images at a time \(none left"):
        stepper.halve(2, MemoryError("none left"))
    still = get_stepper(trainer, neck("frozen"), SGD, 2, "cpu")
    still.at_a_time = 2
    assert [len(range(7)[part]) for part in still.parts(7)] == [2, 2, 2, 1]  # as memory allows


def test_of_several_processes_each_takes_what_is_too_few_for_all() -> None:
    """A batch of three images for two of them: one alone would have no statistics."""
    batch = a_batch(neck(), 3)
    alone, *both = (TorchStepper(neck(), MOVING, 2, "cpu") for _ in range(3))
    expected = alone.gradients(batch, 0.1)
    sums = []
    for rank, stepper in enumerate(both):
        stepper.rank, stepper.ranks = rank, 2
        stepper.total = lambda mine: sums.append(mine) or 2 * mine  # type: ignore[func-returns-value]
        assert stepper.gradients(batch, 0.1) == pytest.approx(expected, rel=1e-6)
        for name, parameter in stepper.network.parameters.items():
            torch.testing.assert_close(parameter.grad, alone.network.parameters[name].grad, msg=name)
    np.testing.assert_array_equal(sums[0], sums[1])
