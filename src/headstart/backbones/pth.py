"""Reads a PyTorch state dict without PyTorch, and without running code of the file.

A ``.pth`` file is a pickle, and a pickle is a program. This reader knows only the few instructions and names of a state
dict (`ALLOWED`). It imports nothing and calls nothing by name; it refuses anything else, and says what it was.
"""

from __future__ import annotations

import math
import os
import pickle  # for the values of its opcodes only
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.weights_bytes import UnfitError, from_bfloat16, read_array
from headstart.core.errors import UsageError, cannot_read

KINDS = {  # storage type -> how its values lie in the file
    "FloatStorage": "<f4",
    "LongStorage": "<i8",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # the upper half of a float32
    "IntStorage": "<i4",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}
ORDERED_DICT, REBUILD = "collections.OrderedDict", "torch._utils._rebuild_tensor_v2"
STORAGES = frozenset(f"{room}.{kind}" for room in ("torch", "torch.cuda") for kind in KINDS)  # torch.cuda: of a GPU
ALLOWED = STORAGES | {ORDERED_DICT, REBUILD}
WRAPPERS = ("state_dict", "model_state_dict", "model")  # where training scripts put the state dict in a checkpoint

# Limits on the memory that a file can take: each step of a pickle makes one small object.
MAX_STEPS, MAX_STRUCTURE = 500_000, 8 << 20  # a tensor takes about 25 steps, and 0.2 kB of pickle
MAX_REPEATED = 64 << 20  # bytes beyond the size of the file, for tensors that repeat their values

WIDTHS = {  # opcode -> bytes of its argument or of its length; for tuples, how many items
    **dict.fromkeys((pickle.BINPUT, pickle.BINGET, pickle.BININT1, pickle.SHORT_BINSTRING, pickle.TUPLE1), 1),
    **dict.fromkeys((pickle.BININT2, pickle.TUPLE2), 2),
    **dict.fromkeys((pickle.LONG_BINPUT, pickle.LONG_BINGET, pickle.BINUNICODE), 4),
    pickle.TUPLE3: 3,
}
CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False, pickle.EMPTY_TUPLE: ()}

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of the format before PyTorch 1.6
PROTOCOL = 1001


@dataclass(frozen=True, slots=True)
class _Global:
    """An allowed name; the object of this name is never imported."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    kind: str
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * np.dtype(KINDS[self.kind]).itemsize


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_pth(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict by name, in the file's order; bfloat16 is widened to float32.

    Both of PyTorch's formats are read. The state dict may lie in a checkpoint; values that are no tensors are skipped.
    Tensors that share memory in the file share it in the arrays.

    Raises:
        UsageError: no such file, not a state dict, damaged, or with anything but tensors.
    """
    try:
        with open(path, "rb") as file:
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
    pickles = _Pickles(file.read(MAX_STRUCTURE))
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
        pickles = _Pickles(open_entry("data.pkl").read(MAX_STRUCTURE))
        tensors = _tensors(pickles.load())
        storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        if sum(storage.nbytes for storage in storages.values()) > size:  # entries may overlap in a forged archive
            raise UnfitError("is truncated or damaged: its tensors need more bytes than the file has.")
        values = {key: _values(open_entry(f"data/{key}", storage.nbytes), storage) for key, storage in storages.items()}
    return _arrays(tensors, values, size + MAX_REPEATED)


def _values(file: IO[bytes], storage: _Storage) -> NDArray[Any]:
    """The values of one storage. The caller has checked that the file is large enough for them."""
    truncated = f"is truncated: storage {storage.key[:40]!a} needs {storage.nbytes} bytes."
    raw = read_array(file, KINDS[storage.kind], (storage.count,), truncated)
    if storage.kind == "BFloat16Storage":
        return from_bfloat16(raw)
    return raw != 0 if storage.kind == "BoolStorage" else raw


def _tensors(root: object) -> dict[str, _Tensor]:
    """The named tensors of a state dict, or of the state dict in a checkpoint."""
    if type(root) is not dict:
        raise UnfitError(f"expected a dict of tensors, received {type(root).__name__.strip('_').lower()}.")
    entries: dict[Any, Any] = root
    for _ in range(2):
        entries = next((entries[key] for key in WRAPPERS if type(entries.get(key)) is dict), entries)
    tensors = {key: value for key, value in entries.items() if type(key) is str and type(value) is _Tensor}
    if not tensors:
        raise UnfitError("expected a dict of tensors, received one without any.")
    return tensors


def _arrays(tensors: dict[str, _Tensor], values: dict[str, NDArray[Any]], room: int) -> dict[str, NDArray[Any]]:
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


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    """A tensor of the arguments of `REBUILD`, all checked: no value outside the storage can be reached."""
    sized = type(size) is type(stride) is tuple and len(size) == len(stride) <= 64
    if type(storage) is not _Storage or not sized or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise UnfitError("is damaged: a tensor whose offset, size or stride makes no sense.")
    if len(rest) not in (2, 3) or (len(rest) == 3 and rest[2]):  # requires_grad, hooks, and flags such as "negated"
        raise UnfitError("holds a tensor in a form that is not supported. Save it with .clone().")
    tensor = _Tensor(storage, offset, size, stride)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if 0 not in tensor.size and last >= storage.count:
        raise UnfitError(
            f"is damaged: a tensor of size {tensor.size} reaches value {last} of a storage of {storage.count}."
        )
    return tensor


