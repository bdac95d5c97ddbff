"""PyTorch and TensorFlow in one process: what must be loaded before them, and how."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TRITON, TENSORFLOW = "triton._C.libtriton", "tensorflow"


def guard() -> None:
    """Load Triton's library, where it is installed; to be called before importing PyTorch or TensorFlow.

    Triton and TensorFlow each contain a copy of LLVM. The second one to load finds the symbols of the first, registers
    its options again and crashes the process. This does not happen if Triton is loaded before TensorFlow, or after it
    with its own symbols preferred. It takes a tenth of a second and needs no PyTorch.
    """
    os.environ.setdefault("KERAS_BACKEND", TENSORFLOW)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow warns of every GPU that is missing
    # waiting threads free their core: busy waiting beside other work made training five times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else it takes all memory of a GPU
    if TRITON in sys.modules or importlib.util.find_spec("triton") is None:
        return
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


@contextmanager
def muted(stream: int = 2) -> Iterator[None]:
    """Discard what is written to a file descriptor for a while; C++ writes there directly. Errors are raised.

    TensorFlow writes there while it is imported, before it can be configured.
    """
    try:
        kept = os.dup(stream)
    except OSError:  # closed already
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream)
        yield
    finally:
        with suppress(OSError):
            os.dup2(kept, stream)
        os.close(null)
        os.close(kept)
