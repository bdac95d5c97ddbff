"""PyTorch and TensorFlow in one process, in either order: fresh processes, for the wrong order ends one at once."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRITON = importlib.util.find_spec("triton") is not None

# what a process does with both: fit, predict and gradients on each engine, in the order given
WORK = """
import sys, json
import numpy as np
import headstart as hs
from making import SHAPES, picture
from referee import EVERY_OP, SPEC, photos, weights_for
from headstart.engines.registry import get_engine

images = [picture(kind, seed, 32) for kind in SHAPES for seed in range(4)]
labels = [kind for kind in SHAPES for _ in range(4)]
found = {}
for engine in sys.argv[1:]:
    model = hs.fit(images, labels, pixels=32, engine=engine, precision="fp32", holdout=0, cache=False)
    network = get_engine(engine, EVERY_OP, weights_for(EVERY_OP), SPEC, "fp32")
    value, pullback = network.vjp(photos(2))
    found[engine] = [model.predict_proba(images), network.forward(photos(2)), pullback(value)]
import torchvision  # noqa: F401  # which brings Triton in, had nobody done so before
apart = [float(np.abs(one - other).max()) for one, other in zip(*found.values(), strict=True)]
print(json.dumps({"apart": apart, "loaded": sorted({"torch", "tensorflow", "triton._C.libtriton"} & {*sys.modules})}))
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh process that finds the tests' helpers; whatever comes of it."""
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    ("before", "engines"),
    [
        pytest.param(
            "import tensorflow", ("torch", "keras"), id="TensorFlow first, by the user", marks=pytest.mark.slow
        ),
        pytest.param("", ("keras", "torch"), id="the Keras engine first"),
    ],
)
def test_both_frameworks_work_in_one_process(before: str, engines: tuple[str, str]) -> None:
    """Were the guard idle, the first and the last would end by a signal."""
    done = run(f"{before}\n{WORK}", *engines)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert max(answer["apart"]) < 1e-4
    assert answer["loaded"] == ["tensorflow", "torch"] + ["triton._C.libtriton"] * TRITON


@pytest.mark.slow
@pytest.mark.skipif(not TRITON, reason="Triton is not installed, so nothing can collide")
def test_without_the_guard_the_order_of_the_two_ends_the_process() -> None:
    """The reason for it; a version in which they live together makes the guard idle, not wrong."""
    done = run("import tensorflow, triton._C.libtriton")
    if done.returncode == 0:
        pytest.skip("these versions of TensorFlow and Triton do not collide")
    assert done.returncode < 0, done.stderr[-2000:]


def test_the_guard_leaves_the_users_settings_alone() -> None:
    code = """
import os, sys
os.environ |= {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "0", "TF_FORCE_GPU_ALLOW_GROWTH": "false"}
os.environ["OMP_WAIT_POLICY"] = "ACTIVE"
flags, before = sys.getdlopenflags(), dict(os.environ)
from headstart.engines.frameworks import guard
sys.modules["tensorflow"] = sys  # as if it were there
guard()
guard()
assert sys.getdlopenflags() == flags
assert dict(os.environ) == before
assert "torch" not in sys.modules
"""
    done = run(code)
    assert done.returncode == 0, done.stderr[-2000:]


CHOSEN = """
import json, os, sys
from pathlib import Path
home = Path(sys.argv[1])
(home / "keras.json").write_text(json.dumps({"backend": "torch"}))
os.environ["KERAS_HOME"] = str(home)
os.environ.pop("KERAS_BACKEND", None)
"""


@pytest.mark.slow
def test_the_pytorch_engine_leaves_the_backend_of_keras_to_the_user(tmp_path: Path) -> None:
    code = """
from headstart.engines.registry import torch_engine
torch_engine()
assert "KERAS_BACKEND" not in os.environ
import keras
assert keras.backend.backend() == "torch"
"""
    done = run(CHOSEN + code, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("variable", "who"), [("", "keras.json' says"), ("jax", "as KERAS_BACKEND says")])
def test_the_keras_engine_names_the_users_choice(variable: str, who: str, tmp_path: Path) -> None:
    """Before anything is imported, for nothing can be changed afterwards; jax is not even installed."""
    code = f"""
os.environ["KERAS_BACKEND"] = "{variable}"
from headstart.core.errors import UsageError
from headstart.engines.registry import keras_engine
try:
    keras_engine()
except UsageError as error:
    print(error)
assert not {{"keras", "tensorflow"}} & sys.modules.keys()
assert os.environ["KERAS_BACKEND"] == "{variable}"
"""
    done = run(CHOSEN + code, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"Keras runs on {variable or 'torch'} here" in done.stdout
    assert who in done.stdout
    assert "Set KERAS_BACKEND=tensorflow" in done.stdout


def test_the_users_choice_of_tensorflow_over_the_file_counts(tmp_path: Path) -> None:
    code = """
os.environ["KERAS_BACKEND"] = "tensorflow"
from headstart.engines.frameworks import check_keras_backend
check_keras_backend()
os.environ["KERAS_BACKEND"] = ""
(home / "keras.json").write_text("no JSON")
check_keras_backend()
"""
    done = run(CHOSEN + code, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
