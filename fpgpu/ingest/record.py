"""What is remembered of how an exposure was made, and whether its files are still those.

The record is kept as ``fpgpu_`` attributes beside the pixels. `fpgpu.stores.exposures` shows it as
a table; a resumed run compares it with the files and options of now.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fpgpu.errors import MissingFileError, UnusableExposureError
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.inputs import Input, options_digest, options_text
from fpgpu.paths import absolute_path
from fpgpu.stores.pixels.records import update_checksum

__all__ = ["FileMark", "absolute", "file_marks", "is_current", "record_of", "require_unchanged"]

PACKAGES = ("numpy", "astropy", "gwcs")
"""Packages whose versions the stored numbers may depend on."""

# Small enough for what was read to be in the cache when its checksum is made.
_CHUNK = 256 << 10


@dataclass(frozen=True)
class FileMark:
    """What tells that an input file is still the one that was read.

    Attributes
    ----------
    role : str
        ``"image"``, or what the companion is.
    path : str
        Absolute.
    size : int
        In bytes.
    mtime_ns : int
        Time of its last change.
    checksum : str
        Of its content, ``"crc32:"`` and 8 hexadecimal digits; empty when it was not read yet.
    """

    role: str
    path: str
    size: int
    mtime_ns: int
    checksum: str = ""


def absolute(item: Input) -> Input:
    """Make the paths of an input mean the same in every process.

    Parameters
    ----------
    item : Input
        As given.

    Returns
    -------
    Input
        With absolute paths; links stay links, as names are made of them.
    """
    companions = {role: absolute_path(path) for role, path in item.companions.items()}
    options = item.options
    if options.framedir is not None:
        options = replace(options, framedir=absolute_path(options.framedir))
    path = item.path if item.exposure is not None else absolute_path(item.path)
    return replace(item, path=path, companions=companions, options=options)


def file_marks(item: Input, *, read: bool) -> list[FileMark]:
    """Look at the files of an input.

    Parameters
    ----------
    item : Input
        With absolute paths.
    read : bool
        Whether to read them for their checksums.

    Returns
    -------
    list of FileMark
        The image's first; none for an exposure in memory.

    Raises
    ------
    MissingFileError
        When one is not there.
    UnusableExposureError
        When one cannot be read.
    """
    if item.exposure is not None:
        return []
    files = {"image": item.path, **item.companions}
    return [_mark(role, path, read) for role, path in files.items()]


def require_unchanged(item: Input, marks: list[FileMark]) -> None:
    """Refuse an input that somebody has changed since it was looked at.

    Parameters
    ----------
    item : Input
        With absolute paths.
    marks : list of FileMark
        From before it was read.

    Raises
    ------
    UnusableExposureError
        When size or time of a file differ.
    """
    for old, new in zip(marks, file_marks(item, read=False), strict=True):
        if (old.size, old.mtime_ns) != (new.size, new.mtime_ns):
            raise UnusableExposureError(
                f"{new.path}: was changed while it was read; ingest it again when it is complete"
            )


def record_of(
    item: Input, exposure: Exposure, marks: list[FileMark], *, complete: bool
) -> dict[str, str | int | float]:
    """Write down where an exposure came from and what was asked.

    Parameters
    ----------
    item : Input
        With absolute paths.
    exposure : Exposure
        One that it gave.
    marks : list of FileMark
        Its files, as they were read.
    complete : bool
        Whether every exposure of the input went in.

    Returns
    -------
    dict of str to str, int or float
        Attributes, without the prefix.
    """
    return {
        "wcs": exposure.wcs_choice,
        "input": str(item.path),
        "input_files": json.dumps([asdict(mark) for mark in marks]),
        "input_complete": int(complete),
        "options": options_text(item),
        "options_digest": options_digest(item),
        "bunit": str(exposure.hdr.get("BUNIT", "")),
        "dq_pixels": json.dumps(exposure.flags),
        "notes": json.dumps(exposure.notes),
        "dq_masked": json.dumps(exposure.masked_by_flag()),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **{f"{name}_version": version_of(name) for name in PACKAGES},
    }


def is_current(record: Mapping[str, Any], item: Input) -> bool:
    """Tell whether an exposure that is stored is what an input would give again.

    Parameters
    ----------
    record : mapping
        What `record_of` wrote; other writers' records are never current.
    item : Input
        With absolute paths.

    Returns
    -------
    bool
        Whether options and files are the same. A file of the same size and time is taken as the
        same; one of the same size that has another time is read and compared by its checksum.
    """
    if record.get("options_digest") != options_digest(item) or not record.get("input_complete"):
        return False
    try:
        old = [FileMark(**mark) for mark in json.loads(str(record.get("input_files")))]
        new = file_marks(item, read=False)
    except (MissingFileError, UnusableExposureError, ValueError, TypeError):
        return False
    if not old or [(m.role, m.path, m.size) for m in old] != [
        (m.role, m.path, m.size) for m in new
    ]:
        return False
    return all(
        was.mtime_ns == now.mtime_ns
        or was.checksum == _mark(now.role, Path(now.path), read=True).checksum
        for was, now in zip(old, new, strict=True)
    )


@cache
def version_of(package: str) -> str:
    """Return the version of a package, without importing it; empty when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _mark(role: str, path: Path, read: bool) -> FileMark:
    """Look at one file."""
    try:
        status = path.stat()
        checksum = _checksum(path) if read else ""
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UnusableExposureError(f"{path}: cannot be read: {error}") from error
    return FileMark(role, str(path), status.st_size, status.st_mtime_ns, checksum)


def _checksum(path: Path) -> str:
    """Read a file through."""
    checksum = update_checksum(b"")
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as stream:
        while n_bytes := stream.readinto(buffer):
            checksum = update_checksum(buffer[:n_bytes], checksum)
    return checksum
