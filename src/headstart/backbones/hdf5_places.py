"""The positions of each layer's values in an HDF5 file of Keras weights; a process of its own, run by `hdf5.read_h5`.

A damaged file can crash the HDF5 library, which is written in C, or keep it running for ever. So the library opens the
file only in this process, and reads no values. Takes a path, prints one JSON object; imports nothing of Headstart.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

Place = tuple[str, list[int], int]  # type as NumPy writes it or "bfloat16", shape, offset of the first value in bytes

MAX_DEPTH = 8  # models within models
MAX_STEPS = 50_000  # groups and datasets looked at; hard links can make a file endless
MAX_ATTRIBUTE = 1 << 20  # bytes
MAX_MEMORY = 4 << 30  # bytes of address space
RESAVE = 'Open it in Keras and save its weights again: model.save_weights("x.weights.h5").'
UNNAMED = (
    "does not say what its layers are called: an older Keras saved it. Load it there and save the model in the legacy "
    'format: model.save("x.h5").'
)


class UnfitError(Exception):
    """What is wrong with the file, as a sentence without its name."""


def places(file: Any) -> Iterator[tuple[str, list[str], list[Place]]]:
    """Each layer that has weights: its name, the names of its weights ([] where the file has none), their places."""
    reader = _Reader()
    root = reader.child(file, "model_weights") if "model_weights" in file else file
    if names := reader.texts(root, "layer_names"):
        for name in names:
            layer = reader.child(root, name)
            yield from reader.legacy(name, layer)
    elif "layers" in root:
        yield from reader.counted(root)
    elif "_layer_checkpoint_dependencies" in root:  # tf.keras 2.13 to 2.15
        raise UnfitError(UNNAMED)
    else:
        raise UnfitError(f"holds no weights in a form of Keras's. {RESAVE}")


class _Reader:
    def __init__(self) -> None:
        self.steps = 0

    def legacy(self, name: str, layer: Any) -> Iterator[tuple[str, list[str], list[Place]]]:
        """Keras 2: attributes list the layers and their weights. A model in the model is one layer."""
        within: dict[str, list[str]] = {}
        for weight in self.texts(layer, "weight_names"):
            within.setdefault(weight.rpartition("/")[0], []).append(weight)
        for prefix, weights in within.items():
            own = name if len(within) == 1 else prefix.removeprefix(f"{name}/")
            variables = [each.rpartition("/")[2].removesuffix(":0") for each in weights]
            yield own, variables, [self.place(layer, each) for each in weights]

    def counted(self, model: Any, depth: int = 0) -> Iterator[tuple[str, list[str], list[Place]]]:
        """Keras 3: groups are numbered classes, and their ``vars`` have the name of the layer.

        Only layers are read, not the state of the optimizer or of random generators.
        """
        if depth > MAX_DEPTH:
            raise UnfitError(f"expected at most {MAX_DEPTH} models within each other, received more.")
        layers = self.child(model, "layers")
        for key in layers:
            layer = self.child(layers, key)
            values = self.child(layer, "vars") if "vars" in layer else {}
            if len(values):
                names = self.texts(values, "name")
                if len(names) != 1:
                    raise UnfitError(UNNAMED)
                yield names[0], [], [self.place(values, str(place)) for place in range(len(values))]
            if "layers" in layer:
                yield from self.counted(layer, depth + 1)

    def place(self, group: Any, name: str) -> Place:
        """The position of a dataset's values, which must lie in this file in one piece."""
        import h5py

        dataset, what = self.child(group, name, "a dataset"), _shown(name)
        plist, kind = dataset.id.get_create_plist(), dataset.id.get_type()
        if plist.get_external_count() or plist.get_layout() == h5py.h5d.VIRTUAL:
            raise UnfitError(f"keeps the values of {what} in another file, and only this one is read. {RESAVE}")
        if plist.get_layout() != h5py.h5d.CONTIGUOUS or plist.get_nfilters():
            raise UnfitError(f"has the values of {what} compressed or in pieces, which Keras never does. {RESAVE}")
        dtype, shape = dataset.dtype, dataset.shape
        half = dtype.str == "|V2" and self.texts(dataset, "dtype") == ["bfloat16"]
        if shape is None or not (half or (dtype.kind in "fiu" and kind.equal(h5py.h5t.py_create(dtype)))):
            raise UnfitError(f"expected numbers for {what}, received the type {dtype}. {RESAVE}")
        nbytes, stored = math.prod(shape) * dtype.itemsize, dataset.id.get_storage_size()
        if nbytes != stored:
            raise UnfitError(f"is truncated or damaged: {what} needs {nbytes} bytes and has {stored}.")
        return "bfloat16" if half else dtype.str, list(shape), dataset.id.get_offset() or 0

    def child(self, group: Any, path: str, wanted: str = "a group") -> Any:
        """A group or dataset below a group, by hard links only: these never lead out of the file."""
        import h5py

        for name in filter(None, path.split("/")):
            self.steps += 1
            if self.steps > MAX_STEPS:
                raise UnfitError(f"expected weights, received a structure of more than {MAX_STEPS} groups.")
            if not isinstance(group, h5py.Group) or (link := group.get(name, getlink=True)) is None:
                raise UnfitError(f"is damaged: it lacks {_shown(name)}, which it speaks of.")
            if not isinstance(link, h5py.HardLink):
                raise UnfitError(f"was refused: {_shown(name)} is a link that can lead elsewhere. {RESAVE}")
            group = group[name]
        if not isinstance(group, h5py.Group if wanted == "a group" else h5py.Dataset):
            raise UnfitError(f"is damaged: expected {wanted} under {_shown(path)}, received something else.")
        return group

    def texts(self, thing: Any, name: str) -> list[str]:
        """The texts of an attribute; Keras writes long lists in parts NAME0, NAME1 and so on."""
        import numpy as np

        numbered = itertools.takewhile(thing.attrs.__contains__, (f"{name}{place}" for place in itertools.count()))
        found: list[str] = []
        for piece in [name] if name in thing.attrs else numbered:
            attribute = thing.attrs.get_id(piece)
            if math.prod(attribute.shape or ()) * attribute.dtype.itemsize > MAX_ATTRIBUTE:
                raise UnfitError(f"expected at most {MAX_ATTRIBUTE} bytes in the attribute {piece}, received more.")
            for value in np.asarray(thing.attrs[piece]).reshape(-1).tolist():
                if not isinstance(value, str | bytes):
                    raise UnfitError(f"expected texts in the attribute {piece}, received {type(value).__name__}.")
                found.append(value.decode() if isinstance(value, bytes) else value)
        return found


def _shown(name: str) -> str:
    return ascii(name[:80])


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # not available on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main(path: str) -> dict[str, Any]:
    """The object to print: "layers", or "unfit", a sentence that says why not."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return {"layers": list(places(file))}
    except UnfitError as error:
        return {"unfit": str(error)}
    except Exception as error:  # damage can surface as nearly anything, from KeyError to MemoryError
        return {"unfit": f"is truncated or damaged ({type(error).__name__}: {error}). Fetch or save it again."}


if __name__ == "__main__":
    _limit_memory()
    print(json.dumps(main(sys.argv[1])))
