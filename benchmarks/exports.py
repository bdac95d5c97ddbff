"""What exported files say of photos of all sizes, against the classifier itself: python benchmarks/exports.py

Needs the extra test. A classifier of the 37 Oxford pets is asked about photos of every set, so most are none of its
classes and many are near a border between two. Some photos are enlarged to 12 megapixels. Every file gets the decoded
photo, one at a time, as its user would; beside them ONNX's own antialiased Resize in front of the same network.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import Goal, arguments, finish, in_child, shared

FITTED = "oxford_pets"
SETS = ("oxford_pets", "cats_dogs", "caltech101", "apple_leaves", "imagenet_sample", "cifar10/test.parquet", "mnist")
PHOTOS, LARGE = 1000, 40
FORMATS = ("onnx", "openvino", "torch", "savedmodel", "tflite", "keras")
RESIZE = "onnx, with its Resize"
CLOSE = 1e-3

Photo = NDArray[np.uint8]
Answers = dict[str, NDArray[Any]]


def main() -> None:
    """A row for each format."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    options = parser.parse_args()
    counts = (40, 4) if options.quick else (PHOTOS, LARGE)
    import headstart as hs

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        hs.fit(shared("data", FITTED), progress=False).save(place / "model")
        expected = in_child(partial(_expected, place, counts))
        print(f"{'':<22}{'MB':>7}{'difference':>12}{'12 MP':>10}{'labels':>8}{'unknown':>9}{'ms':>8}{'12 MP':>8}")
        rows = {}
        for name in (*FORMATS, RESIZE):
            row = rows[name] = in_child(partial(_row, name, place, counts, expected))
            print(
                f"{name:<22}{row['megabytes']:>7.1f}{row['difference']:>12.1e}{row['large difference']:>10.1e}"
                f"{row['labels']:>8}{row['unknown']:>9}{row['milliseconds']:>8.1f}{row['large milliseconds']:>8.0f}",
                flush=True,
            )
        large = in_child(partial(_of_files, place, counts[1]))
    print(f"{LARGE} of 12 MP as JPEG files, decoded whole against Headstart's way: {large}")
    ours = [rows[name] for name in FORMATS]
    goals = [
        Goal("greatest difference of a probability", max(row["difference"] for row in ours), most=CLOSE),
        Goal("greatest difference, 12 megapixels", max(row["large difference"] for row in ours), most=CLOSE),
        Goal("other labels", sum(row["labels"] for row in ours), most=0),
    ]
    values = {"photos": counts[0], "large": counts[1], "formats": rows, "large as files": large}
    finish("exports", values, goals, options)


