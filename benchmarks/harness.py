"""What all benchmarks share: whole processes timed from outside, medians, results kept with date and commit."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HEADSTART = (sys.executable, "-m", "headstart")


@dataclass(frozen=True)
class Run:
    """One finished process."""

    seconds: float
    peak_mb: float  # largest resident set
    output: dict[str, Any]  # the JSON on its last line


def arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--out", type=Path, default=None, help="where the JSON goes instead of benchmarks/results")
    return parser


def shared(*parts: str) -> Path:
    """A path in the folder of real photos and weights; ends the benchmark where it is absent."""
    path = Path(os.environ.get("HEADSTART_SHARED", ROOT.parent / "shared")).joinpath(*parts)
    if not path.exists():
        sys.exit(f"This benchmark needs '{path}'. Name the folder of photos and weights: HEADSTART_SHARED=FOLDER")
    return path


def timed(command: Sequence[str], home: str | None = None) -> Run:
    """Run a command to its end; with ``home`` None it gets an empty cache of its own."""
    with tempfile.TemporaryDirectory() as fresh, tempfile.TemporaryFile() as output:
        environment = os.environ | {"HEADSTART_HOME": home or fresh}
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        lines = output.read().decode().strip().splitlines()
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {child.returncode}.")
    return Run(seconds, usage.ru_maxrss / 1024, json.loads(lines[-1]))


def median(values: Sequence[float]) -> float:
    """The figure to quote on a noisy machine."""
    return float(statistics.median(values))


def spread(values: Sequence[float]) -> str:
    """Median, and in brackets the smallest and the largest."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def keep(name: str, result: dict[str, Any], out: Path | None = None) -> None:
    """Write the result beside those of the other benchmarks, with date, commit and machine."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    processor = platform.processor() or platform.machine()
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit or "unknown",
        "python": platform.python_version(),
    }
    about |= {"machine": f"{os.cpu_count()} cores, {processor}", "command": f"python benchmarks/{name}.py"}
    path = out or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about | result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{about['date']}, commit {about['commit']}, {about['machine']}; kept in {path}")
