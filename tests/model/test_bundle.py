"""A model on disk: it comes back the same, it is whole or not there, and what was altered is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import headstart as hs
from altered_models import config_of, put_config, reseal
from headstart.backbones.weights import hash_of
from headstart.core import atomic_files
from headstart.model import bundle as module
from headstart.model import opened as opening
from headstart.model import stored
from headstart.model.records import FitRecord, from_json, to_json
from headstart.model.stored import sealed
from making import Shell, packed, picture

FILES = {"config.json", "model.safetensors", "golden.safetensors", "README.md"}


@pytest.fixture(scope="module")
def opened(bundle: Path) -> hs.Classifier:
    return hs.load(bundle)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may damage."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.stack([picture(kind, 300 + seed) for kind in ("bars", "discs", "waves") for seed in range(3)])


EPOCH = {
    "number": 0, "train_loss": 1.5, "train_error": 0.5, "val_loss": 1, "val_error": 0.25, "learning_rate": 0.0002,
    "seconds": 3.5, "val_calibrated": 0.9,
}  # fmt: skip
OF_THE_FIRST_VERSION: dict[str, Any] = {
    "images": 60, "train": 48, "test": 10, "test_part": "held out", "per_class": {"a": 24, "b": 24},
    "left_out": [{"name": "a/1.jpg", "kind": "empty", "detail": "0 bytes"}], "near_duplicates": 2,
    "result": {
        "accuracy": {"value": 0.9, "low": 0.6, "high": 0.98, "images": 10}, "macro_f1": 0.9, "nll": 0.2,
        "calibration_error": 0.05, "unknown": 0.1, "confusions": [{"truth": "a", "label": "b", "images": 1}],
        "per_class": {"a": {"value": 0.8, "low": 0.4, "high": 0.96, "images": 5}}, "passed_over": 0, "unreadable": 0,
    },
    "left_one_out": {"accuracy": 0.95, "images": 48}, "backbone": "efficientnet_lite0", "licence": "Apache-2.0",
    "pixels": 224, "precision": "bf16", "head": {
        "kind": "trained", "prior": "empirical", "strength": 0.0, "temperature": 1.5,
        "path": [[0.001, 0.4], [0.01, 0.3]], "settled": {"kind": "lda", "prior": "flat"},
    },
    "computed": 60, "from_store": 0, "store_problem": None, "seconds": {"open": 0.1}, "holdout": 0.2, "seed": 3,
    "data": "photos", "choice": None, "validation": {"accuracy": 0.9, "nll": 0.3, "images": 8}, "finetune": {
        "trainer": "pytorch", "recipe": {"epochs": 1}, "rate": 0.0002, "epochs": [EPOCH], "best": 0, "stopped": "",
        "verdict": {"kind": "healthy", "sentence": "Healthy.", "since": None}, "moving": 1000,
        "chosen": "fine-tuned, epoch 1", "kept": 1, "p": None,
        "before": {"accuracy": 0.9, "interval": [0.6, 0.98], "nll": 0.2, "val_calibrated": 0.4},
        "after": {"accuracy": None, "interval": None, "nll": None, "val_calibrated": 0.3},
        "images": {"train": 40, "validation": 8, "test": 10}, "refit": True, "cut": "blocks.4",
        "views": {"count": 2, "mb": 1.5}, "seconds": {"features": 1.0},
    },
    "of_tomorrow": 1,
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_comes_back_the_same(photos: Path, images: NDArray[np.uint8], tmp_path: Path) -> None:
    fitted = hs.fit(str(photos), pixels=32, precision="fp32", cache=False)
    fitted.save(tmp_path / "deep/er/model")
    again = hs.load(tmp_path / "deep/er/model")
    assert np.abs(again.predict_proba(images) - fitted.predict_proba(images)).max() < 1e-5
    assert again.predict(images).tolist() == fitted.predict(images).tolist()
    for one, other in zip(again.predictions(images), fitted.predictions(images), strict=True):
        assert isinstance(one, hs.Prediction)
        assert isinstance(other, hs.Prediction)
        assert (one.path, one.label, one.unknown) == (other.path, other.label, other.unknown)
    assert again.nearest(images[:2]) == fitted.nearest(images[:2])
    assert (again.classes, again.spec, again.fitted_on) == (fitted.classes, fitted.spec, fitted.fitted_on)
    assert again.record == fitted.record
    again.save(tmp_path / "second")  # and a second time, from what was read
    assert (
        contents(tmp_path / "second")["model.safetensors"]
        == (tmp_path / "deep/er/model/model.safetensors").read_bytes()
    )


def test_a_model_is_four_files_that_others_can_read(bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == FILES
    config = config_of(bundle)
    assert config["format"] == 2
    assert config["headstart"] == hs.__version__
    assert config["id2label"] == {"0": "bars", "1": "discs", "2": "waves"}
    assert config["label2id"] == {"bars": 0, "discs": 1, "waves": 2}
    assert config["image"]["size"] == 64
    assert {"blueprint", "unknown", "fit", "precision"} <= set(config)
    assert config["files"] == {name: hash_of(bundle / name) for name in ("model.safetensors", "golden.safetensors")}
    golden = load_file(bundle / "golden.safetensors")
    photos = [array for name, array in golden.items() if name.startswith("photos.")]
    assert {photo.shape for photo in photos} == {(80, 80, 3)}  # as they were before the crop, and small
    assert golden["logits"].shape == (len(photos), 3)
    assert golden["margins"].shape == (len(photos),)
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    for word in ("Apache-2.0", "efficientnet_lite0", "headstart fit", "95 % interval", "bars, discs, waves"):
        assert word in card


@pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_model_is_for_those_whom_new_files_are_for(mask: int, bundle: Path, tmp_path: Path) -> None:
    model, before = hs.load(bundle), os.umask(mask)
    try:
        for overwrite in (False, True):
            where = model.save(tmp_path / "model", overwrite=overwrite)
            assert oct(where.stat().st_mode & 0o777) == oct(0o777 & ~mask)
            assert {oct(file.stat().st_mode & 0o777) for file in where.iterdir()} == {oct(0o666 & ~mask)}
    finally:
        os.umask(before)


def newer(folder: Path) -> None:
    put_config(folder, config_of(folder) | {"format": 3})


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def flip(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / name).write_bytes(raw)

    return damage


def cut_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_bytes(path.read_bytes()[:500])


def deep_config(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def lead_out(folder: Path) -> None:
    config = config_of(folder)
    (folder.parent / "outside.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config["files"]["../outside.safetensors"] = config["files"].pop("model.safetensors")
    put_config(folder, config)


def symlink(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).rename(folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return damage


def cut_and_seal(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    reseal(folder)


def other_names(folder: Path) -> None:
    """As a text editor would, class names swapped."""
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(text.replace("bars", "BARS").replace("discs", "bars").replace("BARS", "discs"))


def other_threshold(folder: Path) -> None:
    config = config_of(folder)
    config["unknown"]["threshold"] += 1
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def alter(name: str, change: Callable[[dict[str, NDArray[Any]]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        arrays = load_file(folder / name)
        change(arrays)
        save_file(arrays, folder / name)
        reseal(folder)

    return damage


def other_weights(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["network.conv_stem.weight"] = arrays["network.conv_stem.weight"] * 0


def slightly_other_weights(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["network.conv_stem.weight"] = arrays["network.conv_stem.weight"] * np.float32(1.02)


def nan_weights(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["network.conv_stem.weight"][:] = np.nan


def other_head(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["network.logits.bias"] = arrays["network.logits.bias"][::-1].copy()


def no_head(arrays: dict[str, NDArray[Any]]) -> None:
    del arrays["network.logits.weight"]


def other_golden(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["photos.0"] = arrays["photos.0"][:, :32]


@pytest.mark.parametrize(
    ("damage", "error", "sentence"),
    [
        (newer, hs.UsageError, "format 3.*-m pip install --upgrade"),
        (without("model.safetensors"), hs.CheckError, "model.safetensors is missing"),
        (without("golden.safetensors"), hs.CheckError, "golden.safetensors is missing"),
        (without("config.json"), hs.UsageError, "is a folder, but no model"),
        (flip("model.safetensors"), hs.CheckError, "altered"),
        (flip("golden.safetensors"), hs.CheckError, "altered"),
        (other_names, hs.CheckError, r"config\.json' was altered"),
        (other_threshold, hs.CheckError, r"config\.json' was altered"),
        (cut_config, hs.CheckError, "damaged"),
        (deep_config, hs.CheckError, "damaged"),
        (lead_out, hs.CheckError, "only those are ever read"),
        (symlink("model.safetensors"), hs.CheckError, "leads out"),
        (symlink("golden.safetensors"), hs.CheckError, "leads out"),
        (symlink("config.json"), hs.CheckError, "leads out"),
        (cut_and_seal, hs.CheckError, "damaged"),
        (alter("model.safetensors", other_weights), hs.CheckError, "other answers"),
        (alter("model.safetensors", other_head), hs.CheckError, "other answers"),
        (alter("model.safetensors", nan_weights), hs.CheckError, "not finite"),
        (alter("model.safetensors", no_head), hs.CheckError, r"logits\.weight"),
        (alter("golden.safetensors", other_golden), hs.CheckError, "other answers"),
        (alter("golden.safetensors", dict.clear), hs.CheckError, "hold together"),
    ],
)
def test_what_was_altered_is_refused(
    copy: Path, damage: Callable[[Path], None], error: type[hs.HeadstartError], sentence: str
) -> None:
    damage(copy)
    with pytest.raises(error, match=sentence) as raised:
        hs.load(copy)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["id2label", "image", "blueprint", "unknown", "fit", "files", "precision", "format"])
@pytest.mark.parametrize("value", ["absent", None, 7, "x", [], {}, {"0": 1}, [[1]]], ids=repr)
def test_a_config_that_says_nonsense_is_refused(copy: Path, key: str, value: object) -> None:
    config = config_of(copy)
    config[key] = value
    if value == "absent":
        del config[key]
    put_config(copy, config)
    try:
        model = hs.load(copy)
    except hs.HeadstartError:
        return
    raise AssertionError(f"accepted: {model}")


def with_crop(folder: Path) -> None:
    config = config_of(folder)
    put_config(folder, config | {"image": config["image"] | {"crop": 0.3}})


def with_threshold(folder: Path) -> None:
    config = config_of(folder)
    put_config(folder, config | {"unknown": config["unknown"] | {"threshold": config["unknown"]["threshold"] + 3}})


def with_name(folder: Path) -> None:
    """As by somebody who records the hashes of the files anew, but not what the golden images keep of the rest."""
    config = config_of(folder)
    config["id2label"]["0"] = "bats"
    (folder / "config.json").write_text(json.dumps(sealed(config)), encoding="utf-8")


def centre_elsewhere(arrays: dict[str, NDArray[Any]]) -> None:
    arrays["unknown.centre"] = arrays["unknown.centre"] + 3


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (with_crop, "other answers"),
        (with_threshold, "calls other images unknown"),
        (alter("model.safetensors", centre_elsewhere), "calls other images unknown"),
        (with_name, "was recorded with another"),
    ],
)
def test_golden_photos_tell_what_no_hash_does(copy: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(copy)
    with pytest.raises(hs.CheckError, match=sentence):
        hs.load(copy, precision="fp32")


def test_a_bundle_of_the_first_format_is_opened(copy: Path, images: NDArray[np.uint8]) -> None:
    expected = hs.load(copy, precision="fp32").predict_proba(images)
    golden = hs.load(copy).golden
    assert golden is not None
    save_file({"images": golden.images, "logits": golden.logits}, copy / "golden.safetensors")
    put_config(copy, config_of(copy) | {"format": 1})
    np.testing.assert_allclose(hs.load(copy, precision="fp32").predict_proba(images), expected, atol=1e-6)


def test_a_model_that_is_replaced_while_it_is_opened_is_the_one_or_the_other(
    opened: hs.Classifier, bundle: Path, copy: Path
) -> None:
    """And never the weights of the one with the classes of the other."""
    other = replace(opened, classes=tuple(reversed(opened.classes)))
    classes = {opened.classes: stored.read(bundle).config["files"]["model.safetensors"]}
    other.save(copy.parent / "other")
    classes[other.classes] = stored.read(copy.parent / "other").config["files"]["model.safetensors"]
    done = threading.Event()

    def replaces() -> None:
        for model in (other, opened) * 20:
            model.save(copy, overwrite=True)
        done.set()

    thread = threading.Thread(target=replaces)
    thread.start()
    seen = set()
    while not done.is_set():
        found = stored.read(copy)
        names = stored.read_classes(found.config)[0]
        assert hashlib.sha256(found.content["model.safetensors"]).hexdigest() == classes[names]
        seen.add(names)
    thread.join()
    assert seen <= set(classes)


def test_in_fp32_a_slight_change_is_seen(copy: Path) -> None:
    alter("model.safetensors", slightly_other_weights)(copy)
    with pytest.raises(hs.CheckError, match="other answers"):
        hs.load(copy, precision="fp32")


def test_a_refusal_ends_with_exit_code_4(shell: Shell, copy: Path) -> None:
    alter("model.safetensors", other_weights)(copy)
    answer = shell("predict", copy, copy)
    assert (answer.code, answer.out) == (4, "")
    assert "golden images differ" in answer.err


def test_loading_runs_no_code(copy: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')")
    (copy / "__init__.py").write_text("raise SystemExit('ran')")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("exec", "eval"):
        monkeypatch.setattr(f"builtins.{name}", refuse)
    assert len(hs.load(copy).predict(images[:1])) == 1


@pytest.mark.parametrize(
    ("asked", "difference", "taken"),
    [("bf16", 0.04, "bf16"), ("bf16", 0.06, "fp32"), ("int8", 0.1, "int8"), ("int8", 0.3, "fp32")],
)
def test_a_low_precision_that_strays_gives_way_to_fp32(
    asked: str, difference: float, taken: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is measured, here as if: not every processor computes in bf16."""
    measured = {asked: difference, "fp32": 0.0}
    monkeypatch.setattr(module, "_replayed_by", lambda model, golden: (measured[model.network.precision], True))
    assert hs.load(bundle, precision=asked).network.precision == taken


