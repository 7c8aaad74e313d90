"""The bytes of a file, expanded within bounds when they are compressed as a whole."""

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from fpgpu.errors import MissingFileError, UnusableExposureError

__all__ = ["allowed_size", "open_stream", "patched"]

_CHUNK = 1 << 22

# What is longer is expanded into a temporary file instead of memory.
_IN_MEMORY = 1 << 29

# Images shrink by a factor of a few, masks of large mosaics by hundreds, but are not that large.
_MAX_RATIO = 50
_UNSUSPICIOUS = 1 << 31

_HEAD = 12


def allowed_size(n_bytes: int) -> int:
    """Give how many bytes a compressed file may stand for: 2 GiB, or 50 times its size."""
    return max(_UNSUSPICIOUS, _MAX_RATIO * n_bytes)


def open_stream(path: Path) -> IO[bytes]:
    """Open a FITS file for reading, expanded when it is compressed with gzip, bzip2, xz or zip.

    Whatever it is called; at its beginning, and can be searched.
    """
    try:
        stream: IO[bytes] = path.open("rb")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UnusableExposureError(f"{path}: cannot be opened: {error}") from error
    try:
        head = stream.read(_HEAD)
        expanding = next(
            (_EXPANDING[magic] for magic in _EXPANDING if head.startswith(magic)), None
        )
        if expanding is not None:
            limit = allowed_size(stream.seek(0, io.SEEK_END))
            stream.seek(0)
            with stream, expanding(stream) as source:
                stream = _expanded(source, limit, path)
            head = stream.read(_HEAD)
        if not head.startswith(b"SIMPLE"):
            raise UnusableExposureError(
                f"{path}: cannot be read as FITS: it begins with {head!r}; expected a FITS file, "
                "as it is or compressed with gzip, bzip2, xz or zip once; expand anything else "
                "first"
            )
        stream.seek(0)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        stream.close()
        raise UnusableExposureError(
            f"{path}: cannot be read: {error} ({type(error).__name__})"
        ) from error
    except BaseException:
        stream.close()
        raise
    return stream


def patched(stream: IO[bytes], patches: Mapping[int, bytes]) -> IO[bytes]:
    """Copy a file, with other bytes at some places, and close it."""
    # Not in a "with" statement: the caller reads from it.
    target: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
    with stream:
        stream.seek(0)
        shutil.copyfileobj(stream, target, _CHUNK)
    for at, patch in patches.items():
        target.seek(at)
        target.write(patch)
    return target


def _only_member(stream: IO[bytes]) -> IO[bytes]:
    """Open what a zip archive holds."""
    try:
        archive = zipfile.ZipFile(stream)
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) == 1:
            return archive.open(members[0])
    # Of a compression that is not built in, the latter.
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise OSError(str(error)) from error
    raise OSError(f"a zip archive of {len(members)} files; expected one, so extract it first")


_EXPANDING: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"PK": _only_member,
}


def _expanded(source: IO[bytes], limit: int, path: Path) -> IO[bytes]:
    """Expand a compressed file into memory or, when it is long, into a temporary file."""
    # Not in a "with" statement: the caller reads from it.
    target: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
    try:
        length = 0
        while chunk := source.read(_CHUNK):
            length += len(chunk)
            if length > limit:
                raise UnusableExposureError(
                    f"{path}: expands to more than {limit >> 20} MiB, {_MAX_RATIO} times its "
                    "size, which no image does; if it is sound, expand it first"
                )
            target.write(chunk)
    except zipfile.BadZipFile as error:  # of a checksum
        target.close()
        raise OSError(str(error)) from error
    except BaseException:
        target.close()
        raise
    target.seek(0)
    return target
