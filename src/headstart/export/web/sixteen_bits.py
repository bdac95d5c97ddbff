"""The weights of an ONNX model as whole numbers of 16 bits: half the bytes; what is computed stays in float32."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from headstart.core.errors import needs

FEWEST = 1024  # values, below which little is saved
LARGEST = 2**15 - 1


def in_sixteen_bits(model: Any, names: Collection[str]) -> Any:
    """A copy of an `onnx.ModelProto` whose weights of these names are int16, times a float32 for each output channel.

    A runtime multiplies them once, when it opens the model. The numbers are nearer to the weights than float16 of the
    same size would be: a channel's weights are alike in size, so 16 bits of the largest are more than the 11 bits that
    float16 has of each.
    """
    with needs("onnx", "onnx", "The format web"):
        import onnx

    result, kept, nodes = onnx.ModelProto(), [], []
    result.CopyFrom(model)
    for constant in result.graph.initializer:
        array = onnx.numpy_helper.to_array(constant)
        if constant.name not in names or array.ndim < 2 or array.size < FEWEST:
            kept.append(constant)
            continue
        scale = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True) / LARGEST
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        whole, floats, scales = (f"{constant.name}.{part}" for part in ("whole", "floats", "scale"))
        kept.append(onnx.numpy_helper.from_array(np.rint(array / scale).astype(np.int16), whole))
        kept.append(onnx.numpy_helper.from_array(scale, scales))
        nodes.append(onnx.helper.make_node("Cast", [whole], [floats], floats, to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [floats, scales], [constant.name], constant.name))
    nodes += result.graph.node
    del result.graph.initializer[:], result.graph.node[:]
    result.graph.initializer.extend(kept)
    result.graph.node.extend(nodes)
    return result
