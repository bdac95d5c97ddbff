"""Damages small files at random, as disks, downloads and editors do, and has them read: tables, IDX, Parquet, lists.

Each file is read, or refused by an error of Headstart's. Anything else is a fault: another exception, or the end of
the process (crashed); more than `SECONDS` (hung); other pixels or labels than a plain reading gives (wrong); a row or a
name without an answer (lost). The files are read in a process of their own, which is begun anew where it ended.

``python readers.py SEED COUNT`` runs as many and names every fault; ``python readers.py SEED COUNT NUMBER`` reads one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import queue
import random
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

SECONDS = 10.0  # for one file
START = 60.0  # for a process to begin
MEMORY = 6 << 30  # bytes of its addresses
FINE, CRASHED, HUNG, WRONG, LOST = "fine", "crashed", "hung", "wrong", "lost"
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
    (path_list, read_list),
)


def one(seed: int, number: int, folder: Path, *, sound: bool = False) -> str:
    """Damage a file and read it, in ``folder``, which has photos and is the working directory.

    Args:
        sound: leave it as it was.

    Raises:
        Exception: a fault; errors of Headstart's are none.
    """
    from headstart.core.errors import HeadstartError

    rng = random.Random(f"{seed} {number}")  # not for secrets
    make, read = KINDS[number % len(KINDS)]
    content = make(rng)
    try:
        return read(content if sound else damaged(content, rng), folder)
    except HeadstartError:
        return FINE


# --- a campaign -------------------------------------------------------------------------------------------------------


def campaign(
    seed: int, count: int, tell: Callable[[str], None] = lambda _: None, script: str = __file__
) -> dict[str, int]:
    """Damage and read so many files; how many were tried, and how many of each kind of fault there were.

    Args:
        tell: is called with a sentence on each fault.
        script: what runs as this file does.
    """
    found: Counter[str] = Counter()
    number = 0
    while number < count:
        for outcome, detail in _Worker(script, seed, number, count):
            found[outcome] += 1
            if outcome != FINE:
                tell(
                    f"{outcome}: readers.py {seed} {count} {number} ({KINDS[number % len(KINDS)][0].__name__}) {detail}"
                )
            number += 1
    return {"tried": number, **{kind: found[kind] for kind in (CRASHED, HUNG, WRONG, LOST)}}


class _Worker:
    """The outcomes of the files from one on, up to the first that ends the process, or that keeps it too long."""

    def __init__(self, script: str, seed: int, first: int, count: int) -> None:
        command = [sys.executable, script, str(seed), str(count), str(first), "worker"]
        path = os.pathsep.join(each for each in sys.path if each)  # as here
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
        )  # fmt: skip
        self._left, self._lines = count - first, queue.SimpleQueue[bytes]()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        reader.start()
        try:
            if not self._lines.get(timeout=START):
                raise RuntimeError(f"nothing begins: {self._process.stderr.read()[-2000:].decode()}")
            for _ in range(self._left):
                if not (line := self._lines.get(timeout=SECONDS)):
                    yield CRASHED, f"the process ended: {self._process.wait()} {self._process.stderr.read()[-500:]!r}"
                    return
                outcome, detail = json.loads(line)
                yield outcome, detail
        except queue.Empty:
            yield HUNG, ""
        finally:
            self._process.kill()
            self._process.wait()
            reader.join()
            self._process.stdout.close()
            self._process.stderr.close()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(b"")


def _work(seed: int, count: int, first: int, *, alone: bool = False) -> None:
    """Print the outcome of each file as a line of JSON."""
    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "sub folder").mkdir()
        for name in (*(f"{row}.png" for row in range(PHOTOS)), "sub folder/ä.png"):
            (folder / name).write_bytes(name.encode())
        os.chdir(folder)
        print("begun", flush=True)
        for number in range(first, first + 1 if alone else count):
            try:
                line = [one(seed, number, folder), ""]
            except Exception as error:
                if alone:
                    raise
                line = [CRASHED, f"{type(error).__name__}: {error}"[:300]]
            print(json.dumps(line), flush=True)
        os.chdir("/")


def main() -> None:
    """Run a campaign, the part of one that a worker does, or read one file; see above."""
    seed, count, *number = (int(each) for each in sys.argv[1:4])
    if number:
        _work(seed, count, number[0], alone=sys.argv[4:] != ["worker"])
    else:
        print(campaign(seed, count, print))


if __name__ == "__main__":
    main()
