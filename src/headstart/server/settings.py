"""The limits of a server, and who may ask it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from headstart.core.arguments import check_fields, number, one_of, whole
from headstart.core.errors import UsageError, cannot_read

TOKEN = "HEADSTART_TOKEN"  # noqa: S105  (the name of a variable)
LOGS = ("json", "none")
SHORTEST_TOKEN = 8  # characters; a shorter one is guessed
HELD = 1 << 30  # bytes of bodies that are held at a time, over all requests

RULES = {
    "max_megabytes": number(0, 1024, above=True),
    "max_megapixels": number(0, 178, above=True),
    "max_images": whole(1, 4096),
    "queue": whole(1, 100_000),
    "wait": number(0, 1000),
    "timeout": number(0, 3600, above=True),
    "log": one_of(*LOGS),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server takes, and how long it waits.

    Raises:
        UsageError: a value that cannot be.
    """

    max_megabytes: float = 32  # of the body of a request
    max_megapixels: float = 100  # of an image
    max_images: int = 64  # of a request
    queue: int = 256  # images that wait; more are refused with 429; a request has to fit
    wait: float = 2  # milliseconds for more images, where others are on their way
    timeout: float = 30  # seconds for a body to arrive, and again for its answer
    token: str = field(default="", repr=False)  # "": none is asked for
    log: str = "json"

    def __post_init__(self) -> None:
        check_fields(self, RULES)
        if self.queue < self.max_images:
            raise UsageError(
                f"--queue {self.queue} has no room for a request of --max-images {self.max_images}. A longer queue, or "
                "fewer images a request, is needed."
            )

    @property
    def max_bytes(self) -> int:
        """Of the body of a request."""
        return int(self.max_megabytes * 1e6)

    @property
    def max_pixels(self) -> int:
        """Of an image."""
        return int(self.max_megapixels * 1e6)


def read_token(file: str | None) -> str:
    """The token of a file, or of the environment; "" where there is neither.

    Raises:
        UsageError: the file cannot be read, or holds no token.
    """
    where = f"'{file}'" if file is not None else TOKEN
    try:
        if file is None:
            found = os.environ.get(TOKEN, "").strip()
            if not found and TOKEN in os.environ:
                raise UsageError(f"{TOKEN} is empty. Put a token into it, or take it away.")
        else:
            with open(file, encoding="utf-8") as opened:
                found = opened.read(4096).strip()
    except OSError as error:
        raise cannot_read(file or "", error) from error
    except UnicodeDecodeError:
        raise UsageError(f"{where}: expected a token of printable ASCII signs.") from None
    if file is None and not found:
        return ""
    if len(found) < SHORTEST_TOKEN or not found.isascii() or not found.isprintable() or " " in found:
        raise UsageError(
            f"{where}: expected a token of at least {SHORTEST_TOKEN} printable ASCII signs, without blanks."
        )
    return found
