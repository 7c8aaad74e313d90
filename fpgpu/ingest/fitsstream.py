"""The bytes of a FITS file, expanded when they are compressed with gzip, within bounds."""

import gzip
import io
import tempfile
import zlib
from pathlib import Path
from typing import IO

from fpgpu.errors import MissingFileError, UnusableExposureError

__all__ = ["open_stream"]

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 22

# What is longer is expanded into a temporary file instead of memory.
_IN_MEMORY = 1 << 29

# Images shrink by a factor of a few, masks of large mosaics by hundreds, but are not that large.
_MAX_RATIO = 50
_UNSUSPICIOUS = 1 << 31


def open_stream(path: Path) -> IO[bytes]:
    """Open a file for reading, expanded when it is compressed with gzip.

    Parameters
    ----------
    path : Path
        The file, whatever it is called.

    Returns
    -------
    binary file
        At its beginning; can be searched.

    Raises
    ------
    MissingFileError
        When there is no such file.
    UnusableExposureError
        When it cannot be read, or expands to more than images can.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UnusableExposureError(f"{path}: cannot be opened: {error}") from error
    try:
        magic = stream.read(len(_GZIP_MAGIC))
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        if magic != _GZIP_MAGIC:
            return stream
        with stream:
            return _expanded(stream, max(_UNSUSPICIOUS, _MAX_RATIO * size), path)
    except (OSError, EOFError, zlib.error) as error:
        stream.close()
        raise UnusableExposureError(
            f"{path}: cannot be read: {error} ({type(error).__name__})"
        ) from error


def _expanded(stream: IO[bytes], limit: int, path: Path) -> IO[bytes]:
    """Expand a gzip file into memory or, when it is long, into a temporary file."""
    # Not in a "with" statement: the caller reads from it.
    target: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
    try:
        with gzip.open(stream) as source:
            length = 0
            while chunk := source.read(_CHUNK):
                length += len(chunk)
                if length > limit:
                    raise UnusableExposureError(
                        f"{path}: expands to more than {limit >> 20} MiB, {_MAX_RATIO} times its "
                        "size, which no image does; if it is sound, expand it with gunzip first"
                    )
                target.write(chunk)
    except BaseException:
        target.close()
        raise
    target.seek(0)
    return target
