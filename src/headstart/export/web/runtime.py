"""ONNX Runtime Web: fetched once from npm's registry, and the two files of it that a page holds."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from headstart.backbones.checked_download import download, offline, weights_folder
from headstart.backbones.fetch import FetchError
from headstart.backbones.weights import hash_of
from headstart.core.errors import CheckError, UsageError
from headstart.core.progress import shown, stage

VERSION = "1.30.0"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA512 = (  # npm's own, of the whole archive
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
BYTES = 33_106_585
SCRIPT, WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"
LICENCE = """MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated \
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the \
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit \
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the \
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE \
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR \
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR \
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
_EXPORTS = re.compile(r"export\{([^{}]*)\};\s*(//# sourceMappingURL=\S*\s*)?\Z")  # how the script ends


@dataclass(frozen=True, repr=False)
class Runtime:
    """What a page needs to run a model."""

    script: str  # defines ``ort``, with its classes and settings
    wasm: bytes
    version: str = VERSION
    licence: str = LICENCE


def find_runtime(*, timeout: float = 30.0, pause: float = 1.0) -> Runtime:
    """The runtime out of the archive that is kept beside the weights, downloaded where it is not there.

    Raises:
        UsageError: it is not on this machine and cannot be downloaded; says which file to put where.
        CheckError: the downloaded file is not the recorded one.
    """
    target = weights_folder() / URL.rpartition("/")[2]
    fault = _fault(target) if target.is_file() else ""
    if not target.is_file() or fault:
        damaged = f" ('{target}' is damaged or another file: {fault})" if fault else ""
        if flag := offline():
            raise _by_hand(target, damaged, f"{flag} is set")
        try:
            with shown() as progress:
                download(URL, target, _fault, stage(progress, "runtime"), timeout=timeout, pause=pause)
        except FetchError as error:
            raise _by_hand(target, damaged, f"registry.npmjs.org {error}") from error
    return _read(target)


def _by_hand(target: Path, damaged: str, why: str) -> UsageError:
    return UsageError(
        f"ONNX Runtime Web, which the page runs on, is not on this machine{damaged}, and {why}: "
        f"put the file from {URL} ({BYTES / 1e6:.0f} MB) at '{target}'."
    )


def _fault(path: Path) -> str:
    """How a file differs from the recorded archive; "" where it is that."""
    received = hash_of(path, "sha512")
    return "" if received == SHA512 else f"expected SHA-512 {SHA512}, received {received}"


def _read(archive: Path) -> Runtime:
    """The two members are read by their names; nothing is unpacked to the disk."""
    parts: dict[str, bytes] = {}
    with tarfile.open(archive, "r:gz") as file:
        for member in file:
            if member.name in (SCRIPT, WASM) and (part := file.extractfile(member)) is not None:
                parts[member.name] = part.read()
            if len(parts) == 2:
                break
    return Runtime(as_global(parts[SCRIPT].decode("utf-8")), parts[WASM])


def as_global(module: str) -> str:
    """A module's script that ends in its exports, as one that keeps them in ``ort`` for what follows it."""
    if (exports := _EXPORTS.search(module)) is None:
        raise CheckError("The script of ONNX Runtime Web does not end in its exports.")
    names = (each.split(" as ") for each in exports[1].split(","))
    members = ", ".join(f"{public}: {own}" for own, public in names)
    return f"{module[: exports.start()]}\nconst ort = {{{members}}};\n"
