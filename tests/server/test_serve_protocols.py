"""The open inference protocol, with tritonclient as it comes, and MLflow's addresses; figures, token and names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from making import packed, picture
from serving import Running, check_says_nothing_of_the_inside, error_of, serving, text_of

TOKEN = "a-long-secret-token"


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle)


@pytest.fixture(scope="module")
def running(small_bundle: Path) -> Iterator[Running]:
    with serving({"shapes": str(small_bundle)}, max_images=8, max_megapixels=0.5) as found:
        yield found


@pytest.fixture(scope="module")
def three() -> list[bytes]:
    return [packed(picture(kind, 50)) for kind in ("bars", "discs", "waves")]


# --- tritonclient -----------------------------------------------------------------------------------------------------


@pytest.fixture
def triton(running: Running) -> Iterator[Any]:
    http = pytest.importorskip("tritonclient.http")
    with http.InferenceServerClient(f"127.0.0.1:{running.port}") as client:
        yield client


def test_tritonclient_finds_the_server_and_its_models(triton: Any, running: Running, model: hs.Classifier) -> None:
    version = running.server.models.served["shapes"].version
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("shapes")
    assert triton.is_model_ready("shapes", version)
    assert not triton.is_model_ready("other")
    assert not triton.is_model_ready("shapes", "1")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    known = triton.get_model_metadata("shapes")
    assert triton.get_model_metadata("shapes", version) == known
    assert known["versions"] == [version]
    assert known["inputs"][0] == {"name": "image", "datatype": "BYTES", "shape": [-1]}
    assert known["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(model.classes)]}


@pytest.mark.parametrize("asked", ["all in binary", "each in binary", "each in json", "one"])
@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_tritonclient_sends_photos(
    asked: str, shape: list[int], triton: Any, model: hs.Classifier, three: list[bytes]
) -> None:
    http = pytest.importorskip("tritonclient.http")
    image = http.InferInput("image", shape, "BYTES")
    image.set_data_from_numpy(np.array(three, object).reshape(shape), binary_data=True)
    names = ("probabilities",) if asked == "one" else ("probabilities", "label", "unknown")
    outputs = [http.InferRequestedOutput(name, binary_data=asked != "each in json") for name in names]
    result = triton.infer("shapes", [image], outputs=None if asked == "all in binary" else outputs, request_id="7")
    np.testing.assert_allclose(result.as_numpy("probabilities"), model.predict_proba(three), atol=1e-5)
    assert result.get_response()["id"] == "7"
    if asked == "one":
        assert result.as_numpy("label") is None
        return
    labels = [each.decode() if isinstance(each, bytes) else each for each in result.as_numpy("label").tolist()]
    expected = [each for each in model.predictions(three) if isinstance(each, hs.Prediction)]
    assert labels == [each.label for each in expected]
    assert result.as_numpy("unknown").tolist() == [each.unknown for each in expected]


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_sends_pixels(binary: bool, triton: Any, model: hs.Classifier) -> None:
    http = pytest.importorskip("tritonclient.http")
    pixels = np.stack([picture("bars", 60), picture("waves", 61)])
    image = http.InferInput("pixels", list(pixels.shape), "UINT8")
    image.set_data_from_numpy(pixels, binary_data=binary)
    result = triton.infer("shapes", [image])
    np.testing.assert_allclose(result.as_numpy("probabilities"), model.predict_proba(pixels), atol=1e-5)


def test_tritonclient_is_told_what_is_wrong(triton: Any, three: list[bytes]) -> None:
    http = pytest.importorskip("tritonclient.http")
    utils = pytest.importorskip("tritonclient.utils")

    def infer(*contents: bytes, name: str = "shapes", tensor: str = "image") -> None:
        image = http.InferInput(tensor, [len(contents)], "BYTES")
        image.set_data_from_numpy(np.array(contents, object))
        triton.infer(name, [image])

    calls: list[tuple[Callable[[], None], str]] = [
        (lambda: infer(three[0], b"not an image at all."), "Image 1: These bytes are no image"),
        (lambda: infer(three[0][:300]), "The image is cut short or damaged"),
        (lambda: infer(*three * 3), "More than 8 images"),
        (lambda: infer(*three, name="other"), "There is no such model"),
        (lambda: infer(*three, tensor="picture"), "Expected the input 'image'"),
    ]
    for call, said in calls:
        with pytest.raises(utils.InferenceServerException, match=said):
            call()


def infer(running: Running, **values: Any) -> Any:
    return running.client.post("/v2/models/shapes/infer", json=values)


def test_json_alone_without_the_extension(running: Running, model: hs.Classifier, three: list[bytes]) -> None:
    image = {"name": "image", "datatype": "BYTES", "shape": [3], "data": [text_of(each) for each in three]}
    response = infer(running, inputs=[image], id="x")
    assert "inference-header-content-length" not in response.headers
    found = response.json()
    assert (found["model_name"], found["id"]) == ("shapes", "x")
    outputs = {each["name"]: each for each in found["outputs"]}
    assert (outputs["probabilities"]["shape"], outputs["label"]["datatype"]) == ([3, 3], "BYTES")
    known = model.predict_proba(three)
    np.testing.assert_allclose(np.reshape(outputs["probabilities"]["data"], (3, 3)), known, atol=1e-5)


PIXEL = {"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [1, 2, 3]}
WRONG_TENSORS: list[dict[str, Any]] = [
    {}, {"inputs": 5}, {"inputs": []}, {"inputs": [PIXEL, PIXEL]}, {"inputs": [5]},
    {"inputs": [PIXEL | {"datatype": "FP32"}]}, {"inputs": [PIXEL | {"shape": [1, 3]}]},
    {"inputs": [PIXEL | {"shape": [1, 1, 1, 4], "data": [1] * 4}]}, {"inputs": [PIXEL | {"shape": [True, 1, 1, 3]}]},
    {"inputs": [PIXEL | {"shape": [-1, 1, 1, 3]}]}, {"inputs": [PIXEL | {"data": [1, 2]}]},
    {"inputs": [PIXEL | {"data": [1, 2, 256]}]}, {"inputs": [PIXEL | {"data": [1, 2, -1]}]},
    {"inputs": [PIXEL | {"data": [1, 2, 3.5]}]}, {"inputs": [PIXEL | {"data": [[1, 2], [3]]}]},
    {"inputs": [PIXEL | {"data": ["a", "b", "c"]}]}, {"inputs": [PIXEL | {"data": [10**30, 1, 1]}]},
    {"inputs": [PIXEL | {"parameters": 5}]}, {"inputs": [PIXEL | {"parameters": {"binary_data_size": 3}}]},
    {"inputs": [PIXEL | {"parameters": {"shared_memory_region": "a"}}]}, {"inputs": [PIXEL], "outputs": 5},
    {"inputs": [PIXEL], "outputs": [{"name": "scores"}]}, {"inputs": [PIXEL], "outputs": ["label"]},
    {"inputs": [PIXEL], "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
    {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": ["QQ=="]}]},
    {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]},
    {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [5]}]},
]  # fmt: skip


@pytest.mark.parametrize("values", WRONG_TENSORS, ids=range(len(WRONG_TENSORS)))
def test_tensors_that_are_wrong(values: dict[str, Any], running: Running) -> None:
    response = infer(running, **values)
    assert response.status_code == 422
    assert isinstance(response.json()["error"], str)
    check_says_nothing_of_the_inside(response.text)


@pytest.mark.parametrize(
    ("shape", "sizes", "extra"),
    [([2], 3, b""), ([1], 8, b""), ([1], 7, b"more"), ([1], 100, b""), ([2**30, 2**30], 7, b""), ([1], -1, b"")],
)
def test_binary_parts_that_are_wrong(shape: list[int], sizes: int, extra: bytes, running: Running) -> None:
    image = {"name": "image", "datatype": "BYTES", "shape": shape, "parameters": {"binary_data_size": sizes}}
    text = json.dumps({"inputs": [image]}).encode()
    for length in (str(len(text)), "9" * 9, "-1", "x"):
        headers = {"Inference-Header-Content-Length": length}
        body = text + b"\x03\x00\x00\x00abc" + extra
        response = running.client.post("/v2/models/shapes/infer", content=body, headers=headers)
        assert response.status_code in (413, 422)
        check_says_nothing_of_the_inside(response.text)


def test_large_pixels_are_refused_before_they_are_made(running: Running) -> None:
    response = infer(running, inputs=[PIXEL | {"shape": [1, 10**6, 10**6, 3]}])
    assert (response.status_code, response.json()["error"]) == (413, "The images have more pixels than are taken.")


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["split", "split of several", "records", "inputs", "named inputs", "instances", "b64"])
def test_mlflows_forms(form: str, running: Running, model: hs.Classifier, three: list[bytes]) -> None:
    texts = [text_of(each) for each in three]
    bodies: dict[str, dict[str, Any]] = {
        "split": {"dataframe_split": {"index": [0, 1, 2], "columns": ["x"], "data": [[each] for each in texts]}},
        "split of several": {
            "dataframe_split": {"columns": ["id", "image"], "data": [[n, each] for n, each in enumerate(texts)]}
        },
        "records": {"dataframe_records": [{"image": each} for each in texts]},
        "inputs": {"inputs": texts},
        "named inputs": {"inputs": {"image": texts}},
        "instances": {"instances": [{"image": {"b64": each}} for each in texts], "params": {}},
        "b64": {"instances": [[{"b64": each}] for each in texts]},
    }
    response = running.client.post("/invocations", json=bodies[form])
    found = response.json()["predictions"]
    for answer, expected in zip(found, model.predictions(three), strict=True):
        assert isinstance(expected, hs.Prediction)
        assert (answer["label"], answer["unknown"]) == (expected.label, expected.unknown)
        assert answer["probability"] == pytest.approx(expected.probability, abs=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        [], {}, {"inputs": 5}, {"inputs": []}, {"inputs": ["QQ=="], "instances": ["QQ=="]}, {"dataframe_split": []},
        {"dataframe_split": {"columns": ["a", "b"], "data": [["x", "y"]]}},
        {"dataframe_split": {"columns": ["image"], "data": [["x", "y"]]}}, {"dataframe_records": [{"other": "QQ=="}]},
        {"inputs": ["QQ=="], "params": {"k": 1}}, {"inputs": {"other": ["QQ=="]}}, {"inputs": [[[[["QQ=="]]]]]},
    ],
)  # fmt: skip
def test_mlflows_forms_that_are_wrong(body: Any, running: Running) -> None:
    response = running.client.post("/invocations", json=body)
    assert (response.status_code, error_of(response)["kind"]) == (422, "malformed")


def test_mlflow_sends_json(running: Running) -> None:
    assert running.client.post("/invocations", content=b"a,b").status_code == 415
    assert running.client.get("/ping").status_code == 200


# --- figures ----------------------------------------------------------------------------------------------------------


def figures(running: Running) -> dict[str, float]:
    text = running.client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def test_figures_count_what_was_done(small_bundle: Path, three: list[bytes]) -> None:
    with serving({"m": str(small_bundle)}) as running:
        grey = packed(np.full((90, 70, 3), 128, np.uint8))
        running.files(*three, grey)
        running.post(three[0])
        running.post(b"no image.............")
        running.client.get("/nowhere-%00")
        found = figures(running)
    labels = 'endpoint="/predict",http_response_code="{}",model="m"'
    assert found[f"headstart_request_total{{{labels.format(200)}}}"] == 2
    assert found[f"headstart_request_total{{{labels.format(415)}}}"] == 1
    assert found['headstart_request_total{endpoint="other",http_response_code="404",model=""}'] == 1
    assert found['headstart_request_duration_seconds_count{endpoint="/predict",model="m"}'] == 3
    assert found['headstart_images_total{model="m"}'] == 5
    assert found['headstart_images_unknown_total{model="m"}'] == 1
    assert found['headstart_images_refused_total{kind="no image",model="m"}'] == 1
    assert found['headstart_adaptive_batch_size_sum{model="m"}'] == 6
    assert found["headstart_request_in_progress"] == 1  # that which asks for the figures
    assert found["headstart_queue_length"] == 0
    assert found['headstart_model_load_seconds{model="m"}'] > 0


# --- the token --------------------------------------------------------------------------------------------------------

OPEN = ("/health", "/ready", "/ping", "/v2/health/live", "/v2/health/ready")
CLOSED = ("/model", "/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/m", "/nowhere")


def test_a_token_opens_all_but_health(small_bundle: Path, three: list[bytes]) -> None:
    with serving({"m": str(small_bundle)}, token=TOKEN) as running:
        for path in OPEN:
            assert running.client.get(path).status_code == 200
        given = (TOKEN, f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", "Bearer ä".encode("latin-1"))
        wrong: list[dict[str, Any]] = [{}, *({"Authorization": each} for each in given)]
        for headers in wrong:
            for path in CLOSED:
                response = running.client.get(path, headers=headers)
                assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
                check_says_nothing_of_the_inside(response.text)
            assert running.client.post("/predict", content=three[0], headers=headers).status_code == 401
        right = {"Authorization": f"bearer {TOKEN}"}
        for path in CLOSED[:-1]:
            assert running.client.get(path, headers=right).status_code == 200
        assert running.client.post("/predict", content=three[0], headers=right).status_code == 200
        document = running.client.get("/openapi.json", headers=right).json()
        assert document["paths"]["/predict"]["post"]["security"]
        assert "security" not in document["paths"]["/health"]["get"]


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_of_models(small_bundle: Path, tmp_path: Path, model: hs.Classifier) -> None:
    from headstart.server.models import named

    where = str(small_bundle)
    assert named([where]) == {"model": where}
    assert named([f"{where}/"]) == {"model": f"{where}/"}
    assert named([f"pets={where}", "efficientnet_lite0"]) == {"pets": where, "efficientnet_lite0": "efficientnet_lite0"}
    assert named({"a.b": model}) == {"a.b": model}
    assert named([model]) == {"model": model}
    assert named(["timm/resnet18"]) == {"resnet18": "timm/resnet18"}
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert named([f"x={odd}"]) == {"x": str(odd)}
    for models, said in (
        ([], "Expected one model"),
        ([where, where], "Two models are called 'model'"),
        ([str(odd)], "cannot be the name"),
    ):
        with pytest.raises(hs.UsageError, match=said):
            named(models)
    with pytest.raises(hs.UsageError, match="cannot be the name"):
        named({"a/b": where})


def test_a_network_is_served_by_its_name() -> None:
    with serving({"net": "efficientnet_lite0"}) as running:
        (found,) = running.post(packed(picture("bars", 1))).json()["predictions"]
        assert (found["label"] in hs.pretrained("efficientnet_lite0").classes, found["unknown"]) == (True, False)
        assert running.client.get("/model").json()["card"] == ""
