"""Interprets the pickle of a PyTorch checkpoint: its tensors, without running anything.

A pickle is a program. This interpreter knows only the few instructions and names of a checkpoint. It imports nothing
and calls nothing by name; it refuses anything else, and says what it was.
"""

from __future__ import annotations

import pickle  # for the values of its opcodes only
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.backbones.weights_bytes import UnfitError

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
STORAGES = frozenset(f"{room}.{kind}" for room in ("torch", "torch.cuda") for kind in KINDS)  # torch.cuda: of a GPU
REBUILD, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
DICTS = ("collections.OrderedDict", "collections.Counter", "collections.defaultdict")
PLAIN = "bool int long float complex str bytearray tuple list dict set frozenset"  # "long" is Python 2's int
LIGHTNING = "lightning.fabric lightning_fabric lightning.pytorch pytorch_lightning"  # in its versions
SKIPPED = frozenset(  # of settings and counts beside the weights: what is made of these names is left out
    [
        *("torch.Size", "torch.device", "torch.serialization._get_layout", "_codecs.encode"),
        *(f"torch.{name}" for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "bool", "uint8")),
        *(f"__builtin__.{name}" for name in PLAIN.split()),
        *(f"numpy.{room}.multiarray.{name}" for room in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *("numpy.dtype", "numpy.ndarray", "pathlib.PosixPath", "pathlib.WindowsPath", "argparse.Namespace"),
        *(f"{room}.utilities.{file}.AttributeDict" for room in LIGHTNING.split() for file in ("data", "parsing")),
    ]
)
ALLOWED = STORAGES | SKIPPED | {REBUILD, PARAMETER, *DICTS}

# Limits on the memory that a file can take: each step of a pickle makes one small object.
MAX_STEPS, MAX_STRUCTURE = 500_000, 8 << 20  # a tensor takes about 25 steps, and 0.2 kB of pickle

WIDTHS = {  # opcode -> bytes of its argument or of its length; for tuples, how many items
    **dict.fromkeys((pickle.BINPUT, pickle.BINGET, pickle.BININT1, pickle.SHORT_BINSTRING, pickle.TUPLE1), 1),
    **dict.fromkeys((pickle.BININT2, pickle.TUPLE2), 2),
    **dict.fromkeys((pickle.LONG_BINPUT, pickle.LONG_BINGET, pickle.BINUNICODE), 4),
    pickle.TUPLE3: 3,
}
CONSTANTS = {pickle.NONE: None, pickle.NEWTRUE: True, pickle.NEWFALSE: False, pickle.EMPTY_TUPLE: ()}


@dataclass(frozen=True, slots=True)
class _Global:
    """An allowed name; the object of this name is never imported."""

    name: str


@dataclass(frozen=True, slots=True)
class _Skipped:
    """What a name of `SKIPPED` would have made."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Values of one type that tensors are parts of."""

    key: str
    kind: str
    count: int

    @property
    def nbytes(self) -> int:
        """Of its values in the file."""
        return self.count * np.dtype(KINDS[self.kind]).itemsize


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; ``offset`` and ``stride`` count values."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Pickles:
    """A pickle interpreter for checkpoints: plain values, tuples, lists, dicts, and the names in `ALLOWED`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self.storages: dict[str, Storage] = {}

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
                case pickle.NEWOBJ:
                    stack.pop()
                    stack.append(_reduce(_only(_Global, stack.pop()), ()))
                case pickle.BUILD:  # attributes of an OrderedDict: versions of modules
                    stack.pop()
                    if type(stack[-1]) not in (dict, _Skipped):
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

    def _storage(self, tag: str, kind: _Global, key: str, _location: str, count: int, view: None = None) -> Storage:
        if tag != "storage" or type(key) is not str or type(count) is not int or count < 0 or view is not None:
            raise UnfitError("is damaged, or older than PyTorch 0.4: a storage in an unknown form.")
        storage = Storage(key, _only(_Global, kind).name.rpartition(".")[2], count)
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
            f"was refused: it asks for {name[:80]!a}, and weights are tensors only. Nothing of it was run. "
            "If you trust its author, open it with PyTorch and save model.state_dict(), if possible as .safetensors."
        )
    return _Global(name)


def _reduce(function: _Global, arguments: tuple[Any, ...]) -> object:
    if function.name == REBUILD and 6 <= len(arguments) <= 7:
        return _rebuild(*arguments)
    if function.name == PARAMETER and len(arguments) == 3:
        return _only(Tensor, arguments[0])
    if function.name == "collections.Counter" and len(arguments) == 1:
        return _only(dict, arguments[0])
    if function.name in DICTS and (not arguments or function.name == "collections.defaultdict"):
        return {}
    if function.name in SKIPPED:
        return _Skipped()
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


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """A tensor of the arguments of `REBUILD`, all checked: no value outside the storage can be reached."""
    sized = type(size) is type(stride) is tuple and len(size) == len(stride) <= 64
    if type(storage) is not Storage or not sized or any(type(n) is not int or n < 0 for n in (offset, *size, *stride)):
        raise UnfitError("is damaged: a tensor whose offset, size or stride makes no sense.")
    if len(rest) not in (2, 3) or (len(rest) == 3 and rest[2]):  # requires_grad, hooks, and flags such as "negated"
        raise UnfitError("holds a tensor in a form that is not supported. Save it with .clone().")
    tensor = Tensor(storage, offset, size, stride)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if 0 not in tensor.size and last >= storage.count:
        raise UnfitError(
            f"is damaged: a tensor of size {tensor.size} reaches value {last} of a storage of {storage.count}."
        )
    return tensor
