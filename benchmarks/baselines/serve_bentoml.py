"""BentoML: adaptive batches, ONNX Runtime, one process for each core. Run as `bentoml serve serve_bentoml:Photos`."""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
from photo_network import BATCH, PhotoNetwork


@bentoml.service(
    workers=len(os.sched_getaffinity(0)),
    traffic={"timeout": 60},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Photos:
    """One model."""

    def __init__(self) -> None:
        self.network = PhotoNetwork()

    # with a shorter latency it refuses what waits longer, and with 64 clients all do
    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)  # type: ignore[untyped-decorator]
    def predict(self, image: list[Path]) -> list[dict[str, object]]:
        """Label and probability of each photo."""
        return self.network.answers([self.network.decode(path.read_bytes()) for path in image])
