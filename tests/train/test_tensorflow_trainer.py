"""The trainer `tensorflow` and its steps: those of a plain loop in PyTorch, compiled once, the same when resumed."""

from __future__ import annotations

import math
import random
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from headstart.engines.registry import keras_engine, torch_engine

torch_engine()  # before TensorFlow, as the guard has it
engine = keras_engine()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
import torch  # noqa: E402

from averages import Averaging  # noqa: E402
from headstart.backbones.blueprint import Blueprint  # noqa: E402
from headstart.backbones.families.small import small_cnn  # noqa: E402
from headstart.core.errors import DivergedError, UsageError  # noqa: E402
from headstart.train.protocol import Batch, Task  # noqa: E402
from headstart.train.recipe import OPTIMISERS, Recipe  # noqa: E402
from headstart.train.stepper import Stepper  # noqa: E402
from headstart.train.tensorflow import network as tensorflow_network  # noqa: E402
from headstart.train.tensorflow.optimiser import RecipeOptimiser  # noqa: E402
from headstart.train.tensorflow.plain_loop import TensorFlowStepper, train_tensorflow  # noqa: E402
from headstart.train.torch.optimiser import build_optimiser, clip  # noqa: E402
from headstart.train.torch.plain_loop import train_pytorch  # noqa: E402
from headstart.train.torch.stepper import TorchStepper  # noqa: E402
from referee import EVERY_OP, SPEC, weights_for  # noqa: E402
from trainers import (  # noqa: E402
    EVERYTHING,
    MEASURED,
    SGD,
    STEPS,
    a_batch,
    assert_equal,
    batches_of,
    furthest,
    one_thread,  # noqa: F401
    pictures,
    small_task,
    task_of,
)


def stepper_of(recipe: Recipe, task: Task | None = None, **more: Any) -> TensorFlowStepper:
    return TensorFlowStepper(task or small_task(recipe), recipe, STEPS, "cpu", **more)


def train(recipe: Recipe, task: Task | None = None, trainer: Any = train_tensorflow, **more: Any) -> Any:
    task = task or small_task(recipe)
    validation = batches_of(task, 24, shuffle=False)  # that it learns even in a few steps
    return trainer(task, batches_of(task, 36), validation, recipe, device="cpu", **more)


# --- the same as in PyTorch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norms", ["frozen", "train"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_part_of_the_recipe_is_what_it_is_in_pytorch(optimiser: str, norms: str) -> None:
    """Rates by layer and step, decay of kernels, smoothing, clip, dropout, moving average, statistics."""
    recipe = replace(EVERYTHING, optimiser=optimiser, batch_norm=norms)
    here, there = train(recipe), train(recipe, trainer=train_pytorch)
    assert here.history.trainer == "tensorflow"
    np.testing.assert_allclose(here.history.losses, there.history.losses, atol=1e-5)
    assert furthest(here.last, there.last) < 1e-5
    assert furthest(here.last, dict(small_task(recipe).weights)) > 1e-3
    assert furthest(here.weights, there.weights) < 1e-5
    assert here.history.best == there.history.best
    for one, other in zip(here.history.epochs, there.history.epochs, strict=True):
        for part in MEASURED:
            assert getattr(one, part) == pytest.approx(getattr(other, part), abs=1e-5)


