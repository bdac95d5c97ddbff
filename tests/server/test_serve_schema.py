"""The server against its own OpenAPI document, and broken images of every kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from making import packed, picture
from serving import Running, check_says_nothing_of_the_inside, serving

schemathesis = pytest.importorskip("schemathesis")
FEW = settings(
    max_examples=8, derandomize=True, deadline=None, database=None, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TYPES = ("image/jpeg", "application/json", "multipart/form-data; boundary=-")
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "DDS", "QOI", "JPEG2000")


@pytest.fixture(scope="module")
def running(small_bundle: Path) -> Iterator[Running]:
    with serving({"shapes": str(small_bundle)}, max_megapixels=0.5) as found:
        yield found


def operations() -> Iterator[tuple[str, str]]:
    """Every address with its method, of a server without a model."""
    from headstart.server.app import create_app
    from headstart.server.models import Models
    from headstart.server.settings import Settings

    for path, methods in create_app(Models({}), Settings()).openapi()["paths"].items():
        yield from ((path, method.upper()) for method in methods)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("path", "method"), list(operations()))
def test_the_server_keeps_to_its_document(path: str, method: str, running: Running) -> None:
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    operation = schema[path][method]
    checks = schemathesis.checks
    left_out = [checks.CHECKS.get_one(name) for name in ("positive_data_acceptance",)]

    @FEW
    @given(case=operation.as_strategy())
    def hold(case: Any) -> None:
        case.call_and_validate(base_url=running.url, excluded_checks=left_out)

    hold()


def damaged(kind: str) -> st.SearchStrategy[bytes]:
    """A file of a kind with some of its bytes changed, cut or repeated."""
    whole = packed(picture("bars", 1)[:40, :56], kind)
    places = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=12)
    return st.builds(_damage, st.just(whole), places, st.integers(0, len(whole)), st.booleans())


def _damage(whole: bytes, places: list[tuple[int, int]], end: int, cut: bool) -> bytes:
    found = bytearray(whole)
    for place, value in places:
        found[place if place % 2 else place % 128 % len(found)] = value  # often in the header
    return bytes(found[:end] if cut else found)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_images_get_an_answer_or_a_sentence(kind: str, running: Running) -> None:
    @settings(FEW, max_examples=40)
    @given(images=st.lists(damaged(kind), min_size=1, max_size=6))
    def hold(images: list[bytes]) -> None:
        response = running.files(*images)
        check_says_nothing_of_the_inside(response.text)
        if len(images) > 1:
            assert response.status_code == 200
            assert len(response.json()["predictions"]) == len(images)
        else:
            assert response.status_code in (200, 400, 413, 415, 422)

    hold()
    assert running.files(packed(picture("bars", 1))).status_code == 200


@settings(FEW, max_examples=60)
@given(body=st.binary(max_size=300), kind=st.sampled_from(TYPES))
def test_any_bytes_get_a_sentence(body: bytes, kind: str, running: Running) -> None:
    for path in ("/predict", "/invocations", "/v2/models/shapes/infer"):
        response = running.post(body, kind, path)
        assert response.status_code in (400, 413, 415, 422)
        check_says_nothing_of_the_inside(response.text)


WORDS = (
    *("image", "images", "inputs", "instances", "dataframe_split", "columns", "data", "b64", "name"),
    *("shape", "datatype", "parameters", "binary_data_size"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


@settings(FEW, max_examples=60)
@given(value=VALUES)
def test_any_json_gets_a_sentence(value: Any, running: Running) -> None:
    for path in ("/predict", "/invocations", "/v2/models/shapes/infer"):
        response = running.post(json.dumps(value).encode(), "application/json", path)
        several = response.status_code == 200  # of which each has its own error
        assert "label" not in response.text if several else response.status_code in (400, 413, 415, 422)
        check_says_nothing_of_the_inside(response.text)


def test_a_header_that_promises_much_costs_nothing(running: Running) -> None:
    """A PNG of 60 000 × 60 000 pixels in a few bytes."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    response = running.post(bomb)
    assert (response.status_code, response.json()["error"]["kind"]) == (413, "too many pixels")
    assert running.files(bomb, packed(np.zeros((8, 8, 3), np.uint8))).status_code == 200
