"""Tensors of the open inference protocol, version 2: images in, answers out, as JSON or in binary."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.opened_image import Raw
from headstart.model.answers import Answer
from headstart.server.read_request import from_texts, read_json
from headstart.server.refused import malformed, too_large
from headstart.server.settings import Settings

IMAGE, PIXELS = "image", "pixels"
INPUTS = (
    {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
    {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
)
BINARY = "application/octet-stream"
HEADER = b"inference-header-content-length"


class InferRequest:
    """A request to infer, taken apart.

    Raises:
        Refused: 413 too many images or pixels, 422 it is not of the protocol, or asks for what there is not.
    """

    def __init__(self, body: bytes | bytearray, header: str, settings: Settings) -> None:
        if header and not (header.isascii() and header.isdigit() and int(header) <= len(body)):
            raise malformed("Inference-Header-Content-Length is not the length of the JSON part.")
        length = int(header) if header else len(body)
        self.values = _mapping(read_json(body[:length]), "the request")
        self._rest, self._at = memoryview(body)[length:], 0
        self._settings = settings
        tensors = self.values.get("inputs")
        if not isinstance(tensors, list) or len(tensors) != 1:
            raise malformed(f"Expected one input: '{IMAGE}' of BYTES or '{PIXELS}' of UINT8.")
        self.images = self._images(_mapping(tensors[0], "an input"))
        if self._at != len(self._rest):
            raise malformed("The binary part is longer than its tensors.")

    @property
    def outputs(self) -> list[tuple[str, bool]]:
        """The outputs that are asked for, and whether each goes in binary."""
        every = _parameters(self.values).get("binary_data_output", False) is True
        asked = self.values.get("outputs")
        if asked is None or asked == []:
            return [(name, every) for name in ("probabilities", "label", "unknown")]
        if not isinstance(asked, list):
            raise malformed("outputs: expected a list.")
        found = []
        for each in asked:
            output = _mapping(each, "an output")
            name, parameters = output.get("name"), _parameters(output)
            if name not in ("probabilities", "label", "unknown"):
                raise malformed("There is no such output. There are: probabilities, label, unknown.")
            if parameters.keys() - {"binary_data"}:
                raise malformed("Of the parameters of an output only binary_data is known.")
            found.append((str(name), parameters.get("binary_data", every) is True))
        return found

    def _images(self, tensor: Mapping[str, Any]) -> Sequence[Raw]:
        name, kind, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
        if (name, kind) not in ((IMAGE, "BYTES"), (PIXELS, "UINT8")):
            raise malformed(f"Expected the input '{IMAGE}' of BYTES or '{PIXELS}' of UINT8.")
        if not isinstance(shape, list) or not shape or not all(type(n) is int and 0 < n < 2**31 for n in shape):
            raise malformed("shape: expected a list of whole numbers, 1 or more.")
        count = math.prod(shape) if name == IMAGE else shape[0]
        if count > self._settings.max_images:
            raise too_large(f"More than {self._settings.max_images} images in one request.")
        parameters = _parameters(tensor)
        if parameters.keys() - {"binary_data_size"}:
            raise malformed("Of the parameters of an input only binary_data_size is known.")
        binary = self._binary(parameters["binary_data_size"]) if "binary_data_size" in parameters else None
        if name == PIXELS:
            return self._pixels(shape, binary, tensor.get("data"))
        if binary is not None:
            return _elements(binary, count)
        texts = np.ravel(np.array(tensor.get("data"), object)).tolist()
        if len(texts) != count:
            raise malformed("data: expected as many elements as the shape says.")
        return [each.raw for each in from_texts(texts, count)]

    def _binary(self, size: object) -> memoryview:
        if type(size) is not int or not 0 <= size <= len(self._rest) - self._at:
            raise malformed("binary_data_size: expected the bytes of this tensor in the binary part.")
        self._at += size
        return self._rest[self._at - size : self._at]

    def _pixels(self, shape: Sequence[int], binary: memoryview | None, data: object) -> list[NDArray[np.uint8]]:
        if len(shape) != 4 or shape[3] != 3:
            raise malformed(f"'{PIXELS}': expected the shape images × height × width × 3.")
        if shape[1] * shape[2] > self._settings.max_pixels:
            raise too_large("The images have more pixels than are taken.")
        if binary is not None:
            if len(binary) != math.prod(shape):
                raise malformed("binary_data_size: expected as many bytes as the shape says.")
            return list(np.frombuffer(bytes(binary), np.uint8).reshape(shape))
        try:
            values = np.array(data)
        except (ValueError, OverflowError):
            values = np.empty(0)
        if values.size != math.prod(shape) or values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
            raise malformed("data: expected whole numbers from 0 to 255, as many as the shape says.")
        return list(values.astype(np.uint8).reshape(shape))


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise malformed(f"Expected {what} as an object.")
    return value


def _parameters(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(values.get("parameters", {}), "parameters")


def _elements(data: memoryview, count: int) -> list[bytes]:
    """Elements of BYTES: each behind its length in four bytes, the lowest first."""
    found, at = [], 0
    for _ in range(count):
        if at + 4 > len(data):
            raise malformed("The BYTES end before the last element.")
        (size,) = struct.unpack_from("<I", data, at)
        if at + 4 + size > len(data):
            raise malformed("The BYTES end within an element.")
        found.append(bytes(data[at + 4 : at + 4 + size]))
        at += 4 + size
    if at != len(data):
        raise malformed("The BYTES have more elements than the shape says.")
    return found


def output_of(name: str, answers: Sequence[Answer], classes: Sequence[str], *, binary: bool) -> tuple[Any, bytes]:
    """An output tensor: what the JSON says of it, and its bytes, which are none unless it goes in ``binary``."""
    count, data, kind = [len(answers)], b"", "BYTES"
    if name == "probabilities":
        values = np.stack([each.probabilities for each in answers]).astype("<f4")
        kind, count, plain, data = "FP32", [*values.shape], values.ravel().tolist(), values.tobytes()
    elif name == "unknown":
        plain = [each.unknown for each in answers]
        kind, data = "BOOL", np.array(plain, np.bool_).tobytes()
    else:
        plain = [classes[int(each.probabilities.argmax())] for each in answers]
        texts = [label.encode() for label in plain]
        data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    facts = {"name": name, "datatype": kind, "shape": count}
    if binary:
        return facts | {"parameters": {"binary_data_size": len(data)}}, data
    return facts | {"data": plain}, b""


def response_of(values: Mapping[str, Any], outputs: Sequence[tuple[Any, bytes]]) -> tuple[bytes, dict[str, str]]:
    """The body of an answer, and its headers."""
    text = json.dumps({**values, "outputs": [facts for facts, _ in outputs]}, allow_nan=False).encode()
    rest = b"".join(data for _, data in outputs)
    if not any("parameters" in facts for facts, _ in outputs):
        return text, {"Content-Type": "application/json"}
    return text + rest, {"Content-Type": BINARY, HEADER.decode().title(): str(len(text))}
