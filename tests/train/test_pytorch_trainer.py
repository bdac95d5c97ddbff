"""The trainer `pytorch` and its steps: those of a plain loop, bit by bit the same after an interruption, careful."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from averages import Averaging
from headstart.backbones.blueprint import Blueprint
from headstart.backbones.families.small import small_cnn
from headstart.core.errors import UsageError
from headstart.core.types import ImageSpec
from headstart.engines.torch.network import TorchNetwork, to_module, wrap
from headstart.learn.calibrate import fit_inverse_temperature
from headstart.train.dropout import dropout_mask, dropped
from headstart.train.protocol import Batch, Task
from headstart.train.recipe import OPTIMISERS, Recipe
from headstart.train.schedule import rate
from headstart.train.torch.optimiser import place_memory
from headstart.train.torch.plain_loop import train_pytorch
from headstart.train.torch.stepper import TorchStepper
from referee import EVERY_OP, SPEC, weights_for
from trainers import (
    CLASSES,
    EVERYTHING,
    SGD,
    STEPS,
    Listener,
    a_batch,
    assert_equal,
    batches_of,
    crash,
    furthest,
    learned,
    mobilenet_task,
    one_thread,  # noqa: F401
    pictures,
    plain_loop,
    small_task,
    table_task,
    task_of,
)


def stepper_of(recipe: Recipe, task: Task | None = None, **more: Any) -> TorchStepper:
    return TorchStepper(task or small_task(recipe), recipe, STEPS, "cpu", **more)


def train(recipe: Recipe, task: Task | None = None, **more: Any) -> Any:
    task = task or small_task(recipe)
    validation = batches_of(task, 24, shuffle=False)  # that it learns even in a few steps
    return train_pytorch(task, batches_of(task), validation, recipe, device="cpu", **more)


# --- the same as a plain loop -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [small_task, mobilenet_task])
def test_plain_sgd_is_a_plain_loop(make: Callable[[], Task]) -> None:
    task = make()
    trained = train_pytorch(task, batches_of(task, 37), None, SGD, device="cpu")
    losses, weights = plain_loop(task, batches_of(task, 37), SGD)
    assert len(losses) == STEPS
    lowest = next(name for name in weights if name.endswith(".weight"))
    assert np.abs(weights[lowest] - task.weights[lowest]).max() > 1e-4  # so the gradient went all the way
    np.testing.assert_allclose(trained.history.losses, losses, atol=1e-5)
    assert furthest(trained.weights, weights) < 1e-5


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_every_part_of_a_step_is_what_it_says(optimiser: str) -> None:
    """Rates by layer and step, decay of kernels, smoothing, clip, dropout, moving average: spelt out, in one loop."""
    recipe = replace(EVERYTHING, optimiser=optimiser)
    task = small_task(recipe)
    stepper = stepper_of(recipe)
    module = to_module(task.blueprint, task.weights, task.spec)  # type: ignore[arg-type]
    parameters = dict(module.named_parameters())
    groups = [
        {
            "params": [parameter],
            "weight_decay": 0.1 if name in ("conv1.weight", "conv2.weight", "logits.weight") else 0.0,
            "share": {"conv1": 0.25, "bn1": 0.25, "conv2": 0.5, "bn2": 0.5, "logits": 1.0}[name.split(".")[0]],
        }
        for name, parameter in parameters.items()
    ]
    kinds: dict[str, Callable[[Any], Any]] = {
        "sgd": lambda groups: torch.optim.SGD(groups, 0.1),
        "momentum": lambda groups: torch.optim.SGD(groups, 0.1, momentum=0.9),
        "adam": lambda groups: torch.optim.Adam(groups, 0.1),
        "adamw": lambda groups: torch.optim.AdamW(groups, 0.1),
    }
    judge, average = kinds[optimiser](groups), Averaging(recipe, STEPS)
    for step, batch in enumerate(batches_of(task, 40).epoch(0)):
        mask = torch.tensor(dropout_mask(recipe, step, "dropout", (len(batch.y), 8)))
        drop = module.dropout.register_forward_hook(lambda _module, _inputs, output, mask=mask: output * mask)
        logs = functional.log_softmax(module(torch.tensor(batch.x)), 1)
        wanted = 0.9 * functional.one_hot(torch.tensor(batch.y), CLASSES) + 0.1 / CLASSES
        loss = -(wanted * logs).sum(1).mean()
        drop.remove()
        judge.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters.values()))
        for parameter in parameters.values():
            parameter.grad *= min(1.0, 0.5 / norm)
        for group in judge.param_groups:
            group["lr"] = rate(recipe, step, STEPS, steps_per_epoch=5) * group["share"]
        judge.step()
        average.update(step, {name: p.detach().numpy() for name, p in parameters.items()})
        assert stepper.step(batch) == pytest.approx(loss.item(), abs=1e-5)
    assert norm > 0.5  # or nothing was clipped
    last = {name: parameter.detach().numpy() for name, parameter in parameters.items()}
    moved = {name: array for name, array in stepper.weights().items() if name in last}
    assert furthest(moved, average.weights(last)) < 2e-5
    assert furthest(moved, last) > 1e-4  # the average is not the last


STEPS_OF_EVERY_OPTIMISER = """
import sys
from dataclasses import replace
from headstart.train.recipe import OPTIMISERS
from headstart.train.torch.stepper import TorchStepper
from trainers import SGD, a_batch, small_task

