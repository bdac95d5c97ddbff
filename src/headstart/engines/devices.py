"""Names of devices, and which of them is there."""

from __future__ import annotations

from collections.abc import Mapping

from headstart.core.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device_name(device: str) -> None:
    """Refuse an unknown device, with all that are known: the nearest in spelling is often the opposite."""
    if device not in DEVICES:
        kinds = "cuda is an NVIDIA GPU, mps Apple's; CUDA_VISIBLE_DEVICES chooses one of several."
        raise UsageError(f"There is no device '{device}'. Known: {', '.join(DEVICES)}; {kinds}")


def find_device(device: str, present: Mapping[str, bool], framework: str) -> str:
    """The device, "auto" resolved: the first one that is present.

    Raises:
        UsageError: no such device, or the ``framework`` does not find it.
    """
    check_device_name(device)
    there = [name for name, found in present.items() if found]
    if device == "auto":
        return there[0]
    if device not in there:
        raise UsageError(f"{framework} finds no {device} on this machine. It finds: {', '.join(there)}.")
    return device