@pytest.mark.parametrize("size", [1.0, 1e-7])  # beside the latter Adam's epsilon is no longer nothing
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_an_optimiser_moves_as_pytorchs_does(optimiser: str, size: float) -> None:
    recipe = replace(EVERYTHING, optimiser=optimiser, clip=0.0 if size < 1 else 1.5)
    generator = np.random.default_rng(0)
    start = {"kernel": generator.normal(size=(3, 4)), "bias": generator.normal(size=4)}
    shares = {"kernel": 0.5, "bias": 2.0}
    parameters = {name: torch.tensor(each, dtype=torch.float32, requires_grad=True) for name, each in start.items()}
    variables = {name: keras.Variable(each, dtype="float32", name=name) for name, each in start.items()}
    judge, optimiser_here = build_optimiser(parameters, shares, recipe), RecipeOptimiser(variables, shares, recipe)
    for rate in (0.1, 0.02, 0.3, 0.05):
        gradients = {
            name: (size * generator.normal(size=each.shape)).astype(np.float32) for name, each in start.items()
        }
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[name])
        for group in judge.param_groups:
            group["lr"] = rate * group["share"]
        norm = clip(parameters.values(), recipe.clip)
        judge.step()
        optimiser_here.learning_rate = rate
        optimiser_here.apply([tf.constant(each) for each in gradients.values()])
        assert optimiser_here.norm.numpy() == pytest.approx(norm, rel=1e-6)
    for name, parameter in parameters.items():
        there = parameter.detach().numpy()
        moved = np.abs(there - start[name].astype(np.float32)).max()
        assert moved > 1e-8
        np.testing.assert_allclose(variables[name].numpy(), there, rtol=0, atol=1e-6 * moved + 1.2e-7)


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    for wrong in (math.nan, math.inf):
        variables = {name: keras.Variable(np.ones((2, 2)), dtype="float32") for name in "ab"}
        optimiser = RecipeOptimiser(variables, {"a": 1.0, "b": 1.0}, replace(EVERYTHING, optimiser="adam"))
        before = [np.array(each.numpy()) for each in optimiser.variables if each is not optimiser.norm]
        optimiser.apply([tf.ones((2, 2)), tf.fill((2, 2), wrong)])
        assert not np.isfinite(optimiser.norm.numpy())
        assert all((each.numpy() == 1).all() for each in variables.values())
        for each, value in zip([v for v in optimiser.variables if v is not optimiser.norm], before, strict=True):
            np.testing.assert_array_equal(each.numpy(), value)


@pytest.mark.parametrize("averaging", ["none", "ema", "snapshots"])
def test_the_weights_that_count_are_the_averaged_ones(averaging: str) -> None:
    recipe = replace(EVERYTHING, averaging=averaging)
    stepper, average = stepper_of(recipe), Averaging(recipe, STEPS)
    last: dict[str, Any] = {}
    for step, batch in enumerate(batches_of(stepper.task, 40 * 4).epoch(0)):
        stepper.step(batch)
        last = {name: stepper.network.outward(name, each) for name, each in stepper.network.trained.items()}
        average.update(step, last)
    kept = {name: array for name, array in stepper.weights().items() if name in last}
    assert furthest(kept, average.weights(last)) < 1e-6
    assert (furthest(kept, last) > 2e-5) == (averaging != "none")


def test_every_kind_of_node_is_trained_as_in_pytorch() -> None:
    rates = {name.rpartition(".")[0]: 1.0 for name in EVERY_OP.weight_shapes()}
    task = Task(EVERY_OP, weights_for(EVERY_OP), rates, SPEC)
    recipe = replace(SGD, learning_rate=0.02, dropout=0.2)
    batch = Batch(np.random.default_rng(0).integers(0, 256, (16, 9, 9, 3), np.uint8), np.arange(16) % 5)
    here, there = stepper_of(recipe, task), TorchStepper(task, recipe, STEPS, "cpu")
    losses = [(here.step(batch), there.step(batch)) for _ in range(4)]
    np.testing.assert_allclose([one for one, _ in losses], [other for _, other in losses], atol=1e-4)
    weights, expected = here.weights(), there.weights()
    assert furthest(weights, expected) < 1e-4
    for node in EVERY_OP.parameters():
        assert not np.array_equal(weights[f"{node}.weight"], task.weights[f"{node}.weight"])


def test_pixels_and_what_stands_for_them_may_be_floats() -> None:
    batch = a_batch(small_task())
    bytes_, floats = stepper_of(SGD), stepper_of(SGD)
    expected = bytes_.step(batch)
    assert floats.step(Batch(batch.x.astype(np.float64) / 255, batch.y)) == pytest.approx(expected, abs=1e-6)
    blueprint = Blueprint("maps", small_cnn(6, 4, widths=(6,)).nodes, 6)
    task = replace(task_of(blueprint, SGD), spec=None)  # what a frozen part made: channels first, nothing normalised
    maps = Batch(np.random.default_rng(0).normal(size=(5, 3, 6, 6)).astype(np.float32), np.arange(5) % 4)
    here, there = stepper_of(SGD, task), TorchStepper(task, SGD, STEPS, "cpu")
    assert here.step(maps) == pytest.approx(there.step(maps), abs=1e-6)
    assert furthest(here.weights(), there.weights()) < 1e-6


