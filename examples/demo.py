"""Fit a classifier on 2 624 pictures of solar cells, sound and defective, and say what to do next."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import headstart as hs
from headstart.data.load import content_key

PUBLISHED = (("SVM on hand-made features", 0.824), ("VGG-19, fine-tuned", 0.884))


def main() -> None:
    """Fit, compare, predict."""
    cells = hs.open_source("elpv")
    print(f"Fitting on {len(cells)} pictures of solar cells: {' or '.join(cells.classes)}?")
    start = time.perf_counter()
    model = hs.fit(cells)
    seconds = time.perf_counter() - start
    if model.record.result is None:
        raise SystemExit("No cell was held out, so nothing was measured.")
    accuracy = model.record.result.accuracy
    print(f"\n{'accuracy':<30}{accuracy.value:.3f}  (95 % interval {accuracy.low:.3f} to {accuracy.high:.3f},")
    print(f"{'':<30}       on the {accuracy.images} cells of the test set; {seconds:.0f} s in all)")
    for name, value in PUBLISHED:
        print(f"{name:<30}{value:.3f}  (Deitsch et al. 2019, on another split: for orientation)")

    print("\nSix cells of the test set:")
    held_out = [row for row in range(len(cells)) if content_key(cells.read(row)) not in model.fitted_on]
    rows = held_out[:: len(held_out) // 6][:6]
    for row, seen in zip(rows, model.predictions(cells.part(rows)), strict=True):
        if isinstance(seen, hs.Prediction):
            verdict = "unknown" if seen.unknown else f"{seen.label} {seen.probability:.0%}"
            print(f"  {seen.path:<22}{verdict:<18}the experts say: {cells.samples[row].label}")

    where = Path(tempfile.gettempdir()) / "headstart-solar-cells"
    model.save(where, overwrite=True)
    command = Path(sys.executable).parent / "headstart"
    print(f"\nThe model is in {where}. With photos of your own, a folder for each class:\n")
    print(f"  {command} check PHOTOS")
    print(f"  {command} fit PHOTOS --out MODEL")
    print(f"  {command} predict MODEL PHOTO …")


if __name__ == "__main__":
    main()
