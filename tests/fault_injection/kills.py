"""Processes that are killed at any moment: what was there is there, old or new, and the next one mends the rest."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import headstart as hs
from fault_injection.watched import TESTS, Trial
from headstart.core.atomic_files import PREFIX
from making import folder

READY = "ready\n"
WORK = {  # what is done again and again until it is killed
    "save": "model.save('model', overwrite=True)",
    "table": "hs.predict_table(model, 'photos', f'table {number}.csv', progress=False)",
    "export": "model.export('openvino', 'export', overwrite=True, progress=False)",
    "fit": "hs.fit('photos', pixels=32, precision='fp32', diagnose=False, progress=False)",
}
CODE = """
import sys, headstart as hs
model = hs.load('model', precision='fp32')
number = int(sys.argv[1])
print('ready', flush=True)
while True:
    {work}
"""


@contextmanager
def trials() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder(place / "photos", 8)
        os.environ["HEADSTART_HOME"] = str(place / "home")
        model = hs.fit(str(place / "photos"), pixels=32, precision="fp32", diagnose=False)
        model.save(place / "model")

        def trial(seed: int) -> str:
            rng = random.Random(seed)
            what = rng.choice(list(WORK))
            kill_in_the_middle(WORK[what], place, seed, rng.uniform(0, 0.6 if what != "export" else 2.0))
            classes = hs.load(
                place / "model", precision="fp32"
            ).classes  # which would be refused if it were half of each
            model.save(place / "model", overwrite=True)
            if classes != model.classes:
                return f"wrong: classes {classes}"
            return what_is_left(what, place, seed)

        yield trial


def kill_in_the_middle(work: str, place: Path, seed: int, seconds: float) -> None:
    """Kill a process so many seconds after it was ready to work."""
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    running = subprocess.Popen(
        [sys.executable, "-c", CODE.format(work=work), str(seed)], cwd=place, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert running.stdout is not None
    if running.stdout.readline() != READY:
        raise RuntimeError("it did not begin")
    time.sleep(seconds)
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()


def what_is_left(what: str, place: Path, seed: int) -> str:
    """After the next process did the same undisturbed."""
    if what == "table":
        file = place / f"table {seed}.csv"
        hs.predict_table(place / "model", str(place / "photos"), file, overwrite=file.exists(), progress=False)
        with file.open(newline="", encoding="utf-8") as rows:
            paths = [row["path"] for row in csv.DictReader(rows)]
        if sorted(paths) != sorted(set(paths)) or len(paths) != 24:
            return f"lost: {len(paths)} rows, {len(set(paths))} of them different"
        file.unlink()
    if what == "export":
        hs.export_model(
            place / "model", "openvino", place / "export", overwrite=(place / "export").exists(), progress=False
        )
    if what == "fit":
        found = hs.fit(str(place / "photos"), pixels=32, precision="fp32", diagnose=False, progress=False)
        if found.record.images != 24 or found.record.store_problem:
            return f"lost: {found.record.images} images, {found.record.store_problem}"
    left = [path.name for path in place.iterdir() if path.name.startswith(PREFIX)]
    return f"lost: {left} stay for ever" if left else "accepted"
