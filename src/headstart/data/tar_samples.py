"""What is in one tar: images, and the labels, groups and parts that other members of a sample say."""

from __future__ import annotations

import json
import os
import posixpath
from array import array
from dataclasses import dataclass, field
from io import BufferedReader

from headstart.core.errors import DataError, cannot_read
from headstart.core.regular_file import open_regular
from headstart.core.types import Problem, Sample
from headstart.data.columns import (
    GROUP_COLUMNS,
    LABEL_COLUMNS,
    PARTS,
    SPLIT_COLUMNS,
    Columns,
    find_column,
    part_in_name,
    split_of,
)
from headstart.data.formats import HEAD, HEIF, SUFFIXES, suffix_of, why_not_read
from headstart.data.scan import NO_IMAGE, printable
from headstart.data.tar_members import FILE, LINK, Flaw, Member, members

UNPACKED = "Expected an uncompressed tar, for images are read where they lie in it: gunzip it, or the like, first."
CLS = "cls"  # the ending of a file with a label, and what it is called beside the fields of a .json
MOST_FACTS = 1 << 20  # bytes of a .cls or .json that are read
LABELS = (CLS, *LABEL_COLUMNS)
_IMAGES = SUFFIXES | {*HEIF.suffixes}


@dataclass(slots=True)
class _Facts:
    """What the members beside an image say about it."""

    label: str = ""
    group: str = ""
    split: str = ""
    why: str = ""  # there is no label


