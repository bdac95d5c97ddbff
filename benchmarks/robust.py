"""The accuracy under attack before and after fine-tuning with the recipe `robust`: python benchmarks/robust.py

A head is fitted on the training set of cats and dogs, and the network fine-tuned on the same photos, once as usual
(`full`) and once on attacked photos (`robust`). FGSM and PGD of 20 steps attack the same photos of the test set. For
the last more steps fool a few more, which one of the checks says.
Needs the extra torch.
"""

from __future__ import annotations

import time
from typing import Any

from harness import Goal, arguments, finish, shared

MODELS = ("fitted", "full", "robust")
JUDGED = "0.5/255"  # where a usual network is nearly gone
STEPS = 20
SIZES = ("0.1/255", "0.25/255", JUDGED, "1/255", "2/255", "4/255", "8/255")


def main() -> None:
    """A line for each model: accuracy as it is, and of the worst attack within each budget."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    parser.add_argument("--photos", type=int, default=100, help="of the test set, that are attacked")
    options = parser.parse_args()
    import headstart as hs
    from headstart.train.recipe import preset

    photos, epochs = (8, 1) if options.quick else (options.photos, None)
    data, test = (str(shared("data", "cats_dogs", part)) for part in ("train", "test"))
    models = {"fitted": hs.fit(data, progress=False)}
    seconds = {"fitted": 0.0}
    for name in MODELS[1:]:
        recipe = preset(name) if epochs is None else {"preset": name, "epochs": epochs}
        begun = time.perf_counter()
        models[name] = hs.finetune(models["fitted"], data, recipe=recipe, progress=False)
        seconds[name] = time.perf_counter() - begun
    print(f"{'':<10}{'minutes':>8}{'as it is':>10}" + "".join(f"{size:>10}" for size in SIZES))
    rows: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        found = hs.robustness(model, test, epsilons=SIZES, images=photos, steps=STEPS, progress=False)
        rows[name] = {
            "minutes": seconds[name] / 60,
            "accuracy": found.accuracy.value,
            "curve": {size: point.accuracy.value for size, point in zip(SIZES, found.curve, strict=True)},
            "checks_failed": [check.name for check in found.checks if not check.passed],
            "photos": found.accuracy.images,
        }
        curve = "".join(f"{value:>10.1%}" for value in rows[name]["curve"].values())
        print(f"{name:<10}{rows[name]['minutes']:>8.1f}{found.accuracy.value:>10.1%}{curve}", flush=True)
    gain = rows["robust"]["curve"][JUDGED] - rows["fitted"]["curve"][JUDGED]
    goals = [
        Goal(f"accuracy within {JUDGED}, robust less fitted", gain, least=0.2),
        Goal(
            "accuracy of photos as they are, robust less fitted",
            rows["robust"]["accuracy"] - rows["fitted"]["accuracy"],
            least=-0.1,
        ),
        Goal("checks of the attack that failed", sum(len(row["checks_failed"]) for row in rows.values()), most=0),
    ]
    finish("robust", {"models": rows}, goals, options)


if __name__ == "__main__":
    main()
