"""MLServer: adaptive batches, ONNX Runtime, a process for each core; photos come in base64 over its v2 protocol.

It has no address that takes a form. Its settings come from the environment, which `servers.py` writes.
"""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from photo_network import PhotoNetwork


class Photos(MLModel):  # type: ignore[misc]
    """One model."""

    async def load(self) -> bool:
        """In each process."""
        self.network = PhotoNetwork()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Label and probability of each photo."""
        photos = Base64Codec.decode_input(payload.inputs[0])
        found = self.network.answers([self.network.decode(photo) for photo in photos])
        labels = StringCodec.encode_output("label", [str(each["label"]) for each in found])
        values = np.array([[each["probability"]] for each in found], np.float32)
        return InferenceResponse(
            model_name=self.name, outputs=[labels, NumpyCodec.encode_output("probability", values)]
        )
