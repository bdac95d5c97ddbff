"""Tests of explanations as Quantus computes them, on maps that anybody can make again.

``python tests/quantus_side.py`` writes the golden values that the tests hold ours against, where Quantus is installed
(extra bench). Quantus' ROAD and PixelFlipping do not take maps of colour photos in its version 0.6, so the photos are
grey here; its imputation takes colours, and is compared on its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).parent / "explain" / "golden" / "quantus.json"
SIZE, COUNT, CLASSES, BLOCK = 24, 6, 5, 4
PERCENTAGES = (10, 30, 50, 70, 90)
STEPS = 12  # of pixels taken away
SEED = 0

Array = Any  # of NumPy, float64


def photos() -> NDArray[np.uint8]:
    """Grey photos (6, 24, 24, 3) with bright and dark patches, from the seed 0."""
    rng = np.random.default_rng(SEED)
    coarse = rng.uniform(40, 215, (COUNT, 6, 6)).repeat(4, 1).repeat(4, 2)
    grey = (coarse + rng.normal(0, 12, coarse.shape)).clip(20, 235).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def maps(seed: int) -> Array:
    """Maps (6, 24, 24) without two equal values."""
    return np.random.default_rng(seed).normal(size=(COUNT, SIZE, SIZE)).cumsum(1).cumsum(2)


def colours() -> Array:
    """A colour image (24, 24, 3) from 0.2 to 0.8, so that noise never leaves [0, 1]."""
    return np.random.default_rng(3).uniform(0.2, 0.8, (SIZE, SIZE, 3))


def taken_away() -> NDArray[np.intp]:
    """Two fifths of its pixels, some together and some alone."""
    order = np.argsort(-maps(4)[0].ravel(), kind="stable")
    return np.concatenate([order[:200], order[200::12]])


def weights() -> Array:
    """Of the logits on the means of 36 patches (5, 36); a photo of one grey gives none an advantage."""
    drawn = np.random.default_rng(5).normal(0, 1.5, (CLASSES, (SIZE // BLOCK) ** 2))
    return drawn - drawn.mean(1, keepdims=True)


def relevance() -> Array:
    """Maps (6, 24, 24) of what each photo's class is made of, without two equal values."""
    floats = photos() / 255.0
    row = weights()[logits(floats).argmax(1)].reshape(COUNT, SIZE // BLOCK, SIZE // BLOCK)
    return row.repeat(BLOCK, 1).repeat(BLOCK, 2) * floats[..., 0] + 1e-3 * maps(1)


def logits(images: Array) -> Array:
    """Of images (N, 24, 24, 3) in [0, 1]."""
    patches = images.mean(-1).reshape(len(images), SIZE // BLOCK, BLOCK, SIZE // BLOCK, BLOCK).mean((2, 4))
    return patches.reshape(len(images), -1) @ weights().T


def computed() -> dict[str, Any]:
    """All values, by Quantus."""
    import quantus
    import torch
    from quantus.functions.perturb_func import noisy_linear_imputation

    class Network(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear((SIZE // BLOCK) ** 2, CLASSES, bias=False).double()
            self.head.weight.data = torch.tensor(weights())

        def forward(self, images: Any) -> Any:
            return self.head(torch.nn.functional.avg_pool2d(images.double(), BLOCK).flatten(1))

    network = Network().eval()
    grey = photos()[..., :1].transpose(0, 3, 1, 2) / 255.0
    classes = logits(photos() / 255.0).argmax(1)
    first, other = relevance()[:, None], maps(2)[:, None]

    def call(metric: Any, rows: slice = slice(None), **more: Any) -> Any:
        return metric(
            model=network, x_batch=grey[rows], y_batch=classes[rows], a_batch=first[rows], channel_first=True, **more
        )

    def similarity(row: int) -> float:
        one = slice(row, row + 1)
        metric = quantus.RandomLogit(num_classes=CLASSES, disable_warnings=True)
        return float(call(metric, one, explain_func=lambda model, inputs, targets, **_: other[one])[0])

    def others() -> list[int]:
        asked: list[int] = []

        def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> Array:
            asked.extend(int(target) for target in targets)
            return other

        call(quantus.RandomLogit(num_classes=CLASSES, disable_warnings=True), explain_func=explain)
        return asked

    def rise() -> list[float]:
        metric = quantus.EfficientMPRT(disable_warnings=True)
        original = weights()

        def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> Array:
            known = np.array_equal(model.head.weight.detach().numpy(), original)
            return first if known else other

        return [float(each) for each in call(metric, explain_func=explain)]

    np.random.seed(SEED)
    patched = noisy_linear_imputation(colours().transpose(2, 0, 1), taken_away(), noise=0.01)
    road = quantus.ROAD(percentages=list(PERCENTAGES), noise=0.0, disable_warnings=True)
    flips = quantus.PixelFlipping(features_in_step=SIZE * SIZE // STEPS, perturb_baseline=0.5, disable_warnings=True)
    return {
        "imputed": patched.transpose(1, 2, 0).round(9).tolist(),
        "road": {str(percentage): float(share) for percentage, share in call(road).items()},
        "deleted": np.round(call(flips), 9).tolist(),
        "random_logit": [similarity(row) for row in range(COUNT)],
        "other_classes": others(),
        "complexity_rise": rise(),
        "version": quantus.__version__,
    }


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(computed()) + "\n", encoding="utf-8")
