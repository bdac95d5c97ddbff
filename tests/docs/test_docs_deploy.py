"""The programs in docs/deploy.md, each run on a real export, and held against the classifier."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import headstart as hs
from headstart.core.quiet import quiet
from making import Shell, picture

DOC = Path(__file__).parents[2] / "docs" / "deploy.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOC.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
WITHOUT_US = "import runpy, sys; sys.modules['headstart'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
KOTLIN = {"LongArray": np.int64, "BooleanArray": np.bool_, "FloatArray": np.float32}
SWIFT = {"Int64": np.int64, "Bool": np.bool_, "Float32": np.float32}
PACKAGES = ("onnxruntime-node", "sharp")
SECONDS = 60  # for npm, which takes 3 where it has the packages already


def program(language: str, word: str = "") -> str:
    """The only block in a language that has a word in it."""
    (found,) = (block for name, block in BLOCKS if name == language and word in block)
    return str(found)


def said(*command: str | Path) -> str:
    """What a program prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return str(done.stdout.strip())


@pytest.fixture(scope="module")
def model(bundle: Path) -> hs.Classifier:
    return hs.load(bundle, precision="fp32")


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A known photo, not square, turned by EXIF, with a profile; the same in grey; and an unknown one."""
    place, exif = tmp_path_factory.mktemp("taken"), Image.Exif()
    exif[0x0112] = 6
    known = Image.fromarray(picture("bars", 100, 150)).crop((0, 0, 110, 150)).resize((143, 190))
    turned = known.transpose(Image.Transpose.ROTATE_90)
    turned.save(place / "known.jpg", quality=92, exif=exif, icc_profile=another_profile())
    known.convert("L").save(place / "grey.jpg", quality=92)
    noise = np.random.default_rng(0).integers(0, 256, (90, 201, 3)).astype(np.uint8)
    Image.fromarray(noise).save(place / "noise.png")
    return sorted(place.iterdir())


def another_profile() -> bytes:
    """Colours in which red and blue are exchanged: whoever applied it would see another photo."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = (profile.index(name, 128) + 4 for name in (b"rXYZ", b"bXYZ"))  # where each is, in the list of contents
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    return bytes(profile)


def check(model: hs.Classifier, taken: list[Path], lines: list[str]) -> None:
    """Hold lines of a program, "LABEL PROBABILITY", one for each photo, against the classifier."""
    labels = model.predict(taken, unknown="unknown").tolist()
    assert "unknown" in labels
    assert {*labels} & {*model.classes}
    for photo, line, label, row in zip(taken, lines, labels, model.predict_proba(taken), strict=True):
        *words, probability = line.split()
        assert " ".join(words) == label, photo.name
        assert float(probability) == pytest.approx(row.max(), abs=6e-4), photo.name


def in_ppm(taken: list[Path], place: Path) -> list[Path]:
    found = [place / f"{photo.stem}.ppm" for photo in taken]
    for photo, path in zip(taken, found, strict=True):
        ImageOps.exif_transpose(Image.open(photo)).convert("RGB").save(path)
    return found


