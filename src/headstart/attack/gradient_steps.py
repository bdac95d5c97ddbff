"""Steps of a fixed size along the gradient, within a budget: FGSM, PGD, and both with momentum."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from headstart.attack.goal import Array, Found, Goal, Victim, batches, own
from headstart.attack.norms import hold_back, project, random_change, size, steepest

MADRY = 2.5  # how often all steps together could cross the radius of the ball (Madry et al. 2018)


def fgsm(network: Victim, images: Array, goal: Goal, *, norm: str, epsilon: float) -> Found:
    """One step of the size of the budget (Goodfellow et al. 2015). As `pgd`."""
    return pgd(network, images, goal, norm=norm, epsilon=epsilon, steps=1, step=epsilon)


def mifgsm(
    network: Victim, images: Array, goal: Goal, *, norm: str, epsilon: float, steps: int, decay: float = 1.0
) -> Found:
    """MI-FGSM (Dong et al. 2018): steps along the sum of all gradients so far, each of L1 norm 1. As `pgd`."""
    return pgd(network, images, goal, norm=norm, epsilon=epsilon, steps=steps, step=epsilon / steps, decay=decay)


def pgd(
    network: Victim,
    images: Array,
    goal: Goal,
    *,
    norm: str,
    epsilon: float,
    steps: int,
    step: float | None = None,
    decay: float | None = None,
    starts: Array | None = None,
    leave: bool = True,
) -> Found:
    """Projected gradient descent on the cross-entropy (Madry et al. 2018), within ``epsilon`` of each image.

    Args:
        images: (N, size, size, 3), float32 in [0, 1].
        epsilon: the largest norm of the change.
        step: the norm of each step; None: `MADRY` × ``epsilon`` / ``steps``.
        decay: of the velocity, which takes the place of the gradient; None: no momentum.
        starts: where to begin, as ``images``, within the budget; None: at the images.
        leave: whether an image leaves the batch, and stays as it is, as soon as its goal is reached.
    """
    length = MADRY * epsilon / steps if step is None else step
    x = (images if starts is None else starts).astype(np.float32)  # a copy
    velocity = None if decay is None else np.zeros_like(x)
    reached = np.zeros(len(x), bool)
    active = np.arange(len(x))
    for _ in range(steps):
        for rows in batches(network, active):
            logits, pullback = network.vjp(x[rows])
            reached[rows] = goal.part(rows).reached(logits)
            stay = np.flatnonzero(~reached[rows]) if leave else np.arange(len(rows))
            if not len(stay):
                continue
            gradient = own(pullback(goal.part(rows).uphill(logits)))
            for k in stay:
                if velocity is not None and decay is not None:
                    gradient[k] = _faster(velocity[rows[k]], gradient[k], decay)
                _move(x[rows[k]], images[rows[k]], gradient[k], norm, epsilon, length)
        if leave:
            active = active[~reached[active]]
    for rows in batches(network, active):
        reached[rows] = goal.part(rows).reached(network.forward(x[rows]))
    return Found(x, reached)


def random_starts(images: Array, norm: str, epsilon: float, seed: tuple[int, ...]) -> NDArray[np.float32]:
    """A random point within the budget of each image, by ``seed`` and the image alone, whatever else is attacked."""
    starts = np.zeros(images.shape, np.float32)
    for image, start in zip(images, starts, strict=True):
        rng = np.random.default_rng((*seed, zlib.crc32(image.tobytes())))
        np.clip(image + random_change(image.shape, norm, epsilon, rng), 0, 1, out=start)
    return starts


def _faster(velocity: Array, gradient: Array, decay: float) -> Array:
    """The velocity, with a gradient more."""
    velocity *= decay
    if total := size(gradient, "l1"):
        velocity += gradient / total
    return velocity


def _move(x: Array, image: Array, gradient: Array, norm: str, epsilon: float, length: float) -> None:
    """One step of one image, in place; the gradient's memory is used up."""
    if norm == "l1":
        hold_back(gradient, x)
    steepest(gradient, norm)
    gradient *= length
    x += gradient
    np.subtract(x, image, out=gradient)
    project(gradient, norm, epsilon)
    np.add(image, gradient, out=x)
    np.clip(x, 0, 1, out=x)
