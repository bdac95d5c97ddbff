"""What a wrong name is answered with, and an error that is no fault of what was worked on."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from headstart.core.errors import (
    LISTED,
    MachineError,
    UsageError,
    cannot_read,
    check_machine,
    did_you_mean,
    lack_of,
    reason_of,
)


def test_near_names_are_offered_and_far_ones_listed_up_to_a_number() -> None:
    assert did_you_mean("vgg15", ["vgg16", "resnet50"]) == "Did you mean vgg16?"
    assert did_you_mean("x", ["b", "a"]) == "Known: a, b."
    many = [f"layer{place:03}" for place in range(LISTED + 7)]
    assert did_you_mean("§", many) == f"Known: {', '.join(many[:LISTED])} and 7 more."


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number), "a.jpg")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "There is not enough memory. Take fewer pixels"),
        (MemoryError("Unable to allocate 3.00 GiB"), "There is not enough memory: Unable to allocate 3.00 GiB. Take"),
        (
            RuntimeError("Exception from core.cpp:117:\nstd::bad_alloc\n\n"),
            "There is not enough memory: std::bad_alloc.",
        ),
        (RuntimeError("can't start new thread"), "There is not enough memory: can't start new thread."),
        (
            ImportError("libtorch.so: failed to map segment from shared object"),
            "not enough memory: failed to map segment from shared object.",
        ),
        (system(errno.ENOMEM), "There is not enough memory. Take"),
        (system(errno.EMFILE), "Too many files are open. Allow a process more of them: ulimit -n 4096"),
        (system(errno.ENFILE), "Too many files are open."),
        (ImportError("libx.so: cannot open shared object file: Too many open files"), "Too many files are open."),
        (system(errno.EAGAIN), ""),  # of a file that another process has
        (system(errno.EIO), ""),
        (ValueError("not enough values to unpack"), ""),
    ],
)
def test_what_the_machine_lacks_is_told_from_other_errors(error: Exception, said: str) -> None:
    assert said in lack_of(error)
    assert bool(lack_of(error)) == bool(said)


def test_no_file_is_blamed_for_the_machine() -> None:
    assert reason_of(system(errno.EIO)) == "input/output error"
    assert isinstance(cannot_read("a.jpg", system(errno.EACCES)), UsageError)
    check_machine(system(errno.EACCES))
    for function in (check_machine, reason_of, lambda error: cannot_read("a.jpg", error)):
        with pytest.raises(MachineError, match="Too many files") as raised:
            function(system(errno.EMFILE))
        with pytest.raises(MachineError, match="Too many files"):
            function(raised.value)
    with pytest.raises(MemoryError) as lacking:
        np.empty(1 << 60, np.uint8)
    with pytest.raises(MachineError, match="Unable to allocate"):
        check_machine(lacking.value)
