"""Object stores and other file systems: s3://, gs://, hdfs:// and file:// through pyarrow, others through fsspec."""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote

from headstart.core.errors import HeadstartError, UsageError, check_machine, needs, one_line
from headstart.core.install import pip_install

SECONDS = 20.0  # for the first answer of a file system
CONNECT, REQUEST, TRIES, RETRY = 5, 15, 2, 5  # seconds for a connection and for an answer, tries, seconds of those
_REMOTE = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_ARROW = ("file", "s3", "gs", "gcs", "hdfs", "viewfs")
_S3_OPTIONS = ("region", "scheme", "endpoint_override", "anonymous")
T = TypeVar("T")


class Place(NamedTuple):
    """A file or a folder of a file system."""

    system: Any  # of pyarrow
    path: str
    other: Any = None  # of fsspec, where it is one


def is_remote(text: str) -> bool:
    """Whether it is an address of a file system, such as s3://bucket/photos; those of http and https are none."""
    match = _REMOTE.match(text)
    return match is not None and match[1].lower() not in ("http", "https")


def shown(url: str) -> str:
    """An address without a key or a password in it."""
    return re.sub(r"://[^/?@]*@", "://", url)


def joined(url: str, path: str) -> str:
    """The address of what lies at a path below another one."""
    if not path:
        return url
    if not _is_arrow(url):
        return f"{url.rstrip('/')}/{path}"
    base, mark, query = url.partition("?")
    return f"{base.rstrip('/')}/{quote(path, errors='surrogateescape')}{mark}{query}"


def name_in(url: str) -> str:
    """The name of the file or folder at an address."""
    path = unquote(url.partition("?")[0]) if _is_arrow(url) else url
    return path.rstrip("/").rpartition("/")[2]


def place_of(url: str) -> Place:
    """The file system of an address, and the path in it.

    Raises:
        MissingExtraError, UsageError: the library that knows such addresses is not installed, or none knows them.
    """
    with needs("pyarrow", "data", f"Reading '{shown(url)}'"):
        from pyarrow import fs
    if not _is_arrow(url):
        other, path = _fsspec(url)
        return Place(fs.PyFileSystem(fs.FSSpecHandler(other)), path, other)
    scheme, rest = url.split("://", 1)
    rest, _, query = rest.partition("?")
    host, _, path = rest.partition("/")
    path = unquote(path, errors="surrogateescape").rstrip("/")
    if scheme.lower() == "file":
        if host not in ("", "localhost"):
            raise UsageError(f"Expected file:///PATH, with three slashes. Received: '{url}'.")
        return Place(fs.LocalFileSystem(), path if os.name == "nt" else f"/{path}")
    system = _arrow(scheme.lower(), host, query)
    if scheme.lower() in ("hdfs", "viewfs"):
        return Place(system, f"/{path}")
    return Place(system, f"{host.rpartition('@')[2]}/{path}".rstrip("/"))


def _is_arrow(url: str) -> bool:
    return url.partition("://")[0].lower() in _ARROW


@functools.lru_cache(maxsize=16)
def _arrow(scheme: str, host: str, query: str) -> Any:
    from pyarrow import fs

    if scheme == "s3":
        return _s3(host, query)
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query += f"{'&' if query else ''}retry_limit_seconds={RETRY}"
    return fs.FileSystem.from_uri(f"{scheme}://{host}/{'?' if query else ''}{query}")[0]


def _s3(host: str, query: str) -> Any:
    from pyarrow import fs

    given: dict[str, Any] = dict(parse_qsl(query))
    if unknown := next((name for name in given if name not in _S3_OPTIONS), None):
        raise UsageError(f"s3://BUCKET/FOLDER?{unknown}=…: expected one of {', '.join(_S3_OPTIONS)}.")
    login, _, bucket = host.rpartition("@")
    if login:
        key, _, secret = login.partition(":")
        given["access_key"], given["secret_key"] = unquote(key), unquote(secret)
    if "anonymous" in given:
        given["anonymous"] = given["anonymous"].lower() in ("1", "true", "yes")
    if "region" not in given and "endpoint_override" not in given:
        given["region"] = fs.resolve_s3_region(bucket)
    retry = fs.AwsStandardS3RetryStrategy(max_attempts=TRIES)
    return fs.S3FileSystem(connect_timeout=CONNECT, request_timeout=REQUEST, retry_strategy=retry, **given)


def _fsspec(url: str) -> tuple[Any, str]:
    scheme = url.partition("://")[0]
    try:
        from fsspec.core import url_to_fs
    except ModuleNotFoundError as error:
        raise UsageError(
            f"Addresses of {scheme}:// need fsspec, which is not installed. Install it with: {pip_install('fsspec')}"
        ) from error
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        raise UsageError(
            f"Addresses of {scheme}:// need another library: {error}. With: {pip_install('PACKAGE')}"
        ) from error
    except ValueError as error:
        if "not known" not in str(error):
            raise
        known = ", ".join(f"{each}://" for each in ("s3", "gs", "hdfs", "file"))
        raise UsageError(f"'{shown(url)}': expected an address of {known}, or of a protocol of fsspec.") from error
    return system, str(path)


def answered(url: str, ask: Callable[[], T]) -> T:
    """What a file system answers.

    Raises:
        UsageError: nothing is there, it may not be read, or there is no answer in `SECONDS`.
    """
    found, failed = list[T](), list[BaseException]()

    def run() -> None:
        try:
            found.append(ask())
        except BaseException as error:  # it is raised by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="headstart-remote")
    thread.start()
    thread.join(SECONDS)
    if failed:
        raise in_words(url, failed[0]) from failed[0]
    if not found:
        raise UsageError(f"'{shown(url)}' cannot be reached: no answer in {SECONDS:.0f} s.")
    return found[0]


def in_words(url: str, error: BaseException) -> BaseException:
    """The error to raise for one of a file system's library.

    Raises:
        MachineError: it is of this machine.
    """
    if isinstance(error, HeadstartError) or not isinstance(error, Exception):
        return error
    check_machine(error)
    where, said = shown(url), one_line(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError) or re.search("NO_SUCH_(BUCKET|KEY)", said):
        return UsageError(f"No such file or folder: '{where}'.")
    if isinstance(error, PermissionError) or re.search(
        r"ACCESS_DENIED|HTTP status 40[13]|Forbidden|[Cc]redentials", said
    ):
        return UsageError(
            f"'{where}' cannot be read: permission denied. Expected credentials that may read it ({said})."
        )
    return UsageError(f"'{where}' cannot be reached: {said.rpartition('Details: ')[2][:160].rstrip(' .')}.")
