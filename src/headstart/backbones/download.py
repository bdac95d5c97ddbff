"""Finds pretrained weights: in an installed package, among files downloaded before, or by a download that is kept."""

from __future__ import annotations

import inspect
import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from headstart.backbones.checked_download import LOCK, download, offline, weights_folder
from headstart.backbones.weights import WeightsRecord, find_package_file, hash_of, installed_file
from headstart.core.errors import CheckError, UsageError, cannot_read, one_line
from headstart.core.progress import StageProgress

HUB = "hf://"  # owner/repository/file
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def find_weights(
    record: WeightsRecord, progress: StageProgress | None = None, *, timeout: float = 30.0, pause: float = 1.0
) -> Path:
    """The file of a record, its hash checked: of its package, else one on this machine, else downloaded.

    Args:
        record: of the weights.
        progress: called with (bytes done, bytes in all; 0 where that is not known) during a download.
        timeout: seconds without an answer from the server.
        pause: seconds before the second try.

    Raises:
        UsageError: it is not on this machine and cannot be downloaded; says which file to put where.
        CheckError: a package's file was altered, or the downloaded file is not the recorded one.
    """
    if record.distribution or not record.url:
        try:
            return installed_file(record)
        except UsageError:
            if not record.url:
                raise
    damaged = ""
    for path in local_files(record):
        fault = _fault(record, path)
        if not fault:
            return path
        damaged = f" ('{path}' is damaged or another file: {fault})"
    if flag := offline():
        raise UsageError(_by_hand(record, damaged, f"{flag} is set"))
    if record.url.startswith(HUB):
        return _from_hub(record, damaged, progress, timeout)
    return _from_address(record, damaged, progress, timeout, pause)


def at_hand(record: WeightsRecord) -> bool:
    """Whether a file of the record is on this machine. Quick: its hash is not checked."""
    if record.distribution:
        with suppress(UsageError):
            find_package_file(record.distribution, record.file)
            return True
    return bool(record.url) and next(local_files(record), None) is not None


def local_files(record: WeightsRecord) -> Iterator[Path]:
    """Files with the record's name on this machine: our own, then those that other libraries downloaded."""
    places = [place_of(record)]
    if record.url.startswith(HUB):
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(*_hub_parts(record))
        places += [Path(found)] if isinstance(found, str) else []
    else:
        name, cache = places[0].name, Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
        torch = Path(os.path.expanduser(os.environ.get("TORCH_HOME") or cache / "torch"))
        keras = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))
        places += [torch / "hub" / "checkpoints" / name, keras / "models" / name]
    return (path for path in places if path.is_file())


def place_of(record: WeightsRecord) -> Path:
    """The path at which the file of a record is kept, or is to be put by hand."""
    if record.url.startswith(HUB):
        owner_and_repository, file = _hub_parts(record)
        name = f"{owner_and_repository}/{file}".replace("/", "--")
    else:
        name = record.url.partition("?")[0].rpartition("/")[2]
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{record.url}': expected an address that ends in a file's name. Received: '{name}'.")
    return weights_folder() / name


def kept_files() -> dict[Path, int]:
    """All files in the folder of weights with their sizes in bytes; unfinished downloads too.

    Raises:
        UsageError: it cannot be read.
    """
    sizes = {}
    try:
        for path in sorted(weights_folder().iterdir()):
            if path.is_file() and path.name != LOCK:
                sizes[path] = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):  # no folder, or a file is removed meanwhile
        pass
    except OSError as error:
        raise cannot_read(weights_folder(), error) from error
    return sizes


def prune() -> int:
    """Remove all of `kept_files`; returns the bytes freed. During a download nothing is removed.

    Raises:
        UsageError: one cannot be removed.
    """
    import filelock

    from headstart.backbones.fetch import writing

    freed = 0
    if not kept_files():
        return freed
    with writing(weights_folder()):
        try:
            with filelock.FileLock(weights_folder() / LOCK, timeout=0):
                for path, size in kept_files().items():
                    path.unlink()
                    freed += size
        except filelock.Timeout:
            return 0
    return freed


def _from_address(
    record: WeightsRecord, damaged: str, progress: StageProgress | None, timeout: float, pause: float
) -> Path:
    """Download to where it is kept, if there is a hash to check it by."""
    from headstart.backbones.fetch import FetchError

    if not (record.sha256 or record.md5):
        raise CheckError(_by_hand(record, damaged, "no hash is recorded to check a download by"))
    try:
        return download(
            record.url, place_of(record), lambda path: _fault(record, path), progress, timeout=timeout, pause=pause
        )
    except FetchError as error:
        raise UsageError(_by_hand(record, damaged, f"{urlsplit(record.url).hostname} {error}")) from error


def _from_hub(record: WeightsRecord, damaged: str, progress: StageProgress | None, timeout: float) -> Path:
    """Download with huggingface_hub into its own cache; a damaged file there is replaced."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download

    repository, file = _hub_parts(record)
    options: dict[str, Any] = {"force_download": bool(damaged), "etag_timeout": timeout}
    if progress is not None and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        options["tqdm_class"] = _bar(progress)
    try:
        get_hf_file_metadata(_address(record), timeout=timeout)  # fails at once without a network
        path = Path(hf_hub_download(repository, file, **options))
    except Exception as error:  # of several libraries, which change from version to version
        raise UsageError(_by_hand(record, damaged, f"the Hub does not give it ({one_line(error, 200)})")) from error
    if fault := _fault(record, path):
        raise CheckError(f"{_address(record)} gave another file than the recorded one ({fault}).")
    return path


def _bar(progress: StageProgress) -> type:
    """A progress bar class for huggingface_hub that draws nothing and calls ``progress``."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": False, "file": io.StringIO()})  # type: ignore[no-untyped-call]

        def display(self, *args: Any, **options: Any) -> None:
            progress(int(self.n), int(self.total or 0))

    return Bar


def _fault(record: WeightsRecord, path: Path) -> str:
    """How a file differs from the recorded one; "" where it is the right one."""
    expected, algorithm = (record.sha256, "sha256") if record.sha256 else (record.md5, "md5")
    if not expected and re.fullmatch("[0-9a-f]{64}", path.resolve().name):  # so the Hub's cache calls what it keeps
        expected, algorithm = path.resolve().name, "sha256"
    try:
        received = hash_of(path, algorithm)
    except UsageError as error:
        return str(error)
    title = {"sha256": "SHA-256", "md5": "MD5"}[algorithm]
    return "" if received.startswith(expected) else f"expected {title} {expected}, received {received}"


def _by_hand(record: WeightsRecord, damaged: str, why: str) -> str:
    place = place_of(record)
    return (
        f"The weights '{place.name}' are not on this machine{damaged}, and {why}: put the file from {_address(record)} "
        f"at '{place}', or name one with --weights FILE."
    )


def _address(record: WeightsRecord) -> str:
    if not record.url.startswith(HUB):
        return record.url
    from huggingface_hub import hf_hub_url

    return hf_hub_url(*_hub_parts(record))


def _hub_parts(record: WeightsRecord) -> tuple[str, str]:
    """Repository ("owner/name") and file."""
    parts = record.url.removeprefix(HUB).split("/")
    if len(parts) < 3 or not all(_NAME.fullmatch(part) for part in parts):
        raise UsageError(f"Expected {HUB}OWNER/REPOSITORY/FILE. Received: '{record.url}'.")
    return "/".join(parts[:2]), "/".join(parts[2:])
