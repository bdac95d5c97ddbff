"""Two frameworks in one process: what must be loaded before either, and in which way."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TRITON, TENSORFLOW = "triton._C.libtriton", "tensorflow"


def guard() -> None:
    """Load Triton's library, where there is one, before a framework does; to be called before importing either.

    It brings a copy of LLVM, and so does TensorFlow: whichever comes second finds the first one's symbols, registers
    its options a second time and ends the process. Loaded before TensorFlow, Triton's stay its own; after it, they do
    if the library looks among its own symbols first. It takes a tenth of a second and needs no PyTorch.
    """
    os.environ.setdefault("KERAS_BACKEND", TENSORFLOW)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow tells of every GPU that is not there
    # threads that wait give their core away: beside other work, spinning made training five times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # nor does it take a whole one to itself
    if TRITON in sys.modules or importlib.util.find_spec("triton") is None:
        return
    late = TENSORFLOW in sys.modules and hasattr(os, "RTLD_DEEPBIND")
    before = sys.getdlopenflags() if late else 0
    try:
        if late:
            sys.setdlopenflags(os.RTLD_NOW | os.RTLD_DEEPBIND)
        importlib.import_module(TRITON)
    except ImportError:  # a Triton without its library: whoever wants it will hear of it
        pass
    finally:
        if late:
            sys.setdlopenflags(before)


@contextmanager
def muted(stream: int = 2) -> Iterator[None]:
    """A file descriptor that leads nowhere for a while: C++ writes there, past Python's streams. Errors are raised.

    TensorFlow does so while it is imported, before it can be told not to.
    """
    try:
        kept = os.dup(stream)
    except OSError:  # closed already
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream)
        yield
    finally:
        with suppress(OSError):
            os.dup2(kept, stream)
        os.close(nowhere)
        os.close(kept)
