"""Tables of predictions of many images: after a kill, a full disk or damage the same call ends with the same table."""

from __future__ import annotations

import csv
import errno
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import headstart as hs
from headstart.model.partial_table import PartialTable, partial_name
from making import SHAPES, Shell, packed, picture


@pytest.fixture(scope="module")
def model(small_bundle: Path) -> hs.Classifier:
    return hs.load(small_bundle)


@pytest.fixture
def many(photos: Path, tmp_path: Path) -> list[str]:
    """Sixty files, of which rows 20, 57 and 58 cannot be read."""
    data, there = tmp_path / "data", sorted(photos.rglob("*.png"))
    data.mkdir()
    for row in range(60):
        shutil.copy(there[row % len(there)], data / f"{row}.png")
    (data / "20.png").write_bytes(there[0].read_bytes()[:900])
    (data / "57.png").write_text("no photo")
    (data / "58.png").unlink()
    return [str(data / f"{row}.png") for row in range(60)]


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


class StoppedError(Exception):
    """Instead of a kill, in this process."""


def stopped_after(rows: int) -> Any:
    def progress(stage: str, done: int, count: int) -> None:
        if done > rows:
            raise StoppedError

    return progress


def stop(model: hs.Classifier, images: list[str], file: Path, rows: int, **given: Any) -> None:
    with pytest.raises(StoppedError):
        hs.predict_table(model, images, file, progress=stopped_after(rows), **given)
    assert not file.exists()


