"""Ways to damage bytes."""

from __future__ import annotations

import random
import struct

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """With one to four changes, each of a kind that is drawn."""
    raw = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if raw:
            rng.choice(_KINDS)(raw, rng)
    return bytes(raw)


def _flip(raw: bytearray, rng: random.Random) -> None:
    raw[_place(raw, rng)] ^= 1 << rng.randrange(8)


def _set(raw: bytearray, rng: random.Random) -> None:
    raw[_place(raw, rng)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))


def _number(raw: bytearray, rng: random.Random) -> None:
    """A number of two or four bytes at its end of the range: a width, a length, a count."""
    form = rng.choice(("<H", ">H", "<I", ">I"))
    place, size = _place(raw, rng), struct.calcsize(form)
    raw[place : place + size] = struct.pack(form, rng.choice(EXTREMES) & ((1 << 8 * size) - 1))


def _cut(raw: bytearray, rng: random.Random) -> None:
    del raw[rng.randrange(len(raw)) :]


def _lose(raw: bytearray, rng: random.Random) -> None:
    place = _place(raw, rng)
    del raw[place : place + rng.choice((1, 2, 7, 64, 1000))]


def _repeat(raw: bytearray, rng: random.Random) -> None:
    place = _place(raw, rng)
    part = raw[place : place + rng.choice((1, 4, 32, 500))]
    raw[place:place] = part * rng.choice((1, 2, 50))


def _blank(raw: bytearray, rng: random.Random) -> None:
    place = _place(raw, rng)
    end = min(len(raw), place + rng.choice((4, 100, 5000)))
    raw[place:end] = bytes(end - place)


def _shuffle(raw: bytearray, rng: random.Random) -> None:
    one, two = _place(raw, rng), _place(raw, rng)
    raw[one : one + 16], raw[two : two + 16] = raw[two : two + 16], raw[one : one + 16]


def _place(raw: bytearray, rng: random.Random) -> int:
    """Most faults are found by damage of a header."""
    return rng.randrange(min(len(raw), rng.choice((32, 200, len(raw)))))


_KINDS = (_flip, _set, _number, _cut, _lose, _repeat, _blank, _shuffle)
