"""Photos and shards at addresses of file systems."""

from __future__ import annotations

import gc
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

import numpy as np
import pytest
from PIL import Image
from test_tars import PETS, write_tar

import headstart as hs
from headstart.core.cache_folder import cache_dir
from headstart.core.errors import DataError, MissingExtraError, UnreadableImageError, UsageError
from headstart.data import file_systems, remote
from headstart.data.columns import Columns
from headstart.data.remote import fetched, is_remote, joined, listed, read, remote_dataset, shards_in
from headstart.data.sources import open_source
from source_files import contents, labels, names, plant, splits, write_parquet

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty file system in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture(params=["file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, memory: Any) -> Any:
    """The address of an empty folder, and a function that puts a folder there."""

    def put(folder: Path) -> str:
        if request.param == "file":
            return folder.as_uri()
        for path in folder.rglob("*"):
            if path.is_file():
                memory.pipe(f"/at/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return "memory://at"

    return put


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/x", True),
        ("HF://datasets/x", True),
        ("file:///x", True),
        ("http://x", False),
        ("https://x", False),
        ("photos", False),
        ("C://x", False),
        ("/a/s3://b", False),
        ("s3:/x", False),
    ],
)
def test_what_is_an_address(text: str, expected: bool) -> None:
    assert is_remote(text) == expected


class TestFolders:
    def test_the_same_as_on_a_disk(self, tmp_path: Path, place: Any) -> None:
        plant(
            tmp_path,
            "train/cat/1.jpg",
            "train/dog/a b#?%20ä.png",
            "test/cat/3.jpg",
            "test/dog/deep/4.webp",
            "test/5.jpg",
        )
        plant(
            tmp_path,
            "train/cat/.hidden.jpg",
            "__MACOSX/1.jpg",
            "train/cat/notes.txt",
            "train/cat/raw.cr2",
            "train/cat/page",
        )
        plant(tmp_path, "train/cat/sniffed.img", content=b"\xff\xd8\xff\xe0")
        here, there = open_source(tmp_path), open_source(place(tmp_path))
        assert there.samples == here.samples
        assert contents(there) == contents(here)
        assert sorted(there.problems, key=str) == sorted(here.problems, key=str)
        assert there.files is not None
        assert [*map(read, there.files)] == contents(here)
        assert there.root.startswith(("file://", "memory://"))
        assert labels(open_source(place(tmp_path), label_from="([a-z]+)/[^/]*$")) == labels(
            open_source(tmp_path, label_from="([a-z]+)/[^/]*$")
        )

    def test_what_is_below_an_address(self, tmp_path: Path, place: Any) -> None:
        plant(tmp_path, "b/2", "a/deep/1", ".c", content=b"12345")
        url = place(tmp_path)
        found = listed(url)
        assert [(each.path, each.size) for each in found] == [(".c", 5), ("a/deep/1", 5), ("b/2", 5)]
        assert all(each.mtime is not None and abs(each.mtime - time.time()) < 600 for each in found)
        assert [each.path for each in listed(url + "/")] == [each.path for each in found]
        assert [(each.path, each.size) for each in listed(joined(url, "b/2"))] == [("", 5)]

    def test_tables_at_an_address_are_refused_or_told_of(self, tmp_path: Path, place: Any) -> None:
        plant(tmp_path, "cat/1.jpg", "dog/2.jpg", "more.csv")
        assert [(each.name, each.kind) for each in open_source(place(tmp_path)).problems] == [("more.csv", "not used")]
        plant(tmp_path, "metadata.csv")
        with pytest.raises(UsageError, match=r"metadata\.csv' says the labels, and tables are read on a disk alone"):
            open_source(place(tmp_path))
        assert len(open_source(place(tmp_path), label_from="^([a-z]+)/")) == 2

    def test_what_is_not_there(self, tmp_path: Path, place: Any) -> None:
        plant(tmp_path, "a.jpg")
        url = place(tmp_path)
        for ask in (listed, shards_in, open_source):
            with pytest.raises(UsageError, match=r"No such file or folder: '(file|memory)://.*/none'"):
                ask(joined(url, "none"))
        with pytest.raises(UnreadableImageError, match="no such file"):
            read(joined(url, "none"))
        with pytest.raises(UsageError, match="is a file, not a folder of images"):
            open_source(joined(url, "a.jpg"))
        with pytest.raises(DataError, match="so nothing says which class"):
            open_source(url)
        with pytest.raises(UsageError, match=r"Expected a file at .*There is a folder"):
            fetched(url, tmp_path / "copies")

    def test_large_files_are_not_read(self, tmp_path: Path, place: Any) -> None:
        plant(tmp_path, "a.jpg", content=b"12345")
        url = joined(place(tmp_path), "a.jpg")
        assert read(url, 5) == b"12345"
        with pytest.raises(UnreadableImageError, match="5 bytes, and up to 4 are read"):
            read(url, 4)

    def test_many_threads(self, tmp_path: Path, place: Any) -> None:
        plant(tmp_path, *(f"{'ab'[k % 2]}/{k}.jpg" for k in range(40)))
        dataset = open_source(place(tmp_path))
        with ThreadPoolExecutor(8) as pool:
            assert [*pool.map(dataset.read, range(40))] == [name.encode() for name in names(dataset)]


class TestShards:
    def test_are_found_as_on_a_disk(self, tmp_path: Path, place: Any) -> None:
        write_tar(tmp_path / "train" / "0.tar", PETS)
        write_tar(tmp_path / "test" / "0.tar", PETS)
        write_parquet(tmp_path / "train" / "0.parquet", [(b"1", 0)])  # beside it, as img2dataset writes it
        url = place(tmp_path)
        assert shards_in(url) == [joined(url, "test/0.tar"), joined(url, "train/0.tar")]
        here, there = open_source(tmp_path), open_source(url)
        assert there.samples == here.samples
        assert set(splits(there).values()) == {"train", "test"}
        assert contents(there) == contents(here)
        assert (there.root, there.files) == (url, None)

    def test_of_parquet_and_a_single_file(self, tmp_path: Path, place: Any) -> None:
        write_parquet(tmp_path / "data" / "train-0.parquet", [(b"1", 0), (b"2", 1)])
        url = place(tmp_path)
        assert shards_in(url) == [joined(url, "data/train-0.parquet")]
        assert shards_in(joined(url, "data/train-0.parquet")) == [joined(url, "data/train-0.parquet")]
        for given in (url, joined(url, "data/train-0.parquet")):
            assert contents(open_source(given)) == [b"1", b"2"]
        assert names(open_source(given)) == ["train-0.parquet#0", "train-0.parquet#1"]
        with pytest.raises(UsageError, match="label_from is for a folder"):
            open_source(url, label_from="(a)")

    def test_images_beside_tars_are_the_data_set(self, tmp_path: Path, place: Any) -> None:
        write_tar(tmp_path / "a.tar", PETS)
        plant(tmp_path, "cat/1.jpg", "dog/2.jpg")
        url = place(tmp_path)
        assert shards_in(url) is None
        assert names(open_source(url)) == ["cat/1.jpg", "dog/2.jpg"]

    def test_copies_live_as_long_as_what_reads_them(self, tmp_path: Path, place: Any, home: Path) -> None:
        write_tar(tmp_path / "source" / "a.tar", PETS)
        url = place(tmp_path / "source")

        def copies() -> list[Path]:
            return [*cache_dir().rglob("*.tar")]

        dataset = open_source(url)
        part = dataset.part([1])
        del dataset
        gc.collect()
        assert len(copies()) == 1
        assert part.read(0) == b"dog 1"
        del part
        gc.collect()
        assert copies() == []
        assert not [path for path in cache_dir().iterdir() if path.name.startswith(".headstart-")]

    def test_no_room(self, tmp_path: Path, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        write_tar(tmp_path / "a.tar", PETS)
        monkeypatch.setattr(remote, "free_disk", lambda: 10)
        with pytest.raises(UsageError, match=r"has room for 0 MB beside .*HEADSTART_HOME"):
            open_source(place(tmp_path))


class TestFetched:
    def test_a_file_of_a_name_that_is_safe(self, tmp_path: Path, memory: Any) -> None:
        memory.pipe("/at/a/..tr%61in 0:*.tar", b"12345")
        memory.pipe("/at/b/..tr%61in 0:*.tar", b"6")
        urls = [f"memory://at/{folder}/..tr%61in 0:*.tar" for folder in "ab"]
        found = [fetched(url, tmp_path / "copies") for url in urls]
        assert [path.read_bytes() for path in found] == [b"12345", b"6"]
        assert {path.name for path in found} == {"tr_61in_0__.tar"}
        assert all(path.parent.parent == tmp_path / "copies" for path in found)
        assert fetched(urls[0], tmp_path / "copies") == found[0]  # again: it is replaced

    @pytest.mark.parametrize("failing", ["short", "error"])
    def test_whole_or_not_at_all(
        self, tmp_path: Path, memory: Any, failing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory.pipe("/at/a.tar", b"12345")

        class File:
            def __init__(self) -> None:
                self.pieces = [b"123", b""]

            def __enter__(self) -> File:
                return self

            def __exit__(self, *error: object) -> None: ...

            def size(self) -> int:
                return 5

            def read(self, size: int) -> bytes:
                if len(self.pieces) == 1 and failing == "error":
                    raise OSError("the connection was reset")
                return self.pieces.pop(0)

        class System:
            def get_file_info(self, paths: list[str]) -> Any:
                return real.system.get_file_info(paths)

            def open_input_file(self, path: str) -> File:
                return File()

        real = file_systems.place_of("memory://at/a.tar")
        monkeypatch.setattr(remote, "place_of", lambda url: file_systems.Place(System(), real.path))
        with pytest.raises(
            (DataError, UsageError),
            match=r"3 of 5 bytes came\. Try again|cannot be reached: OSError: the connection was",
        ):
            fetched("memory://at/a.tar", tmp_path / "copies")
        assert [path for path in (tmp_path / "copies").rglob("*") if path.is_file()] == []


class Store(BaseHTTPRequestHandler):
    """As much of S3 as reading takes: the list of a bucket, and objects."""

    objects: ClassVar[dict[str, bytes]] = {}

    def log_message(self, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix("/bucket").strip("/")
        asked = dict(parse_qsl(url.query))
        if not unquote(url.path).startswith("/bucket") or (key and key not in self.objects):
            code = "NoSuchKey" if key else "NoSuchBucket"
            self._send(404, f"<Error><Code>{code}</Code></Error>".encode())
        elif not key:
            self._send(200, self._list(asked.get("prefix", ""), asked.get("delimiter", "")))
        else:
            content, wanted = self.objects[key], self.headers.get("Range")
            if wanted:
                first, last = map(int, wanted.removeprefix("bytes=").split("-"))
                self._send(206, content[first : last + 1], f"bytes {first}-{last}/{len(content)}")
            else:
                self._send(200, content)

    def _list(self, prefix: str, delimiter: str) -> bytes:
        keys = [key for key in sorted(self.objects) if key.startswith(prefix)]
        above = {key[: key.find("/", len(prefix)) + 1] for key in keys if delimiter and "/" in key[len(prefix) :]}
        keys = [key for key in keys if not any(map(key.startswith, above))]
        inside = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[key])}</Size>"
            "<LastModified>2024-05-06T07:08:09.000Z</LastModified></Contents>" for key in keys
        )  # fmt: skip
        inside += "".join(f"<CommonPrefixes><Prefix>{escape(x)}</Prefix></CommonPrefixes>" for x in sorted(above))
        counts = f"<KeyCount>{len(keys) + len(above)}</KeyCount><IsTruncated>false</IsTruncated>"
        return f"<ListBucketResult><Name>bucket</Name>{counts}{inside}</ListBucketResult>".encode()

    def _send(self, status: int, content: bytes, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Mon, 06 May 2024 07:08:09 GMT")
        if part:
            self.send_header("Content-Range", part)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def store() -> Iterator[str]:
    """What follows the path of an address in a store on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"?endpoint_override=127.0.0.1:{server.server_port}&scheme=http&region=x&anonymous=true"
    Store.objects.clear()
    server.shutdown()
    server.server_close()


class TestS3:
    def test_photos_and_shards(self, store: str, tmp_path: Path, home: Path) -> None:
        plant(tmp_path, "train/cat/1.jpg", "train/dog/a b#%20ä.png", "test/cat/3.jpg", "test/dog/4.webp", "test/5.jpg")
        here = open_source(tmp_path)
        Store.objects |= {f"my photos/{path.relative_to(tmp_path).as_posix()}": path.read_bytes()
                          for path in tmp_path.rglob("*.*")}  # fmt: skip
        Store.objects["shards/a.tar"] = write_tar(tmp_path / "a.tar", PETS).read_bytes()
        there = open_source(f"s3://bucket/my photos{store}")
        assert there.samples == here.samples
        assert contents(there) == contents(here)
        assert there.files is not None
        assert [*map(read, there.files)] == contents(here)
        assert listed(f"s3://bucket/shards{store}") == [("a.tar", len(Store.objects["shards/a.tar"]), 1714979289.0)]
        assert shards_in(f"s3://bucket/shards{store}") == [f"s3://bucket/shards/a.tar{store}"]
        assert contents(open_source(f"s3://bucket/shards{store}")) == [b"cat 0", b"dog 1", b"cat 2"]

    def test_what_is_not_there(self, store: str) -> None:
        for address in ("s3://bucket/none", "s3://none/photos"):
            with pytest.raises(UsageError, match="No such file or folder: 's3://"):
                listed(address + store)
        with pytest.raises(UnreadableImageError):
            read(f"s3://bucket/none.jpg{store}")


class TestErrors:
    def test_nobody_listens(self) -> None:
        begin = time.monotonic()
        for ask in (listed, shards_in, open_source):
            with pytest.raises(UsageError, match=r"'s3://bucket/x\?endpoint.*' cannot be reached: .*127\.0\.0\.1"):
                ask("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=x")
        with pytest.raises(UnreadableImageError, match="127"):
            read("s3://bucket/x.jpg?endpoint_override=127.0.0.1:9&scheme=http&region=x")
        assert time.monotonic() - begin < 60

    def test_no_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(file_systems, "SECONDS", 0.1)
        answer = threading.Event()
        with pytest.raises(UsageError, match="'s3://bucket' cannot be reached: no answer in 0 s"):
            file_systems.answered("s3://bucket", answer.wait)
        answer.set()

    def test_no_rights(self) -> None:
        for error in (PermissionError("no"), OSError("AWS Error ACCESS_DENIED during HeadObject operation: no")):
            found = file_systems.in_words("s3://key:word@bucket/x", error)
            assert isinstance(found, UsageError)
            assert "'s3://bucket/x' cannot be read: permission denied. Expected credentials" in str(found)

    def test_wrong_addresses(self) -> None:
        with pytest.raises(UsageError, match="expected one of region, scheme, endpoint_override, anonymous"):
            listed("s3://bucket/x?endpoint=y")
        with pytest.raises(UsageError, match=r"expected an address of s3://.* or of a protocol of fsspec"):
            listed("nothing://x/y")
        with pytest.raises(UsageError, match="with three slashes"):
            listed("file://x/y")

    def test_libraries_that_are_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "fsspec.core", None)
        with pytest.raises(UsageError, match=r"memory:// need fsspec, which is not installed\. .*pip install fsspec"):
            listed("memory://x")
        monkeypatch.undo()
        with pytest.raises(UsageError, match=r"sftp:// need another library: .*paramiko"):
            listed("sftp://x/y") if "paramiko" not in sys.modules else pytest.skip("paramiko is there")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingExtraError, match=r"headstart\[data\]"):
            listed("s3://bucket/x")

    def test_a_password_is_not_shown(self) -> None:
        url = "s3://key:pass@bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=x"
        with pytest.raises(UsageError) as caught:
            remote_dataset(url, Columns())
        assert "pass" not in str(caught.value)


def test_fit_takes_an_address(tmp_path: Path, place: Any) -> None:
    rng = np.random.default_rng(0)
    for label, colour in (("blue", 2), ("red", 0)):
        for k in range(12):
            pixels = rng.integers(0, 120, (24, 24, 3), np.uint8)
            pixels[..., colour] += 120
            Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
            plant(tmp_path, f"{label}/{k}.png", content=file.getvalue())
    here = hs.fit(tmp_path, pixels=32, cache=False, progress=False)
    there = hs.fit(place(tmp_path), pixels=32, cache=False, progress=False)
    assert sorted(there.fitted_on) == sorted(here.fitted_on)
    assert os.fspath(there.save(tmp_path / "model")).endswith("model")
