"""Kinds of image files: how they are recognised, which of them are read, and what to do about the others."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.core.errors import UnreadableImageError
from headstart.core.install import extra_install

HEAD = 132  # bytes of a file by which it is recognised
MOST_BYTES = 512 * 10**6  # of an image's file that is read


@dataclass(frozen=True)
class Format:
    """One that Pillow decodes by itself, without another program."""

    name: str  # Pillow's
    suffixes: tuple[str, ...]
    magic: str = ""  # a regular expression that the file's first bytes match; "": it has no mark


READ = (
    Format("JPEG", (".jpg", ".jpeg", ".jfif", ".jpe", ".pjpeg", ".pjp", ".mpo"), r"\xff\xd8\xff"),
    Format("PNG", (".png", ".apng"), r"\x89PNG\r\n"),
    Format("WEBP", (".webp",), r"RIFF....WEBP"),
    Format("BMP", (".bmp", ".dib"), r"BM....\0{4}"),  # many texts begin with these letters; the reserved bytes differ
    Format("GIF", (".gif",), r"GIF8"),
    Format("TIFF", (".tif", ".tiff"), r"II[*+]\0(?!.{4}CR\x02)|MM\0[*+]"),  # but for Canon's raw files
    Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), r"P[1-6f]\s"),
    Format("JPEG2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"), r"\0{3}\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    Format("AVIF", (".avif", ".avifs"), r".{4}ftypavi[fs]"),
    Format("ICO", (".ico",), r"\x00\x00\x01\x00"),
    Format("ICNS", (".icns",), r"icns"),
    Format("PCX", (".pcx",), r"\x0a[\x00\x02\x03\x05][\x00\x01]"),
    Format("DDS", (".dds",), r"DDS "),
    Format("SGI", (".sgi", ".rgb", ".rgba", ".bw"), r"\x01\xda"),
    Format("QOI", (".qoi",), r"qoif"),
    Format("PSD", (".psd",), r"8BPS"),
    Format("SUN", (".ras",), r"\x59\xa6\x6a\x95"),
    Format("XPM", (".xpm",), r"/\* XPM \*/"),
    Format("FITS", (".fits", ".fit", ".fts"), r"SIMPLE  ="),
    Format("TGA", (".tga", ".icb", ".vda", ".vst")),
)
HEIF = Format("HEIF", (".heic", ".heif", ".hif"), r".{4}ftyp(?:hei[cxms]|hev[cmxs]|mi[fh]1|msf1)")  # with pillow-heif

SUFFIXES = frozenset(suffix for form in READ for suffix in form.suffixes)
FORMATS = tuple(form.name for form in (*READ, HEIF))

_ARCHIVES = ".zip .tar .gz .tgz .bz2 .xz .7z .rar"
ARCHIVES = frozenset(_ARCHIVES.split())
_UNREAD = {  # what to do about files that look like images to people
    "camera raw files are not read: save it as JPEG": (
        ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .rw2 .orf .raf .srw .pef .rwl .3fr .iiq .erf .kdc .x3f .mrw"
    ),
    "medical images are not read: save its slices as PNG": ".dcm .dicom .nii .nii.gz .nrrd .mha .mhd",
    "it is a video: save its frames as JPEG, a folder or a group for each video": (
        ".mp4 .mov .avi .mkv .webm .m4v .mpg .mpeg .wmv .flv .3gp"
    ),
    "it is an archive: unpack it": _ARCHIVES,
    "it is not read: save it as JPEG or PNG": (
        ".jxl .jxr .wdp .hdp .svg .svgz .eps .ai .pdf .exr .hdr .npy .npz .mat .raw .xcf .kra .indd .wmf .emf .cdr"
    ),
}
REMEDIES = {suffix: remedy for remedy, suffixes in _UNREAD.items() for suffix in suffixes.split()}
_MARKS = {  # and those that may have any name
    r"II\*\0.{4}CR\x02|.{4}ftypcrx |FUJIFILMCCD-RAW": "camera raw files are not read: save it as JPEG",
    r"\s*<(?:\?xml[^>]*>\s*<)?svg": "SVG is not read: save it as JPEG or PNG",
    r".{128}DICM": "medical images are not read: save its slices as PNG",
    r"\xff\x0a|\0{3}\x0cJXL ": "JPEG XL is not read: save it as JPEG or PNG",
    r"%PDF": "PDF is not read: save it as JPEG or PNG",
    r"\x93NUMPY": "NumPy arrays are not read: save it as PNG",
}
_MISNAMED = {  # what only surprises under the name of an image
    r"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself with git lfs pull",
    r"(?i)\s*<(?:!doctype html|html|head)": "it is a web page, not an image: fetch the image again",
    r"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ": "it is an archive, not an image: unpack it",
    r".{4}ftyp|RIFF....AVI |\x1a\x45\xdf\xa3": "it is a video, not an image: save its frames as JPEG",
    r"\0{132}": "it begins with zeros alone, as where a copy or a download did not end: fetch it again",
    r"[\t\n\r\x20-\x7e]{8,}\Z": "it is text, not an image",
}
# what lies beside photos and is none: passed over in silence
COMPANIONS = frozenset(
    (".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".html", ".htm", ".yaml", ".yml",
     ".toml", ".ini", ".cfg", ".db", ".lnk", ".url", ".log", ".py", ".ipynb", ".sh", ".bat", ".m", ".r", ".parquet",
     ".pq", ".xls", ".xlsx", ".ods", ".doc", ".docx", ".lst", ".names", ".nfo", ".sfv", ".md5", ".sha1", ".sha256",
     ".license", ".identifier", ".aae", ".thm", ".xmp")
)  # fmt: skip


def sniff(head: bytes) -> str:
    """The format according to a file's first `HEAD` bytes: one of `FORMATS`, or "" for none that is known."""
    return next((form.name for form, mark in _PATTERNS if mark.match(head)), "")


