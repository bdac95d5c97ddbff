"""Suppresses the output of frameworks during an export."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

from headstart.engines.frameworks import muted


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress prints, logs and warnings, also of C++; errors are raised as usual."""
    disabled = logging.root.manager.disable
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for stream in (1, 2):
            stack.enter_context(muted(stream))
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.callback(logging.disable, disabled)
        logging.disable(logging.CRITICAL)
        yield
