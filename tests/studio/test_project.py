"""A project of the studio is folders on the disk: what is moved is moved there, and originals stay as they are."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.studio.project import LEFT_OUT, Project, refusals, said


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def on_disk(project: Project) -> dict[str, int]:
    """Folder below the project -> its files."""
    folders = [folder for folder in project.folder.rglob("*") if folder.is_dir()]
    counts = {str(each.relative_to(project.folder)): sum(file.is_file() for file in each.iterdir()) for each in folders}
    return {name: count for name, count in counts.items() if count}


def test_classes_are_folders(project: Project) -> None:
    assert project.classes() == []
    assert project.add_class(" cats ") == "cats"
    assert project.add_class("große Hunde") == "große Hunde"
    assert project.classes() == ["cats", "große Hunde"]
    assert (project.folder / "photos" / "cats").is_dir()


@pytest.mark.parametrize("name", ["", "  ", ".hidden", "a/b", "a\\b", "..", "a:b", "x" * 81, "a\nb", "CATS"])
def test_a_name_that_no_folder_can_have_is_refused(project: Project, name: str) -> None:
    project.add_class("cats")
    with pytest.raises(hs.UsageError, match="class"):
        project.add_class(name)
    assert project.classes() == ["cats"]


def test_a_file_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(hs.UsageError, match="is a file"):
        Project(tmp_path / "file")


def test_photos_in_a_tar_are_written_out(project: Project, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for label in ("bars", "discs"):
            tar.add(photos / label, label)
    done = project.bring_in(str(tmp_path / "all.tar"))
    assert project.classes() == ["bars", "discs"]
    assert done.photos == len(project.photos("bars")) + len(project.photos("discs")) > 2
    originals = {path.read_bytes() for path in photos.rglob("*.png")}
    assert all(photo.read_bytes() in originals for photo in project.photos("bars"))


def test_photos_of_a_folder_are_linked_and_stay_as_they_are(project: Project, photos: Path, tmp_path: Path) -> None:
    given = Path(shutil.copytree(photos, tmp_path / "given"))
    before = {path: path.read_bytes() for path in given.rglob("*.png")}
    done = project.bring_in(str(given))
    assert (done.photos, done.classes, done.parts, done.problems) == (36, 3, (), 0)
    assert said(done) == "36 photos of 3 classes linked; the originals stay as they are."
    assert project.classes() == ["bars", "discs", "waves"]
    first, second = project.photos("bars")[:2]
    assert first.is_symlink()
    assert first.resolve() in before
    moved, left = project.move(first, "discs"), project.leave_out(second)
    assert (moved.parent.name, left.parent.name) == ("discs", "bars")
    assert on_disk(project) == {"photos/bars": 10, "photos/discs": 13, "photos/waves": 12, f"{LEFT_OUT}/bars": 1}
    assert {path: path.read_bytes() for path in given.rglob("*.png")} == before
    assert project.left_out() == [left]
    assert project.put_back(left) == second
    assert project.left_out() == []


def test_parts_are_put_together_and_names_do_not_collide(project: Project, tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "given" / part / label
            folder.mkdir(parents=True)
            Image.fromarray(np.full((8, 8, 3), len(part) * 20, np.uint8)).save(folder / "1.png")
    done = project.bring_in(str(tmp_path / "given"))
    assert (done.photos, set(done.parts)) == (4, {"train", "test"})
    assert "are together now" in said(done)
    assert [path.name for path in project.photos("a")] == ["1-2.png", "1.png"]


def test_a_photo_that_was_added_is_a_copy(project: Project, photos: Path) -> None:
    project.add_class("bars")
    file = next((photos / "bars").iterdir())
    assert project.add("bars", [file, file]).photos == 2
    one, two = project.photos("bars")
    assert not one.is_symlink()
    assert one.read_bytes() == two.read_bytes() == file.read_bytes()
    moved = project.leave_out(one)
    assert [moved.exists(), one.exists()] == [True, False]


def test_nothing_is_replaced(project: Project) -> None:
    for label, colour in (("a", 10), ("b", 200)):
        project.add_class(label)
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(project.photos_folder / label / "1.png")
    moved = project.move(project.photos_folder / "a" / "1.png", "b")
    assert moved.name == "1-2.png"
    assert len({path.read_bytes() for path in project.photos("b")}) == 2


def test_what_cannot_be_is_a_sentence(project: Project, photos: Path, tmp_path: Path) -> None:
    project.bring_in(str(photos))
    photo = project.photos("bars")[0]
    with pytest.raises(hs.UsageError, match="no class 'cats'"):
        project.move(photo, "cats")
    with pytest.raises(hs.UsageError, match="not in the project any more"):
        project.leave_out(photo.with_name("gone.png"))
    with pytest.raises(hs.UsageError, match="not in the project any more"):
        project.move(next(photos.rglob("*.png")), "discs")
    with pytest.raises(hs.UsageError, match="folder of the project itself"):
        project.bring_in(str(project.photos_folder))
    with pytest.raises(hs.UsageError, match="No such file or folder"):
        project.bring_in(str(tmp_path / "nowhere"))


def test_a_class_gets_another_name_and_is_taken_away(project: Project, photos: Path) -> None:
    project.bring_in(str(photos))
    left = project.leave_out(project.photos("bars")[0])
    assert project.rename_class("bars", "stripes") == "stripes"
    assert (len(project.photos("stripes")), project.classes()) == (11, ["discs", "stripes", "waves"])
    assert [path.name for path in project.left_out()] == [left.name]
    assert project.put_back(project.left_out()[0]).parent.name == "stripes"
    assert project.rename_class("stripes", "Stripes") == "Stripes"  # the same but for a capital
    with pytest.raises(hs.UsageError, match="already"):
        project.rename_class("discs", "waves")
    assert project.remove_class("discs") == 12
    assert (project.classes(), len(project.left_out())) == (["Stripes", "waves"], 12)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "Type the name"),
        ("x" * 81, "may have 80 letters; this one has 81"),
        ("a/b", "cannot have '/'"),
        (".a", "'.'"),
    ],
)
def test_why_a_name_is_refused(project: Project, name: str, why: str) -> None:
    with pytest.raises(hs.UsageError, match=why):
        project.add_class(name)


def test_names_that_would_be_taken_for_parts_are_refused(project: Project, tmp_path: Path) -> None:
    project.add_class("bus")
    project.add_class("train")  # the vehicle
    with pytest.raises(hs.UsageError, match="parts of a data set, not for classes: test, train"):
        project.add_class("test")
    assert project.classes() == ["bus", "train"]


def test_what_is_no_photo_is_not_added(project: Project, photos: Path, tmp_path: Path) -> None:
    project.add_class("a")
    good = next((photos / "bars").iterdir())
    others = {
        "note.txt": b"hello",
        "bad.jpg": b"this is a text, not a photo",
        "film.MOV": b"\0\0\0\x14ftypqt  ",
        "no.png": b"",
    }
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    done = project.add("a", [good, *(tmp_path / name for name in others), tmp_path / "missing.jpg"])
    assert (done.photos, [name for name, _ in done.refused]) == (1, [*others, "missing.jpg"])
    words = refusals(done)
    for word in (
        "note.txt: it is no photo",
        "bad.jpg: it is text, not an image",
        "film.MOV: it is a video",
        "no.png: ",
    ):
        assert word in words
    assert len(project.photos("a")) == 1
    assert refusals(project.add_new([good])) == ""
    assert project.add("a", [good], "camera.png").photos == 1
    assert "camera.png" in {path.name for path in project.photos("a")}


def test_what_was_brought_in_is_not_brought_in_again(project: Project, photos: Path) -> None:
    project.bring_in(str(photos))
    project.leave_out(project.photos("bars")[0])
    again = project.bring_in(str(photos))
    assert (again.photos, again.again) == (0, 36)
    assert "36 photos were there already" in said(again)
    assert sum(len(project.photos(label)) for label in project.classes()) == 35
    for own in (project.folder, project.folder.parent, project.photos_folder):
        with pytest.raises(hs.UsageError, match="the project itself"):
            project.bring_in(str(own))


def test_what_is_left_out_already_is_said_to_be(project: Project, photos: Path) -> None:
    project.bring_in(str(photos))
    left = project.leave_out(project.photos("bars")[0])
    with pytest.raises(hs.UsageError, match="is left out already"):
        project.leave_out(left)
    with pytest.raises(hs.UsageError, match="is not left out"):
        project.put_back(project.photos("bars")[0])


def test_a_place_that_cannot_be_written_to_is_named(
    project: Project, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.add_class("a")
    good = next((photos / "bars").iterdir())

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    for change in (
        lambda: project.add("a", [good]),
        lambda: project.bring_in(str(photos)),
        lambda: project.add_class("b"),
    ):
        with pytest.raises(hs.UsageError, match=r"project/.*' cannot be written to: Permission denied"):
            change()
