"""What `headstart fit` prints for each of the shared sets, with the default backbone: python benchmarks/accuracy.py"""

from __future__ import annotations

import os
import sys
import tempfile

from harness import HEADSTART, arguments, keep, shared, timed

FLOORS = {"cats_dogs": 0.985, "apple_leaves": 0.96, "caltech101": 0.92, "oxford_pets": 0.83, "elpv": 0.86}


def main() -> None:
    """Fit on each set; ends with 1 where an accuracy is below its floor."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--seeds", type=int, default=5, help="splits to fit on; the floor is held by the first, seed 0")
    options = parser.parse_args()
    results, missed = {}, False
    print(f"{'set':<14}{'accuracy':>9}{'95 % interval':>18}{'floor':>8}{'seconds':>9}{'all seeds':>11}   by seed")
    for name, floor in FLOORS.items():
        data = name if name == "elpv" else str(shared("data", name))
        runs = []
        with tempfile.TemporaryDirectory() as home:
            for seed in range(1 if name == "cats_dogs" else options.seeds):  # that one brings its own test part
                model = os.path.join(home, "model")
                command = (*HEADSTART, "fit", data, "--out", model, "--seed", str(seed), "--json")
                runs.append(timed(command, os.path.join(home, "cache")))
        values = [run.output["accuracy"] for run in runs]
        low, high = runs[0].output["interval"]
        mean = sum(values) / len(values)
        by_seed = " ".join(f"{value:.3f}" for value in values)
        line = f"{name:<14}{values[0]:9.4f}{f'{low:.3f} to {high:.3f}':>18}{floor:8.3f}{runs[0].seconds:9.1f}"
        print(f"{line}{mean:11.4f}   {by_seed}", flush=True)
        missed |= values[0] < floor
        results[name] = {"accuracy": values, "interval": [low, high], "floor": floor, "seconds": runs[0].seconds}
    keep("accuracy", {"sets": results}, options.out)
    sys.exit(missed)


if __name__ == "__main__":
    main()
