"""Plain gradient descent towards a class, as it is taught."""

from __future__ import annotations

import numpy as np

from headstart.attack.goal import Array, Found, Goal, Victim, batches
from headstart.attack.norms import size

FIRST = 0.1  # the L2 norm of the first step; the later ones are as much longer or shorter as the gradient is
SMALL = 0.1  # weight of the squared L2 norm of the change, against the cross-entropy


def descent(
    network: Victim, images: Array, goal: Goal, *, steps: int, first: float = FIRST, small: float = SMALL
) -> Found:
    """x ← x - rate · ∇(cross-entropy of the target + ``small`` · ‖change‖²), until the target is the answer.

    The rate of each image is such that its first step has the norm ``first``. ``goal`` is targeted: away from the right
    class the cross-entropy of a network that is sure has next to no gradient to begin with.
    """
    x = images.astype(np.float32)
    rates = np.zeros(len(x))
    reached = np.zeros(len(x), bool)
    active = np.arange(len(x))
    for step in range(steps):
        for rows in batches(network, active):
            logits, pullback = network.vjp(x[rows])
            reached[rows] = goal.part(rows).reached(logits)
            stay = np.flatnonzero(~reached[rows])
            if not len(stay):
                continue
            gradient = pullback(goal.part(rows).likelier(logits).astype(np.float32))
            for k in stay:
                row, slope = rows[k], gradient[k]
                if not step:
                    rates[row] = first / (size(slope, "l2") or 1.0)
                np.clip(x[row] + rates[row] * (slope - 2 * small * (x[row] - images[row])), 0, 1, out=x[row])
        active = active[~reached[active]]
    for rows in batches(network, active):
        reached[rows] = goal.part(rows).reached(network.forward(x[rows]))
    return Found(x, reached)