def test_python(model: hs.Classifier, taken: list[Path], tmp_path: Path) -> None:
    model.export("onnx", tmp_path / "cats.onnx")
    (tmp_path / "classify.py").write_text(program("python"), encoding="utf-8")
    run: list[str | Path] = [sys.executable, "-c", WITHOUT_US, tmp_path / "classify.py", tmp_path / "cats.onnx"]
    check(model, taken, [said(*run, photo) for photo in taken])
    Image.fromarray(np.full((40, 50), 4000, np.uint16)).save(tmp_path / "deep.png")
    deep = subprocess.run([*run, tmp_path / "deep.png"], capture_output=True, text=True, check=False)
    assert (deep.returncode, deep.stdout, deep.stderr) == (1, "", "This photo has more than 8 bits.\n")


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[Path]:
    """A folder with npm's packages; skipped where they cannot be had."""
    npm, place = shutil.which("npm"), tmp_path / "node"
    if npm is None:
        pytest.skip("no npm here")
    place.mkdir()
    quickly = ("--prefer-offline", "--fetch-retries=0", "--ignore-scripts", "--no-audit", "--no-fund")
    try:
        done = subprocess.run(
            [npm, "install", "--prefix", place, *quickly, *PACKAGES],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not install {' and '.join(PACKAGES)} within {SECONDS} seconds")
    if done.returncode:
        pytest.skip(f"npm cannot install {' and '.join(PACKAGES)}: {done.stderr.strip()[:300]}")
    yield place
    shutil.rmtree(place)  # 300 MB


def test_node(
    bundle: Path, model: hs.Classifier, taken: list[Path], modules: Path, shell: Shell, tmp_path: Path
) -> None:
    answer = shell("export", bundle, "--to", "onnx", "--out", tmp_path / "cats.onnx", "--json")
    (tmp_path / "cats.json").write_text(answer.out, encoding="utf-8")
    (modules / "classify.mjs").write_text(program("js"), encoding="utf-8")
    run: list[str | Path] = ["node", modules / "classify.mjs", tmp_path / "cats.onnx", tmp_path / "cats.json"]
    check(model, taken, [said(*run, photo) for photo in taken])


def compiled(code: str, place: Path, *options: str | Path) -> Path:
    """The program; skipped without a compiler."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    (place / "classify.cpp").write_text(code, encoding="utf-8")
    said(compiler, "-std=c++17", place / "classify.cpp", "-o", place / "classify", *options)
    return place / "classify"


def package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def test_cpp_with_openvino(model: hs.Classifier, taken: list[Path], tmp_path: Path) -> None:
    wheel = package("openvino")
    libraries = sorted((wheel / "libs").glob("libopenvino.so.*"))
    if not libraries or not (wheel / "include").is_dir():
        pytest.skip("OpenVINO's wheel has no headers or no libraries here")
    given = (f"-I{wheel / 'include'}", libraries[0], f"-Wl,-rpath,{wheel / 'libs'}")
    run = compiled(program("cpp", "openvino.hpp"), tmp_path, *given)
    model.export("openvino", tmp_path / "cats_openvino")
    photos = in_ppm(taken, tmp_path)
    check(model, taken, [said(run, tmp_path / "cats_openvino", photo) for photo in photos])


def test_cpp_with_onnx_runtime(model: hs.Classifier, taken: list[Path], tmp_path: Path) -> None:
    """With headers of Debian, or in CPLUS_INCLUDE_PATH, and the library of the wheel."""
    headers = [*os.environ.get("CPLUS_INCLUDE_PATH", "").split(os.pathsep), "/usr/include/onnxruntime", "/usr/include"]
    found = [place for place in headers if place and Path(place, "onnxruntime_cxx_api.h").is_file()]
    libraries = sorted((package("onnxruntime") / "capi").glob("libonnxruntime.so.*"))
    if not found or not libraries:
        pytest.skip("ONNX Runtime has no headers for C++ here (libonnxruntime-dev), or its wheel no library of its own")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(libraries[0])
    given = (f"-I{found[0]}", f"-L{tmp_path}", "-lonnxruntime", f"-Wl,-rpath,{tmp_path}")
    run = compiled(program("cpp", "onnxruntime_cxx_api.h"), tmp_path, *given)
    model.export("onnx", tmp_path / "cats.onnx")
    photos = in_ppm(taken, tmp_path)
    check(model, taken, [said(run, tmp_path / "cats.onnx", photo) for photo in photos])


@pytest.mark.slow
def test_the_steps_of_the_phones(model: hs.Classifier, taken: list[Path], tmp_path: Path) -> None:
    """In LiteRT's interpreter, as its libraries for Java and Swift call it: allocated, resized, run, one by one."""
    from ai_edge_litert.interpreter import Interpreter

    file = model.export("tflite", tmp_path / "cats.tflite").path
    names = zipfile.ZipFile(file).read("labels.txt").decode().splitlines()
    lines = []
    with quiet():
        for photo in taken:
            interpreter = Interpreter(str(file))
            interpreter.allocate_tensors()  # both do when they open a file
            rgb = np.asarray(ImageOps.exif_transpose(Image.open(photo)).convert("RGB"))
            (given,) = interpreter.get_input_details()
            interpreter.resize_tensor_input(given["index"], (1, *rgb.shape))
            interpreter.allocate_tensors()
            interpreter.set_tensor(given["index"], rgb[None])
            interpreter.invoke()
            outputs = interpreter.get_signature_runner("serving_default").get_output_details()
            found = {name: interpreter.get_tensor(each["index"]) for name, each in outputs.items()}
            (label,), (unknown,), (probabilities,) = (found[name] for name in ("label", "unknown", "probabilities"))
            lines.append(f"{'unknown' if unknown else names[label]} {probabilities[label]:.3f}")
        known = Interpreter(str(file)).get_signature_runner("serving_default")
    check(model, taken, lines)
    (input_name,), outputs = known.get_input_details(), known.get_output_details()
    types = {name: each["dtype"] for name, each in outputs.items()}
    assert types_in_kotlin() == types_in_swift() == {name: types[name] for name in types_in_kotlin()}
    named = re.findall(
        r'(?:resizeInput\(named: |with: \[|runSignature\(mapOf\()"(\w+)"', program("kotlin") + program("swift")
    )
    assert named == [input_name] * 3
    assert all('"serving_default"' in program(language) for language in ("kotlin", "swift"))


def types_in_kotlin() -> dict[str, type]:
    """Output of the file -> type of the array that it goes to."""
    code = program("kotlin")
    arrays = dict(re.findall(r"val (\w+) = (?:arrayOf\()?(\w+Array)\(", code))
    outputs = re.findall(r'"(\w+)" to (\w+)', code.partition("val outputs")[2].partition("\n")[0])
    return {output: KOTLIN[arrays[name]] for output, name in outputs}


def types_in_swift() -> dict[str, type]:
    """Output of the file -> type that its bytes are read as."""
    found = re.findall(r'output\(named: "(\w+)"\).*?(?:as|to): (\w+)\.self', program("swift"))
    return {output: SWIFT[name] for output, name in found}


def test_every_program_has_a_test() -> None:
    assert [language for language, _ in BLOCKS] == ["python", "js", "cpp", "cpp", "kotlin", "swift"]
    assert {*types_in_kotlin()} == {*types_in_swift()} == {"label", "unknown", "probabilities"}


def test_the_command_gives_the_names_of_the_classes(bundle: Path, shell: Shell, tmp_path: Path) -> None:
    answer = shell("export", bundle, "--to", "onnx", "--out", tmp_path / "cats.onnx", "--json")
    assert json.load(io.StringIO(answer.out))["classes"] == ["bars", "discs", "waves"]
