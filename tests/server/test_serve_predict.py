"""/predict: the same answers as the library's, in every form of request; and what is wrong with others."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from making import packed, picture
from serving import Running, check_says_nothing_of_the_inside, error_of, serving, text_of


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle)


@pytest.fixture(scope="module")
def running(small_bundle: Path) -> Iterator[Running]:
    with serving({"shapes": str(small_bundle)}, max_images=16, max_megapixels=0.5, max_megabytes=0.5) as found:
        yield found


@pytest.fixture(scope="module")
def photo() -> bytes:
    return packed(picture("discs", 3))


def check_same(answers: list[dict[str, Any]], model: hs.Classifier, photos: list[bytes]) -> None:
    known = list(model.predictions(photos))
    for answer, expected in zip(answers, known, strict=True):
        assert isinstance(expected, hs.Prediction)
        assert (answer["label"], answer["unknown"]) == (expected.label, expected.unknown)
        assert answer["probability"] == pytest.approx(expected.probability, abs=1e-5)


def test_answers_are_those_of_the_library(running: Running, model: hs.Classifier) -> None:
    photos = [packed(picture(kind, seed)) for kind in ("bars", "discs", "waves") for seed in (40, 41, 42)]
    photos.append(packed(np.full((90, 70, 3), 128, np.uint8)))
    found = running.files(*photos).json()
    assert found["model"] == "shapes"
    assert [each["name"] for each in found["predictions"]] == [f"{place}.png" for place in range(10)]
    check_same(found["predictions"], model, photos)
    assert found["predictions"][-1]["unknown"] is True


def test_probabilities_are_those_of_the_library(running: Running, model: hs.Classifier, photo: bytes) -> None:
    (answer,) = running.client.post("/predict?top=3", content=photo).json()["predictions"]
    expected = dict(zip(model.classes, model.predict_proba([photo])[0], strict=True))
    assert {each["label"]: each["probability"] for each in answer["top"]} == pytest.approx(expected, abs=1e-5)
    assert [each["probability"] for each in answer["top"]] == sorted(expected.values(), reverse=True)


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "application/x-www-form-urlencoded", ""])
def test_bytes_of_one_image(kind: str, running: Running, model: hs.Classifier, photo: bytes) -> None:
    check_same(running.post(photo, kind).json()["predictions"], model, [photo])


@pytest.mark.parametrize("form", ["image", "images", "data url"])
def test_base64_in_json(form: str, running: Running, model: hs.Classifier, photo: bytes) -> None:
    text = text_of(photo)
    body = {
        "image": {"image": text},
        "images": {"images": [text, text]},
        "data url": {"image": f"data:image/png;base64,{text}"},
    }[form]
    found = running.client.post("/predict", json=body).json()["predictions"]
    check_same(found, model, [photo] * (2 if form == "images" else 1))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_every_format_that_is_read(kind: str, running: Running, model: hs.Classifier) -> None:
    photo = packed(picture("waves", 7), kind)
    check_same(running.post(photo).json()["predictions"], model, [photo])


def test_turned_grey_transparent_and_deep_photos(running: Running, model: hs.Classifier) -> None:
    image = Image.fromarray(picture("bars", 2)[:60])
    exif = Image.Exif()
    exif[0x0112] = 6
    photos = []
    for each, options in ((image, {"exif": exif}), (image.convert("L"), {}), (image.convert("LA"), {})):
        file = io.BytesIO()
        each.save(file, "PNG", **options)
        photos.append(file.getvalue())
    photos.append(packed(np.asarray(image.convert("L")).astype(np.uint16) * 257))  # type: ignore[arg-type]
    check_same(running.files(*photos).json()["predictions"], model, photos)


BROKEN: dict[str, tuple[int, str]] = {
    "no image": (415, "no image"), "empty": (400, "empty"), "cut": (422, "truncated"),
    "large": (413, "too many pixels"),
}  # fmt: skip


def broken(kind: str) -> bytes:
    whole = packed(picture("bars", 1))
    return {
        "no image": b"These words are no image at all.", "empty": b"", "cut": whole[: len(whole) // 2],
        "large": packed(np.zeros((1000, 600, 3), np.uint8)),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_alone_is_refused(kind: str, running: Running) -> None:
    for response in (running.post(broken(kind)), running.files(broken(kind))):
        assert (response.status_code, error_of(response)["kind"]) == BROKEN[kind]
        assert error_of(response)["request_id"] == response.headers["x-request-id"]


def test_of_several_images_each_has_its_own_error(running: Running, model: hs.Classifier, photo: bytes) -> None:
    response = running.files(photo, *map(broken, BROKEN), photo)
    assert response.status_code == 200
    first, *refused, last = response.json()["predictions"]
    check_same([first, last], model, [photo, photo])
    assert [each["error"]["kind"] for each in refused] == [kind for _, kind in BROKEN.values()]
    check_says_nothing_of_the_inside(response.text)


def test_pixels_are_counted_before_they_are_decoded(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    assert running.post(broken("large")).status_code == 413


def test_a_tiff_that_pillow_does_not_know_has_the_same_limit(running: Running) -> None:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((1000, 600, 3), np.float32), photometric="rgb", compression=None)
    data = file.getvalue()[:400_000]
    assert error_of(running.post(data))["kind"] == "too many pixels"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("{", 422, "no JSON"), ("[" * 100_000, 422, "no JSON"), ("[]", 422, "Expected"), ("{}", 422, "Expected"),
        ('{"image": 5}', 422, "base64"), ('{"image": "ä"}', 422, "base64"), ('{"image": "QQ"}', 422, "base64"),
        ('{"images": "QQ=="}', 422, "list"), ('{"images": []}', 422, "one image"), ('{"image": ""}', 400, "0 bytes"),
        ('{"image": "QQ==", "images": ["QQ=="]}', 422, "Expected"), ('{"image": "QUJD"}', 415, "no image"),
        (json.dumps({"images": ["QQ=="] * 17}), 413, "More than 16 images"),
    ],
)  # fmt: skip
def test_json_that_is_wrong(body: str, status: int, said: str, running: Running) -> None:
    response = running.post(body.encode(), "application/json")
    assert response.status_code == status
    assert said in error_of(response)["message"]


FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", "multipart/form-data", "no boundary"), (b"abc", FORM, "does not have the boundary"),
        (b"", FORM, "boundary"),
        (b"--x--", FORM, "none"), (b"--x\r\nContent-Type: image/png\r\n\r\nabc", FORM, "cut short"),
        (b"--x\r\nContent-Type: image/png\r\n", FORM, "cut short"), (b"--x\r\n\r\n--x--", FORM, "cut short"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nabc\r\n--x--', FORM, "no file"),
    ],
)  # fmt: skip
def test_forms_that_are_wrong(body: bytes, kind: str, said: str, running: Running) -> None:
    response = running.post(body, kind)
    assert response.status_code == 422
    assert said in error_of(response)["message"]


@pytest.mark.parametrize("boundary", ["x", '"x y"', "----WebKitFormBoundary7MA4YWxkTrZu0gW"])
def test_forms_as_other_clients_write_them(boundary: str, running: Running, model: hs.Classifier, photo: bytes) -> None:
    mark = b"--" + boundary.strip('"').encode()
    body = b"preamble\r\n%s\r\nCONTENT-TYPE: image/png\r\n\r\n%s\r\n%s--\r\nepilogue" % (mark, photo, mark)
    response = running.post(body, f"Multipart/Form-Data; charset=utf-8; boundary={boundary}")
    check_same(response.json()["predictions"], model, [photo])


def test_too_many_files(running: Running, photo: bytes) -> None:
    assert len(running.files(*[photo] * 16).json()["predictions"]) == 16
    assert running.files(*[photo] * 17).status_code == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "video/mp4"])
def test_other_types_are_told_what_is_taken(kind: str, running: Running, photo: bytes) -> None:
    response = running.post(photo, kind)
    assert response.status_code == 415
    assert "multipart/form-data" in error_of(response)["message"]


def test_compressed_bodies_are_refused(running: Running, photo: bytes) -> None:
    response = running.post(photo, **{"Content-Encoding": "gzip"})
    assert (response.status_code, error_of(response)["kind"]) == (415, "compressed")


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5", "", "9" * 30, "１"])
def test_top_is_a_whole_number(top: str, running: Running, photo: bytes) -> None:
    response = running.client.post("/predict", params={"top": top}, content=photo)
    assert (response.status_code, error_of(response)["kind"]) == (422, "parameter")


@pytest.mark.parametrize("query", ["tops=3", "top=1&top=2", "model=shapes&file=x"])
def test_unknown_parameters_are_refused(query: str, running: Running, photo: bytes) -> None:
    assert running.client.post(f"/predict?{query}", content=photo).status_code == 422


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/predict/", 404), ("/predict", 405), ("/docs/../x", 404)])
def test_other_addresses_and_methods(path: str, status: int, running: Running) -> None:
    response = running.client.get(path)
    assert response.status_code == status
    error_of(response)
    assert status != 405 or response.headers["allow"] == "POST"
    assert status != 405 or response.json()["error"]["message"] == "This address takes POST alone."


def test_the_id_of_a_request_comes_back(running: Running) -> None:
    assert running.client.get("/health", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for strange in ("a b", "x" * 200, "ä".encode().decode("latin-1")):
        made = running.client.get("/health", headers=[(b"X-Request-ID", strange.encode("latin-1"))])
        assert len(made.headers["x-request-id"]) == 16
    ids = {running.client.get("/health").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


@pytest.mark.parametrize("path", ["/health", "/ready", "/ping", "/v2/health/live", "/v2/health/ready"])
def test_health_is_told_without_a_body_too(path: str, running: Running) -> None:
    assert running.client.get(path).status_code == 200
    head = running.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert running.client.post(path).status_code == 405


def test_the_model_is_told_but_not_where_it_lies(running: Running, model: hs.Classifier, photos: Path) -> None:
    found = running.client.get("/model").json()
    assert found["classes"] == list(model.classes)
    assert (found["pixels"], found["models"], found["tells_unknown"]) == (32, ["shapes"], True)
    assert "image classifier" in found["card"]
    assert str(photos.parent) not in json.dumps(found)


def test_the_page_asks_for_nothing_beyond_itself(running: Running) -> None:
    response = running.client.get("/docs")
    assert response.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "<script" not in response.text
    assert not any(word in response.text for word in ("https://", "src=", "@import", "url("))
    for path in running.client.get("/openapi.json").json()["paths"]:
        assert path in response.text


def test_no_framework_is_imported(small_bundle: Path) -> None:
    code = f"""
import sys, json
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from serving import serving
from making import packed, picture
with serving({{"m": {str(small_bundle)!r}}}) as running:
    assert running.files(packed(picture("bars", 1))).status_code == 200
    assert running.client.get("/docs").status_code == running.client.get("/model").status_code == 200
print(json.dumps([*sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(json.loads(done.stdout))
    assert {"fastapi", "openvino"} <= loaded
    assert loaded & {"torch", "tensorflow", "keras", "onnxruntime", "matplotlib", "sklearn", "pandas"} == set()
