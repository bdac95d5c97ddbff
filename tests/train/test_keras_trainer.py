"""The trainer `keras`: `fit` takes the steps of the plain loop, bit by bit, and leaves nothing but the weights."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.engines.registry import keras_engine, torch_engine

torch_engine()  # before TensorFlow, as the guard has it
keras_engine()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from headstart.core.errors import DataError, UsageError  # noqa: E402
from headstart.train.batches import ArrayBatches  # noqa: E402
from headstart.train.checkpoint import Checkpoints, Terminated  # noqa: E402
from headstart.train.identity import Identity  # noqa: E402
from headstart.train.protocol import Batch, Task, Trained  # noqa: E402
from headstart.train.recipe import Recipe  # noqa: E402
from headstart.train.tensorflow.keras import compile_model, train_keras  # noqa: E402
from headstart.train.tensorflow.network import TrainableNetwork  # noqa: E402
from headstart.train.tensorflow.plain_loop import TensorFlowStepper, train_tensorflow  # noqa: E402
from trainers import (  # noqa: E402
    EVERYTHING,
    MEASURED,
    SGD,
    STEPS,
    Ending,
    Listener,
    Short,
    assert_equal,
    batches_of,
    crash,
    furthest,
    learned,
    one_thread,  # noqa: F401
    pictures,
    small_task,
    table_task,
    timeless,
)

DOC = Path(__file__).parents[2] / "docs" / "training_frameworks.md"
ALL = replace(EVERYTHING, optimiser="adamw", batch_norm="train")


def train(recipe: Recipe, task: Task | None = None, trainer: Any = train_keras, **more: Any) -> Any:
    task = task or small_task(recipe)
    validation = batches_of(task, 24, shuffle=False)  # that it learns even in a few steps
    return trainer(task, batches_of(task, 36), validation, recipe, device="cpu", **more)


@pytest.fixture(scope="module")
def whole() -> Trained:
    """Not to be changed."""
    trained: Trained = train(ALL)
    return trained


class Heavy(keras.layers.Layer):  # type: ignore[misc]
    """Adds a loss of its own, as layers of other people do."""

    def call(self, x: Any) -> Any:
        self.add_loss(100.0 * keras.ops.mean(x**2))
        return x


def test_the_loss_is_the_recipes_whatever_a_wrapped_model_adds() -> None:
    keras.utils.set_random_seed(3)
    heavy = {f"{part}_regularizer": keras.regularizers.L2(10.0) for part in ("activity", "kernel", "bias")}
    steps = [keras.layers.Conv2D(6, 3, **heavy), Heavy(), keras.layers.GlobalAveragePooling2D()]
    wrapped = keras_engine().wrap(keras.Sequential([keras.Input((12, 12, 3)), *steps]), features="", pixels=None)
    head = {"logits.weight": np.eye(4, 6, dtype=np.float32) / 100, "logits.bias": np.zeros(4, np.float32)}
    blueprint = wrapped.trunk.blueprint.with_head(4, sqrt=False)
    weights = {**wrapped.trunk.weights, **head}
    task = Task(blueprint, weights, dict.fromkeys(("features", "logits"), 1.0), wrapped.trunk.spec, wrapped.module)
    recipe = replace(SGD, learning_rate=1e-3)
    fitted, plain = train(recipe, task), train(recipe, task, train_tensorflow)
    np.testing.assert_allclose(fitted.history.losses, plain.history.losses, atol=1e-6)
    assert furthest(fitted.weights, plain.weights) < 1e-6


# --- the same as the loops --------------------------------------------------------------------------------------------


def test_every_part_of_the_recipe_works_in_it(whole: Trained) -> None:
    high, low = whole, train(ALL, trainer=train_tensorflow)
    np.testing.assert_allclose(high.history.losses, low.history.losses, atol=1e-6)
    assert furthest(high.weights, low.weights) < 1e-6
    assert high.history.best == low.history.best
    for one, other in zip(high.history.epochs, low.history.epochs, strict=True):
        for part in MEASURED:
            assert getattr(one, part) == pytest.approx(getattr(other, part), abs=1e-6)
        assert one.seconds > 0


def test_it_is_an_ordinary_compiled_model() -> None:
    """For callbacks, and a `fit`, of one's own."""
    recipe = replace(SGD, epochs=1)
    task = small_task(recipe)
    stepper = TensorFlowStepper(task, recipe, 5, "cpu")
    model = compile_model(stepper)
    x, y = pictures(12, 40)
    history = model.fit(stepper.network.inputs(x), np.eye(4)[y], batch_size=8, epochs=6, shuffle=False, verbose=0)
    assert history.history["loss"][-1] < 0.9 * history.history["loss"][0]
    batches = ArrayBatches(x, y, 8, shuffle=False)
    first = train_tensorflow(task, batches, None, recipe, device="cpu").history
    assert history.history["loss"][0] == pytest.approx(np.mean(first.losses), abs=1e-5)
    assert history.history["accuracy"][0] == pytest.approx(1 - first.epochs[0].train_error, abs=1e-6)


