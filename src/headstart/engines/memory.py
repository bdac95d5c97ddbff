"""Memory: what a network needs, and what is free."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from headstart.backbones.blueprint import Blueprint
from headstart.core.counts import counted
from headstart.core.errors import UsageError


def check_memory(blueprint: Blueprint, size: int, images: int, available: int | None = None) -> None:
    """Refuse a network whose weights and activations for so many ``images`` at a time exceed the memory, in float32.

    ``available`` is in bytes, on a device with its own memory.
    """
    shapes = blueprint.shapes(size)
    last_use = {name: step for step, node in enumerate(blueprint.nodes) for name in (node.name, *node.inputs)}
    held: dict[str, int] = {}
    most = 0
    for step, node in enumerate(blueprint.nodes):
        held[node.name] = 4 * images * math.prod(shapes[node.name])
        most = max(most, sum(held.values()))
        held = {name: count for name, count in held.items() if last_use[name] > step}
    weights = 4 * sum(math.prod(shape) for shape in blueprint.weight_shapes().values())
    room = available_memory() if available is None else available
    if room is not None and weights + most > room:
        raise UsageError(
            f"'{blueprint.name}' at {size} pixels needs {(weights + most) / 1e9:.1f} GB of memory "
            f"({weights / 1e9:.1f} GB weights, {most / 1e9:.1f} GB activations of {counted(images, 'image')}), "
            f"{room / 1e9:.1f} GB are free. Take fewer pixels or a smaller network."
        )


def available_memory() -> int | None:
    """Bytes that this process may still allocate, within the container's limit. None if unknown."""
    known = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        try:
            known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (OSError, ValueError, AttributeError):
            return None
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a limit: "max"
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(known, default=None)
