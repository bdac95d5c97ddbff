"""Small files damaged as disks, downloads and editors do, and read: tables, IDX, Parquet, tar, lists of paths.

Each is read, or refused. Other pixels or labels than a plain reading gives are wrong, a row or a name without an answer
is lost.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fault_injection.watched import Trial

FINE, WRONG, LOST = "accepted", "wrong: other content than a plain reading gives", "lost: a row or a name"
PHOTOS = 6
ALLOWED = (-1, 0, 1, 255, 2**31, 2**32 - 1)  # what sizes in headers are set to


# --- sound files ------------------------------------------------------------------------------------------------------


def photo_table(rng: random.Random) -> bytes:
    """Rows that name the photos beside it, some of them quoted."""
    mark, end = rng.choice(",;\t"), rng.choice(("\n", "\r\n"))
    rows = [["file_name", "label", "split", "note"]]
    for row in range(12):
        name = f"{row % PHOTOS}.png"
        note = rng.choice(("", "7", "train", f'"a {mark} b"', '"two""quotes"', "käfer"))
        rows.append(
            [rng.choice((name, f'"{name}"')), rng.choice(("cat", "dog")), rng.choice(("train", "test", "")), note]
        )
    return end.join(mark.join(row) for row in rows).encode()


def number_table(rng: random.Random) -> bytes:
    """Rows of numbers with a label each."""
    mark = rng.choice(",;\t")
    rows = [["x", "y", "z", "label"]]
    rows += [[*(f"{rng.gauss(0, 9):.3g}" for _ in "xyz"), rng.choice(("yes", "no"))] for _ in range(15)]
    return "\n".join(mark.join(row) for row in rows).encode()


def idx_images(rng: random.Random) -> bytes:
    """Five pictures, perhaps packed."""
    content = bytes((0, 0, 8, 3)) + struct.pack(">3I", 5, 4, 3) + rng.randbytes(60)
    return gzip.compress(content, mtime=0) if rng.random() < 0.4 else content


def parquet_file(rng: random.Random) -> bytes:
    """Ten rows in two groups, as on the Hub."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    names = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    images = pa.array(
        [{"bytes": rng.randbytes(20), "path": f"{row}.png"} for row in range(10)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    labels = pa.array([row % 2 for row in range(10)])
    table = pa.table({"image": images, "label": labels, "split": ["train", "test"] * 5})
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    file = io.BytesIO()
    kind = rng.choice(("none", "snappy", "zstd"))
    pq.write_table(table, file, row_group_size=5, compression=kind, use_dictionary=rng.random() < 0.5)
    return file.getvalue()


def tar_file(rng: random.Random) -> bytes:
    """Six images with a label beside each, in any of the forms that a tar has."""
    file, form = io.BytesIO(), rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for row in range(6):
            folder = rng.choice(("", "a/", "x" * 120 + "/"))
            for name, content in ((f"{folder}{row}.png", rng.randbytes(600)), (f"{folder}{row}.cls", b"cat")):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(content), rng.choice((0, 1.5))
                tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def path_list(rng: random.Random) -> bytes:
    """Names of photos, some of which are not there, one a line or with NULs behind them."""
    names = [rng.choice((f"{row}.png", f"gone-{row}.jpg", "sub folder/ä.png")) for row in range(PHOTOS)]
    return rng.choice(("\n", "\r\n", "\0")).join(names).encode()


# --- damage -----------------------------------------------------------------------------------------------------------

TOKENS = (  # what means something to some reader
    *(b'"', b'""', b"'", b",", b";", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\0" * 9, b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"\xe4", b"\xed\xa0\x80", b"\x0c", b"\xe2\x80\xa8", b"-", b"nan", b"inf", b"1e999", b"../", b"/", b"~", b"*"),
    *(
        b"label",
        b"file_name",
        b"split",
        b"id",
        b"%s",
        b"x" * 5000,
        b"9" * 400,
        b",\n" * 50,
        b"x" * 140_000,
        b"c," * 70_000,
        b"/dev/zero",
        b"http://x",
    ),
)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The same with one change, or a few."""
    for _ in range(rng.choice((1, 1, 1, 1, 2, 4))):
        content = rng.choice(CHANGES)(content, rng)
    return content


def _place(content: bytes, rng: random.Random) -> int:
    """Mostly in the first or last hundred bytes, where headers are."""
    end = len(content)
    return rng.choice(
        (rng.randrange(end + 1), rng.randrange(min(end, 100) + 1), end - rng.randrange(min(end, 100) + 1))
    )


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 30))):
        if changed:
            changed[min(_place(content, rng), len(changed) - 1)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _noise(content: bytes, rng: random.Random) -> bytes:
    at, size = _place(content, rng), rng.choice((1, 2, 4, 8, 64))
    return content[:at] + rng.randbytes(size) + content[at + size :]


def _number(content: bytes, rng: random.Random) -> bytes:
    """Four bytes that are a size in many headers."""
    at = rng.choice((4, 8, 12, _place(content, rng)))
    return content[:at] + struct.pack(rng.choice("<>") + "I", rng.choice(ALLOWED) % 2**32) + content[at + 4 :]


def _lose(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice((1, 3, 20, 100)) :]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    at, end = sorted((_place(content, rng), _place(content, rng)))
    return content[:end] + content[at:end] * rng.choice((1, 1, 3, 40)) + content[end:]


def _insert(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + rng.choice(TOKENS) + content[at:]


def _zeros(content: bytes, rng: random.Random) -> bytes:
    at, size = _place(content, rng), rng.choice((16, 512, 4096))
    return content[:at] + bytes(size) + content[at + size :]


def _encode(content: bytes, rng: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig")), "replace")


CHANGES = (_cut, _flip, _noise, _number, _lose, _repeat, _insert, _insert, _zeros, _encode)


# --- readings ---------------------------------------------------------------------------------------------------------


def read_photo_table(content: bytes, folder: Path) -> str:
    """As `hs.open_source`; every row is an image or a problem, and every image is in the folder."""
    from headstart.data.rows import is_rows
    from headstart.data.sources import open_source

    file = folder / "t.csv"
    file.write_bytes(content)
    is_rows(file)
    dataset = open_source(file)
    if any(dataset.read(row) != (folder / sample.name).read_bytes() for row, sample in enumerate(dataset.samples)):
        return WRONG
    of_rows = [each for each in dataset.problems if "line " in each.name + each.detail]
    return FINE if len(dataset) + len(of_rows) in _row_counts(content) else LOST


def _row_counts(content: bytes) -> set[int]:
    """How many rows are below the header, by each separator with which all quotes end."""
    found, text = set(), content.decode("utf-8-sig")
    for mark in ",;\t":
        rows = [*csv.reader(io.StringIO(f"{text}\nend", newline=""), delimiter=mark)]
        if rows[-1] == ["end"]:
            found.add(sum(any(cell.strip() for cell in row) for row in rows) - 2)
    return found


def read_number_table(content: bytes, folder: Path) -> str:
    """As `hs.train_rows` does; all rows are there, and all numbers are finite."""
    from headstart.data.rows import is_rows, open_rows, rows_to_judge, rows_to_predict

    file = folder / "n.csv"
    file.write_bytes(content)
    is_rows(file)
    rows = open_rows(file)
    again, judged = rows_to_predict(file, rows.columns), rows_to_judge(file, rows.columns)
    if (
        not np.isfinite(rows.values).all()
        or not rows.values.tolist() == again.values.tolist() == judged.values.tolist()
    ):
        return WRONG
    return FINE if {len(rows.values)} == {len(rows.labels)} <= _row_counts(content) else LOST


def read_idx(content: bytes, folder: Path) -> str:
    """As `hs.open_source`; the pixels are those behind the header."""
    from headstart.data.sources import open_source

    (folder / "train-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1)) + struct.pack(">I", 5) + bytes(range(5)))
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(content)
    dataset = open_source(file)
    plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    count, height, width = struct.unpack(">3I", plain[4:16])
    pixels = np.frombuffer(plain[16:], np.uint8).reshape(count, height, width)
    if len(dataset) != count:
        return LOST
    alike = all(np.array_equal(dataset.read(row), pixels[row]) for row in range(count))
    return FINE if alike and [sample.label for sample in dataset.samples] == [*"01234"] else WRONG


def read_parquet(content: bytes, folder: Path) -> str:
    """As `hs.open_source`; contents are those that pyarrow reads at once, where it reads them."""
    from pyarrow import parquet as pq

    from headstart.core.errors import UnreadableImageError
    from headstart.data.sources import open_source

    file = folder / "t.parquet"
    file.write_bytes(content)
    dataset = open_source(file)
    if len(dataset) + sum("#" in each.name for each in dataset.problems) != pq.ParquetFile(file).metadata.num_rows:
        return LOST
    images: Any = None
    with suppress(Exception):  # it is damaged where only its images are
        images = pq.read_table(file).column("image").to_pylist()
    for row, sample in enumerate(dataset.samples):
        try:
            found = dataset.read(row)
        except (UnreadableImageError, OSError):
            continue
        if images is not None and found != images[int(sample.name.rpartition("#")[2])]["bytes"]:
            return WRONG
    return FINE


def read_tar(content: bytes, folder: Path) -> str:
    """As `hs.open_source`; images are those that the standard library finds, as far as it goes on."""
    from headstart.data.scan import printable
    from headstart.data.sources import open_source

    file = folder / "t.tar"
    file.write_bytes(content)
    dataset = open_source(file)
    found = {sample.name: dataset.read(row) for row, sample in enumerate(dataset.samples)}
    told = {each.name for each in dataset.problems}
    with suppress(tarfile.TarError), tarfile.open(file) as tar:
        for member in tar:
            name = f"t.tar/{printable(member.name)}"
            ends = member.offset_data + member.size
            if not member.isreg() or member.issparse() or not name.endswith(".png") or ends > len(content):
                continue
            if name not in found and not told & {name, file.name}:
                return LOST
            if name in found and found[name] != content[member.offset_data : ends]:
                return WRONG
    return FINE


def read_list(content: bytes, folder: Path) -> str:
    """As ``predict -``; every name has an answer: the bytes of that file, or what is wrong with it."""
    from headstart.core.errors import UnreadableImageError
    from headstart.data.listing import Listing, names_in

    names = names_in(content)
    listing = Listing()
    listing.paths += names
    dataset = listing.dataset()
    for row, name in enumerate(names):
        try:
            found = dataset.read(row)
        except (UnreadableImageError, OSError):
            continue
        if found != (folder / name).read_bytes():
            return WRONG
    plain = content.removeprefix(b"\xef\xbb\xbf")
    given = plain.split(b"\0") if b"\0" in plain else plain.replace(b"\r\n", b"\n").removesuffix(b"\r").split(b"\n")
    return FINE if len(dataset) == len(names) == sum(map(bool, given)) else LOST


KINDS: tuple[tuple[Callable[[random.Random], bytes], Callable[[bytes, Path], str]], ...] = (
    (photo_table, read_photo_table),
    (number_table, read_number_table),
    (idx_images, read_idx),
    (parquet_file, read_parquet),
    (tar_file, read_tar),
    (path_list, read_list),
)


@contextmanager
def trials() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as place:
        before, folder = Path.cwd(), Path(place)
        with_photos(folder)
        os.chdir(folder)

        def trial(seed: int) -> str:
            rng = random.Random(seed)
            make, read = rng.choice(KINDS)
            return read(damaged(make(rng), rng), folder)

        try:
            yield trial
        finally:
            os.chdir(before)


def with_photos(folder: Path) -> None:
    """Put photos into a folder, which the files name; each has its name as its content."""
    for name in (*(f"{row}.png" for row in range(PHOTOS)), "sub folder/ä.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