@pytest.mark.parametrize(("engine", "starts"), [("auto", 1), ("fast", 1), ("torch", 0)])
def test_the_fast_engine_starts_while_a_model_is_read(
    engine: str, starts: int, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[bool] = []
    monkeypatch.setattr(opening, "start_beside", lambda: started.append(True))
    hs.load(copy, engine=engine)
    assert len(started) == starts


@pytest.mark.parametrize("engine", ["torch", "keras"])
def test_the_frameworks_compute_in_fp32_unless_told_otherwise(
    engine: str, copy: Path, images: NDArray[np.uint8]
) -> None:
    """Also where the classifier was fitted in bf16: the answer is the same everywhere."""
    put_config(copy, config_of(copy) | {"precision": "bf16"})
    exact = hs.load(copy, precision="fp32").predict_proba(images)
    opened = hs.load(copy, engine=engine)
    assert opened.network.precision == "fp32"
    np.testing.assert_allclose(opened.predict_proba(images), exact, atol=1e-4)
    assert hs.load(copy, engine=engine, precision="bf16").network.precision == "bf16"


def test_a_record_of_the_first_version_is_read() -> None:
    """With every kind of training in it, as it was written before records had types."""
    record = from_json(FitRecord, OF_THE_FIRST_VERSION)
    assert record.result is not None
    assert record.result.accuracy == hs.Accuracy(0.9, 0.6, 0.98, 10)
    assert record.left_out == (hs.Problem("a/1.jpg", "empty", "0 bytes"),)
    assert record.head is not None
    assert record.head.path == ((0.001, 0.4), (0.01, 0.3))
    assert record["result"]["accuracy"]["value"] == OF_THE_FIRST_VERSION["result"]["accuracy"]["value"]
    with pytest.raises(KeyError, match="results"):
        record["results"]
    assert record.finetune is not None
    assert record.finetune.before.interval == (0.6, 0.98)
    assert record.finetune.after.accuracy is None
    assert record.finetune.epochs[0].val_loss == 1.0
    assert record.finetune.verdict.since is None
    assert record.scratch is None
    assert record.choice is None
    assert record.result.calibration_in_words() == "5.0%"
    assert record.result.unknown_in_words("images") == "10.0% of the images"
    written = json.loads(json.dumps(to_json(record)))
    assert written["finetune"].pop("folds") == 1
    assert {key: written[key] for key in OF_THE_FIRST_VERSION if key != "of_tomorrow"} == {
        key: value for key, value in OF_THE_FIRST_VERSION.items() if key != "of_tomorrow"
    }


@pytest.mark.parametrize(
    "values",
    [
        {"train": "7"},
        {"holdout": None},
        {"head": {"kind": "lda"}},
        {"left_out": {"name": "a"}},
        {"left_out": ["a"]},
        {"seconds": {"open": "long"}},
        {"result": {"accuracy": 0.5}},
        [],
        "train",
    ],
    ids=repr,
)
def test_a_record_that_is_none_is_refused(values: Any) -> None:
    with pytest.raises(TypeError):
        from_json(FitRecord, values)


@pytest.mark.parametrize(
    "others",
    [{"notes.txt": b"mine"}, {"config.json": b"{}", "model.safetensors": b"of another library"}],
    ids=["any", "hub"],
)
def test_a_folder_with_other_things_is_left_alone(
    opened: hs.Classifier, tmp_path: Path, others: dict[str, bytes]
) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    for name, content in others.items():
        (target / name).write_bytes(content)
    with pytest.raises(hs.UsageError, match="other things"):
        opened.save(target)
    assert contents(target) == others
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_model_with_something_of_the_user_beside_it_is_left_alone(opened: hs.Classifier, copy: Path) -> None:
    (copy / "notes.txt").write_text("mine")
    before = contents(copy)
    with pytest.raises(hs.UsageError, match=r"notes\.txt"):
        opened.save(copy)
    assert contents(copy) == before


def test_an_older_model_is_replaced_where_that_is_asked_for_alone(opened: hs.Classifier, copy: Path) -> None:
    before = contents(copy)
    with pytest.raises(hs.UsageError, match=r"is a model already.*overwrite=True"):
        opened.save(copy)
    assert contents(copy) == before


def test_an_older_model_is_replaced(opened: hs.Classifier, copy: Path) -> None:
    (copy / "README.md").write_text("old")
    (copy / ".DS_Store").write_bytes(b"clutter")
    opened.save(copy, overwrite=True)
    assert {path.name for path in copy.iterdir()} == FILES
    assert "old" not in (copy / "README.md").read_text().split()
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_an_empty_folder_and_a_link_to_one_will_do(opened: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    opened.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in (tmp_path / "real").iterdir()} == FILES


@pytest.mark.parametrize("failing", ["golden.safetensors", "README.md", "config.json"])
def test_a_disk_that_is_full_midway_leaves_the_older_model_whole(
    opened: hs.Classifier, copy: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    before, real = contents(copy), os.open

    def full(path: Any, *rest: Any, **named: Any) -> Any:
        if Path(path).name == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *rest, **named)

    def write(self: Path, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    for name in ("write_bytes", "write_text"):
        whole = getattr(Path, name)
        monkeypatch.setattr(
            Path, name, lambda self, *a, _whole=whole, **k: (write if self.name == failing else _whole)(self, *a, **k)
        )
    with pytest.raises(hs.UsageError, match="No space left"):
        opened.save(copy, overwrite=True)
    monkeypatch.undo()
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


@pytest.mark.parametrize("stop", [OSError(errno.EIO, "broken"), KeyboardInterrupt()], ids=["error", "interrupted"])
def test_an_older_model_comes_back_when_the_new_one_cannot_take_its_place(
    opened: hs.Classifier, copy: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    before, rename = contents(copy), Path.rename
    monkeypatch.setattr(atomic_files, "_exchanged", lambda *_: False)  # a disk that cannot

    def second_fails(self: Path, target: Path) -> Path:
        if target == copy and not self.name.startswith(atomic_files.OLD):
            raise stop
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises((hs.UsageError, KeyboardInterrupt)):
        opened.save(copy, overwrite=True)
    monkeypatch.undo()
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_limit_on_file_sizes_leaves_the_older_model_whole(bundle: Path, copy: Path) -> None:
    before = contents(copy)
    code = (
        "import sys, resource, headstart as hs\n"
        "model = hs.load(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n    model.save(sys.argv[2], overwrite=True)\n"
        "except hs.UsageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, bundle, copy], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert "File too large" in done.stdout
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_places_that_cannot_be_written(opened: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(hs.UsageError, match="is a file"):
        opened.save(tmp_path / "file")
    with pytest.raises(hs.UsageError, match="cannot be written"):
        opened.save(tmp_path / "file" / "model")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permission bits do not bind root")
def test_a_folder_without_permission(opened: hs.Classifier, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(hs.UsageError, match="Permission denied"):
        opened.save(tmp_path / "locked" / "model")


def test_names_that_are_awkward_come_back_as_they_were(tmp_path: Path) -> None:
    labels = ["two words", "naïve 'quoted' \"twice\"", "🐈 | `cat` <b>"]
    pixels = [picture(kind, seed) for seed in range(4) for kind in ("bars", "discs", "waves")]
    model = hs.fit(pixels, labels * 4, pixels=32, cache=False)
    model.save(tmp_path / "m")
    assert set(hs.load(tmp_path / "m").classes) == set(labels)
    assert "<b>" not in (tmp_path / "m/README.md").read_text(encoding="utf-8").replace("\\<b\\>", "")


def test_a_backbone_itself_is_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(hs.UsageError, match="not fitted"):
        hs.pretrained("efficientnet_lite0").save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(packed(picture("bars", 0)))
    for path in (tmp_path, tmp_path / "photo.png", tmp_path / "nothing"):
        with pytest.raises(hs.UsageError, match=r"hs\.(fit|load)\("):
            hs.load(path)
