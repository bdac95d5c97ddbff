"""What changes weights in TensorFlow: the recipe's optimiser with its clip, and the average after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from headstart.train.recipe import Recipe
from headstart.train.weight_average import RunningAverage

MOMENTUM = 0.9  # of the optimiser "momentum"
FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8  # of Adam: PyTorch's
MEMORY = {"sgd": (), "momentum": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}
MEMORY["adamw"] = MEMORY["adam"]


class RecipeOptimiser(keras.optimizers.Optimizer):  # type: ignore[misc]
    """The recipe's optimiser with the arithmetic of `torch.optim`, each variable with its share of the learning rate.

    Keras' own differ: its momentum holds past learning rates, so that it lags behind a schedule; its Adam adds epsilon
    (1e-7) before the bias correction of the second moment; and it knows no decay by L2. A gradient whose norm is not a
    number changes nothing. Weight decay pulls at kernels, not at biases and norms, which have one axis.

    Args:
        variables: what is trained, by name.
        shares: of the learning rate, by name.
    """

    def __init__(self, variables: Mapping[str, Any], shares: Mapping[str, float], recipe: Recipe) -> None:
        super().__init__(learning_rate=float(recipe.learning_rate), name="recipe_optimiser")
        self._kind, self._decay, self._clip = recipe.optimiser, recipe.weight_decay, recipe.clip
        self._shares = [shares[name] for name in variables]
        self._memory = [self.add_optimizer_variables([*variables.values()], part) for part in MEMORY[self._kind]]
        self.norm = self.add_variable((), dtype="float32", name="norm")  # of the last gradient, before the clip
        self.build([*variables.values()])

    def memory(self, variable: Any) -> dict[str, Any]:
        """What is remembered of a variable, by PyTorch's names."""
        place = self._get_variable_index(variable)
        return {part: of_all[place] for part, of_all in zip(MEMORY[self._kind], self._memory, strict=True)}

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """One step, unless the gradient is not a number."""
        norm = tf.linalg.global_norm(grads)
        self.norm.assign(norm)
        if self._clip:
            factor = self._clip / tf.maximum(norm, self._clip)
            grads = [gradient * factor for gradient in grads]

        def apply() -> Any:
            super(RecipeOptimiser, self).apply(grads, trainable_variables)
            return True

        tf.cond(tf.math.is_finite(norm), apply, lambda: False)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change one variable."""
        rate = tf.cast(learning_rate, tf.float32) * self._shares[self._get_variable_index(variable)]
        decay = self._decay if len(variable.shape) > 1 else 0.0
        memory = self.memory(variable)
        pull: Any = 0.0
        if decay and self._kind == "adamw":
            pull = rate * decay * variable
        elif decay:
            gradient = gradient + decay * variable
        if self._kind == "momentum":
            velocity = memory["momentum_buffer"]
            velocity.assign(MOMENTUM * velocity + gradient)
            gradient = velocity
        elif self._kind in ("adam", "adamw"):
            gradient = self._adam(gradient, memory["exp_avg"], memory["exp_avg_sq"])
        variable.assign_sub(pull + rate * gradient)

    def _adam(self, gradient: Any, first: Any, second: Any) -> Any:
        """Where to, for a rate of 1 (Kingma & Ba 2015)."""
        first.assign(first + (1 - FIRST) * (gradient - first))
        second.assign(SECOND * second + (1 - SECOND) * gradient * gradient)
        taken = tf.cast(self.iterations + 1, tf.float64)  # in float32 the first corrections have four digits
        corrections = 1 - FIRST**taken, tf.sqrt(1 - SECOND**taken)
        one, other = (tf.cast(each, tf.float32) for each in corrections)
        return first / one / (tf.sqrt(second) / other + EPSILON)


class Average(RunningAverage):
    """The average of the weights in TensorFlow."""

    def __init__(self, recipe: Recipe, steps: int, trained: Mapping[str, Any]) -> None:
        super().__init__(recipe, steps)
        names = () if recipe.averaging == "none" else trained
        self._values = {name: tf.Variable(tf.zeros(trained[name].shape), trainable=False) for name in names}
        self._take = tf.function(self._take_in, input_signature=[tf.TensorSpec((), tf.float32)], autograph=False)
        self._trained = trained

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        if share := self._share(step):
            self._take(tf.constant(share, tf.float32))

    def load(self, values: Mapping[str, Any], mass: float) -> None:
        """Go on from other values."""
        self.mass = mass
        for name, variable in self._values.items():
            variable.assign(values[name] if mass else tf.zeros_like(variable))

    def _take_in(self, share: Any) -> None:
        for name, average in self._values.items():
            average.assign_add(share * (self._trained[name].value - average))
