"""PyTorch (.pt2), by `torch.export`: `torch.export.load` opens it, without Headstart."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.blueprint import INPUT, LOGITS
from headstart.core.errors import UsageError, check_machine, one_line
from headstart.core.quiet import quiet
from headstart.engines.registry import torch_engine
from headstart.export.formats import PHOTOS
from headstart.export.labels import members
from headstart.export.photo_input import to_pixels
from headstart.export.verdict import answers

if TYPE_CHECKING:
    from headstart.export.package import Package

TRACED = 2  # images to trace the program with: a batch of one would become a constant
MOST = 2**31 - 1  # images in a batch; without a limit PyTorch 2.6 and 2.7 find that slices might not hold them
_ALONE = threading.Lock()  # torch.export keeps what it traces in variables of the whole process


def write(package: Package, path: Path) -> None:
    """Write images (N, size, size, 3), uint8, any N, or photos of any size → a dictionary of `Package.outputs`.

    Class names and metadata are extra files of the archive; see `labels.members`.

    Raises:
        UsageError: `torch.export` cannot trace the module.
    """
    core = torch_engine().to_module(package.blueprint, package.weights, package.spec, package.module)
    import torch

    from headstart.export.operations.torch import TorchOperations

    blueprint, ops = package.blueprint, TorchOperations()
    features = blueprint[LOGITS].inputs[0]

    class Exported(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.network = core.requires_grad_(False)

        def forward(self, images: Any) -> dict[str, Any]:
            if package.takes == PHOTOS:
                images = to_pixels(ops, images, package.spec)
            values = {INPUT: self.network.normalise(images)}
            self.network.run(values, blueprint.nodes[1:], (features, LOGITS), {}, {})
            return answers(ops, package, values[LOGITS], values[LOGITS].softmax(1), values[features])

    size = package.spec.size
    sides = {0: torch.export.Dim("batch", max=MOST)}
    if package.takes == PHOTOS:
        sides |= {1: torch.export.Dim("height", max=MOST), 2: torch.export.Dim("width", max=MOST)}
    images = torch.zeros(TRACED, size + 1, size + 2, 3, dtype=torch.uint8)
    with _ALONE, quiet(native=False):  # its C++ writes nothing
        try:
            program = torch.export.export(
                Exported().eval(),
                (images if package.takes == PHOTOS else images[:, :size, :size],),
                dynamic_shapes={"images": sides},
                strict=False,  # the default of PyTorch 2.6 traces less
            )
        except Exception as error:  # the module's own code can raise anything
            check_machine(error)
            raise UsageError(
                f"torch.export cannot trace '{package.blueprint.name}' for batches of any size: {one_line(error)} "
                "Use it from Python instead: headstart.load(MODEL).to_torch()"
            ) from error
        content = io.BytesIO()  # where a disk is full, PyTorch's own writer ends the process
        torch.export.save(program, content, extra_files=members(package))
    path.write_bytes(content.getbuffer())


def replay(path: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What PyTorch answers for images (N, size, size, 3), or photos of any size."""
    torch_engine()
    import torch

    with _ALONE, quiet(native=False), torch.no_grad():
        program = torch.export.load(path).module()
        found = program(torch.from_numpy(images))
    return {name: value.numpy() for name, value in found.items()}
