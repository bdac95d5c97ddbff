"""The long campaign: ``python -m fault_injection``, as `make fuzz` calls it; prints a table, and exits 1 on a fault."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

from fault_injection.watched import Outcome, campaign, table

HERE = Path(__file__).resolve().parent
RESULT = HERE.parents[1] / "benchmarks" / "results" / "fault_injection.json"
LIMITS = {"kills": 60.0, "giants": 60.0}  # seconds for one trial: of a process that starts, of four large images


def commit() -> str:
    """That of the code, with + where files differ from it."""
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def main() -> int:
    """Run the campaigns; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--bundles", type=int, default=1_000)
    parser.add_argument("--giants", type=int, default=20)
    parser.add_argument("--weights", type=int, default=3_000)
    parser.add_argument("--readers", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the first trial of each")
    options = parser.parse_args()
    rows: dict[str, Outcome] = {}
    for name in ("images", "giants", "bundles", "weights", "readers", "kills"):
        if count := getattr(options, name):
            begun = time.monotonic()
            rows[name] = found = campaign(name, options.seed, count, LIMITS.get(name, 10.0))
            print(f"{name}: {count} in {time.monotonic() - begun:.0f} s", *found.faults, sep="\n  ", flush=True)
    print(table(rows))
    kept = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "seed": options.seed,
        "campaigns": {name: {**each.counts, "beyond_mb": round(each.beyond / 1e6)} for name, each in rows.items()},
        "faults": {name: each.faults for name, each in rows.items() if each.faults},
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 1 if any(each.faults for each in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
