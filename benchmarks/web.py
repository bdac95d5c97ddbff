"""The exported page in Chromium against `predict`, on real photos and on large ones: python benchmarks/web.py

Needs the extra test, Chromium with its driver, and ONNX Runtime Web, which is downloaded where it is not there.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import ROOT, Goal, arguments, finish, median, shared

SETS = ("cats_dogs", "oxford_pets", "caltech101")
PHOTOS, LARGE = 200, 40
PIXELS = 12e6  # of a large photo, made from a small one
CLOSE = 1e-3


def main() -> None:
    """The greatest differences of a probability, the labels that differ, the sizes, and the time of a photo."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from chromium import chromium

    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        rows = {name: _row(browser, name, Path(folder), options.quick) for name in SETS[: 1 if options.quick else None]}
    goals = [
        Goal(f"greatest difference of {PHOTOS} photos, {name}", row["photos"]["difference"], most=CLOSE)
        for name, row in rows.items()
    ]
    parts = [part for row in rows.values() for part in (row["photos"], row["large"])]
    goals += [Goal(f"other {what}", sum(part[what] for part in parts), most=0) for what in ("labels", "unknown")]
    finish("web", {"sets": rows}, goals, options)


def _row(browser: Any, name: str, folder: Path, quick: bool) -> dict[str, Any]:
    """What there is to say of one data set."""
    import headstart as hs
    from headstart.core.spread import evenly_spread
    from headstart.export.export import Exported

    data = shared("data", name)
    model = hs.fit(data, progress=False)
    model.use_precision("fp32")
    done: Exported = model.export("web", folder / f"{name}.html")
    files = sorted(path for path in data.rglob("*.jpg"))
    photos = [files[place].read_bytes() for place in evenly_spread(range(len(files)), 8 if quick else PHOTOS)]
    large = [
        _enlarged(photo, turned=k % 2 == 1) for k, photo in enumerate(photos[:: len(photos) // (4 if quick else LARGE)])
    ]
    compare = _comparison(browser, model, folder)
    row = {
        "bytes": sum(done.files.values()),
        "note": done.note,
        "photos": compare(done.path, photos),
        "large": compare(done.path, large),
    }
    for what in ("photos", "large"):
        print(f"{name:<12}{what:<8}", "  ".join(f"{key} {value:.3g}" for key, value in row[what].items()))  # type: ignore[attr-defined]
    return row


def _comparison(browser: Any, model: Any, folder: Path) -> Callable[[Path, Sequence[bytes]], dict[str, float]]:
    from web_pages import ask, opened

    def compare(page: Path, photos: Sequence[bytes]) -> dict[str, float]:
        begun = time.perf_counter()
        opened(browser, page.as_uri())
        seconds, answers, taken = time.perf_counter() - begun, [], []
        files = [folder / f"{number}.jpg" for number in range(len(photos))]
        for file, photo in zip(files, photos, strict=True):
            file.write_bytes(photo)
            answers.append(ask(browser, photo))
            taken.append(answers[-1]["milliseconds"])
        said = list(model.predictions(files))
        received = np.array([[answer["probabilities"][name] for name in model.classes] for answer in answers])
        apart = np.abs(received - model.predict_proba(files)).max(axis=1)
        return {
            "difference": float(apart.max()),
            "median": float(np.median(apart)),
            "labels": sum(one["label"] != other.label for one, other in zip(answers, said, strict=True)),
            "unknown": sum(one["unknown"] != other.unknown for one, other in zip(answers, said, strict=True)),
            "ms a photo": median(taken),
            "s to open": seconds,
        }

    return compare


def _enlarged(photo: bytes, *, turned: bool) -> bytes:
    """A JPEG of 12 megapixels, as a telephone makes it; half of them are turned by their EXIF block."""
    from PIL import Image

    image, exif, file = Image.open(io.BytesIO(photo)).convert("RGB"), Image.Exif(), io.BytesIO()
    if turned:
        exif[0x0112] = 6
        image = image.transpose(Image.Transpose.ROTATE_90)
    scale = (PIXELS / (image.width * image.height)) ** 0.5
    larger = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    larger.save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


if __name__ == "__main__":
    main()
