"""What an export says beside the logits: probabilities, the label, and "unknown"."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.export.operations.protocol import FLOAT, Operations
from headstart.export.package import Package
from headstart.learn.unknown import NEAREST, Unknown


def answers(ops: Operations, package: Package, logits: Any, probabilities: Any, features: Any) -> dict[str, Any]:
    """Every output by its name, of the logits (N, K) and the head's input (N, D)."""
    found = [logits, probabilities, ops.place_of_largest(logits)]
    if package.unknown is not None:
        score = ops.flat(_score(ops, package.unknown, features, probabilities))
        found += [score, ops.below(score, ops.number(package.unknown.threshold))]
    return dict(zip(package.outputs, found, strict=True))


def _score(ops: Operations, unknown: Unknown, features: Any, probabilities: Any) -> Any:
    """(N, 1) what `Unknown.score` gives, of the head's input (N, D) and the probabilities (N, K)."""
    apart = features - ops.constant(unknown.centre.astype(FLOAT)[None])
    length = ops.root(ops.total(apart * apart))
    direction = apart / ops.higher(length, ops.number(float(np.finfo(FLOAT).tiny)))
    kept = ops.floats(ops.constant(np.ascontiguousarray(unknown.kept.T)))  # float16 in the file
    count = min(NEAREST, len(unknown.kept))
    nearness = ops.total(ops.largest(ops.product(direction, kept), count)) / ops.number(count)
    sureness = ops.largest(probabilities, 1)
    return _log_rank(ops, unknown.sure, sureness) + _log_rank(ops, unknown.near, nearness)


def _log_rank(ops: Operations, known: NDArray[np.float32], values: Any) -> Any:
    n = ops.number
    above = ops.where(ops.below(values, ops.constant(known[None])), n(1), n(0))
    return ops.log((n(len(known) + 1) - ops.total(above)) / n(len(known) + 1))