def test_each_image_is_a_row_in_the_order_of_the_list(model: hs.Classifier, many: list[str], tmp_path: Path) -> None:
    found = hs.predict_table(model, many, tmp_path / "a.csv", top=2)
    rows = table(tmp_path / "a.csv")
    assert [row["path"] for row in rows] == many
    assert [*rows[0]] == ["path", "label", "probability", "unknown", "error", "label_2", "probability_2"]
    for row, item in zip(rows, model.predictions(many), strict=True):
        if isinstance(item, hs.Problem):
            assert row == {
                "path": item.name, "label": "", "probability": "", "unknown": "False",
                "error": f"{item.kind}: {item.detail}", "label_2": "", "probability_2": "",
            }  # fmt: skip
        else:
            assert (row["label"], row["unknown"], row["error"]) == (item.label, str(item.unknown), "")
            assert float(row["probability"]) == pytest.approx(item.probability, abs=1e-6)
    known = [row["label"] for row in rows if row["unknown"] == "False" and not row["error"]]
    assert found.labels == {label: known.count(label) for label in found.labels}
    assert (found.images, found.unreadable, found.kept) == (60, 3, 0)
    assert sum(found.labels.values()) + found.unknown == 57
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "data"}


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_it_goes_on_after_an_interruption(
    name: str, model: hs.Classifier, many: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    given: dict[str, Any] = {"top": 2, "every": True}
    hs.predict_table(model, many, tmp_path / "whole" / name, **given)
    stop(model, many, tmp_path / name, 30, **given)
    stop(model, many, tmp_path / name, 45, **given)
    capsys.readouterr()
    found = hs.predict_table(model, many, tmp_path / name, **given)
    assert "goes on: 32 of 60 images were done" in capsys.readouterr().err  # of 40; those with a cut photo go once more
    assert found.kept == 32
    assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_changed_file_and_a_new_one_are_computed(model: hs.Classifier, photos: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    file = tmp_path / "a.csv"
    with pytest.raises(StoppedError):
        hs.predict_table(model, data, file, progress=stopped_after(32))
    (data / "bars" / "0.png").write_bytes(packed(picture("waves", 77)))
    (data / "waves" / "new.png").write_bytes(packed(picture("waves", 78)))
    found = hs.predict_table(model, data, file)
    assert found.kept == 24
    hs.predict_table(model, data, tmp_path / "anew.csv")
    assert file.read_bytes() == (tmp_path / "anew.csv").read_bytes()
    assert table(file)[0]["label"] == "waves"
    assert len(table(file)) == 37


def test_another_model_or_other_options_start_anew(
    model: hs.Classifier, bundle: Path, many: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, file = hs.load(bundle), tmp_path / "a.csv"
    stop(model, many, file, 30)
    for classifier, given in ((model, {"top": 3}), (other, {"top": 3}), (other, {"crop": False})):
        capsys.readouterr()
        stop(classifier, many, file, 30, **given)
        assert "starts anew" in capsys.readouterr().err
    stop(other, many, file, 40, crop=False)
    assert "starts anew" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "cut", ["half a line", "the last byte", "nothing", "noise", "a byte in the middle", "the first line"]
)
def test_a_damaged_part_is_cut_off(
    cut: str, model: hs.Classifier, many: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hs.predict_table(model, many, tmp_path / "whole.csv")
    file = tmp_path / "a.csv"
    stop(model, many, file, 40)
    part = partial_name(file)
    content = part.read_bytes()
    lines = content.splitlines(keepends=True)
    part.write_bytes(
        {
            "half a line": content[:-20],
            "the last byte": content[:-1],
            "nothing": b"",
            "noise": content + os.urandom(300),
            "a byte in the middle": b"".join([*lines[:20], lines[20].replace(b"[", b"{"), *lines[21:]]),
            "the first line": b"x" + content,
        }[cut]
    )
    capsys.readouterr()
    found = hs.predict_table(model, many, file)
    assert found.kept == {"nothing": 0, "a byte in the middle": 16, "the first line": 0, "noise": 32}.get(cut, 24)
    assert ("starts anew" in capsys.readouterr().err) == (cut == "the first line")
    assert file.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_full_disk_is_said_and_what_is_there_is_kept(
    model: hs.Classifier, many: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.csv"
    hs.predict_table(model, many, tmp_path / "whole.csv")
    with monkeypatch.context() as patched:
        keep = PartialTable.keep

        def full(self: PartialTable, stamp: int, row: list[Any]) -> int:
            if len(partial_name(file).read_bytes().splitlines()) > 20:
                self._opened.write(b"half of a li")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return keep(self, stamp, row)

        patched.setattr(PartialTable, "keep", full)
        with pytest.raises(hs.UsageError, match=r"a\.csv' cannot be written: No space left on device\. What was"):
            hs.predict_table(model, many, file)
    assert not file.exists()
    with monkeypatch.context() as patched:
        patched.setattr("headstart.model.batch.write_table", lambda *_: os.open("/nowhere/at/all", os.O_RDONLY))
        with pytest.raises(hs.UsageError, match="cannot be written"):
            hs.predict_table(model, many, file)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(hs.UsageError, match=r"file/a\.csv' cannot be written"):
        hs.predict_table(model, many, tmp_path / "file" / "a.csv")
    assert hs.predict_table(model, many, file).kept == 48  # all but those that go together with a broken one
    assert file.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_who_watches_may_fail_in_its_own_words(model: hs.Classifier, many: list[str], tmp_path: Path) -> None:
    """Such as a pipe that nobody reads any more."""

    def broken(stage: str, done: int, count: int) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        hs.predict_table(model, many, tmp_path / "a.csv", progress=broken)


def test_a_table_that_is_there_stays_until_the_new_one_is_whole(
    model: hs.Classifier, many: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("of before")
    with pytest.raises(hs.UsageError, match="exists already"):
        hs.predict_table(model, many, file)
    with pytest.raises(StoppedError):
        hs.predict_table(model, many, file, overwrite=True, progress=stopped_after(40))
    assert file.read_text() == "of before"
    assert hs.predict_table(model, many, file, overwrite=True).kept
    assert len(table(file)) == 60
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(hs.UsageError, match=r"folder.csv' cannot be written: Is a directory"):
        hs.predict_table(model, many, tmp_path / "folder.csv", overwrite=True)


def test_a_second_process_is_refused(model: hs.Classifier, many: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    stop(model, many, file, 40)
    before = partial_name(file).read_bytes()
    with (
        FileLock(f"{partial_name(file)}.lock"),
        pytest.raises(hs.UsageError, match=r"Another process is making .*a\.csv"),
    ):
        hs.predict_table(model, many, file)
    assert partial_name(file).read_bytes() == before
    assert hs.predict_table(model, many, file).kept


def test_names_that_are_no_text_or_of_no_file(model: hs.Classifier, many: list[str], tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(os.fsencode(many[0]), odd)
    names = ["a\0b.png", os.fsdecode(odd), f"{tmp_path}/\udce9\n.png", "", str(tmp_path / "data")]
    (tmp_path / "data" / "20.png").unlink()
    hs.predict_table(model, [*names, many[0]], tmp_path / "a.csv")
    rows = table(tmp_path / "a.csv")
    assert rows[0]["error"] == "missing: no file can have this name"
    assert (rows[1]["path"], rows[1]["error"]) == (f"{tmp_path}/caf\\xe9.png", "")
    assert [row["error"] for row in rows[2:4]] == ["missing: no such file or directory"] * 2
    assert len(rows) == 4 + 58 + 1


def test_only_paths_make_a_table(model: hs.Classifier, tmp_path: Path) -> None:
    unfit: Any
    for unfit in ([picture("bars", 0)], 5, [b"bytes"]):
        with pytest.raises(hs.UsageError, match="images: expected paths"):
            hs.predict_table(model, unfit, tmp_path / "a.csv")
    with pytest.raises(hs.UsageError, match="No images given"):
        hs.predict_table(model, [], tmp_path / "a.csv")


def test_kept_numbers_are_the_same(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["ä", 0.1, False, None, 1e-300, 0.7], [None, None, False, "gone: \udce9", None, None]]
    for packed_numbers in (0, 2):
        part = PartialTable(tmp_path / f"{packed_numbers}", {"a": 1}, packed_numbers)
        places = [part.keep(stamp, row) for stamp, row in zip((7, 0), rows, strict=True)]
        assert [part.row_at(place) for place in places] == rows
        part.close()
        again = PartialTable(tmp_path / f"{packed_numbers}", {"a": 1}, packed_numbers)
        assert again.find([7, 8, 0, 7]).tolist() == [places[0], -1, -1, places[0]]
        newer = again.keep(7, rows[1])
        again.close()
        last = PartialTable(tmp_path / f"{packed_numbers}", {"a": 1}, packed_numbers)
        assert last.find([7]).tolist() == [newer]
        last.remove()


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def long_list(photos: Path, tmp_path: Path) -> Path:
    """Names of 3 000 links to photos."""
    there, links = sorted(photos.rglob("*.png")), tmp_path / "links"
    links.mkdir()
    names = [links / f"{row}.png" for row in range(3000)]
    for row, name in enumerate(names):
        name.symlink_to(there[row % len(there)])
    file = tmp_path / "names"
    file.write_text("".join(f"{name}\n" for name in names))
    return file


@pytest.mark.slow
def test_killed_again_and_again_it_has_every_row_once(small_bundle: Path, long_list: Path, tmp_path: Path) -> None:
    hs.predict_table(small_bundle, long_list.read_text().split(), tmp_path / "whole.csv")
    file, number = tmp_path / "a.csv", random.Random(5)
    command = [sys.executable, "-m", "headstart", "predict", str(small_bundle), "-", "--out", str(file)]
    part, least = partial_name(file), 0
    for _ in range(3):
        size = part.stat().st_size if part.exists() else 0
        with long_list.open() as names, subprocess.Popen(command, stdin=names, stderr=subprocess.PIPE) as running:
            assert running.stderr is not None
            wanted = size + number.randrange(100, 30_000)
            while (part.stat().st_size if part.exists() else 0) < wanted and running.poll() is None:
                time.sleep(0.001)
            running.kill()
            said = running.stderr.read().decode()
        assert running.returncode == -9, said
        assert not file.exists()
        assert ("goes on: " in said) == (least > 0)
        assert part.stat().st_size > least
        least = part.stat().st_size - 1000  # what a further run may cut off: at most some rows that go together
    with long_list.open() as names:
        done = subprocess.run(command, stdin=names, check=True, capture_output=True, text=True)
    assert "goes on: " in done.stderr
    assert file.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_names_come_on_standard_input(
    shell: Shell, small_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    def typed(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a[1].png", "two\nlines.png", " blank .png"):
        shutil.copy(photos / "bars" / "0.png", name)
    typed(b"b.png\r\n\na[1].png\ngone.png\n")
    done = shell("predict", small_bundle, "-")
    assert done.code == 3
    assert [line.split()[-1] for line in done.out.splitlines()] == ["b.png", "a[1].png"]
    assert "missing: gone.png" in done.err
    typed(b"two\nlines.png\0 blank .png\0*.png\0")
    assert shell("predict", small_bundle, "b.png", "-", "--out", "a.csv").code == 3
    rows = table(tmp_path / "a.csv")
    assert [row["path"] for row in rows] == ["b.png", "two\nlines.png", " blank .png", "*.png"]
    assert [row["error"] for row in rows] == ["", "", "", "missing: no such file or directory"]
    typed(b"\n")
    refused = shell("predict", small_bundle, "-")
    assert (refused.code, "Standard input has no paths in it" in refused.err) == (2, True)
    typed("b.png\n".encode("utf-16"))
    assert "is UTF-16" in shell("predict", small_bundle, "-").err
    typed(b"b.png\nhttps://example.org/a.jpg\n")
    assert "--urls" in shell("predict", small_bundle, "-").err


def test_what_was_sorted_is_not_sorted_again(
    shell: Shell, small_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("predict", small_bundle, photos, "--out", tmp_path / "a.csv", "--sort-into", tmp_path / "sorted", "--json")
    with monkeypatch.context() as patched:
        keep, kept = PartialTable.keep, list[int]()

        def interrupted(self: PartialTable, stamp: int, row: list[Any]) -> int:
            if len(kept) == 20:
                raise KeyboardInterrupt
            kept.append(stamp)
            return keep(self, stamp, row)

        patched.setattr(PartialTable, "keep", interrupted)
        done = shell(*given)
    assert (done.code, "the same command goes on from there" in done.err) == (130, True)
    done = shell(*given)
    assert (done.code, done.json["sorted_into"]) == (0, str(tmp_path / "sorted"))
    assert done.json["kept"] == 16  # of the twenty those that go through the network together
    there = [*(tmp_path / "sorted").rglob("*.png")]
    assert len(there) == 37  # the one that was sorted and not yet kept
    assert {path.parent.name for path in there} <= {*SHAPES, "unknown"}