def _pattern(magic: str) -> re.Pattern[bytes]:
    return re.compile(magic.encode("latin-1"), re.DOTALL)


_PATTERNS = [(form, _pattern(form.magic)) for form in (*READ, HEIF) if form.magic]
_UNREAD_PATTERNS = [(_pattern(mark), remedy) for mark, remedy in _MARKS.items()]
_MISNAMED_PATTERNS = [(_pattern(mark), remedy) for mark, remedy in _MISNAMED.items()]


def suffix_of(name: str) -> str:
    """The ending of a file's name in lower case, ".nii.gz" being one."""
    stem, suffix = os.path.splitext(name.lower())
    return ".nii.gz" if suffix == ".gz" and stem.endswith(".nii") else suffix


def has_heif() -> bool:
    """Whether HEIC is read: whether pillow-heif is installed, which is told to Pillow then."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def has_avif() -> bool:
    """Whether Pillow was built with AVIF, as it usually is from 11.3 on."""
    return importlib.util.find_spec("PIL._avif") is not None


def why_not_read(name: str, head: bytes) -> str | None:
    """Why a file is not read, and what to do; "" if it is one that lies beside photos, None if it is read.

    Its content decides; its name where the content has no mark, and for camera raw files, which are TIFF in part.
    """
    suffix = suffix_of(name)
    if suffix in REMEDIES and (not (found := sniff(head)) or found == "TIFF"):
        return REMEDIES[suffix]
    if suffix in SUFFIXES:
        return None
    if found := sniff(head):
        return _heic_remedy() if found == HEIF.name and not has_heif() else None
    if suffix in HEIF.suffixes:
        return _heic_remedy() if not has_heif() else None
    if remedy := _remedy_of(head):
        return remedy
    if suffix in COMPANIONS or not suffix:
        return ""
    return f"{suffix} files are not read; this one does not begin like an image"


def _heic_remedy() -> str:
    """Made when it is said: the command depends on the working directory."""
    return f"HEIC is read once this is installed: {extra_install('heic')}. Or save it as JPEG"


def unknown_format(head: bytes) -> UnreadableImageError:
    """The error for bytes that no decoder knows."""
    if sniff(head) == HEIF.name:
        return UnreadableImageError("unreadable", _heic_remedy())
    if sniff(head) == "AVIF":
        return UnreadableImageError("unreadable", "AVIF is read with Pillow 11.3 or newer. Or save it as JPEG")
    unknown = f"not an image file of a known format (begins {head[:8]!r})"
    return UnreadableImageError("unreadable", _remedy_of(head, (*_UNREAD_PATTERNS, *_MISNAMED_PATTERNS)) or unknown)


def _remedy_of(head: bytes, known: Sequence[tuple[re.Pattern[bytes], str]] = _UNREAD_PATTERNS) -> str:
    """What to do about a file that is not read, by its content; "" where that says nothing."""
    return next((remedy for mark, remedy in known if mark.match(head)), "")
