"""LitServe: batches, ONNX Runtime, a worker for each core, and its faster queue (ZeroMQ)."""

import os
from typing import Any

import litserve as ls
from fastapi import Request
from photo_network import BATCH, PORT, PhotoNetwork


class Photos(ls.LitAPI):  # type: ignore[misc]
    """One model; a worker decodes, and runs the network."""

    def setup(self, device: str) -> None:
        """In each worker."""
        self.network = PhotoNetwork()

    def decode_request(self, request: Request) -> Any:
        """A square of one form."""
        return self.network.decode(request["image"].file.read())

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Squares stay as they are."""
        return inputs

    def predict(self, squares: list[Any]) -> list[dict[str, object]]:
        """Label and probability of each."""
        return self.network.answers(squares)

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Answers are apart already."""
        return output


if __name__ == "__main__":
    api = Photos(max_batch_size=BATCH, batch_timeout=0.005, api_path="/predict")
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=len(os.sched_getaffinity(0)), fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(os.environ[PORT]), log_level="warning", access_log=False, generate_client_file=False
    )