@dataclass
class Found:
    """What is in all tars."""

    samples: list[Sample] = field(default_factory=list)  # with the label "" where only the folder may say it
    inner: list[str] = field(default_factory=list)  # of each, its name in its tar
    whys: dict[int, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    file: array[int] = field(default_factory=lambda: array("I"))  # of each sample: the number of its tar,
    offset: array[int] = field(default_factory=lambda: array("Q"))  # where its image begins there,
    size: array[int] = field(default_factory=lambda: array("Q"))  # and its bytes
    words: dict[str, str] = field(default_factory=dict)  # labels, each held once
    fields: dict[str, None] = field(default_factory=dict)  # the names in .json files, of which one may be the label


class Tar:
    """One tar that is read through."""

    def __init__(self, path: str, where: str, wanted: Columns, found: Found) -> None:
        self.path, self.where, self.wanted, self.found = path, where, wanted, found
        self.part = part_in_name(where) or part_in_name(posixpath.dirname(where))
        self.images: dict[str, tuple[int, int]] = {}  # by their members' names
        self.doubtful: list[tuple[Member, str | None]] = []  # by their names no images, with why they are not read
        self.links: list[Member] = []
        self.facts: dict[str, _Facts] = {}  # by names without the last ending

    def read(self, number: int) -> None:
        """Add what is in it to what was found; ``number`` is that of the tar."""
        try:
            with open_regular(self.path) as file:
                size, sound, flaws = os.fstat(file.fileno()).st_size, 0, list[Flaw]()
                for each in members(file, size):
                    if isinstance(each, Flaw):
                        flaws.append(each)
                    else:
                        sound += 1
                        self._member(file, each, size)
                if not sound and (flaws or not size):
                    file.seek(0)
                    raise DataError(_why_no_tar(self.path, file.read(HEAD)))
        except OSError as error:
            raise cannot_read(self.path, error) from error
        self.found.problems += (Problem(self.where, "truncated", f"at byte {f.offset:,}: {f.detail}") for f in flaws)
        self._follow_links()
        self._judge_doubtful()
        for name, (offset, length) in self.images.items():
            self._add(number, name, offset, length)
        self._tell_of_lone_labels()

    def _shown(self, name: str) -> str:
        return f"{self.where}/{printable(name)}"

    def _problem(self, name: str, kind: str, detail: str) -> None:
        self.found.problems.append(Problem(self._shown(name), kind, detail))

    def _member(self, file: BufferedReader, member: Member, size: int) -> None:
        name = _plain(member.name)
        if not name or name.endswith("/") or _is_hidden(name):
            return
        suffix = suffix_of(name)
        says = suffix[1:] in (CLS, "json") or (bool(suffix) and suffix[1:] == self.wanted.label)
        member = member._replace(name=name)
        if member.kind == LINK:
            if suffix in _IMAGES:
                self.links.append(member)
        elif member.kind != FILE:
            if suffix in _IMAGES:
                self._problem(name, "unreadable", "a sparse file, a pipe or a device, not a file that lies in the tar")
        elif says:
            self._take(file, member, suffix[1:], size)
        elif suffix not in _IMAGES or (suffix in HEIF.suffixes and why_not_read(name, b"")):
            file.seek(member.offset)
            if (why := why_not_read(name, file.read(min(HEAD, member.size)))) != "":
                self.doubtful.append((member, why))
        elif member.offset + member.size > size:
            self._problem(name, "truncated", _cut(member, size))
        elif self._is_wanted(name):
            self._keep(name, member.offset, member.size)

    def _is_wanted(self, name: str) -> bool:
        return self.wanted.image is None or _ending(name) == self.wanted.image.lstrip(".").lower()

    def _keep(self, name: str, offset: int, size: int) -> None:
        if name in self.images:
            self._problem(name, "left out", "another member of this name comes later in the tar, and is taken for it")
        self.images[name] = (offset, size)

    def _take(self, file: BufferedReader, member: Member, kind: str, size: int) -> None:
        """What a .cls or .json says."""
        stem = member.name[: -len(kind) - 1]
        facts = self.facts.setdefault(stem, _Facts())
        if member.offset + member.size > size:
            facts.why = _cut(member, size)
        elif member.size > MOST_FACTS:
            facts.why = f"its .{kind} has {member.size:,} bytes, and up to {MOST_FACTS:,} are read"
        else:
            file.seek(member.offset)
            content = file.read(member.size)
            try:
                text = content.decode("utf-8-sig")
                fields = json.loads(text) if kind == "json" else {kind: text.strip()}
            except (ValueError, RecursionError) as error:
                facts.why = f"its .{kind} cannot be read: {error}"[:200]
                return
            if isinstance(fields, dict):
                self._say(facts, fields, member.name)
            elif not facts.label:
                facts.why = f"its .{kind} holds no fields with names"

    def _say(self, facts: _Facts, fields: dict[str, object], name: str) -> None:
        header, wanted = [*fields], self.wanted
        if len(self.found.fields) < 100:
            self.found.fields.update(dict.fromkeys(header))
        at = {
            what: None if (k := find_column(header, named, usual)) is None else header[k]
            for what, named, usual in (
                ("label", wanted.label, LABELS),
                ("group", wanted.group, GROUP_COLUMNS),
                ("split", wanted.split, SPLIT_COLUMNS),
            )
        }
        if (column := at["label"]) is not None and (not facts.label or column == CLS):
            label, facts.why = _label(fields[column], column)
            facts.label = self.found.words.setdefault(label, label)
        if (column := at["group"]) is not None and column != at["label"]:
            facts.group = _text(fields[column])
        if (column := at["split"]) is not None and column != at["label"]:
            word = _text(fields[column])
            if wanted.split is not None or word.strip().casefold() in PARTS or column.casefold().startswith("is_"):
                facts.split = split_of(word, repr(self._shown(name)), column)

    def _follow_links(self) -> None:
        for member in self.links:
            above = posixpath.dirname(member.name) if member.symbolic else ""
            there = self.images.get(_plain(posixpath.normpath(posixpath.join(above, member.target))))
            if there is None:
                where = printable(member.target[:120])
                self._problem(member.name, "missing", f"a link to '{where}', which is no image in this tar")
            elif self._is_wanted(member.name):
                self._keep(member.name, *there)

    def _judge_doubtful(self) -> None:
        """Members without the ending of an image count where the sample has no other image."""
        if not self.doubtful:
            return
        keys = {_key(name) for name in self.images}
        for member, why in self.doubtful:
            if _key(member.name) in keys:
                continue
            if why is not None:
                self._problem(member.name, "unreadable", why)
            elif self._is_wanted(member.name):
                self._keep(member.name, member.offset, member.size)

    def _add(self, number: int, name: str, offset: int, size: int) -> None:
        facts = self.facts.get(_stem(name)) or self.facts.get(_key(name)) or _NOTHING
        found = self.found
        if facts.why and not facts.label:
            found.whys[len(found.samples)] = facts.why
        found.samples.append(Sample(self._shown(name), facts.label, facts.split or self.part, facts.group))
        found.inner.append(name)
        found.file.append(number)
        found.offset.append(offset)
        found.size.append(size)

    def _tell_of_lone_labels(self) -> None:
        used = {_stem(name) for name in self.images} | {_key(name) for name in self.images}
        if self.wanted.image is not None:
            return
        for stem, facts in self.facts.items():
            if stem not in used and facts.label:
                self._problem(stem, NO_IMAGE, f"a label, '{facts.label[:60]}', and no image that can be read beside it")


_NOTHING = _Facts()


def _label(value: object, column: str) -> tuple[str, str]:
    """A label as text, or why it is none."""
    if isinstance(value, str | int) and (text := str(value).strip()):
        return (text, "") if "\n" not in text else ("", f"'{column}' has several lines")
    if value is None or isinstance(value, str):
        return "", f"'{column}' is blank"
    return "", f"'{column}' holds {type(value).__name__}, not text or a whole number"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _plain(name: str) -> str:
    """A member's name without what leads nowhere at its beginning."""
    while name.startswith(("./", "/")):
        name = name[2:] if name[0] == "." else name[1:]
    return name


def _is_hidden(name: str) -> bool:
    """Whether it is hidden or in a hidden folder, as what systems leave behind."""
    if name[0] != "." and "/." not in name:
        return False
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _key(name: str) -> str:
    """The key of WebDataset: the path up to the first dot of the file's name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _ending(name: str) -> str:
    """What follows the key."""
    return name[len(_key(name)) + 1 :].lower()


def _stem(name: str) -> str:
    return name.rpartition(".")[0] if "." in name.rpartition("/")[2] else name


def _cut(member: Member, size: int) -> str:
    return f"the tar ends within it: {max(size - member.offset, 0):,} of its {member.size:,} bytes are there"


def _why_no_tar(path: str, head: bytes) -> str:
    """A sentence on a file that has no member of a tar."""
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return f"{path!r} is packed. {UNPACKED}"
    what = f"it begins {head[:8]!r}" if head else "it is empty"
    return f"{path!r} is no tar, or is damaged: {what}. Fetch it again."