for optimiser in OPTIMISERS:
    TorchStepper(small_task(), replace(SGD, optimiser=optimiser), 2, "cpu").step(a_batch(small_task()))
print("torch._dynamo" in sys.modules)
"""


def test_no_optimiser_waits_for_a_compiler_that_compiles_nothing() -> None:
    there, code = Path(__file__).parents[1], [sys.executable, "-c", STEPS_OF_EVERY_OPTIMISER]
    done = subprocess.run(code, cwd=there, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("averaging", ["none", "snapshots"])
def test_the_last_weights_or_the_mean_of_snapshots_count(averaging: str) -> None:
    recipe = replace(EVERYTHING, averaging=averaging)
    stepper, average = stepper_of(recipe), Averaging(recipe, STEPS)
    for step, batch in enumerate(batches_of(stepper.task, 40 * 4).epoch(0)):
        stepper.step(batch)
        average.update(step, {name: value.detach().numpy() for name, value in stepper.network.trained.items()})
    last = {name: value.detach().numpy() for name, value in stepper.network.trained.items()}
    kept = {name: array for name, array in stepper.weights().items() if name in last}
    assert furthest(kept, average.weights(last)) < 1e-6
    assert (furthest(kept, last) > 1e-4) == (averaging == "snapshots")


def test_a_users_own_loop_takes_one_step_at_a_time() -> None:
    stepper = stepper_of(SGD)
    losses = []
    for epoch in range(4):
        for batch in batches_of(stepper.task).epoch(epoch):
            losses.append(stepper.step(batch))
            if losses[-1] < 0.1:
                break
    assert stepper.steps_done == len(losses)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    batch = a_batch(stepper.task)
    before = stepper.weights()["logits.bias"]
    stepper.step(batch, 1e-9)  # at a rate of one's own, also after the schedule's end
    assert np.abs(stepper.weights()["logits.bias"] - before).max() < 1e-6


def test_every_kind_of_node_is_trained() -> None:
    rates = {name.rpartition(".")[0]: 1.0 for name in EVERY_OP.weight_shapes()}
    task = Task(EVERY_OP, weights_for(EVERY_OP), rates, SPEC)
    x = np.random.default_rng(0).integers(0, 256, (16, 9, 9, 3), np.uint8)
    batch = Batch(x, np.arange(16) % 5)
    stepper = stepper_of(replace(SGD, learning_rate=0.02), task)
    losses = [stepper.step(batch) for _ in range(STEPS)]
    assert losses[-1] < 0.8 * losses[0]
    weights = stepper.weights()
    for node in EVERY_OP.parameters():
        assert not np.array_equal(weights[f"{node}.weight"], task.weights[f"{node}.weight"])


def test_it_is_evaluated_as_it_would_be_kept() -> None:
    """In evaluation mode, with the averaged weights; and trains on with its own."""
    rates = {name.rpartition(".")[0]: 1.0 for name in EVERY_OP.weight_shapes()}
    task = Task(EVERY_OP, weights_for(EVERY_OP), rates, SPEC)
    recipe = replace(EVERYTHING, batch_norm="train", averaging="ema")
    x = np.random.default_rng(0).integers(0, 256, (16, 9, 9, 3), np.uint8)
    batch = Batch(x, np.arange(16) % 5)
    one, other = stepper_of(recipe, task), stepper_of(recipe, task)
    for _ in range(3):
        one.step(batch)
        other.step(batch)
        loss, error, _ = one.evaluate(iter([batch, batch]))
    logits = TorchNetwork(EVERY_OP, one.weights(), SPEC, device="cpu").forward(x)
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss == pytest.approx(-logs[np.arange(16), batch.y].mean(), abs=1e-5)
    assert error == pytest.approx((logits.argmax(1) != batch.y).mean(), abs=1e-9)
    assert_equal(one.state(), other.state())


# --- what stays -------------------------------------------------------------------------------------------------------


def test_what_has_no_rate_stays_bit_by_bit() -> None:
    task = small_task()
    task = replace(task, rates={"bn2": 1.0, "logits": 1.0})
    for norms in ("frozen", "train"):
        weights = train_pytorch(task, batches_of(task), None, replace(SGD, batch_norm=norms), device="cpu").weights
        moved = {name for name, array in weights.items() if not np.array_equal(array, task.weights[name])}
        statistics = {"bn2.mean", "bn2.var"} if norms == "train" else set()
        assert moved == {"bn2.weight", "bn2.bias", "logits.weight", "logits.bias"} | statistics


def test_statistics_follow_the_photos_if_the_recipe_says_so() -> None:
    recipe = replace(SGD, batch_norm="train")
    task = small_task(recipe)
    stepper, batch = stepper_of(recipe, task), a_batch(task)
    module = to_module(task.blueprint, task.weights, task.spec)  # type: ignore[arg-type]
    module.train()
    module.dropout.eval()
    expected = functional.cross_entropy(module(torch.tensor(batch.x)), torch.tensor(batch.y)).item()
    assert stepper.step(batch) == pytest.approx(expected, abs=1e-5)
    for part in ("mean", "var"):
        np.testing.assert_allclose(
            stepper.weights()[f"bn1.{part}"], module.state_dict()[f"bn1.running_{part}"].numpy(), atol=1e-6
        )
    before = stepper.weights()
    stepper.evaluate(iter([batch]))
    assert_equal(stepper.weights(), before)


def test_whoever_calls_train_on_the_module_changes_nothing() -> None:
    one, other = stepper_of(SGD), stepper_of(SGD)
    other.network.module.train()
    batch = a_batch(one.task)
    assert one.step(batch) == other.step(batch)
    assert_equal(other.weights(), one.weights())


@pytest.mark.parametrize("fused", [True, False, None])
def test_what_a_resumed_optimiser_remembers_lies_where_it_reads_it(fused: bool | None) -> None:
    """As torch.optim makes it on an accelerator, for which the device without memory stands here."""
    kernel, scalar = torch.empty(3, 2, device="meta"), torch.empty((), device="meta")
    memory = {key: torch.zeros(3, 2) for key in ("exp_avg", "exp_avg_sq")} | {"step": torch.tensor(7.0)}
    optimiser = SimpleNamespace(
        param_groups=[{"params": [kernel], "fused": fused}, {"params": [scalar], "fused": fused}],
        state={kernel: memory, scalar: {"exp_avg": torch.zeros(()), "step": torch.tensor(7.0)}},
    )
    place_memory(optimiser)
    for parameter in (kernel, scalar):
        found = {key: value.device.type for key, value in optimiser.state[parameter].items()}
        assert found.pop("step") == ("meta" if fused else "cpu")
        assert set(found.values()) == {"meta"}


@pytest.mark.parametrize("norms", ["frozen", "train"])
def test_a_module_of_ones_own_moves_as_a_whole(norms: str) -> None:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(3, 6, 3, bias=False), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Dropout(0.5))
    own = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(600, 7))
    wrapped = wrap(own, spec=ImageSpec(12))
    blueprint = wrapped.trunk.blueprint.with_head(CLASSES, sqrt=False)
    head = {"logits.weight": (CLASSES, 600), "logits.bias": (CLASSES,)}
    weights = {**wrapped.trunk.weights, **{name: np.zeros(shape, np.float32) for name, shape in head.items()}}
    rates = {node.name: 0.5 for node in blueprint.nodes if node.op == "module"} | {"logits": 1.0}
    task = Task(blueprint, weights, rates, ImageSpec(12), wrapped.module)
    recipe = replace(SGD, batch_norm=norms)
    one, other = stepper_of(recipe, task), stepper_of(recipe, task)
    batches = list(batches_of(task, 80).epoch(0))
    losses = [one.step(batch) for batch in batches]
    assert [other.step(batch) for batch in batches] == losses  # its own dropout, which no seed of ours rules, is still
    assert np.mean(losses[-4:]) < 0.92 * losses[0]
    moved = {name for name, array in one.weights().items() if not np.array_equal(array, weights[name])}
    statistics = {name for name in weights if "running" in name}
    assert len(statistics) == 2
    assert moved == weights.keys() - (set() if norms == "train" else statistics)


# --- the course of a training -----------------------------------------------------------------------------------------


def test_the_history_says_how_it_went() -> None:
    told = Listener()
    task = small_task()
    validation = batches_of(task, 24, seed=1, shuffle=False)
    trained = train_pytorch(task, batches_of(task), validation, SGD, [told], device="cpu")
    history = trained.history
    assert (history.trainer, history.stopped, len(history.losses)) == ("pytorch", "", STEPS)
    assert [epoch.number for epoch in history.epochs] == [0, 1, 2, 3]
    assert told.epochs == list(history.epochs)
    assert told.steps == [(number, STEPS, loss) for number, loss in enumerate(history.losses)]
    assert history.epochs[1].train_loss == pytest.approx(np.mean(history.losses[5:10]), abs=1e-6)
    assert history.best == int(np.argmin([epoch.val_calibrated for epoch in history.epochs]))
    assert all(epoch.seconds > 0 and epoch.learning_rate == 0.03 for epoch in history.epochs)
    logits = TorchNetwork(task.blueprint, trained.weights, task.spec, device="cpu").forward(pictures(12, 24, 1)[0])  # type: ignore[arg-type]
    y = pictures(12, 24, 1)[1]
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    best = history.epochs[history.best]
    assert best.val_loss == pytest.approx(-logs[np.arange(24), y].mean(), abs=1e-5)
    assert best.val_error == pytest.approx((logits.argmax(1) != y).mean(), abs=1e-9)
    assert best.val_calibrated == pytest.approx(fit_inverse_temperature(logits, y)[1], abs=1e-5)
    assert history.start == pytest.approx(stepper_of(SGD, task).evaluate(validation.epoch(0)).calibrated, abs=1e-6)


def test_being_too_sure_is_no_reason_to_prefer_what_has_learned_less() -> None:
    """The plain loss of a network that is ten times too sure is high; a temperature makes that good."""
    task = small_task()
    logits = {name: array * 10 for name, array in task.weights.items() if name.startswith("logits.")}
    validation = batches_of(task, 24, seed=1, shuffle=False)
    modest, sure = (
        stepper_of(SGD, replace(task, weights={**task.weights, **head})).evaluate(validation.epoch(0))
        for head in ({}, logits)
    )
    assert sure.loss > modest.loss + 0.1
    assert sure.error == modest.error
    assert sure.calibrated == pytest.approx(modest.calibrated, abs=1e-5)
    assert modest.calibrated <= modest.loss


def test_losses_of_epochs_are_without_label_smoothing() -> None:
    recipe = replace(SGD, epochs=1, batch_size=40, label_smoothing=0.4)
    task = small_task(recipe)
    history = train_pytorch(task, batches_of(task, 40, 40), None, recipe, device="cpu").history
    recipe = replace(recipe, label_smoothing=0.0)
    plain = train_pytorch(task, batches_of(task, 40, 40), None, recipe, device="cpu").history
    assert history.epochs[0].train_loss == pytest.approx(plain.losses[0], abs=1e-6)
    assert abs(history.losses[0] - plain.losses[0]) > 1e-3
    assert math.isnan(history.epochs[0].val_loss)
    assert history.best == 0  # without validation the last weights count


def test_it_never_gives_back_a_worse_network() -> None:
    task = replace(learned(), rates={"logits": 10.0})
    trained = train(replace(SGD, learning_rate=0.8), task)
    assert min(epoch.val_calibrated for epoch in trained.history.epochs) > trained.history.start
    assert trained.history.best == -1
    assert_equal(trained.weights, dict(task.weights))


def test_patience_and_callbacks_end_a_training() -> None:
    task = replace(learned(), rates={"logits": 10.0})
    patient = train(replace(SGD, learning_rate=0.8, patience=2), task).history
    assert len(patient.epochs) == 2
    assert "patience 2" in patient.stopped
    told = train(SGD, callbacks=[Listener(epochs=3), Listener()]).history
    assert (len(told.epochs), told.stopped) == (3, "Enough epochs.")
    half = train(SGD, callbacks=[Listener(steps=7)]).history
    assert (len(half.epochs), len(half.losses), half.stopped) == (2, 7, "Enough steps.")


# --- when it goes wrong -----------------------------------------------------------------------------------------------


def short_of_memory(stepper: TorchStepper, images: int) -> list[int]:
    """Let a pass of more images than that run out of memory; returns the sizes that were tried."""
    tried, logits = [], stepper.network.logits

    def limited(x: Any, masks: Any = None) -> Tensor:
        tried.append(len(x))
        found = logits(x, masks)  # which in training moves statistics first
        if len(x) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a lot")
        return found

    stepper.network.logits = limited  # type: ignore[method-assign]
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
    if norms == "frozen":
        assert tried == [7, 4, 2, 2, 2, 1, 2, 2, 2, 1, 2]
        assert len(said) == 2
        assert said[1].startswith("Memory ran out with 4 images at a time. From step 1 on 2 are taken at a time")
    assert parted.seen() == pytest.approx(whole.seen(), abs=1e-6)


@pytest.mark.parametrize("norms", ["frozen", "train"])
def test_a_pass_that_ran_out_of_memory_counts_for_nothing(norms: str) -> None:
    """Neither the gradients of its first part nor how it moved statistics."""
    recipe = replace(EVERYTHING, optimiser="momentum", batch_norm=norms)
    fine, failing = stepper_of(recipe), stepper_of(recipe)
    fine.at_a_time, failing.at_a_time = 2, 4
    tried, logits = [], failing.network.logits

    def failing_once(x: Any, masks: Any = None) -> Tensor:
        tried.append(len(x))
        found = logits(x, masks)
        if len(tried) == 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate a lot")
        return found

    failing.network.logits = failing_once  # type: ignore[method-assign]
    batch = a_batch(fine.task)
    assert failing.step(batch) == fine.step(batch)
    assert tried == [4, 4, 2, 2, 2, 2]
    assert_equal(failing.state(), fine.state())


def test_running_out_of_memory_leaves_no_trace_in_statistics() -> None:
    recipe = replace(SGD, batch_norm="train")
    stepper = stepper_of(recipe)
    start = stepper.weights()
    short_of_memory(stepper, 0)
    with pytest.raises(UsageError, match=r"on one image at a time \(CUDA out of memory"):
        stepper.step(a_batch(stepper.task))
    assert_equal(stepper.weights(), start)


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    stepper = stepper_of(SGD)
    monkeypatch.setattr(stepper.network, "logits", lambda x, masks: crash())
    with pytest.raises(RuntimeError, match="out of power"):
        stepper.step(a_batch(stepper.task))


# --- dropout, precision -----------------------------------------------------------------------------------------------


def test_dropout_is_drawn_from_seed_and_step_alone() -> None:
    recipe = replace(SGD, dropout=0.25)
    mask = dropout_mask(recipe, 3, "dropout", (100, 50))
    assert set(np.unique(mask)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (mask == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert np.array_equal(mask, dropout_mask(recipe, 3, "dropout", (100, 50)))
    assert np.array_equal(mask[:30], dropout_mask(recipe, 3, "dropout", (30, 50)))
    for other in ((replace(recipe, seed=1), 3, "dropout"), (recipe, 4, "dropout"), (recipe, 3, "another")):
        assert not np.array_equal(mask, dropout_mask(*other, (100, 50)))


def test_a_head_without_dropout_leaves_out_what_its_last_layer_takes() -> None:
    trunk = Blueprint("t", small_cnn(12, CLASSES, widths=(6,)).nodes[:-3], 12).trunk(("pool1",))
    assert dropped(trunk.with_head(3, sqrt=False)) == ("features",)
    assert dropped(trunk.with_head(3, sqrt=True)) == ("head_sqrt",)
    assert dropped(small_cnn(12, 3)) == ("dropout",)
    assert dropped(table_task()[0].blueprint) == ("dropout1",)
    recipe = replace(SGD, dropout=0.9)
    task = task_of(trunk.with_head(CLASSES, sqrt=True), recipe)
    batch = a_batch(task)
    loss = stepper_of(recipe, task).step(batch)
    still = stepper_of(recipe, task)
    assert abs(still.evaluate(iter([batch]))[0] - stepper_of(SGD, task).step(batch)) < 1e-6
    assert abs(loss - still.evaluate(iter([batch]))[0]) > 0.01


def test_bf16_is_near_fp32_and_the_head_is_not_in_it() -> None:
    recipe = replace(SGD, precision="bf16")
    task = mobilenet_task()
    low, high = stepper_of(recipe, task), stepper_of(SGD, task)
    dtypes: dict[str, Any] = {}
    for name in ("conv_stem", "blocks.1.0.conv_dw", "conv_head", "logits"):
        submodule = low.network.module.get_submodule(name)
        convolve = getattr(submodule, "convolve", None)

        def noted(*inputs: Any, name: str = name, compute: Any = convolve or submodule.forward) -> Any:
            found = compute(*inputs)
            dtypes[name] = found.dtype
            return found

        setattr(submodule, "convolve" if convolve else "forward", noted)
    batch = a_batch(task)
    assert low.step(batch) == pytest.approx(high.step(batch), abs=0.05)
    assert dtypes == {
        "conv_stem": torch.bfloat16,
        "blocks.1.0.conv_dw": torch.bfloat16,
        "conv_head": torch.bfloat16,
        "logits": torch.float32,
    }
    one, other = (stepper.weights()["logits.weight"] - task.weights["logits.weight"] for stepper in (low, high))
    assert (one * other).sum() > 0.99 * np.linalg.norm(one) * np.linalg.norm(other)
