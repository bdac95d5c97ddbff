"""Arguments of a wrong type or out of range: a sentence with the argument's name, by every public door."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart as hs
from headstart.core import arguments
from headstart.model.tabular_classifier import TabularClassifier
from making import Shell

API: Any = hs  # called with what no checker of types lets pass
LOST = "/nowhere/at/all"
Doors = dict[str, Callable[..., Any]]


@pytest.fixture(scope="module")
def model(bundle: Path) -> hs.Classifier:
    return hs.load(bundle)


@pytest.fixture(scope="module")
def rows() -> TabularClassifier:
    return hs.train_rows("iris", recipe={"preset": "table", "epochs": 1}, progress=False)


@pytest.fixture
def doors(model: hs.Classifier, rows: TabularClassifier, photos: Path) -> Doors:
    """Each public call with all that it needs, but for the argument that a test gives."""
    data = str(photos)
    return {
        "fit": lambda **kw: API.fit(data, **kw),
        "check": lambda **kw: API.check(data, **kw),
        "compare": lambda **kw: API.compare(data, **kw),
        "pretrained": lambda **kw: API.pretrained("efficientnet_lite0", **kw),
        "train_photos": lambda **kw: API.train_photos(data, **kw),
        "train_rows": lambda **kw: API.train_rows("iris", **kw),
        "finetune": lambda **kw: API.finetune(model, data, **kw),
        "finetune_of": lambda **kw: API.finetune(data=data, **kw),
        "load": lambda **kw: API.load(**{"path": LOST} | kw),
        "load_rows": lambda **kw: API.load_rows(**{"path": LOST} | kw),
        "save": lambda **kw: API.save(**{"classifier": model, "path": LOST} | kw),
        "open_source": lambda **kw: API.open_source(**{"data": data} | kw),
        "export_model": lambda **kw: API.export_model(**{"classifier": model, "to": "openvino", "path": LOST} | kw),
        "predict": lambda **kw: model.predict(data, **kw),
        "predict_table": lambda **kw: API.predict_table(
            **{"classifier": model, "images": data, "path": f"{LOST}.csv"} | kw
        ),
        "fit_on_ray": lambda **kw: API.fit_on_ray(**{"data": data, "out": LOST} | kw),
        "predict_on_ray": lambda **kw: API.predict_on_ray(
            **{"classifier": model, "images": data, "path": f"{LOST}.csv"} | kw
        ),
        "evaluate": lambda **kw: model.evaluate(data, **kw),
        "nearest": lambda **kw: model.nearest(data, **kw),
        "model.save": lambda **kw: model.save(**{"path": LOST} | kw),
        "rows.save": lambda **kw: rows.save(**{"path": LOST} | kw),
        "rows.predict": lambda **kw: rows.predict(np.zeros((1, 4)), **kw),
        "rows.evaluate": lambda **kw: rows.evaluate("iris", **kw),
        "explain_photos": lambda **kw: API.explain_photos(**{"classifier": model, "images": data} | kw),
        "feature_maps": lambda **kw: API.feature_maps(**{"classifier": model, "images": data} | kw),
        "check_explanations": lambda **kw: API.check_explanations(**{"classifier": model, "found": []} | kw),
        "ideal_images": lambda **kw: API.ideal_images(**{"model": model, "classes": "bars", "judges": []} | kw),
        "attack_photos": lambda **kw: API.attack_photos(**{"classifier": model, "images": data} | kw),
        "robustness": lambda **kw: API.robustness(**{"classifier": model, "data": data} | kw),
        "write_report": lambda **kw: API.write_report(**{"classifier": model, "out": LOST} | kw),
        "corrupted": lambda **kw: API.corrupted(**{"classifier": model, "data": data} | kw),
        "from_scratch": lambda **kw: API.from_scratch(**{"classifier": model, "data": data} | kw),
        "serve": lambda **kw: API.serve(**{"models": LOST} | kw),
        "studio": API.studio,
        "fit_polynomial": API.fit_polynomial,
        "ImageSpec": lambda **kw: API.ImageSpec(**{"size": 64} | kw),
        "TrainingRun": API.TrainingRun,
        "Recipe": API.Recipe,
    }


WHOLE, SHARES, WORDS = (1.5, "a", (1,), -1), ("0.2", 2, float("nan"), [0.1]), (5, ["auto"], b"auto")
FLAGS = ("no", "yes", 1, [True])
MODELS = (None, LOST, Path(LOST), 5)
SEEDS, COUNTS = (*WHOLE, None, True, 10**23), (*WHOLE, 0, "2", 2.5, True)
PATHS = (5, io.BytesIO(), [LOST], b"model", "")
WRONG: dict[str, dict[str, tuple[object, ...]]] = {
    "fit": {
        "seed": (*WHOLE, None), "holdout": (*SHARES, None), "pixels": (*WHOLE, "64", (64, 64), 0),
        "head": (*WORDS, None), "prior": (*WORDS, None),
        "engine": (*WORDS, None), "precision": (*WORDS, 32, None), "device": (*WORDS, None),
        "cache": (*FLAGS, None), "progress": FLAGS, "diagnose": FLAGS, "weights": PATHS, "spec": (64, "64"),
        "features": WORDS,
    },
    "check": {"progress": FLAGS},
    "compare": {
        "seed": WHOLE, "holdout": SHARES, "pixels": ("64", 0, [64.5], {64: 1}), "backbones": (5, [5], b"resnet50"),
        "weights": (5, "net.pth", {"resnet50": 5}), "budget": ("x", 0, float("inf")), "within": ("x", -1, 101),
        "head": WORDS, "cache": FLAGS, "progress": FLAGS, "engine": WORDS,
    },
    "pretrained": {
        "pixels": (*WHOLE, 0), "weights": PATHS, "spec": (64,), "engine": WORDS, "precision": WORDS, "device": WORDS,
        "progress": FLAGS,
    },
    "train_photos": {
        "seed": WHOLE, "holdout": SHARES, "validation": (*SHARES, 0, None), "folds": (1, "3", 2.5, None),
        "pixels": (*WHOLE, 0), "grey": FLAGS, "network": WORDS, "recipe": (5, [1], None), "trainer": (5, None),
        "hidden": ("none", [-3], [2.5], [0], {8: 1}), "progress": FLAGS, "start": (5, [1]),
    },
    "train_rows": {
        "seed": WHOLE, "holdout": SHARES, "validation": (*SHARES, 0), "folds": (1, "3", 2.5), "label": WORDS,
        "recipe": (5, None), "trainer": (5, None), "hidden": ("none", [-3], [2.5]), "progress": FLAGS, "start": (5,),
    },
    "finetune": {
        "seed": WHOLE, "holdout": SHARES, "refit": FLAGS, "cache": FLAGS, "progress": FLAGS, "recipe": (5, None),
        "trainer": (5, None),
    },
    "finetune_of": {"classifier": (5, None, [1])},
    "load": {"path": (*PATHS, None), "engine": WORDS, "precision": WORDS, "device": WORDS},
    "load_rows": {"path": (*PATHS, None)},
    "save": {"classifier": (5, None), "path": (*PATHS, None), "overwrite": FLAGS},
    "open_source": {"data": (5, None, ["a"], io.BytesIO()), "image_column": WORDS, "label_from": WORDS},
    "export_model": {"classifier": (5, None), "to": (5, None), "path": (*PATHS, None), "int8": FLAGS,
                     "takes": (5, None, "photo", ["photos"]), "overwrite": FLAGS, "progress": FLAGS},
    "predict": {"top": (*WHOLE, 0, True), "unknown": (["a"], ("a",), {"a": 1}, "bars"), "crop": FLAGS},
    "fit_on_ray": {
        "seed": (*WHOLE, None), "holdout": (*SHARES, None), "pixels": (*WHOLE, "64"), "weights": PATHS,
        "head": (*WORDS, None), "precision": (*WORDS, 32, None), "spec": (64, "64"), "out": (*PATHS, None),
        "progress": FLAGS, "diagnose": FLAGS, "overwrite": FLAGS,
        "image_column": WORDS, "label_column": WORDS, "group_column": WORDS, "split_column": WORDS, "label_from": WORDS,
        "runner": ("spark", "ray:", "ray:a", 5, None), "store": PATHS,
    },
    "predict_on_ray": {
        "images": (5, None, [5], [b"a"]), "path": (*PATHS, None, "a.txt"), "top": COUNTS, "every": FLAGS,
        "crop": FLAGS, "overwrite": FLAGS, "progress": FLAGS, "runner": ("spark", 5, None), "store": PATHS,
    },
    "predict_table": {
        "classifier": (5, None), "images": (5, None, [5], [b"a"]), "path": (*PATHS, None, "a.txt"),
        "top": COUNTS, "every": FLAGS, "crop": FLAGS, "urls": FLAGS, "overwrite": FLAGS, "progress": FLAGS,
    },
    "evaluate": {"fitted_on_too": FLAGS, "progress": FLAGS},
    "nearest": {"count": (*WHOLE, 0, None)},
    "model.save": {"path": (*PATHS, None), "overwrite": FLAGS},
    "rows.save": {"path": (*PATHS, None), "overwrite": FLAGS},
    "rows.predict": {"top": (*WHOLE, 0)},
    "rows.evaluate": {"progress": FLAGS, "label": WORDS},
    "explain_photos": {
        "classifier": MODELS, "label": (["bars", "discs"], ("bars",), np.array(["bars"]), {"bars": 1}),
        "method": (3, None, ["gradcam"]), "at": (3, ["bn2.act"]), "crop": FLAGS, "progress": FLAGS,
    },
    "feature_maps": {
        "classifier": MODELS, "layers": (None, 3, [], [3], {"bn2.act": 1}), "channels": (*COUNTS, None, "8"),
        "crop": FLAGS,
    },
    "check_explanations": {"classifier": MODELS, "found": (None, "a", [1], 3), "progress": FLAGS},
    "ideal_images": {
        "model": MODELS, "classes": (None, [None], [["bars"]], {"bars": 1}), "layer": (3, ["bn2.act"]),
        "channels": (None, "a", [1.5], [True], 2.5), "preset": (5, None, ["best"]), "steps": COUNTS, "seed": SEEDS,
        "judges": (5, "resnet50", [None]), "watch": ("yes", 5), "progress": FLAGS,
    },
    "attack_photos": {
        "classifier": MODELS, "method": (None, 3, ["pgd"]), "norm": (3, ["l2"]),
        "epsilon": ("x", 0, -1, float("nan"), [0.1], True, "1/0"), "steps": COUNTS, "restarts": (*COUNTS, None),
        "seed": SEEDS, "crop": ("no", None), "progress": FLAGS,
    },
    "robustness": {
        "classifier": MODELS, "methods": (None, [3], 3, []), "norm": (3,),
        "epsilons": ("x", [], 0, ["1/255", "x"], [None], {"1/255": 1}), "steps": COUNTS, "restarts": (*COUNTS, None),
        "images": (*COUNTS, None, "4"), "seed": SEEDS, "fitted_on_too": FLAGS, "progress": FLAGS,
    },
    "write_report": {
        "classifier": MODELS, "out": (*PATHS, None), "robustness": (5, "x", [1]), "overwrite": FLAGS,
        "corrupted": (5, "x", [1]), "from_scratch": (5, "x", True), "progress": FLAGS,
    },
    "corrupted": {
        "classifier": MODELS, "images": (*COUNTS, None), "strengths": (0, 6, [], [1, 6], None, "3", 2.5, [True]),
        "seed": SEEDS, "progress": FLAGS,
    },
    "from_scratch": {"classifier": MODELS, "epochs": COUNTS, "progress": FLAGS},
    "serve": {
        "models": (None, 5, [None], [5], {"a": 5}, b"model"), "host": (5, None, [LOST]), "port": (*WHOLE, 70000, None),
        "token_file": (5, [LOST]), "max_megabytes": (0, "1", -1, float("inf")), "max_megapixels": (0, 179, "1"),
        "max_images": (*COUNTS, None), "queue": (*COUNTS, None), "wait": (-1, "2", float("nan")),
        "timeout": (0, "30", float("inf")), "watch": FLAGS, "log": ("text", 5, None),
    },
    "studio": {
        "project": (*PATHS, None), "host": (5, None, [LOST]), "port": (*WHOLE, 70000, None), "browser": FLAGS,
    },
    "fit_polynomial": {
        "parameters": (0, 13, "2", None), "points": (*WHOLE, 1), "noise": (-1, "1", float("nan")), "seed": SEEDS,
    },
    "ImageSpec": {
        "size": (*WHOLE, "64", 0, None), "mean": (0.5, "abc", (0.5, 0.5), (0.5, 0.5, "a")), "std": (0.5, None),
        "crop": ("1", 0, 2), "resample": ("nearest", 3), "levels": (5, (1, 2, 3)),
    },
    "TrainingRun": {
        "trainer": WORDS[:2], "device": WORDS, "devices": (1.5, "2", None), "nodes": (1.5,), "strategy": WORDS,
        "find_rate": FLAGS, "folder": PATHS, "resume": FLAGS, "callbacks": (5, [print]), "say": ("x", None),
    },
    "Recipe": {"epochs": (0, "8", 1.5), "learning_rate": ("x", None), "schedule": (5, "x"), "unfreeze": (5, "")},
}  # fmt: skip
CASES = [(door, name, value) for door, given in WRONG.items() for name, values in given.items() for value in values]


@pytest.mark.parametrize(("door", "name", "value"), CASES)
def test_a_wrong_argument_is_named(door: str, name: str, value: object, doors: Doors) -> None:
    with pytest.raises(hs.UsageError) as error:
        doors[door](**{name: value})
    sentence = str(error.value)
    assert sentence.startswith((f"{name}: ", f"{door}, {name}: ")), sentence
    assert "\n" not in sentence
    assert len(sentence) < 250


def test_every_door_is_tried_with_each_of_its_settings(doors: Doors) -> None:
    """But for data and labels, which have tests of their own, and objects of other libraries."""
    functions = {
        "fit": API.fit, "check": API.check, "compare": API.compare, "pretrained": API.pretrained, "load": API.load,
        "train_photos": API.train_photos, "train_rows": API.train_rows, "finetune": API.finetune, "save": API.save,
        "export_model": API.export_model, "predict": hs.Classifier.predict, "evaluate": hs.Classifier.evaluate,
        "predict_table": API.predict_table, "fit_on_ray": API.fit_on_ray, "predict_on_ray": API.predict_on_ray,
        "nearest": hs.Classifier.nearest, "explain_photos": API.explain_photos, "feature_maps": API.feature_maps,
        "check_explanations": API.check_explanations, "ideal_images": API.ideal_images,
        "attack_photos": API.attack_photos, "robustness": API.robustness, "corrupted": API.corrupted,
        "from_scratch": API.from_scratch, "write_report": API.write_report, "serve": API.serve,
        "studio": API.studio, "fit_polynomial": API.fit_polynomial,
    }  # fmt: skip
    apart = {"self", "data", "labels", "images", "backbone", "module", "classifier", "start", "target"}
    for door, function in functions.items():
        assert [*arguments_of(function) - apart - WRONG[door].keys() - SAME_AS_FIT] == [], door


SAME_AS_FIT = {"precision", "prior", "device"}  # `compare` has them from the same rules


def arguments_of(function: Any) -> set[str]:
    return {*inspect.signature(function).parameters}


@pytest.mark.parametrize("seed", [3, np.int64(3), np.uint8(3)])
def test_numbers_of_numpy_are_pythons(seed: Any, photos: Path) -> None:
    model = API.fit(str(photos), pixels=np.int32(32), seed=seed, holdout=np.float32(0.25), cache=np.False_)
    assert (model.record.seed, type(model.record.seed)) == (3, int)
    assert (model.record.holdout, type(model.record.holdout)) == (0.25, float)
    assert model.spec.size == 32
    recipe = API.Recipe(epochs=np.int64(2), learning_rate=np.float32(0.5), seed=np.int64(1))
    assert recipe.to_json() == API.Recipe(epochs=2, learning_rate=0.5, seed=1).to_json()
    assert {type(value) for value in recipe.to_json().values()} == {int, float, str}


def test_one_stands_for_a_list_of_one(photos: Path) -> None:
    found = API.compare(str(photos), backbones="efficientnet_lite0", pixels=32)
    assert [(row.backbone, row.pixels) for row in found.rows] == [("efficientnet_lite0", 32)]
    assert API.train_rows("iris", hidden=8, recipe={"preset": "table", "epochs": 1}).record.hidden == (8,)


def test_one_stands_for_a_list_of_one_where_a_model_is_looked_into(bundle: Path, photos: Path) -> None:
    model, photo = API.load(bundle, engine="torch"), str(photos / "bars" / "0.png")
    (found,) = API.explain_photos(model, photo)
    assert len(API.check_explanations(model, found)) == 1
    assert [part.layer for part in API.feature_maps(model, photo, "bn2.act")[0].layers] == ["bn2.act"]
    (image,) = API.ideal_images(model, layer="bn2.act", channels=np.int64(7), steps=np.int64(1), judges=[])
    assert image.name == "bn2.act channel 7"
    for epsilon in (0.01, np.float64(0.01), "2.55/255"):
        curve = API.robustness(model, str(photos), methods="fgsm", epsilons=epsilon, images=3, fitted_on_too=True).curve
        assert [(round(point.epsilon, 6), {*point.attacks}) for point in curve] == [(0.01, {"fgsm", "noise"})]
    with pytest.raises(hs.UsageError, match="no class '3'"):
        API.ideal_images(model, 3, judges=model)


@pytest.mark.parametrize("door", [name for name, given in WRONG.items() if MODELS in given.values()])
def test_a_model_of_rows_has_no_photos_to_look_at(door: str, doors: Doors, rows: TabularClassifier) -> None:
    name = "model" if door == "ideal_images" else "classifier"
    said = rf"^{name}: expected a classifier of photos: .* make one\. Received: TabularClassifier\.$"
    with pytest.raises(hs.UsageError, match=said):
        doors[door](**{name: rows})


def test_the_largest_seed_is_named(doors: Doors) -> None:
    for door in ("fit", "ideal_images", "attack_photos", "robustness", "corrupted"):
        with pytest.raises(hs.UsageError, match=f"^seed: expected a whole number, 0 to {2**63 - 1}. Received: {2**63}"):
            doors[door](seed=2**63)


def test_a_dictionary_is_a_recipe() -> None:
    assert API.train_rows("iris", recipe={"preset": "table", "epochs": 2}).record.recipe["epochs"] == 2
    with pytest.raises(hs.UsageError, match=r"has no field 'epoch'\. Did you mean epochs"):
        API.train_rows("iris", recipe={"epoch": 2})


def test_the_path_of_a_model_is_opened(
    rows: TabularClassifier, model: hs.Classifier, photos: Path, tmp_path: Path
) -> None:
    where = API.save(rows, tmp_path / "rows")
    longer = API.train_rows("iris", start=where, recipe={"preset": "table", "epochs": 1})
    assert longer.record.epochs_before == rows.record.best + 1
    assert model.save(tmp_path / "photos") == tmp_path / "photos"
    with pytest.raises(hs.UsageError, match=r"no recipe 'x'"):
        API.finetune(tmp_path / "photos", str(photos), recipe="x")
    with pytest.raises(hs.UsageError, match="has a pretrained network"):
        API.train_photos(str(photos), start=str(tmp_path / "photos"))


def test_models_of_the_other_kind_are_told_apart(
    rows: TabularClassifier, model: hs.Classifier, photos: Path, tmp_path: Path
) -> None:
    for call, name in (
        (lambda: API.train_photos(str(photos), start=rows), "start"),
        (lambda: API.finetune(rows, str(photos)), "classifier"),
        (lambda: API.export_model(rows, "onnx", tmp_path / "a.onnx"), "classifier"),
    ):
        with pytest.raises(hs.UsageError, match=rf"^{name}: expected a model of photos\. Received: one of rows"):
            call()  # type: ignore[no-untyped-call]
    with pytest.raises(hs.UsageError, match=r"^start: expected a model of rows of numbers\. Received: one of photos"):
        API.train_rows("iris", start=model)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model, data: API.save(data, model), "The model comes first, then the path: hs.save(model, path)"),
        (lambda model, data: API.finetune(data, model), "The model comes first, the photos after it."),
        (lambda model, data: API.export_model(data, "onnx", model), "The model comes first: hs.export_model(model, "),
        (lambda model, data: model.export("e.onnx", "onnx"), "The format comes first, then the path: export('onnx', "),
        (lambda model, data: model.export("ONNX", "e.onnx"), "There is no format 'ONNX'. Did you mean onnx?"),
        (
            lambda model, data: API.train_photos(data, hidden=[8]),
            "hidden is for the mlp. Received: network='small_cnn'",
        ),
    ],
)
def test_swapped_arguments_are_told(call: Callable[..., Any], said: str, model: hs.Classifier, photos: Path) -> None:
    with pytest.raises(hs.UsageError) as error:
        call(model, str(photos))
    assert said in str(error.value)


def test_the_users_folder_is_written_in_short(
    model: hs.Classifier, rows: TabularClassifier, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "photos").symlink_to(photos)
    model.save("~/model")
    rows.save("~/rows")
    assert {"model", "rows"} <= {*os.listdir(tmp_path)}
    assert API.load("~/model").classes == model.classes
    assert API.load_rows("~/rows").classes == rows.classes
    assert len(API.open_source("~/photos")) == 36
    assert len(model.predict("~/photos/bars/0.png")) == 1
    assert len(model.predict(["~/photos/bars/0.png", "~/photos/bars/1.png"])) == 2
    assert model.evaluate(["~/photos/bars/0.png"], ["bars"], fitted_on_too=True).accuracy.images == 1


def test_values_of_every_kind_are_short_in_a_sentence() -> None:
    assert arguments.shown(np.float32(0.5)) == "0.5"
    assert arguments.shown(np.zeros(100)) == "ndarray"
    assert arguments.shown("a\nb") == "'a\\nb'"
    assert len(arguments.shown([1] * 1000)) == arguments.LONGEST
    assert arguments.number(0, 1).of("x", Fraction(1, 4)) == 0.25
    assert isinstance(arguments.number(0, 1).of("x", 1), int)


def test_too_many_arguments_are_pythons_own_error() -> None:
    with pytest.raises(TypeError, match=r"fit\(\) got an unexpected keyword argument 'seeds'"):
        API.fit("photos", seeds=3)


def test_python_is_told_of_pythons_calls(
    rows: TabularClassifier, model: hs.Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows.save("rows")
    model.save("photos")
    for call, said in (
        (lambda: hs.load("qq"), "There is no model 'qq'. Make one with: hs.fit(PHOTOS).save(MODEL)"),
        (lambda: hs.load_rows("qq"), "There is no model 'qq'. Make one with: hs.train_rows('ROWS.csv').save(MODEL)"),
        (lambda: hs.load_rows("photos"), "'photos' is no model of rows. Make one with: hs.train_rows('ROWS.csv')"),
        (lambda: hs.load("rows"), "Ask it with: hs.load_rows(MODEL).predict_file('ROWS.csv')"),
        (lambda: hs.fit("photos"), "The model comes first: hs.load('photos').predict(PHOTO)"),
        (lambda: hs.pretrained(""), "There is no backbone ''. See them: headstart backbones"),
    ):
        with pytest.raises(hs.HeadstartError) as error:
            call()
        assert said in str(error.value)


def test_a_device_of_pytorch_is_its_name(bundle: Path) -> None:
    torch = pytest.importorskip("torch")
    assert API.load(bundle, device=torch.device("cpu")).device == "cpu"
    with pytest.raises(hs.UsageError, match="There is no device 'cuda:0'"):
        API.load(bundle, device=torch.device("cuda:0"))


def test_answers_of_rows_have_the_arguments_of_photos(rows: TabularClassifier) -> None:
    like, strange = [5.0, 3.4, 1.5, 0.2], [500.0, 3.4, 1.5, 0.2]
    assert rows.predict([like, strange], unknown="none")[1] == "none"
    ((first, second), _) = rows.predict([like, strange], top=2)
    assert first[0] == rows.predict([like])[0]
    assert first[1] >= second[1]
    with pytest.raises(hs.UsageError, match=r"unknown: '.*' is one of the classes"):
        rows.predict([like], unknown=str(rows.classes_[0]))
    signature = inspect.signature(hs.Classifier.predict).parameters
    of_rows = [*inspect.signature(TabularClassifier.predict).parameters]
    assert of_rows[2:] == [name for name in signature if name != "crop"][2:]


def test_home_is_put_in_where_no_shell_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell: Shell) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    answer = shell("train", "iris", "--out=~/model", "--recipe", "~/short.json")
    assert "short.json' is no recipe" in answer.err
    (tmp_path / "short.json").write_text('{"preset": "table", "epochs": 1}')
    assert shell("train", "iris", "--out=~/model", "--recipe", "~/short.json").code == 0
    assert (tmp_path / "model" / "config.json").is_file()
