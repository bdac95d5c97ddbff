"""Memory that a training asks for again and again: kept while it goes on, given back after."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from headstart.train import memory

CODE = """
import json, resource
import numpy as np
from headstart.train.memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(5_000_000)  # 40 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

faults()
asked = faults()
with kept_memory() as kept:
    faults()
    within, much = faults(), resident()
print(json.dumps({"kept": kept, "asked": asked, "within": within, "given_back": much - resident()}))
"""


@pytest.mark.skipif(memory._glibc() is None, reason="the C library is not glibc")
def test_memory_is_asked_for_once_and_given_back_in_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert told["kept"]
    assert told["within"] < told["asked"] / 10, told
    assert told["given_back"] > 30e6, told


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with memory.kept_memory() as kept:
        assert not kept