# --- compiled once ----------------------------------------------------------------------------------------------------


def test_a_short_last_batch_is_not_compiled_again() -> None:
    stepper = stepper_of(EVERYTHING)
    for epoch in range(2):
        for batch in batches_of(stepper.task, 20, 8).epoch(epoch):
            stepper.step(batch)
        stepper.evaluate(batches_of(stepper.task, 20, 8, shuffle=False).epoch(0))
    stepper.step(a_batch(stepper.task, 1), 0.001)
    for function in (stepper._pass, stepper._logits, stepper._apply, stepper.average._take):
        assert function.experimental_get_tracing_count() == 1


# --- what stays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norms", ["frozen", "train"])
def test_what_has_no_rate_stays_bit_by_bit(norms: str) -> None:
    task = replace(small_task(), rates={"bn2": 1.0, "logits": 1.0})
    weights = train(replace(SGD, batch_norm=norms), task).weights
    moved = {name for name, array in weights.items() if not np.array_equal(array, task.weights[name])}
    statistics = {"bn2.mean", "bn2.var"} if norms == "train" else set()
    assert moved == {"bn2.weight", "bn2.bias", "logits.weight", "logits.bias"} | statistics


def test_measuring_moves_nothing() -> None:
    stepper = stepper_of(replace(SGD, batch_norm="train", dropout=0.5))
    batch = a_batch(stepper.task)
    stepper.step(batch)
    before = stepper.weights()
    once, again = (stepper.evaluate(iter([batch, batch])) for _ in range(2))
    assert once == again
    assert_equal(stepper.weights(), before)


def test_what_is_the_users_stays_as_it_was() -> None:
    name = keras.layers.Dense(1).name
    before = random.getstate(), np.random.get_state()[1].tolist(), tf.random.get_global_generator().state.numpy()  # type: ignore[index]
    train(EVERYTHING)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    np.testing.assert_array_equal(tf.random.get_global_generator().state.numpy(), before[2])
    assert int(keras.layers.Dense(1).name.split("_")[-1]) == int(name.removeprefix("dense").strip("_") or 0) + 1


# --- a foreign network ------------------------------------------------------------------------------------------------


def kerasaurus(norms: str, dropout: float = 0.5) -> tuple[Task, Recipe]:
    recipe = replace(SGD, batch_norm=norms)
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(6, 3, kernel_regularizer=keras.regularizers.L2(1.0), name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(dropout),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
        ],
        name="kerasaurus",
    )
    wrapped = engine.wrap(model, features="", pixels=None)
    blueprint = wrapped.trunk.blueprint.with_head(4, sqrt=False)
    generator = np.random.default_rng(0)
    head = {"logits.weight": generator.normal(size=(4, 6)).astype(np.float32), "logits.bias": np.zeros(4, np.float32)}
    rates = {"features": 1.0, "logits": 1.0}
    return Task(blueprint, {**wrapped.trunk.weights, **head}, rates, wrapped.trunk.spec, wrapped.module), recipe


@pytest.mark.parametrize("norms", ["frozen", "train"])
def test_a_model_of_somebody_elses_is_trained_without_its_dropout(norms: str) -> None:
    task, recipe = kerasaurus(norms)
    batch = a_batch(task)
    stepper = stepper_of(recipe, task)
    statistics = {f"features.norm.moving_{part}" for part in ("mean", "variance")}
    assert stepper.network.statistics.keys() == (statistics if norms == "train" else set())
    first = stepper.evaluate(iter([batch]))[0]
    assert (abs(stepper.step(batch) - first) < 1e-6) == (norms == "frozen")
    weights = stepper.weights()
    moved = {name for name, array in weights.items() if not np.array_equal(array, task.weights[name])}
    assert moved == weights.keys() - (set() if norms == "train" else statistics)
    without = stepper_of(recipe, kerasaurus(norms, dropout=0.0)[0])
    without.step(batch)
    assert_equal(without.weights(), weights)
    assert stepper.network.model.losses == []


