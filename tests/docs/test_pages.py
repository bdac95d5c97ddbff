"""README, CONTRIBUTING, CHANGELOG and docs/: links, paths, commands, names and rooms that they name are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import headstart
from headstart.cli.commands import COMMANDS
from test_structure import ROOMS

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "headstart"
MAP, MANUAL = ROOT / "docs" / "architecture.md", ROOT / "CONTRIBUTING.md"  # for whoever changes the code
PYTHON_PAGES = [ROOT / "README.md", ROOT / "docs" / "guide.md"]
PAGES = [ROOT / "README.md", MANUAL, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACE = re.compile(r"(?<![\w./-])(?:src|tests|docs|benchmarks|examples)/[\w./-]*")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_of(text: str) -> list[str]:
    """Blocks that are not Python, and words in backticks."""
    blocks = [block for language, block in FENCE.findall(text) if language != "python"]
    return [*blocks, *re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def anchors_of(text: str) -> set[str]:
    """What a link may name behind "#"."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links to a file or heading that is not there."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if "://" in link or (target.exists() and not anchor):
            continue
        if not target.is_file() or anchor not in anchors_of(target.read_text(encoding="utf-8")):
            broken.append(link)
    return broken


def missing_places(text: str) -> list[str]:
    """Files and folders of the project that are not there; NAME stands for any."""
    found = [place.rstrip(".") for place in PLACE.findall(text) if "NAME" not in place]
    return [place for place in found if not (ROOT / place).exists()]


def missing_files(text: str) -> list[str]:
    """Files and folders in backticks, from the root or the package on, or by a bare name, that are not there."""
    words = [word for word in code_of(text) if re.fullmatch(r"[\w./]+(\.pyi?|/)", word) and "NAME" not in word]
    return [
        word
        for word in words
        if not (ROOT / word).exists()
        and not (SRC / word).exists()
        and ("/" in word.rstrip("/") or not any(SRC.rglob(word.rstrip("/"))))
    ]


def named_commands(text: str) -> set[str]:
    return {name for code in code_of(text) for name in re.findall(r"(?<!import )\bheadstart ([a-z]+)\b", code)}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pages
def test_paths_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert missing_places(text) == []
    if page in (MAP, MANUAL):
        assert missing_files(text) == []


@pages
def test_commands_are_there(page: Path) -> None:
    assert named_commands(page.read_text(encoding="utf-8")) <= COMMANDS.keys()


def test_every_command_is_in_the_guide() -> None:
    assert named_commands((ROOT / "docs" / "guide.md").read_text(encoding="utf-8")) == COMMANDS.keys()


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.name)
def test_python_is_of_this_package(page: Path) -> None:
    blocks = [block for language, block in FENCE.findall(page.read_text(encoding="utf-8")) if language == "python"]
    assert blocks
    for block in blocks:
        ast.parse(block)
        assert set(re.findall(r"\bhs\.(\w+)", block)) <= set(headstart.__all__)


def test_the_map_has_every_room_in_its_order() -> None:
    assert tuple(re.findall(r"^\| `(\w+)/` \|", MAP.read_text(encoding="utf-8"), re.MULTILINE)) == ROOMS


def test_the_readme_says_how_to_test() -> None:
    assert "make test" in PAGES[0].read_text(encoding="utf-8")


def test_what_is_not_there_is_found_out() -> None:
    assert broken_links(MAP, "[a](export.md) [b](exports.md) [c](guide.md#data) [d](guide.md#dates) [e](#none)") == [
        "exports.md",
        "guide.md#dates",
        "#none",
    ]
    assert missing_places("`tests/docs`, python benchmarks/fit.py, docs/none.md. src/headstart/NAME.py") == [
        "docs/none.md"
    ]
    assert missing_files("`data/load.py` `data/none.py` `registry.py` `none.py` `torch/` `none/` `train/torch/`") == [
        "data/none.py",
        "none.py",
        "none/",
    ]
    text = "`headstart fit photos`\n```\n$ headstart fitt x\n```\n```python\nimport headstart as hs\n```\n"
    assert named_commands(text) == {"fit", "fitt"}
