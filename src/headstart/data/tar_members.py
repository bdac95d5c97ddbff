"""The members of a tar file: where each lies, by its headers alone; damage is passed over and told of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from typing import NamedTuple

BLOCK = 512  # bytes of a header; contents begin at multiples of it
RECORD = 20 * BLOCK  # a tar is filled up to a multiple of it
MOST_EXTRA = 1 << 20  # bytes of a header's extension that are read
MOST_END = 4 << 20  # zeros that the end of a tar may be
_PIECE = 1 << 20
_ZEROS = bytes(BLOCK)
_EMPTY_SUM = 8 * ord(" ")  # the checksum is made with blanks in its own place

FILE, LINK, OTHER = "file", "link", "other"  # kinds of a member
_KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"1": LINK, b"2": LINK}
_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders and pipes
_GNU_NAME, _GNU_LINK, _PAX, _PAX_OF_ALL, _SPARSE = b"L", b"K", (b"x", b"X"), b"g", b"S"


class Member(NamedTuple):
    """One entry of a tar."""

    name: str  # bytes that are not UTF-8 as in `os.fsdecode`
    offset: int  # of its content in the file
    size: int
    kind: str
    target: str = ""  # of a link: the name of a member; of a symbolic one from the folder of the link on
    symbolic: bool = False


class Flaw(NamedTuple):
    """A part of a tar that is damaged."""

    offset: int
    detail: str


@dataclass
class _Extra:
    """What headers before a member say about it: names that are too long for its own."""

    name: str | None = None
    link: str | None = None
    pax: dict[str, str] = field(default_factory=dict)


class _HeaderError(ValueError):
    """It is not the header of a member."""


def members(file: BufferedReader, size: int) -> Iterator[Member | Flaw]:
    """All members of a tar of so many bytes, in its order, and what is damaged of it.

    A member that the file ends in has its whole size all the same. Behind a damaged header the next sound one is looked
    for. Tars that were joined (``cat a.tar b.tar``) are read to their end.
    """
    at, ended, whole, extra, of_all = 0, False, True, _Extra(), dict[str, str]()
    while at + BLOCK <= size:
        file.seek(at)
        head = file.read(BLOCK)
        if head == _ZEROS:
            begin, at, ended = at, _behind_zeros(file, at, size), True
            odd = at % RECORD if at < size else at - begin > MOST_END  # tars that were joined begin at a multiple of it
            if odd or extra != _Extra():
                yield Flaw(begin, f"{at - begin:,} zeros, as where a part of a file is lost")
            extra = _Extra()
            continue
        try:
            kind, length = head[156:157], _checked_size(head)
            ended, start = False, at + BLOCK
            if kind in (_GNU_NAME, _GNU_LINK, *_PAX, _PAX_OF_ALL):
                _extend(extra, of_all, kind, _content(file, length, size - start))
                at = start + _padded(length)
                continue
            member, at = _member(file, head, start, extra if not of_all else _with(extra, of_all))
        except _HeaderError as error:
            found = _next_header(file, at + BLOCK, size)
            ended = found >= size  # what says the end was passed over
            yield Flaw(at, f"{error}: {min(found, size) - at:,} bytes are passed over")
            at, extra = found, _Extra()
            continue
        extra, whole = _Extra(), member.offset + member.size <= size
        yield member
    if at < size and (file.seek(at) or True) and file.read(BLOCK).strip(b"\0"):
        yield Flaw(at, "it ends within a header")
    elif not ended and whole:
        yield Flaw(size, "it has no mark of its end, as where a copy or a download did not end")


def _checked_size(head: bytes) -> int:
    """The bytes of a member's content.

    Raises:
        _HeaderError: the header does not have its checksum, or no size.
    """
    wanted, found = _number(head[148:156]), sum(head) - sum(head[148:156]) + _EMPTY_SUM
    if wanted != found:
        negative = sum(byte > 127 for byte in head[:148]) + sum(byte > 127 for byte in head[156:])
        if wanted != found - 256 * negative:  # of old programs, which count bytes from -128 on
            raise _HeaderError("a header is damaged")
    return _number(head[124:136])


def _number(digits: bytes) -> int:
    """Octal digits; or, of large numbers, bytes behind a mark."""
    if digits[0] == 0x80:
        return int.from_bytes(digits[1:], "big")
    try:
        number = int(digits.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise _HeaderError("a header is damaged")
    return number


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _padded(length: int) -> int:
    return -(-length // BLOCK) * BLOCK


def _content(file: BufferedReader, length: int, there: int) -> bytes:
    if length > min(MOST_EXTRA, there):
        raise _HeaderError("a header's extension is damaged or cut")
    return file.read(length)


def _extend(extra: _Extra, of_all: dict[str, str], kind: bytes, content: bytes) -> None:
    if kind == _GNU_NAME:
        extra.name = _text(content)
    elif kind == _GNU_LINK:
        extra.link = _text(content)
    else:
        (of_all if kind == _PAX_OF_ALL else extra.pax).update(_records(content))


def _with(extra: _Extra, of_all: dict[str, str]) -> _Extra:
    return _Extra(extra.name, extra.link, {**of_all, **extra.pax})


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """The records of an extended header, each as ``LENGTH KEY=VALUE`` and a line feed.

    Raises:
        _HeaderError: it is in another form.
    """
    at = 0
    while at < len(content) and content[at]:
        digits, blank, _ = content[at : at + 21].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        record = content[at + len(digits) + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if not equals or at + length > len(content) or record[-1:] != b"\n":
            raise _HeaderError("an extended header is damaged")
        yield _text(key), value.decode("utf-8", "surrogateescape")
        at += length


def _member(file: BufferedReader, head: bytes, start: int, extra: _Extra) -> tuple[Member, int]:
    """The member of a header, and where the next header is."""
    pax, kind = extra.pax, head[156:157]
    length = _number(head[124:136])
    if "size" in pax:
        if not re.fullmatch(r"[0-9]{1,20}", pax["size"]):
            raise _HeaderError("an extended header is damaged")
        length = int(pax["size"])
    name = pax.get("GNU.sparse.name") or pax.get("path") or extra.name or _name_in(head)
    while kind == _SPARSE and head[482 if start == file.tell() else 504]:  # its map goes on in blocks of its own
        head = file.read(BLOCK)
        if len(head) < BLOCK:
            raise _HeaderError("a sparse file's map is cut")
    behind = file.tell() if kind == _SPARSE else start
    what = _KINDS.get(kind, OTHER)
    if what == FILE and ((kind == b"\0" and name.endswith("/")) or any(key.startswith("GNU.sparse") for key in pax)):
        what = OTHER
    if what == LINK:
        target = pax.get("linkpath") or extra.link or _text(head[157:257])
        return Member(name, behind, 0, LINK, target, kind == b"2"), behind
    ends = behind if kind in _WITHOUT_CONTENT else behind + _padded(length)
    return Member(name, behind, length, what), ends


def _name_in(head: bytes) -> str:
    name = _text(head[:100])
    above = _text(head[345:500]) if head[257:263] == b"ustar\0" else ""
    return f"{above}/{name}" if above else name


def _behind_zeros(file: BufferedReader, at: int, size: int) -> int:
    """Where the first block is that is not of zeros alone."""
    file.seek(at)
    while at < size and (piece := file.read(_PIECE)):
        rest = len(piece.lstrip(b"\0"))
        if rest:
            return at + (len(piece) - rest) // BLOCK * BLOCK
        at += len(piece)
    return size


def _next_header(file: BufferedReader, at: int, size: int) -> int:
    """Where the next sound header is, from a multiple of 512 on; the size of the file where there is none."""
    while at < size:
        file.seek(at)
        piece = file.read(_PIECE)
        for match in re.finditer(b"ustar", piece):
            begin = match.start() - 257
            if begin >= 0 and begin % BLOCK == 0 and begin + BLOCK <= len(piece):
                try:
                    _checked_size(piece[begin : begin + BLOCK])
                except _HeaderError:
                    continue
                return at + begin
        at += len(piece) if len(piece) < _PIECE else _PIECE  # a header never lies across: both are multiples of 512
        if not piece:
            break
    return size
