"""Reads a PyTorch state dict without PyTorch, and without running code of the file.

The pickle in the file is interpreted by `pickles`, which refuses what is neither a tensor nor a plain value.
"""

from __future__ import annotations

import math
import os
import zipfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.pickles import KINDS, MAX_STRUCTURE, Pickles, Storage, Tensor
from headstart.backbones.weights_bytes import UnfitError, from_bfloat16, read_array
from headstart.core.errors import UsageError, cannot_read
from headstart.core.regular_file import open_regular

# Where training scripts put the weights in a checkpoint; an average of them comes before those of the last step.
AVERAGED = ("state_dict_ema", "model_ema", "model_ema_state_dict", "ema_state_dict", "ema", "teacher")
WRAPPERS = (
    *AVERAGED,
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params"),
)
MOST_DICTS = 500  # that are looked at; a recursion is no deeper
MAX_REPEATED = 64 << 20  # bytes beyond the size of the file, for tensors that repeat their values

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of the format before PyTorch 1.6
PROTOCOL = 1001


def read_pth(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict by name, in the file's order; bfloat16 is widened to float32.

    Both of PyTorch's formats are read. The state dict may lie in a checkpoint; values that are no tensors are skipped.
    Tensors that share memory in the file share it in the arrays.

    Raises:
        UsageError: no such file, not a state dict, damaged, or with anything but tensors.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(len(MAGIC))
            file.seek(0)
            if head == MAGIC:
                return _read_legacy(file, size)
            if head.startswith(b"PK\x03\x04"):
                return _read_zip(file, size)
            raise UnfitError(f"expected a file written by torch.save, received {size} bytes that begin {head[:12]!r}.")
    except UnfitError as error:
        raise UsageError(f"'{os.fspath(path)}': {error}") from error
    except OSError as error:
        raise cannot_read(path, error) from error
    except Exception as error:  # damage can surface as nearly anything, from IndexError to zipfile.BadZipFile
        raise UsageError(
            f"'{os.fspath(path)}' is damaged ({type(error).__name__}: {error}). Fetch or save it again."
        ) from error


def _read_legacy(file: IO[bytes], size: int) -> dict[str, NDArray[Any]]:
    """Five pickles (magic, protocol, system, state dict, storage keys), then each storage: a count and its values."""
    pickles = Pickles(file.read(MAX_STRUCTURE))
    _, protocol, system, root, keys = (pickles.load() for _ in range(5))
    if protocol != PROTOCOL or type(system) is not dict or system.get("little_endian") is not True:
        raise UnfitError("expected the protocol 1001 on a little-endian machine, received another one.")
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(pickles.storages):
        raise UnfitError("is damaged: its list of storages is not the one that its tensors use.")
    tensors = _tensors(root)
    needed = {tensor.storage.key for tensor in tensors.values()}
    values: dict[str, NDArray[Any]] = {}
    file.seek(pickles.position)
    for key in keys:
        storage = pickles.storages[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        if count != storage.count or storage.nbytes > size - file.tell():
            raise UnfitError(f"is truncated or damaged: storage {key[:40]!a} needs {storage.count} values.")
        if key in needed:
            values[key] = _values(file, storage)
        else:
            file.seek(storage.nbytes, os.SEEK_CUR)
    return _arrays(tensors, values, size + MAX_REPEATED)


def _read_zip(file: IO[bytes], size: int) -> dict[str, NDArray[Any]]:
    """A zip archive of ``NAME/data.pkl`` and ``NAME/data/KEY``, not compressed. Nothing is unpacked to disk."""
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        folders = [
            name.removesuffix("data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(folders) != 1:
            raise UnfitError("expected a file written by torch.save, received another zip archive.")
        if f"{folders[0]}constants.pkl" in entries:
            raise UnfitError("is a TorchScript program. Save the state dict of its model instead.")

        def open_entry(name: str, nbytes: int | None = None) -> IO[bytes]:
            if (info := entries.get(folders[0] + name)) is None:
                raise UnfitError(f"is damaged: it lacks the entry {name[:40]!a}.")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
                raise UnfitError(f"expected entries as torch.save writes them, received {name[:40]!a} compressed.")
            if nbytes not in (None, info.file_size):
                raise UnfitError(f"is damaged: {name[:40]!a} should have {nbytes} bytes. Received: {info.file_size}.")
            return archive.open(info)

        if f"{folders[0]}byteorder" in entries and open_entry("byteorder").read(8) != b"little":
            raise UnfitError("expected little-endian values, received others. Save it again on an ordinary machine.")
        pickles = Pickles(open_entry("data.pkl").read(MAX_STRUCTURE))
        tensors = _tensors(pickles.load())
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        if sum(storage.nbytes for storage in storages.values()) > size:  # entries may overlap in a forged archive
            raise UnfitError("is truncated or damaged: its tensors need more bytes than the file has.")
        values = {key: _values(open_entry(f"data/{key}", storage.nbytes), storage) for key, storage in storages.items()}
    return _arrays(tensors, values, size + MAX_REPEATED)


def _values(file: IO[bytes], storage: Storage) -> NDArray[Any]:
    """The values of one storage. The caller has checked that the file is large enough for them."""
    truncated = f"is truncated: storage {storage.key[:40]!a} needs {storage.nbytes} bytes."
    raw = read_array(file, KINDS[storage.kind], (storage.count,), truncated)
    if storage.kind == "BFloat16Storage":
        return from_bfloat16(raw)
    return raw != 0 if storage.kind == "BoolStorage" else raw


def _tensors(root: object) -> dict[str, Tensor]:
    """The named tensors of a state dict, or of the state dict in a checkpoint."""
    if type(root) is not dict:
        raise UnfitError(f"expected a dict of tensors, received {type(root).__name__.strip('_').lower()}.")
    tensors = _innermost(root, set())
    if not tensors:
        raise UnfitError("expected a dict of tensors, received one without any.")
    return tensors


def _innermost(entries: dict[Any, Any], seen: set[int]) -> dict[str, Tensor]:
    """The tensors under the first of the names in `WRAPPERS` that has some; else of the dict that has most.

    ``seen`` are the dicts that were looked at: in a forged file they contain each other.
    """
    seen.add(id(entries))
    own = {key: value for key, value in entries.items() if type(key) is str and type(value) is Tensor}
    within = {key: value for key, value in entries.items() if type(key) is str and type(value) is dict}
    found: dict[str, Tensor] = {}
    for key in sorted(within, key=lambda key: WRAPPERS.index(key) if key in WRAPPERS else len(WRAPPERS)):
        if id(within[key]) in seen or len(seen) > MOST_DICTS:
            continue
        inner = _innermost(within[key], seen)
        if inner and key in WRAPPERS:
            return inner
        found = max(found, inner, key=len)
    return max(own, found, key=len)


def _arrays(tensors: dict[str, Tensor], values: dict[str, NDArray[Any]], room: int) -> dict[str, NDArray[Any]]:
    """Contiguous arrays: views where possible, else copies of at most ``room`` bytes altogether."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        flat = values[tensor.storage.key][tensor.offset :]
        if math.prod(tensor.size) == 0:
            arrays[name] = np.empty(tensor.size, flat.dtype)
            continue
        strides = [step * flat.itemsize for step in tensor.stride]
        view = np.lib.stride_tricks.as_strided(flat, tensor.size, strides)
        if not view.flags.c_contiguous:
            room -= view.nbytes
            if room < 0:
                raise UnfitError("its tensors repeat their values too often. Save them with .contiguous().")
            view = view.copy()
        arrays[name] = view
    return arrays
