"""PyTorch and TensorFlow in one process: what must be loaded before them, and how."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import threading
from pathlib import Path

from headstart.core.errors import UsageError
from headstart.core.regular_file import read_regular

TRITON, TENSORFLOW = "triton._C.libtriton", "tensorflow"
MOST_CONFIG = 1 << 20  # bytes of Keras' configuration file
_LOADING = threading.Lock()


def guard() -> None:
    """Load Triton's library, where it is installed; to be called before importing PyTorch or TensorFlow.

    Triton and TensorFlow each contain a copy of LLVM. The second one to load finds the symbols of the first, registers
    its options again and crashes the process. This does not happen if Triton is loaded before TensorFlow, or after it
    with its own symbols preferred. It takes a tenth of a second and needs no PyTorch.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow warns of every GPU that is missing
    # waiting threads free their core: busy waiting beside other work made training five times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else it takes all memory of a GPU
    with _LOADING:  # or a second thread would go on while the first still loads it
        if TRITON not in sys.modules and importlib.util.find_spec("triton") is not None:
            _load_triton()


def _load_triton() -> None:
    late = TENSORFLOW in sys.modules and hasattr(os, "RTLD_DEEPBIND")
    before = sys.getdlopenflags() if late else 0
    try:
        if late:
            sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
        importlib.import_module(TRITON)
    except ImportError:  # a Triton without its library: importing it elsewhere raises the error
        pass
    finally:
        if late:
            sys.setdlopenflags(before)


def check_keras_backend() -> None:
    """Refuse a Keras that runs, or by the user's choice would run, on another framework than TensorFlow.

    To be called before Keras is imported, too: it cannot be changed afterwards.
    """
    loaded = getattr(getattr(sys.modules.get("keras"), "backend", None), "backend", None)
    variable, file = os.environ.get("KERAS_BACKEND"), Path(os.environ.get("KERAS_HOME") or "~/.keras", "keras.json")
    chosen = variable or _backend_in(Path(os.path.expanduser(file)))
    running = loaded() if loaded else chosen
    if running not in ("", TENSORFLOW):
        chooser = "KERAS_BACKEND" if variable else f"'{file}'"
        who = f"as {chooser} says" if chosen == running else "in this process"
        raise UsageError(
            f"Keras runs on {running} here, {who}, and the Keras engine needs TensorFlow. "
            "Set KERAS_BACKEND=tensorflow in the environment before Keras is imported."
        )


def _backend_in(file: Path) -> str:
    """The backend that Keras' own configuration file names, or ""."""
    try:
        config = json.loads(read_regular(file, MOST_CONFIG))
    except (OSError, ValueError):
        return ""
    return str(config.get("backend", "")) if isinstance(config, dict) else ""
