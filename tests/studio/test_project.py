"""A project of the studio is folders on the disk: what is moved is moved there, and originals stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart as hs
from headstart.studio.project import LEFT_OUT, Project, said


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
    assert project.add("bars", [file, file]) == 2
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
    with pytest.raises(hs.UsageError, match="photos of the project itself"):
        project.bring_in(str(project.photos_folder))
    with pytest.raises(hs.UsageError, match="No such file or folder"):
        project.bring_in(str(tmp_path / "nowhere"))