# --- nothing but the weights ------------------------------------------------------------------------------------------


def test_it_says_nothing_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = keras.layers.Dense(1).name
    seeds = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    filters = [*warnings.filters]
    train(SGD)
    assert list(tmp_path.iterdir()) == []
    assert "".join(capfd.readouterr()) == ""
    assert seeds == (random.getstate(), np.random.get_state()[1].tolist())  # type: ignore[index]
    assert filters == [*warnings.filters]
    assert int(keras.layers.Dense(1).name.split("_")[-1]) == int(name.removeprefix("dense").strip("_") or 0) + 1


def test_whatever_the_users_keras_is_set_to(whole: Trained) -> None:
    before = keras.config.floatx(), keras.config.dtype_policy(), keras.config.image_data_format()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("mixed_float16")  # for which compile() would scale the loss
        keras.config.set_image_data_format("channels_first")
        found = train(ALL).weights
        assert (keras.config.floatx(), keras.config.dtype_policy().name) == ("float64", "mixed_float16")
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
        keras.config.set_image_data_format(before[2])
    assert furthest(found, whole.weights) < 1e-6


# --- its end ----------------------------------------------------------------------------------------------------------


def test_patience_and_callbacks_end_a_training() -> None:
    task = replace(learned(), rates={"logits": 10.0})
    patient = train(replace(SGD, learning_rate=0.8, patience=2), task).history
    assert len(patient.epochs) == 2
    assert "patience 2" in patient.stopped
    told = Listener(epochs=3)
    found = train(SGD, callbacks=[told, Listener()]).history
    assert (len(found.epochs), found.stopped) == (3, "Enough epochs.")
    assert told.steps == [(number, STEPS, loss) for number, loss in enumerate(found.losses)]
    half = train(SGD, callbacks=[Listener(steps=7)]).history
    assert (len(half.epochs), len(half.losses), half.stopped) == (2, 7, "Enough steps.")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("end", ["crash", pytest.param("Ctrl-C", marks=pytest.mark.slow), "SIGTERM"])
def test_a_resumed_training_is_the_uninterrupted_one(tmp_path: Path, whole: Trained, end: str) -> None:
    identity = Identity.of(small_task(ALL), ALL, "these")
    with Checkpoints(tmp_path, identity) as checkpoints:
        deeds = {"crash": (crash, RuntimeError), "Ctrl-C": (interrupt, KeyboardInterrupt)}
        deed, error = deeds.get(end, (checkpoints._ask, Terminated))
        with pytest.raises(error):
            train(ALL, checkpoints=checkpoints, callbacks=[Ending(13, deed)])  # in the middle of the third epoch
    told = Listener()
    with Checkpoints(tmp_path, identity) as checkpoints:
        resumed = train(ALL, checkpoints=checkpoints, callbacks=[told])
    assert told.steps[0][0] == (13 if end == "SIGTERM" else 10)
    assert_equal(resumed.weights, whole.weights)
    assert timeless(resumed.history) == timeless(whole.history)
    with Checkpoints(tmp_path, identity) as checkpoints:  # and one that has ended takes no step more
        again = train(ALL, checkpoints=checkpoints, callbacks=[Ending(1, crash)])
    assert again.history == resumed.history


# --- when it goes wrong -----------------------------------------------------------------------------------------------


def test_a_training_that_diverges_gives_back_the_best_before_it() -> None:
    recipe = replace(SGD, schedule="constant", batch_norm="train", epochs=3)
    task, batches = table_task(recipe)
    x, y = (np.concatenate(parts) for parts in zip(*((each.x, each.y) for each in batches.epoch(0)), strict=True))
    sound = ArrayBatches(x, y, 8, shuffle=False)

    class Poisoned(ArrayBatches):
        def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
            for place, batch in enumerate(super().epoch(number, start), start):
                bad = number == 1 and place == 2
                yield Batch(np.full_like(batch.x, np.inf), batch.y) if bad else batch

    told = Listener()
    trained = train_keras(task, Poisoned(x, y, 8, shuffle=False), None, recipe, [told], device="cpu")
    assert trained.history.stopped.startswith("Step 11, batch 3 of epoch 2: 48 values of its images are not numbers")
    assert (trained.history.best, len(trained.history.epochs), len(trained.history.losses)) == (0, 1, 10)
    once = train_keras(task, sound, None, replace(recipe, epochs=1), device="cpu")
    assert furthest(trained.weights, once.weights) < 1e-7


