"""What to do with a file or folder that was given as the name of a network."""

from __future__ import annotations

from pathlib import Path

from headstart.backbones.weights import H5_SUFFIXES, PTH_SUFFIXES

OTHER_FORMATS = (".onnx", ".tflite", ".pb", ".pt2", ".xml", ".ckpt", ".npz", ".mlmodel", ".engine", ".gguf")


def why_no_name(name: str, named: str = "--backbone NAME") -> str:
    """Sentences that say what ``name`` is and what to do with it; "" where it is neither file nor folder.

    ``named`` is how a network is named in the request, for instance as an option.
    """
    suffix, path = Path(name).suffix.lower(), Path(name)
    if name and path.is_dir():
        return f"'{name}' is a folder, not the name of a network. {_TAKEN}"
    if suffix in H5_SUFFIXES:
        return (
            f"'{name}' is an HDF5 file of Keras, not the name of a network. If it has the weights of a network with a "
            f"name: {named} --weights {name}. A whole model of your own is taken as a .keras file: open it in Keras, "
            'and save it as model.save("model.keras")'
        )
    if suffix in (".safetensors", *PTH_SUFFIXES):
        return (
            f"'{name}' is a file of weights, not the name of a network. If they are those of a network with a name: "
            f"{named} --weights {name}. A module of your own is taken from Python: "
            "headstart.fit(PHOTOS, backbone=MODULE)"
        )
    if suffix in OTHER_FORMATS or path.is_file():
        return f"'{name}' is a file in a format that no network is taken from. {_TAKEN}"
    return ""


_TAKEN = (
    "Networks are taken by their name (headstart backbones), from a .keras file, and from Python as a module of "
    "PyTorch or a model of Keras: headstart.fit(PHOTOS, backbone=MODEL)"
)