class _Pickles:
    """A pickle interpreter for state dicts: plain values, tuples, lists, dicts, and the names in `ALLOWED`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.storages: dict[str, _Storage] = {}

    def load(self) -> object:  # noqa: PLR0912  # one case an opcode is easier to read than a table
        """The value of the next pickle."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def since_mark() -> list[Any]:
            start = marks.pop()
            items = stack[start:]
            del stack[start:]
            return items

        for _ in range(MAX_STEPS):
            match opcode := self._take(1):
                case pickle.BINPUT | pickle.LONG_BINPUT:
                    memo[self._int(WIDTHS[opcode])] = stack[-1]
                case pickle.BINGET | pickle.LONG_BINGET:
                    stack.append(memo[self._int(WIDTHS[opcode])])
                case pickle.MARK:
                    marks.append(len(stack))
                case pickle.TUPLE:
                    stack.append(tuple(since_mark()))
                case pickle.TUPLE1 | pickle.TUPLE2 | pickle.TUPLE3:
                    stack[-WIDTHS[opcode] :] = [tuple(stack[-WIDTHS[opcode] :])]
                case pickle.APPEND | pickle.APPENDS:
                    items = since_mark() if opcode == pickle.APPENDS else [stack.pop()]
                    _only(list, stack[-1]).extend(items)
                case pickle.SETITEM | pickle.SETITEMS:
                    items = since_mark() if opcode == pickle.SETITEMS else [stack.pop(-2), stack.pop()]
                    _set(stack[-1], items[::2], items[1::2])
                case pickle.REDUCE:
                    arguments = _only(tuple, stack.pop())
                    stack.append(_reduce(_only(_Global, stack.pop()), arguments))
                case pickle.BUILD:  # attributes of an OrderedDict: versions of modules
                    stack.pop()
                    _only(dict, stack[-1])
                case pickle.BINPERSID:
                    stack.append(self._storage(*_only(tuple, stack.pop())))
                case pickle.PROTO:
                    if (version := self._int(1)) != 2:
                        raise UnfitError(f"expected pickle protocol 2, torch.save's default, received {version}.")
                case pickle.STOP:
                    return stack.pop()
                case _:
                    stack.append(self._value(opcode))
        raise UnfitError(f"expected a state dict, received a structure of more than {MAX_STEPS} steps.")

    def _value(self, opcode: bytes) -> Any:
        """The value of an opcode that only adds one to the stack."""
        match opcode:
            case pickle.BININT1 | pickle.BININT2:
                return self._int(WIDTHS[opcode])
            case pickle.BINUNICODE | pickle.SHORT_BINSTRING:  # the latter by Python 2
                return self._take(self._int(WIDTHS[opcode])).decode()
            case pickle.BININT:
                return self._int(4, signed=True)
            case pickle.LONG1:
                return self._int(self._int(1), signed=True)
            case pickle.BINFLOAT:
                return struct.unpack(">d", self._take(8))[0]
            case pickle.NONE | pickle.NEWTRUE | pickle.NEWFALSE | pickle.EMPTY_TUPLE:
                return CONSTANTS[opcode]
            case pickle.EMPTY_LIST | pickle.EMPTY_DICT:
                return [] if opcode == pickle.EMPTY_LIST else {}
            case pickle.GLOBAL:
                return _allowed(f"{self._line()}.{self._line()}")
        raise UnfitError(f"was refused: a state dict has no use for the pickle opcode {opcode!r}.")

    def _storage(self, tag: str, kind: _Global, key: str, _location: str, count: int, view: None = None) -> _Storage:
        if tag != "storage" or type(key) is not str or type(count) is not int or count < 0 or view is not None:
            raise UnfitError("is damaged, or older than PyTorch 0.4: a storage in an unknown form.")
        storage = _Storage(key, _only(_Global, kind).name.rpartition(".")[2], count)
        if kind.name not in STORAGES or self.storages.setdefault(key, storage) != storage:
            raise UnfitError(f"is damaged: storage {key[:40]!a} is described in two ways, or has no type.")
        return storage

    def _take(self, count: int) -> bytes:
        taken = self.data[self.position : self.position + count]
        if len(taken) < count:
            raise UnfitError(f"is truncated, or has a structure of more than {MAX_STRUCTURE} bytes. Save it again.")
        self.position += count
        return taken

    def _int(self, count: int, *, signed: bool = False) -> int:
        return int.from_bytes(self._take(count), "little", signed=signed)

    def _line(self) -> str:
        end = self.data.find(b"\n", self.position)
        return self._take(end - self.position + 1 if end >= 0 else len(self.data) + 1)[:-1].decode()


def _allowed(name: str) -> _Global:
    if name not in ALLOWED:
        raise UnfitError(
            f"was refused: it asks for {name[:80]!a}, and a state dict needs tensors only. Nothing of it was run. "
            "If you trust its author, open it with PyTorch and save model.state_dict(), if possible as .safetensors."
        )
    return _Global(name)


def _reduce(function: _Global, arguments: tuple[Any, ...]) -> object:
    if function.name == REBUILD and 6 <= len(arguments) <= 7:
        return _rebuild(*arguments)
    if function.name == ORDERED_DICT and not arguments:
        return {}
    raise UnfitError(f"was refused: it calls {function.name} with {len(arguments)} arguments, as no state dict does.")


def _set(target: object, keys: Iterable[Any], values: Iterable[Any]) -> None:
    for key, value in zip(keys, values, strict=True):
        if key is not None and type(key) not in (str, int, float, bool):  # the hash of a nested tuple can take for ever
            raise UnfitError(f"expected names as keys, received a {type(key).__name__}.")
        _only(dict, target)[key] = value


def _only(kind: type, value: object) -> Any:
    if type(value) is not kind:
        raise UnfitError(f"is damaged: expected a {kind.__name__}, received a {type(value).__name__}.")
    return value