@pytest.mark.parametrize("norms", ["frozen", "train"])
def test_where_memory_ends_the_plain_loop_goes_on(monkeypatch: pytest.MonkeyPatch, norms: str) -> None:
    recipe = replace(ALL, batch_norm=norms)
    expected = train(recipe)
    run, tried, said = TrainableNetwork._run, list[int](), list[str]()

    def look(count: np.int32) -> np.int32:
        tried.append(int(count))
        if len(tried) == 7:
            raise MemoryError("OOM when allocating a lot")
        return count

    def limited(self: TrainableNetwork, inputs: Any, training: bool) -> Any:
        logits = run(self, inputs, training)
        if not training:
            return logits
        with tf.control_dependencies([logits, *(each.value for each in self.statistics.values())]):  # which have moved
            count = tf.ensure_shape(tf.numpy_function(look, [tf.shape(logits)[0]], tf.int32), ())
        return logits + tf.cast(0 * count, tf.float32)

    def at_once(self: TensorFlowStepper, size: int, error: Exception) -> None:
        self.at_a_time = size
        said.append(f"{size} again")

    monkeypatch.setattr(TrainableNetwork, "_run", limited)
    if norms == "train":  # of half a batch it has other statistics, so the loop gets another chance with the whole
        monkeypatch.setattr(TensorFlowStepper, "halve", at_once)
    found = train(recipe, say=said.append)
    assert tried[:7] == [8, 8, 8, 8, 4, 8, 8]
    if norms == "train":
        assert tried[7:] == [8, 8, 8, 4, *[8, 8, 8, 8, 4] * 2]
        assert said == ["8 again"]
    else:
        assert tried[7:] == [4] * (7 + 2 * 9)
        assert said[0].startswith("Memory ran out with 8 images at a time. From step 7 on 4 are taken at a time")
    assert found.history.trainer == "keras"
    np.testing.assert_allclose(found.history.losses, expected.history.losses, atol=1e-6)
    assert furthest(found.weights, expected.weights) < 1e-6


class Broken(ArrayBatches):
    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        for place, batch in enumerate(super().epoch(number, start), start):
            if (number, place) == (1, 3):
                raise DataError("'a.jpg' could be read before, and now cannot.")
            yield batch


class Wrong(ArrayBatches):
    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        yield from (Batch(batch.x, batch.y + 4) for batch in super().epoch(number, start))


class Many(ArrayBatches):
    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        yield from [*super().epoch(number, start)] * 2


@pytest.mark.parametrize(
    ("batches", "error", "said"),
    [
        (Broken, DataError, "'a.jpg' could be read before"),
        (Wrong, UsageError, "4 classes, so labels are from 0 to 3"),
        (Short, UsageError, r"Epoch 1 should have had 5 batches\. Received: 4"),
        (Many, UsageError, r"Epoch 1 should have had 5 batches\. Received: more"),
    ],
)
def test_what_is_wrong_with_the_batches_is_said_as_it_is(batches: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        train_keras(small_task(), batches(*pictures(12, 40), 8), None, SGD, device="cpu")


def test_without_keras_it_says_how_to_get_it() -> None:
    code = """
import json, sys
sys.modules["keras"] = None
from headstart.core.errors import MissingExtraError
said = []
for name in ("keras", "plain_loop"):
    try:
        __import__(f"headstart.train.tensorflow.{name}")
    except MissingExtraError as error:
        said.append(str(error))
print(json.dumps(said))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert len(said) == 2
    assert all("pip install 'headstart[keras]'" in each for each in said)


# --- as the docs have it ----------------------------------------------------------------------------------------------


def test_the_docs_train_either_network_in_either_loop() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL))
    found: dict[str, Any] = {}
    exec(compile(code, str(DOC), "exec"), found)
    assert found["losses"][0] == pytest.approx(np.log(2), abs=1e-5)
    assert np.mean(found["losses"][-5:]) < 0.5
    assert found["error"] < 0.05
    assert found["right"] > 0.95
    trained, low = found["trained"], found["low"]
    assert trained.history.best > 0
    assert not np.array_equal(trained.weights["features.contrasts.gains"], low.weights["features.contrasts.gains"])
