"""CSV files: text with a separator, as rows of cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain

from headstart.core.errors import DataError, cannot_read
from headstart.core.regular_file import read_regular

CSV_SUFFIXES = (".csv", ".tsv")
MOST_TABLE = 10**9  # bytes of a CSV file that is read
_SEPARATORS = ",;\t"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # its byte order marks
_AGAIN = "Save it again as CSV in UTF-8."


def csv_rows(file: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line and the cells of each row that is not blank; the header comes first.

    Raises:
        UsageError: it cannot be read, or has more than `MOST_TABLE` bytes.
        DataError: it is no text in UTF-8, has a cell beyond `csv.field_size_limit`, or a quote that never ends.
    """
    try:
        content = read_regular(file, MOST_TABLE)
    except OSError as error:
        raise cannot_read(file, error) from error
    if content.startswith(_UTF_16):
        raise DataError(f"{file!r} is UTF-16, not UTF-8 text. {_AGAIN}")
    if (at := content.find(b"\0")) >= 0:
        raise DataError(f"{_place(file, content, at)}: a zero byte, which no text in UTF-8 has. {_AGAIN}")
    try:
        yield from _rows(file, io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline=""))
    except UnicodeDecodeError:
        raise _not_utf_8(file, content) from None


def _rows(file: str, text: io.TextIOWrapper) -> Iterator[tuple[int, list[str]]]:
    separator = _separator(next((line for line in text if line.strip()), ""))
    text.seek(0)
    line, row = 1, list[str]()
    reader = csv.reader(chain(text, ["\n"]), delimiter=separator)  # a row without cells in the end
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield line, row
            first, line = line, reader.line_num + 1
    except csv.Error as error:
        if "field limit" not in str(error):
            raise DataError(f"{file!r}, line {line}: {error}. Expected CSV, text with a comma in quotes.") from error
        raise DataError(
            f"{file!r}, line {line}: a cell of more than {csv.field_size_limit():,} characters. Expected CSV, a line "
            "for each row. Is there a quote that never ends?"
        ) from error
    if row:  # the last one took that into a cell
        raise DataError(f"{file!r}, line {first}: a quote begins there that never ends. Write another one behind it.")


def _separator(header: str) -> str:
    """The one that makes most cells of a line."""

    def cells(mark: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=mark), []))
        except csv.Error:  # all is one cell, and that is too long
            return 0

    return max(_SEPARATORS, key=cells)


def _place(file: str, content: bytes, at: int) -> str:
    return f"{file!r}, line {len((content[:at] + b'.').splitlines())}"


def _not_utf_8(file: str, content: bytes) -> DataError:
    at = 0
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
    return DataError(f"{_place(file, content, at)}: not UTF-8 text (byte {content[at]:#04x}). {_AGAIN}")
