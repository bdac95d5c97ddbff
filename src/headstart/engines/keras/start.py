"""What lies between the images and the first layers with weights of a Keras model."""

from __future__ import annotations

from typing import Any

import keras

OF_BYTES = 16.0  # a variance that pixels from 0 to 1, from -1 to 1, or divided by their deviation, do not reach


def tensors_before_weights(model: Any) -> tuple[list[Any], list[Any]]:
    """The tensors of a functional model that no weights were used for, and those that its first weights are used on.

    A batch norm that was trained on pixels from 0 to 255 counts as part of their scaling.
    """
    before, first = [*model.inputs], list[Any]()
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            given = node.input_tensors
            if node.is_input or not all(any(each is other for other in before) for each in given):
                continue
            if _learns(node.operation):
                first += given
            else:
                before += node.outputs
    return before, first


def _learns(operation: Any) -> bool:
    if isinstance(operation, keras.layers.BatchNormalization):
        return float(operation.moving_variance.numpy().max()) < OF_BYTES
    return bool(getattr(operation, "trainable_weights", ()))
