"""What the benchmarks share: whole processes timed from outside, goals, and a result kept with its date and machine."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEADSTART = (sys.executable, "-m", "headstart")
PACKAGES = (
    "headstart",
    "numpy",
    "openvino",
    "pillow",
    "scikit-learn",
    "torch",
    "torchvision",
    "timm",
    "pyarrow",
    "onnx",
    "onnxruntime",
    "keras",
    "tensorflow",
    "ai-edge-litert",
    "foolbox",
)
ISA = "ONEDNN_MAX_CPU_ISA"  # makes a processor as slow as one with fewer instructions
T = TypeVar("T")
for slow in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(slow, None)  # some machines set them; each makes every process slower


@dataclass(frozen=True)
class Run:
    """One finished process."""

    seconds: float
    peak_mb: float  # largest resident set, in 10⁶ bytes; where it starts others, of the largest one alone
    output: dict[str, Any]  # the JSON on its last line
    cpu: float = 0.0  # seconds of all processors, in the process and those that it waited for

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage of a `headstart fit`."""
        return dict(self.output["stages"])

    @property
    def work(self) -> float:
        """Seconds of a `headstart fit` after start-up."""
        return sum(self.stages.values())


@dataclass(frozen=True)
class Goal:
    """A figure and the bound that it is held against."""

    what: str
    value: float
    least: float = -float("inf")
    most: float = float("inf")

    @property
    def met(self) -> bool:
        return self.least <= self.value <= self.most  # not met by what is not a number


def arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a few photos, to see that it runs; nothing is judged")
    parser.add_argument("--repeats", type=int, default=repeats, help="of what is quick enough to repeat")
    parser.add_argument("--out", type=Path, default=None, help="where the JSON goes instead of benchmarks/results")
    return parser


def shared(*parts: str) -> Path:
    """A path in the folder of real photos and weights; ends the benchmark where it is absent."""
    path = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")).joinpath(*parts)
    if not path.exists():
        sys.exit(f"This benchmark needs '{path}'. Name the folder of photos and weights: HEADSTART_SHARED=FOLDER")
    return path


def a_few(source: Path, target: Path, each: int) -> Path:
    """Links to the first photos of every lowest folder of ``source``, in folders alike."""
    for folder in (folder for folder in source.rglob("*") if folder.is_dir()):
        there = target / folder.relative_to(source)
        there.mkdir(parents=True)
        for photo in sorted(path for path in folder.iterdir() if path.is_file())[:each]:
            (there / photo.name).symlink_to(photo.resolve())
    return target


def timed(command: Sequence[str], home: str | None = None, variables: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; with ``home`` None it gets an empty cache of its own."""
    with tempfile.TemporaryDirectory() as fresh, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as said:
        environment = os.environ | {"HEADSTART_HOME": home or fresh} | dict(variables or {})
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=said, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said.seek(0)
        lines, words = output.read().decode().strip().splitlines(), said.read().decode(errors="replace").strip()
    if child.returncode or not lines:
        sys.exit(f"{' '.join(command)}\nended with exit code {child.returncode}. It said: {words[-2000:]}")
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        # Linux counts the memory of whoever starts a process into that process's peak.
        sys.exit("The benchmark itself is larger than what it measures, so the peak would be its own. Import later.")
    return Run(seconds, usage.ru_maxrss * 1024 / 1e6, json.loads(lines[-1]), usage.ru_utime + usage.ru_stime)


def in_child(work: Callable[[], T], seconds: float | None = None) -> T:
    """What ``work`` returns from a fresh process, which is stopped after ``seconds``.

    Raises:
        TimeoutError: it was stopped.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(there, work))
    child.start()
    there.close()
    try:
        if not here.poll(seconds):
            raise TimeoutError
        result: T = here.recv()
    except EOFError:
        sys.exit("A part of the benchmark, run in a process of its own, failed; the reason stands above.")
    finally:
        child.kill()
        child.join()
    return result


def _send(answer: Connection, work: Callable[[], object]) -> None:
    answer.send(work())


def median(values: Sequence[float]) -> float:
    """The figure to quote on a noisy machine."""
    return float(statistics.median(values))


def spread(values: Sequence[float]) -> str:
    """Median, and in brackets the smallest and the largest."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def finish(name: str, result: dict[str, Any], goals: Sequence[Goal], options: argparse.Namespace) -> None:
    """Print which goals are met, keep the result with date, commit and machine, and end with 1 where one is missed."""
    print()
    for goal in goals:
        bound = f"at least {goal.least:g}" if goal.least > -float("inf") else f"at most {goal.most:g}"
        word = "quick" if options.quick else "met" if goal.met else "MISSED"
        print(f"{word:<8}{goal.what}: {goal.value:.4g} ({bound})")
    about = _about(name, options)
    print(f"\n{about['date']}, commit {about['commit']}, {about['machine']['cores']} cores, {about['machine']['cpu']}")
    path = options.out or (None if options.quick else RESULTS / f"{name}.json")
    if path is None:
        print("A quick run: nothing kept, nothing judged.")
    else:
        kept = {goal.what: {"value": goal.value, "met": None if options.quick else goal.met} for goal in goals}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about | result | {"goals": kept}, indent=1) + "\n", encoding="utf-8")
        print(f"kept in {path}")
    sys.exit(not options.quick and not all(goal.met for goal in goals))


def _about(name: str, options: argparse.Namespace) -> dict[str, Any]:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]  # + where files differ from the commit
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit or "unknown",
        "command": f"python benchmarks/{name}.py",
        "options": {key: value for key, value in vars(options).items() if key != "out"},
        "machine": {
            "cpu": _cpu(),
            "only": os.environ.get(ISA),  # instructions up to these, where the environment says so
            "cores": len(os.sched_getaffinity(0)),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _cpu() -> str:
    """The model's name, family and number: virtual machines often hide the first."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = about.get("model name", platform.machine())
    special = [
        flag
        for flag in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")
        if flag in about.get("flags", "").split()
    ]
    return f"{name}, family {about.get('cpu family', '?')} model {about.get('model', '?')} ({' '.join(special)})"


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