# --- bit by bit the same after an interruption ------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["momentum", "adamw"])
def test_a_training_may_go_on_in_the_other_framework(optimiser: str) -> None:
    recipe = replace(EVERYTHING, optimiser=optimiser, batch_norm="train")
    task = small_task(recipe)
    batches = list(batches_of(task, 80).epoch(0))
    whole, *there = (TorchStepper(task, recipe, STEPS, "cpu") for _ in range(4))
    losses = [whole.step(batch) for batch in batches]
    steppers: list[Stepper] = [there[0], stepper_of(recipe, task), there[1]]
    for place, stepper in enumerate(steppers):
        if place:
            stepper.load_state(steppers[place - 1].state())
        for number in range(3 * place, 3 * place + 3):
            assert stepper.step(batches[number]) == pytest.approx(losses[number], abs=1e-5)
    early = stepper_of(recipe, task)
    early.load_state(there[2].state())  # which remembers nothing yet
    assert early.step(batches[0]) == pytest.approx(losses[0], abs=1e-5)


# --- when it goes wrong -----------------------------------------------------------------------------------------------


def short_of_memory(stepper: TensorFlowStepper, images: int, passes: int = 100) -> list[int]:
    """Let some passes of more images than that run out of memory, in the graph; returns the sizes that were tried."""
    tried: list[int] = []
    run = stepper.network.model.run

    def look(count: np.int32) -> np.int32:
        tried.append(int(count))
        if count > images and len(tried) <= passes:
            raise MemoryError("OOM when allocating a lot")
        return count

    def limited(inputs: Any, training: bool) -> Any:
        logits = run(inputs, training)  # which in training moves statistics first
        with tf.control_dependencies([logits, *(each.value for each in stepper.network.statistics.values())]):
            count = tf.ensure_shape(tf.numpy_function(look, [tf.shape(logits)[0]], tf.int32), ())
        return logits + tf.cast(0 * count, tf.float32)

    stepper.network.model.run = limited
    return tried


@pytest.mark.parametrize("norms", ["frozen", "train"])
def test_a_batch_that_memory_does_not_hold_is_taken_in_parts(norms: str) -> None:
    said: list[str] = []
    recipe = replace(EVERYTHING, optimiser="momentum", batch_norm=norms)
    whole, parted = stepper_of(recipe), stepper_of(recipe, say=said.append)
    tried = short_of_memory(parted, 2 if norms == "frozen" else 7)
    for batch in list(batches_of(whole.task, 16, 7).epoch(0)):  # 7, 7 and 2 images: a mean of means would be another
        expected = whole.step(batch)
        assert parted.step(batch) == pytest.approx(expected, abs=1e-6)
    assert furthest(parted.weights(), whole.weights()) < 1e-6
    assert parted.seen() == pytest.approx(whole.seen(), abs=1e-6)
    if norms == "frozen":
        assert tried == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1, 2]
        assert len(said) == 2
        assert said[1].startswith("Memory ran out with 4 images at a time. From step 1 on 2 are taken at a time")


def test_running_out_of_memory_leaves_no_trace_in_statistics() -> None:
    stepper = stepper_of(replace(SGD, batch_norm="train"))
    start = stepper.weights()
    short_of_memory(stepper, 0)
    with pytest.raises(UsageError, match=r"on one image at a time \("):
        stepper.step(a_batch(stepper.task))
    assert_equal(stepper.weights(), start)


def test_a_pass_for_which_memory_ended_leaves_no_trace_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(SGD, batch_norm="train")
    whole, again = stepper_of(recipe), stepper_of(recipe)
    monkeypatch.setattr(again, "halve", lambda size, error: None)  # of half a batch it has other statistics
    tried = short_of_memory(again, 0, passes=1)
    batch = a_batch(whole.task)
    assert again.step(batch) == whole.step(batch)
    assert tried == [8, 8]
    assert_equal(again.weights(), whole.weights())