def photos(count: int, large: int) -> Iterator[Photo]:
    """The same ones each time: of every set as many, then large ones."""
    from PIL import Image

    from headstart.core.spread import evenly_spread
    from headstart.data.inputs import unlabelled_dataset
    from headstart.data.load import decode_whole
    from headstart.data.sources import open_source

    some: list[Photo] = []
    for name in SETS:
        path = shared("data", *name.split("/"))
        dataset = unlabelled_dataset(path) if name == "imagenet_sample" else open_source(path)
        for row in evenly_spread(range(len(dataset)), -(-count // len(SETS))):
            some.append(decode_whole(dataset.read(row), 1 << 20))
    yield from some[:count]
    for place in evenly_spread(range(min(count, len(some)) // 2), large):
        tall = some[place].shape[0] > some[place].shape[1]
        yield np.asarray(Image.fromarray(some[place]).resize((3000, 4000) if tall else (4000, 3000)))


def _expected(place: Path, counts: tuple[int, int]) -> Answers:
    """What the classifier itself says."""
    import headstart as hs
    from headstart.data.load import decode

    model = hs.load(place / "model", precision="fp32")
    probabilities, unknown = [], []
    for photo in photos(*counts):
        pixels = decode(photo, model.spec)[None]  # of every size, so one at a time
        probabilities.append(model.predict_proba(pixels, crop=False)[0])
        unknown.append(bool(model.unlike_training(pixels)[0]))
    return {"probabilities": np.stack(probabilities), "unknown": np.array(unknown)}


def _row(name: str, place: Path, counts: tuple[int, int], expected: Answers) -> dict[str, Any]:
    """What a format says, and how long it takes."""
    import headstart as hs

    model = hs.load(place / "model", engine="fast", precision="fp32")
    done = model.export(form_of(name), place / _file(name), takes="pixels" if name in ("keras", RESIZE) else "auto")
    ask = _opened(name, done.path, model)
    ask(next(photos(1, 0)))
    found, seconds = [], []
    for photo in photos(*counts):
        begun = time.perf_counter()
        found.append(ask(photo))
        seconds.append(time.perf_counter() - begun)
    probabilities = np.stack([answer["probabilities"][0] for answer in found])
    apart = np.abs(probabilities - expected["probabilities"]).max(axis=1)
    unknown = np.array([bool(answer["unknown"][0]) for answer in found])
    few = counts[0]
    return {
        "megabytes": sum(done.files.values()) / 1e6,
        "difference": float(apart[:few].max()),
        "large difference": float(apart[few:].max()),
        "labels": int((probabilities.argmax(1) != expected["probabilities"].argmax(1)).sum()),
        "unknown": int((unknown != expected["unknown"]).sum()),
        "milliseconds": 1000 * float(np.median(seconds[:few])),
        "large milliseconds": 1000 * float(np.median(seconds[few:])),
    }


def form_of(name: str) -> str:
    """The format of a row."""
    return "onnx" if name == RESIZE else name


def _file(name: str) -> str:
    suffixes = {"onnx": ".onnx", "torch": ".pt2", "tflite": ".tflite", "keras": ".keras", RESIZE: ".pixels.onnx"}
    return f"{form_of(name)}{suffixes.get(name, '')}"


def _opened(name: str, path: Path, model: Any) -> Callable[[Photo], Answers]:
    """A function that asks the file, opened once by its own runtime."""
    from headstart.data.load import decode

    if name in ("onnx", RESIZE):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names, given = [output.name for output in session.get_outputs()], session.get_inputs()[0].name
        scale = _with_resize(model.spec) if name == RESIZE else lambda photo: photo
        return lambda photo: dict(zip(names, session.run(names, {given: scale(photo)[None]}), strict=True))
    if name == "openvino":
        import openvino as ov

        network = ov.Core().compile_model(path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        outputs = [next(iter(output.names)) for output in network.outputs]
        return lambda photo: dict(zip(outputs, network(photo[None]).to_tuple(), strict=True))
    if name == "torch":
        import torch

        program = torch.export.load(path).module()
        with torch.no_grad():
            return lambda photo: {key: value.numpy() for key, value in program(torch.tensor(photo[None])).items()}
    if name == "tflite":
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
        return lambda photo: dict(run(photos=photo[None]))
    import tensorflow as tf

    if name == "savedmodel":
        signature = tf.saved_model.load(path).signatures["serving_default"]
        return lambda photo: {k: v.numpy() for k, v in signature(photos=tf.constant(photo[None])).items()}
    import keras

    network = keras.models.load_model(path)
    return lambda photo: {k: v.numpy() for k, v in network(decode(photo, model.spec)[None]).items()}


def _with_resize(spec: Any) -> Callable[[Photo], Photo]:
    """The centred square by ONNX's Resize of opset 18, antialiased, with Pillow's cubic."""
    import onnx
    import onnxruntime

    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["photo"], ["floats"], to=kinds.FLOAT),
        helper.make_node(
            "Resize", ["floats", "", "", "sizes"], ["scaled"], mode="cubic", antialias=1,
            cubic_coeff_a=-0.5, exclude_outside=1, coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Round", ["scaled"], ["whole"]),
        helper.make_node("Clip", ["whole", "black", "white"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["pixels"], to=kinds.UINT8),
    ]  # fmt: skip
    constants = [
        onnx.numpy_helper.from_array(np.array([1, spec.size, spec.size, 3], np.int64), "sizes"),
        onnx.numpy_helper.from_array(np.float32(0), "black"),
        onnx.numpy_helper.from_array(np.float32(255), "white"),
    ]
    ends = [[helper.make_tensor_value_info(name, kinds.UINT8, [1, None, None, 3])] for name in ("photo", "pixels")]
    graph = helper.make_graph(nodes, "resize", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def scale(photo: Photo) -> Photo:
        height, width = photo.shape[:2]
        side = round(min(height, width) * spec.crop)
        top, left = (height - side) // 2, (width - side) // 2
        square = np.ascontiguousarray(photo[None, top : top + side, left : left + side])
        return np.asarray(session.run(None, {"photo": square})[0][0])

    return scale


def _of_files(place: Path, large: int) -> dict[str, float]:
    """What a photo of 12 megapixels gets as a JPEG file, and decoded whole by somebody else."""
    import io

    from PIL import Image

    import headstart as hs

    model, apart, labels = hs.load(place / "model", precision="fp32"), [], 0
    for photo in [*photos(40, large)][40:]:
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "JPEG", quality=90)
        whole = np.asarray(Image.open(file))
        ours, theirs = model.predict_proba([file.getvalue(), whole])
        apart.append(float(np.abs(ours - theirs).max()))
        labels += int(ours.argmax() != theirs.argmax())
    return {"median": float(np.median(apart)), "greatest": max(apart), "labels": labels}


if __name__ == "__main__":
    main()
