"""Data sets in tar files, as WebDataset writes them."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tarfile
import tempfile
import threading
import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import headstart as hs
from headstart.core.errors import DataError, UnreadableImageError, UsageError
from headstart.data import open_files, tar_samples, tars
from headstart.data.columns import Columns
from headstart.data.open_files import OpenFiles
from headstart.data.sources import open_source, unlabelled
from headstart.data.tar_members import FILE, LINK, OTHER, Flaw, Member, members
from source_files import contents, labels, names, plant, splits, write_parquet

JPEG = b"\xff\xd8\xff\xe0" + bytes(40)


def write_tar(
    path: Path, files: Mapping[str, bytes] | Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if form == tarfile.PAX_FORMAT:
                info.mtime = 1.5  # as WebDataset: each member has an extended header then
            tar.addfile(info, io.BytesIO(content))
    return path


def problems(dataset: hs.ImageDataset) -> dict[str, str]:
    return {problem.name: problem.kind for problem in dataset.problems}


PETS = {"a/0.jpg": b"cat 0", "a/0.cls": b"0", "a/1.jpg": b"dog 1", "a/1.cls": b"1", "2.png": b"cat 2", "2.cls": b"0\n"}


class TestLabels:
    def test_of_cls(self, tmp_path: Path) -> None:
        dataset = open_source(write_tar(tmp_path / "pets.tar", PETS))
        assert labels(dataset) == {"pets.tar/a/0.jpg": "0", "pets.tar/a/1.jpg": "1", "pets.tar/2.png": "0"}
        assert contents(dataset) == [b"cat 0", b"dog 1", b"cat 2"]
        assert dataset.read(1) == b"dog 1"
        assert dataset.problems == ()
        assert dataset.files == [str(tmp_path / "pets.tar")] * 3
        part = dataset.part([2, 0])
        assert contents(part) == [b"cat 2", b"cat 0"]
        content = (tmp_path / "pets.tar").read_bytes()
        assert part.spans is not None
        assert [content[at : at + size] for at, size in zip(*part.spans, strict=True)] == [b"cat 2", b"cat 0"]

    def test_of_json_with_group_and_split(self, tmp_path: Path) -> None:
        facts = [
            {"Label": "cat", "patient_id": 7, "split": "train"},
            {"label": " dog ", "patient_id": None, "split": "validation"},
            {"label": 3, "set": "of tools"},
        ]
        files = {f"{k}.jpg": b"%d" % k for k in range(3)} | {
            f"{k}.json": json.dumps(x).encode() for k, x in enumerate(facts)
        }
        dataset = open_source(write_tar(tmp_path / "a.tar", files))
        assert [(s.label, s.group, s.split) for s in dataset.samples] == [
            ("cat", "7", "train"),
            ("dog", "", "val"),
            ("3", "", ""),
        ]
        named = open_source(tmp_path / "a.tar", label_column="patient_id", group_column="label")
        assert [(s.label, s.group) for s in named.samples] == [("7", "cat")]
        assert problems(named) == {"a.tar/1.jpg": "no label", "a.tar/2.jpg": "no label"}
        with pytest.raises(DataError, match=r"no column for the label: expected 'breed'; received .*'patient_id'"):
            open_source(tmp_path / "a.tar", label_column="breed")

    def test_cls_goes_before_json_in_either_order(self, tmp_path: Path) -> None:
        both = [("0.json", b'{"label": "no", "group": "g"}'), ("0.jpg", b"0"), ("0.cls", b"yes")]
        for order in (both, both[::-1]):
            (sample,) = open_source(write_tar(tmp_path / "a.tar", order)).samples
            assert (sample.label, sample.group) == ("yes", "g")

    def test_of_folders_where_nothing_else_says_it(self, tmp_path: Path) -> None:
        files = {
            "./cat/1.jpg": b"1",
            "./cat/deep/2.jpg": b"2",
            "./dog/3.jpg": b"3",
            "./4.jpg": b"4",
            "cat/1.txt": b"a cat",
        }
        dataset = open_source(write_tar(tmp_path / "a.tar", files))
        assert labels(dataset) == {"a.tar/cat/1.jpg": "cat", "a.tar/cat/deep/2.jpg": "cat", "a.tar/dog/3.jpg": "dog"}
        assert problems(dataset) == {"a.tar/4.jpg": "no label"}
        parts = {f"set/{part}/{name}/1.jpg": name.encode() for part in ("train", "test") for name in ("cat", "dog")}
        assert Counter(splits(open_source(write_tar(tmp_path / "b.tar", parts))).values()) == {"train": 2, "test": 2}

    def test_no_image_without_a_label_is_given_its_folder_beside_others_with_one(self, tmp_path: Path) -> None:
        dataset = open_source(
            write_tar(tmp_path / "a.tar", {**PETS, "train/3.jpg": b"3", "a/4.jpg": b"4", "a/4.cls": b" "})
        )
        assert len(dataset) == 3
        assert problems(dataset) == {"a.tar/train/3.jpg": "no label", "a.tar/a/4.jpg": "no label"}
        assert [problem.detail for problem in dataset.problems][-1] == "'cls' is blank"

    def test_of_names(self, tmp_path: Path) -> None:
        file = write_tar(tmp_path / "a.tar", {"cat_1.jpg": b"1", "dog_2.jpg": b"2", "3.jpg": b"3", "3.cls": b"x"})
        dataset = open_source(file, label_from="([a-z]+)_")
        assert labels(dataset) == {"a.tar/cat_1.jpg": "cat", "a.tar/dog_2.jpg": "dog"}
        assert problems(dataset) == {"a.tar/3.jpg": "no label"}
        assert contents(dataset) == [b"1", b"2"]

    @pytest.mark.parametrize(
        ("more", "why"),
        [
            ({"0.json": b"{"}, r"its \.json cannot be read"),
            ({"0.json": b"[" * 100_000}, r"its \.json cannot be read"),
            ({"0.json": b"[1]"}, r"holds no fields"),
            ({"0.json": b'{"label": [1]}'}, "'label' holds list, not text"),
            ({"0.json": b'{"label": 0.5}'}, "'label' holds float, not text"),
            ({"0.cls": b"\xff\xff"}, r"its \.cls cannot be read"),
            ({"0.cls": b"a\nb"}, "several lines"),
            ({"0.cls": b"x" * (tar_samples.MOST_FACTS + 1)}, "up to 1,048,576 are read"),
        ],
    )
    def test_that_are_none(self, tmp_path: Path, more: dict[str, bytes], why: str) -> None:
        dataset = open_source(write_tar(tmp_path / "a.tar", {**PETS, "0.jpg": b"0", **more}))
        assert len(dataset) == 3
        (problem,) = dataset.problems
        assert (problem.name, problem.kind) == ("a.tar/0.jpg", "no label")
        assert re.search(why, problem.detail)

    def test_captions_are_none(self, tmp_path: Path) -> None:
        meta = json.dumps({"caption": "a cat", "url": "x"}).encode()
        file = write_tar(tmp_path / "a.tar", {"0.jpg": b"0", "0.txt": b"a cat", "0.json": meta})
        with pytest.raises(
            DataError, match=r"Expected a \.cls beside .*'caption', 'url'\. Say which .*label_column=COLUMN"
        ):
            open_source(file)
        assert open_source(file, label_column="txt").samples[0].label == "a cat"
        assert open_source(file, label_column="caption").samples[0].label == "a cat"


class TestImages:
    def test_two_of_a_key_are_two_samples(self, tmp_path: Path) -> None:
        files = {
            "0.left.jpg": b"l",
            "0.right.png": b"r",
            "0.cls": b"a",
            "1.left.jpg": b"x",
            "1.left.cls": b"b",
            "1.cls": b"c",
        }
        dataset = open_source(write_tar(tmp_path / "a.tar", files))
        assert labels(dataset) == {"a.tar/0.left.jpg": "a", "a.tar/0.right.png": "a", "a.tar/1.left.jpg": "b"}
        assert contents(open_source(tmp_path / "a.tar", image_column="right.png")) == [b"r"]

    def test_of_one_name_the_last_counts_as_where_it_is_unpacked(self, tmp_path: Path) -> None:
        dataset = open_source(write_tar(tmp_path / "a.tar", [*PETS.items(), ("a/0.jpg", b"newer")]))
        assert contents(dataset) == [b"newer", b"dog 1", b"cat 2"]
        assert problems(dataset) == {"a.tar/a/0.jpg": "left out"}

    def test_of_one_key_in_two_shards_both_count(self, tmp_path: Path) -> None:
        for k in range(2):
            write_tar(tmp_path / f"{k}.tar", {"0.jpg": b"%d" % k, "0.cls": b"c%d" % k})
        dataset = open_source(tmp_path)
        assert labels(dataset) == {"0.tar/0.jpg": "c0", "1.tar/0.jpg": "c1"}
        assert contents(dataset) == [b"0", b"1"]

    def test_content_decides_where_the_name_says_nothing_and_no_other_image_is_there(self, tmp_path: Path) -> None:
        files = {
            "0.img": JPEG,
            "0.cls": b"a",
            "1.jpg": b"1",
            "1.mask": JPEG,
            "1.cls": b"b",
            "2.npy": b"x",
            "2.cls": b"c",
        }
        dataset = open_source(write_tar(tmp_path / "a.tar", files))
        assert names(dataset) == ["a.tar/1.jpg", "a.tar/0.img"]
        assert sorted((p.name, p.kind) for p in dataset.problems) == [
            ("a.tar/2", "no image"),
            ("a.tar/2.npy", "unreadable"),
        ]

    def test_what_systems_leave_behind_is_passed_over(self, tmp_path: Path) -> None:
        more = {
            "._a/0.jpg": b"0",
            "a/._0.jpg": b"0",
            ".git/1.jpg": b"1",
            "README": b"read",
            "a/notes.txt": b"",
            "": b"",
        }
        dataset = open_source(write_tar(tmp_path / "a.tar", {**PETS, **more}))
        assert (len(dataset), dataset.problems) == (3, ())

    def test_links_lead_to_members_and_devices_to_nothing(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            for name, content in {"cat/1.jpg": b"one", "dog/2.jpg": b"two"}.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            for name, kind, target in (
                ("dog/hard.jpg", tarfile.LNKTYPE, "cat/1.jpg"),
                ("dog/soft.jpg", tarfile.SYMTYPE, "../cat/1.jpg"),
                ("dog/gone.jpg", tarfile.SYMTYPE, "/etc/passwd"),
                ("dog/device.jpg", tarfile.CHRTYPE, ""),
                ("dog/pipe.jpg", tarfile.FIFOTYPE, ""),
                ("dog/folder.jpg", tarfile.DIRTYPE, ""),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, target
                tar.addfile(info)
        dataset = open_source(tmp_path / "a.tar")
        assert contents(dataset) == [b"one", b"two", b"one", b"one"]
        assert labels(dataset)["a.tar/dog/soft.jpg"] == "dog"
        kinds = {"gone": "missing", "device": "unreadable", "pipe": "unreadable"}
        assert problems(dataset) == {f"a.tar/dog/{name}.jpg": kind for name, kind in kinds.items()}

    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_names_of_all_kinds(self, tmp_path: Path, form: int) -> None:
        long = "x" * 90 + "/" + "y" * 90
        given = [
            f"cat/{long}.jpg",
            "/cat/2.jpg",
            "../cat/3.jpg",
            "cat/käfer.jpg",
            os.fsdecode(b"cat/\xff.jpg"),
            "cat/.4.jpg",
        ]
        dataset = open_source(write_tar(tmp_path / "a.tar", [(name, b"%d" % k) for k, name in enumerate(given)], form))
        shown = [
            f"a.tar/{name}"
            for name in (f"cat/{long}.jpg", "cat/2.jpg", "../cat/3.jpg", "cat/käfer.jpg", r"cat/\xff.jpg")
        ]
        assert names(dataset) == shown
        assert contents(dataset) == [b"0", b"1", b"2", b"3", b"4"]
        assert [*tmp_path.iterdir()] == [tmp_path / "a.tar"]

    def test_sparse_files_are_told_of_and_what_follows_is_read(self, tmp_path: Path) -> None:
        head = tarfile.TarInfo("cat/1.jpg")
        head.size, head.type = 512, tarfile.GNUTYPE_SPARSE
        raw = bytearray(head.tobuf(tarfile.GNU_FORMAT))
        raw[482] = 1  # its map goes on in another block
        raw[148:156] = b"%06o\0 " % (sum(raw) - sum(raw[148:156]) + 256)
        (rest := io.BytesIO()).name = "rest"
        with tarfile.open(fileobj=rest, mode="w") as tar:
            (info := tarfile.TarInfo("dog/2.jpg")).size = 3
            tar.addfile(info, io.BytesIO(b"two"))
        (tmp_path / "a.tar").write_bytes(bytes(raw) + bytes(512) + b"z" * 512 + rest.getvalue())
        dataset = open_source(tmp_path / "a.tar")
        assert contents(dataset) == [b"two"]
        assert problems(dataset) == {"a.tar/cat/1.jpg": "unreadable"}


class TestDamage:
    def shard(self, tmp_path: Path, form: int = tarfile.GNU_FORMAT) -> tuple[Path, bytes]:
        files = [(f"{k}.{end}", b"%d" % k * (700 if end == "jpg" else 1)) for k in range(4) for end in ("jpg", "cls")]
        path = write_tar(tmp_path / "a.tar", files, form)
        return path, path.read_bytes()

    def test_a_damaged_header_costs_its_member(self, tmp_path: Path) -> None:
        path, content = self.shard(tmp_path)
        at = content.index(b"1.jpg\0")
        path.write_bytes(content[: at + 3] + b"X" + content[at + 4 :])
        dataset = open_source(path)
        assert names(dataset) == ["a.tar/0.jpg", "a.tar/2.jpg", "a.tar/3.jpg"]
        assert contents(dataset) == [b"%d" % k * 700 for k in (0, 2, 3)]
        assert problems(dataset) == {"a.tar": "truncated", "a.tar/1": "no image"}
        assert dataset.problems[0].detail == f"at byte {at:,}: a header is damaged: 1,536 bytes are passed over"

    def test_a_file_that_was_cut(self, tmp_path: Path) -> None:
        """At any place behind the first image: what is there is read, and the cut is told of."""
        path, content = self.shard(tmp_path)
        first, end = content.index(b"0.cls\0") + 513, content.index(b"3.cls\0") + 1024
        for size in (*range(first, end, 300), *range(first - 1 + 512, end, 512), end - 1, end + 100):
            path.write_bytes(content[:size])
            dataset = open_source(path)
            assert contents(dataset) == [b"%d" % k * 700 for k in range(len(dataset))]
            assert len(dataset) >= (size - 512) // 2560
            assert dataset.problems
        for size in (1, 600, 1300, 1536, first - 1):
            path.write_bytes(content[:size])
            with pytest.raises(DataError, match=r"no tar|no image|nothing says the class"):
                open_source(path)

    def test_cut_or_removed_while_it_is_read(self, tmp_path: Path) -> None:
        path, content = self.shard(tmp_path)
        dataset = open_source(path)
        path.write_bytes(content[:1000])
        with pytest.raises(UnreadableImageError, match="212 of its 700 bytes are not there"):
            dataset.read(0)
        dataset = open_source(write_tar(path, PETS))
        path.unlink()
        with pytest.raises(OSError, match="No such file"):
            dataset.read(0)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "it is empty"),
            (b"what is that" * 1000, "no tar, or is damaged: it begins b'what is "),
            (gzip.compress(b"x" * 2000, mtime=0), "is packed. Expected an uncompressed tar"),
            (bytes(10240), "has no image in it. Expected a .cls"),
        ],
        ids=["empty", "text", "packed", "zeros"],
    )
    def test_no_tar_at_all(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_source(tmp_path / "a.tar")

    def test_sizes_beyond_the_file(self, tmp_path: Path) -> None:
        for size in (10**6, 8**11 - 1, 2**70):
            (head := tarfile.TarInfo("0.jpg")).size = size
            path, content = self.shard(tmp_path)
            path.write_bytes(content[: content.index(b"3.cls\0") + 1024] + head.tobuf(tarfile.GNU_FORMAT) + b"abc")
            dataset = open_source(path)
            assert len(dataset) == 4
            assert problems(dataset) == {"a.tar/0.jpg": "truncated"}

    def test_tars_that_were_joined_are_read_to_the_end(self, tmp_path: Path) -> None:
        path, content = self.shard(tmp_path)
        other = write_tar(tmp_path / "b.tar", {"9.jpg": b"9", "9.cls": b"9"}).read_bytes()
        path.write_bytes(content + other)
        dataset = open_source(path)
        assert (names(dataset)[-1], dataset.problems) == ("a.tar/9.jpg", ())

    def test_a_part_that_was_written_over_with_zeros_is_told_of(self, tmp_path: Path) -> None:
        path, content = self.shard(tmp_path)
        at = content.index(b"1.jpg\0")
        path.write_bytes(content[:at] + bytes(2560) + content[at + 2560 :])
        dataset = open_source(path)
        assert names(dataset) == ["a.tar/0.jpg", "a.tar/2.jpg", "a.tar/3.jpg"]
        assert [each.detail for each in dataset.problems] == [
            f"at byte {at:,}: 2,560 zeros, as where a part of a file is lost"
        ]

    @pytest.mark.parametrize("extended", [b"11 path=a", b"x path=a.jpg\n", b"99 path=a.jpg\n", b"13 path:a.jp\n"])
    def test_damaged_extended_headers(self, tmp_path: Path, extended: bytes) -> None:
        path, content = self.shard(tmp_path)
        (head := tarfile.TarInfo("x")).size, head.type = len(extended), tarfile.XHDTYPE
        path.write_bytes(head.tobuf() + extended.ljust(512, b"\0") + content)
        dataset = open_source(path)
        assert len(dataset) == 4
        assert "an extended header is damaged" in dataset.problems[0].detail

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_whatever_byte_changes_nothing_is_wrong_or_lost_in_silence(self, data: st.DataObject) -> None:
        form = data.draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        with tempfile.TemporaryDirectory() as folder:
            path, content = self.shard(Path(folder), form)
            changed = bytearray(content)
            at = data.draw(st.integers(0, len(content) - 9000))
            changed[at] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(changed)
            dataset = open_source(path)
            sound = {f"a.tar/{k}.jpg": (b"%d" % k * 700, str(k)) for k in range(4)}
            found = {s.name: (dataset.read(k), s.label) for k, s in enumerate(dataset.samples)}
            differing = [name for name in sound if found.get(name) != sound[name]]
            assert found.keys() <= sound.keys()
            assert len(differing) <= 1
            assert dataset.problems or not differing or content[at] in b"0123"  # a byte of a content has no checksum


class TestMembers:
    @settings(max_examples=80, deadline=None)
    @given(st.data())
    def test_the_same_as_the_standard_library_reads(self, data: st.DataObject) -> None:
        form = data.draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        letters = "ab/.é\u4e2d =\n" if form != tarfile.USTAR_FORMAT else "ab/. ="
        name = st.text(letters, min_size=1, max_size=300 if form != tarfile.USTAR_FORMAT else 90)
        kinds = st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE,
                                 tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])  # fmt: skip
        given_members = data.draw(
            st.lists(st.tuples(name, kinds, st.binary(max_size=1200), name, st.booleans()), max_size=6)
        )
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=form) as tar:
            for each, kind, given_content, target, pax in given_members:
                info = tarfile.TarInfo(each)
                info.type, info.linkname = kind, target
                folder = kind == tarfile.AREGTYPE and each.endswith("/")  # as old tars have it
                content = b"" if folder else given_content
                info.mtime = 0.5 if pax and form == tarfile.PAX_FORMAT else 0
                info.size = len(content) if info.isreg() else 0
                tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
        file.seek(0)
        raw = file.getvalue()
        with tarfile.open(fileobj=file) as tar:
            expected = [(m.name.rstrip("/"), m.isreg(), m.offset_data, m.size if m.isreg() else 0) for m in tar]
            targets = [m.linkname for m in tar.getmembers() if m.islnk() or m.issym()]
        found = [*members(io.BufferedReader(io.BytesIO(raw)), len(raw))]
        assert all(isinstance(each, Member) for each in found)
        sound = [each for each in found if isinstance(each, Member)]
        assert [
            (m.name.rstrip("/"), m.kind == FILE, m.offset, m.size if m.kind == FILE else 0) for m in sound
        ] == expected
        assert [m.target for m in sound if m.kind == LINK] == targets
        assert {m.kind for m in sound} <= {FILE, LINK, OTHER}

    def test_numbers_of_large_files_and_old_checksums(self) -> None:
        info = tarfile.TarInfo("\xff.jpg")
        info.size = 9 * 8**11  # more than octal digits hold
        head = bytearray(info.tobuf(tarfile.GNU_FORMAT, "latin-1"))
        for old in (False, True):
            if old:
                head[148:156] = b"%06o\0 " % (sum(head) - sum(head[148:156]) + 256 - 256 * sum(x > 127 for x in head))
            member, *rest = members(io.BufferedReader(io.BytesIO(bytes(head))), 512)
            assert isinstance(member, Member)
            assert (member.size, member.offset, rest) == (9 * 8**11, 512, [])

    def test_a_header_in_a_damaged_part_is_no_header(self) -> None:
        """A text with its mark, at the right place, without its checksum."""
        fake = bytes(257) + b"ustar" + bytes(250)
        sound = tarfile.TarInfo("0.jpg").tobuf(tarfile.GNU_FORMAT)
        shifted = b"x" * 612 + sound + b"x" * 412
        found = [*members(io.BufferedReader(io.BytesIO(shifted)), len(shifted))]
        assert found == [Flaw(0, "a header is damaged: 1,536 bytes are passed over")]
        found = [*members(io.BufferedReader(io.BytesIO(b"x" * 512 + fake + bytes(1024))), 2048)]
        assert found == [Flaw(0, "a header is damaged: 2,048 bytes are passed over")]


class TestPlaces:
    def shards(self, root: Path) -> list[str]:
        for name in ("train-000000", "train-000001", "val-000000", "test-000000"):
            files = {f"{k}.jpg": f"{name} {k}".encode() for k in range(3)} | {
                f"{k}.cls": b"%d" % (k % 2) for k in range(3)
            }
            write_tar(root / f"{name}.tar", files)
        return sorted(os.listdir(root))

    def test_a_folder_of_shards(self, tmp_path: Path) -> None:
        self.shards(tmp_path)
        plant(tmp_path, "sizes.json", "README.md")
        dataset = open_source(tmp_path)
        assert Counter(splits(dataset).values()) == {"train": 6, "val": 3, "test": 3}
        assert names(dataset)[3] == "train-000000.tar/0.jpg"
        assert dataset.root == str(tmp_path)
        for sample, content in zip(dataset.samples, contents(dataset), strict=True):
            shard, _, name = sample.name.partition(".tar/")
            assert content.decode() == f"{shard} {name[0]}"

    def test_in_folders_of_parts(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            write_tar(tmp_path / part / "0.tar", PETS)
        dataset = open_source(tmp_path)
        assert Counter(splits(dataset).values()) == {"train": 3, "test": 3}
        assert names(dataset)[0] == "test/0.tar/a/0.jpg"

    @pytest.mark.parametrize("pattern", ["train-{000000..000001}.tar", "train-*.tar", "{train,train}-00000{0..1}.tar"])
    def test_patterns(self, tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shards(tmp_path / "shards")
        monkeypatch.chdir(tmp_path)
        for given_path in (f"shards/{pattern}", tmp_path / "shards" / pattern):
            dataset = open_source(given_path)
            assert {name.partition("/")[0] for name in names(dataset)} == {"train-000000.tar", "train-000001.tar"}
            assert set(splits(dataset).values()) == {""}
            assert contents(dataset)[:3] == [b"train-000000 0", b"train-000000 1", b"train-000000 2"]

    def test_patterns_of_parquet_files(self, tmp_path: Path) -> None:
        for k in range(2):
            write_parquet(tmp_path / f"{k}.parquet", [(b"%d" % k, 0), (b"2", 1)])
        for pattern in ("{0..1}.parquet", "*.parquet"):
            assert names(open_source(tmp_path / pattern)) == [
                f"{k}.parquet#{row}" for k in range(2) for row in range(2)
            ]

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        self.shards(tmp_path)
        with pytest.raises(UsageError, match=r"2 of 4 files are not there, first '.*train-000002\.tar'"):
            open_source(tmp_path / "train-{000000..000003}.tar")
        with pytest.raises(UsageError, match="expected a first number and a last one"):
            open_source(tmp_path / "train-{3..1}.tar")
        with pytest.raises(UsageError, match="expected a first number and a last one, up to"):
            open_source(tmp_path / "train-{0..99999999999}.tar")
        with pytest.raises(UsageError, match="Braces stand for tar files"):
            open_source(plant(tmp_path, "a.jpg", "b.jpg") / "{a,b}.jpg")
        with pytest.raises(UsageError, match="No such file or folder"):
            open_source(tmp_path / "none.tar")

    def test_beside_images_tars_are_no_data_set(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "a.tar", PETS)
        plant(tmp_path, "cat/1.jpg", "dog/2.jpg")
        dataset = open_source(tmp_path)
        assert names(dataset) == ["cat/1.jpg", "dog/2.jpg"]
        assert problems(dataset) == {"a.tar": "unreadable"}

    def test_beside_parquet_files(self, tmp_path: Path) -> None:
        """Of the same names, as img2dataset writes them, these hold no images; of other names they are the data set."""
        write_tar(tmp_path / "a.tar", PETS)
        write_parquet(tmp_path / "a.parquet", [(b"1", 0), (b"2", 1)])
        assert len(open_source(tmp_path)) == 3
        write_parquet(tmp_path / "b.parquet", [(b"1", 0), (b"2", 1)])
        assert len(open_source(tmp_path)) == 4

    @pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
    def test_packed_tars_are_refused_with_what_to_do(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match=r"is a packed tar\. Expected an uncompressed tar.*gunzip"):
            open_source(plant(tmp_path, name) / name)
        with pytest.raises(UsageError, match=r"nor a CSV, Parquet, tar or IDX file\. Unpack it first"):
            open_source(plant(tmp_path, "a.zip") / "a.zip")


class TestReading:
    def test_without_labels_to_predict_on(self, tmp_path: Path) -> None:
        files = [
            write_tar(tmp_path / f"{k}.tar", {"0.jpg": b"%d" % k, "c/1.jpg": b"x", "c/1.cls": b"c"}) for k in range(2)
        ]
        assert contents(unlabelled(files[0])) == [b"0", b"x"]
        dataset = unlabelled(files)
        assert labels(dataset) == {f"{k}.tar/{name}": "" for k in range(2) for name in ("0.jpg", "c/1.jpg")}
        assert contents(dataset) == [b"0", b"x", b"1", b"x"]
        files[0].write_bytes(files[0].read_bytes()[:1537])
        with pytest.warns(hs.DataWarning, match=r"1 image is left out: truncated .1., first '0.tar'"):
            assert contents(unlabelled(files[0])) == [b"0"]

    def test_many_threads_many_shards_and_few_open_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(open_files, "MOST_OPEN", 3)
        rng = np.random.default_rng(0)
        made = {f"{k:02d}.tar/{row}.jpg": rng.bytes(int(rng.integers(0, 4000))) for k in range(12) for row in range(20)}
        for k in range(12):
            rows = {name[7:]: content for name, content in made.items() if name.startswith(f"{k:02d}")}
            write_tar(tmp_path / f"{k:02d}.tar", rows | {f"{row}.cls": b"a" for row in range(20)})
        dataset, most = open_source(tmp_path), [0]
        order = [*rng.permutation(len(dataset)).tolist(), *range(len(dataset))]
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

        def read(row: int) -> Any:
            content = dataset.read(row)
            if before:
                most[0] = max(most[0], len(os.listdir("/proc/self/fd")))
            return content

        with ThreadPoolExecutor(6) as pool:
            assert [*pool.map(read, order)] == [made[dataset.samples[row].name] for row in order]
        assert most[0] <= before + 3 + 6 + 7  # kept, of readers that are not done, and of looking

    def test_where_a_file_has_one_place_for_all_threads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on Windows."""
        monkeypatch.delattr(os, "pread", raising=False)
        dataset = open_source(write_tar(tmp_path / "a.tar", PETS))
        with ThreadPoolExecutor(4) as pool:
            assert [*pool.map(dataset.read, [0, 1, 2] * 50)] == [b"cat 0", b"dog 1", b"cat 2"] * 50

    def test_files_are_closed_with_the_data_set(self, tmp_path: Path) -> None:
        if not os.path.isdir("/proc/self/fd"):
            pytest.skip("the system does not list open files")
        cache, file = OpenFiles(), plant(tmp_path, "a") / "a"
        before = len(os.listdir("/proc/self/fd"))
        assert cache.read(str(file), 0, 1) == b"a"
        assert len(os.listdir("/proc/self/fd")) == before + 1
        del cache
        assert len(os.listdir("/proc/self/fd")) == before

    def test_a_member_takes_little_memory(self, tmp_path: Path) -> None:
        """Of 4000 images with a label each."""
        files = {f"{k:06d}.{end}": b"1" for k in range(4000) for end in ("jpg", "cls")}
        path = write_tar(tmp_path / "a.tar", files, tarfile.USTAR_FORMAT)
        open_source(path)
        tracemalloc.start()
        try:
            dataset = tars.tar_dataset(str(path), [str(path)], Columns())
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert len(dataset) == 4000
        assert held < 200 * 2 * len(dataset)

    def test_images_are_not_read_for_their_labels(self, tmp_path: Path) -> None:
        """The file may have holes where they are."""
        path = tmp_path / "a.tar"
        with path.open("wb") as file:
            for k in range(3):
                for end, size in (("jpg", 10**9), ("cls", 1)):
                    (head := tarfile.TarInfo(f"{k}.{end}")).size = size
                    file.write(head.tobuf(tarfile.GNU_FORMAT))
                    if end == "cls":
                        file.write(b"a")
                    file.seek(-(-size // 512) * 512 - (end == "cls"), os.SEEK_CUR)
            file.write(bytes(1024))
        finished = threading.Event()
        dataset = open_source(path)
        finished.set()
        assert (len(dataset), dataset.problems) == (3, ())
        with pytest.raises(UnreadableImageError, match="1,000,000,000 bytes, and up to"):
            dataset.read(0)


def test_the_same_photos_in_folders_and_in_tars_make_the_same_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos: dict[str, bytes] = {}
    for label, colour in (("blue", 2), ("red", 0)):
        for k in range(14):
            pixels = rng.integers(0, 120, (24, 24, 3), np.uint8)
            pixels[..., colour] += 120
            Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
            photos[f"{label}/{k:02d}.png"] = file.getvalue()
    for name, content in photos.items():
        plant(tmp_path / "photos", name, content=content)
    by_shard = [dict(list(photos.items())[k::2]) for k in range(2)]
    for k, shard in enumerate(by_shard):
        write_tar(tmp_path / "folders" / f"{k}.tar", shard)
        flat = {name.replace("/", "-"): content for name, content in shard.items()}
        labelled = flat | {name[:-3] + "cls": name.partition("-")[0].encode() for name in flat}
        write_tar(tmp_path / "cls" / f"{k}.tar", labelled)
    models = [
        hs.fit(tmp_path / place, pixels=32, cache=False, progress=False) for place in ("photos", "folders", "cls")
    ]
    first = models[0]
    for model in models[1:]:
        assert model.classes == first.classes
        assert sorted(model.fitted_on) == sorted(first.fitted_on)
    some = [tmp_path / "photos" / name for name in [*photos][::5]]
    found = [model.predict_proba(some) for model in models]
    for each in found[1:]:
        np.testing.assert_allclose(each, found[0], atol=1e-3)