def test_a_loss_that_overflows_moves_nothing_though_its_gradient_is_a_number() -> None:
    task = small_task()
    bias = np.array([3e38, -3e38, 0, 0], np.float32)
    stepper = stepper_of(SGD, replace(task, weights={**task.weights, "logits.bias": bias}))
    before = stepper.weights()
    x, _ = pictures(12, 8)
    with pytest.raises(DivergedError, match="the loss is inf"):
        stepper.step(Batch(x, np.ones(8, np.int64)))
    assert_equal(stepper.weights(), before)


def test_a_gradient_that_overflows_moves_nothing() -> None:
    task = small_task()
    # a loss of a few nats, and below it a kernel whose gradient is of the size of the next one's weights
    weights = dict(task.weights) | {"bn2.weight": np.full_like(task.weights["bn2.weight"], 1e-30)}
    weights["logits.weight"] = np.full_like(task.weights["logits.weight"], 1e30) * np.array([[1, -1, 1, -1]]).T
    stepper = stepper_of(SGD, replace(task, weights=weights))
    before = stepper.weights()
    with pytest.raises(DivergedError, match="the gradient is not a number"):
        stepper.step(a_batch(task))
    assert_equal(stepper.weights(), before)


# --- precision, devices, bad input ------------------------------------------------------------------------------------


def test_bf16_is_near_fp32_and_the_last_layer_is_not_in_it() -> None:
    task = small_task()
    low, high = stepper_of(replace(SGD, precision="bf16"), task), stepper_of(SGD, task)
    dtypes = {layer.name: layer.compute_dtype for layer in low.network.model.parts}
    assert dtypes == dict.fromkeys(("conv1", "bn1", "conv2", "bn2"), "bfloat16") | {"logits": "float32"} | {
        name: dtype for name, dtype in dtypes.items() if name not in ("conv1", "bn1", "conv2", "bn2", "logits")
    }
    batch = a_batch(task)
    expected = high.step(batch)
    assert low.step(batch) == pytest.approx(expected, abs=0.1)
    one, other = (stepper.weights()["logits.weight"] - task.weights["logits.weight"] for stepper in (low, high))
    assert not np.array_equal(one, other)
    assert (one * other).sum() > 0.99 * np.linalg.norm(one) * np.linalg.norm(other)


@pytest.mark.parametrize(("capability", "fast"), [((9, 0), True), ((8, 0), True), ((7, 5), False), (None, False)])
def test_auto_is_bf16_where_the_gpu_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None, fast: bool
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"])
    details = {"compute_capability": capability} if capability else {}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    assert tensorflow_network.fast_in_bf16("cuda") == fast
    assert not tensorflow_network.fast_in_bf16("cpu")  # where it was measured at half the speed of fp32


@pytest.mark.parametrize(
    ("platform", "gpus", "device", "chosen"),
    [
        ("linux", 1, "auto", "cuda"),
        ("linux", 1, "cuda", "cuda"),
        ("linux", 1, "cpu", "cpu"),
        ("linux", 1, "mps", "finds no mps on this machine. It finds: cuda, cpu"),
        ("darwin", 1, "mps", "mps"),
        ("darwin", 1, "cuda", "finds no cuda"),
        ("linux", 0, "auto", "cpu"),
        ("linux", 0, "cuda", "finds no cuda on this machine. It finds: cpu"),
        ("linux", 0, "gpu", "no device 'gpu'"),
    ],
)
def test_devices_go_by_the_names_that_all_trainers_have(
    monkeypatch: pytest.MonkeyPatch, platform: str, gpus: int, device: str, chosen: str
) -> None:
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"] * gpus)
    monkeypatch.setattr(sys, "platform", platform)
    if " " not in chosen:
        assert engine.choose_device(device) == chosen
    else:
        with pytest.raises(UsageError, match=chosen):
            engine.choose_device(device)
