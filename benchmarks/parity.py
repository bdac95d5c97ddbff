"""Every catalogued network against the library that it comes from, layer by layer: python benchmarks/parity.py

Weights are drawn at random, written by the library (torch's two formats, safetensors, HDF5), and read back by their
names; then the other way, into the library's own network by its own loader. The figure is the greatest difference of a
handful of layers and the logits in fp32, as a share of a layer's largest value. Needs the extras torch, keras and test.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from harness import ROOT, Goal, arguments, finish

sys.path.insert(0, str(ROOT / "tests"))  # the networks as the tests have them

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Row:
    """One network with one library's file."""

    network: str
    source: str
    file: str
    pixels: int
    shares: dict[str, float]  # layer -> its greatest difference


def main() -> None:
    """A line a network and source."""
    parser = arguments(__doc__.splitlines()[0] if __doc__ else None, repeats=1)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    from headstart.backbones.catalogue import BACKBONES

    print(f"{'network':<26}{'source':<24}{'file':<13}{'pixels':>6}{'layers':>8}{'difference':>12}  the same for")
    rows, compared = [], set()
    for row in chain(_rows(options.quick), _out(options.quick)):
        nodes, greatest = BACKBONES[row.network].blueprint().nodes, max(row.shares.values())
        alike = [name for name, each in BACKBONES.items() if each.blueprint().nodes == nodes and name != row.network]
        line = f"{row.network:<26}{row.source:<24}{row.file:<13}{row.pixels:>6}{len(row.shares):>8}{greatest:>12.1e}"
        print(f"{line}  {', '.join(alike)}".rstrip(), flush=True)
        rows.append(vars(row) | {"greatest": greatest, "same_for": alike})
        compared |= {row.network, *alike}
    goals = [
        Goal("greatest difference of all", max(row["greatest"] for row in rows), most=TOLERANCE),
        Goal(f"networks compared, of {len(BACKBONES)} in the catalogue", len(compared), least=len(BACKBONES)),
    ]
    finish("parity", {"parity": rows}, goals, options)


def _rows(quick: bool) -> Iterator[Row]:
    from official import CASES, LARGE, SAVES, differences

    for place, case in enumerate(CASES[:4] if quick else (*CASES, *LARGE)):
        save = list(SAVES)[place % len(SAVES)]
        with tempfile.TemporaryDirectory() as folder:
            shares = dict(differences(case, save, Path(folder)))
        source = "torchvision, rearranged" if case.backbone.endswith(".keras") else case.source
        yield Row(case.backbone, source, save, case.pixels, shares)
    if not quick:
        yield from _keras_rows()


def _keras_rows() -> Iterator[Row]:
    from test_keras_names import opened

    from headstart.engines.fast import FastNetwork
    from official_keras import CASES, LARGE, run

    for name, case in (CASES | LARGE).items():
        with tempfile.TemporaryDirectory() as folder:
            run(Path(folder), [name])
            stored, file = np.load(Path(folder, f"{name}.npz")), f"{name}{case.forms[0]}"
            found = opened(name, case, Path(folder, file))
            network = FastNetwork(found.blueprint, found.weights, found.spec, "fp32")
            nodes, shares = list(case.pairs.values()), {}
            for node, ours in zip(nodes, network.forward_many(stored["pixels"], nodes), strict=True):
                theirs = stored[node].transpose(0, 3, 1, 2) if stored[node].ndim == 4 else stored[node]
                shares[node] = float(np.abs(ours - theirs.reshape(ours.shape)).max() / np.abs(theirs).max())
        source = f"keras, width {case.alpha}" if case.alpha else "keras.applications"
        yield Row(found.backbone.name, source, case.forms[0], case.pixels, shares)


def _out(quick: bool) -> Iterator[Row]:
    """Every network that another library has in the same form, with its head."""
    from test_export_weights import deviation, images_of, lively

    from headstart.backbones.catalogue import BACKBONES
    from headstart.engines.fast import FastNetwork
    from headstart.export.library_forms import FORMS
    from headstart.export.weights import SUFFIX, replay, write

    for library, forms in FORMS.items():
        for form in forms[-1:] if quick else forms:
            backbone = BACKBONES[form.backbone]
            blueprint, pixels = backbone.blueprint(), 224 if form.backbone.startswith("vgg") else 64
            spec, weights, images = replace(backbone.spec, size=pixels), lively(blueprint), images_of(pixels)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"a{SUFFIX[library]}")
                write(library, blueprint, weights, spec, path)
                node, value = replay(library, blueprint, spec, path, images)
            ours = FastNetwork(blueprint, weights, spec, "fp32").forward(images, node)
            yield Row(form.backbone, f"to {library}", SUFFIX[library], pixels, {node: deviation(value, ours)})


if __name__ == "__main__":
    main()
