"""The bytes of a file, expanded within bounds when they are compressed as a whole."""

import bz2
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from fpgpu.errors import MissingFileError, UnusableExposureError

__all__ = ["Patched", "allowed_size", "open_stream"]

_CHUNK = 1 << 22

# What is longer is expanded into a temporary file instead of memory.
_IN_MEMORY = 1 << 29

# Images shrink by a factor of a few, masks of large mosaics by hundreds, but are not that large.
_MAX_RATIO = 50
_UNSUSPICIOUS = 1 << 31

# Where a tar archive says that it is one.
_TAR_MAGIC = slice(257, 262)

_OTHER_FILES = {
    b"#ASDF": "an ASDF file",
    b"\x89HDF": "an HDF5 file",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; expand it first",
    b"\x1f\x9d": "compressed with compress (.Z); expand it first",
    b"7z\xbc\xaf": "a 7z archive; extract it first",
}


def allowed_size(n_bytes: int) -> int:
    """Give how many bytes a compressed file may stand for: 2 GiB, or 50 times its size."""
    return max(_UNSUSPICIOUS, _MAX_RATIO * n_bytes)


def open_stream(path: Path) -> IO[bytes]:
    """Open a file for reading, expanded when it is compressed with gzip, bzip2, xz or zip.

    Whatever it is called; at its beginning, and can be searched.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:
        raise UnusableExposureError(f"{path}: cannot be opened: {error}") from error
    try:
        head = stream.read(8)
        limit = allowed_size(stream.seek(0, io.SEEK_END))
        stream.seek(0)
        for magic, what in _OTHER_FILES.items():
            if head.startswith(magic):
                raise UnusableExposureError(f"{path}: cannot be read as FITS: it is {what}")
        for magic, expanding in _EXPANDING.items():
            if head.startswith(magic):
                with stream, expanding(stream) as source:
                    return _require_unpacked(_expanded(source, limit, path), path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, RuntimeError) as error:
        stream.close()
        raise UnusableExposureError(
            f"{path}: cannot be read: {error} ({type(error).__name__})"
        ) from error
    except BaseException:
        stream.close()
        raise
    return stream


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


def _require_unpacked(stream: IO[bytes], path: Path) -> IO[bytes]:
    """Refuse what is still packed after it was expanded once."""
    head = stream.read(_TAR_MAGIC.stop)
    stream.seek(0)
    what = "a tar archive" if head[_TAR_MAGIC] == b"ustar" else ""
    if any(head.startswith(magic) for magic in _EXPANDING):
        what = "packed twice"
    if what:
        stream.close()
        raise UnusableExposureError(
            f"{path}: cannot be read as FITS: it is {what}; extract it first"
        )
    return stream


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


class Patched(io.RawIOBase):
    """A file of which some bytes are read as others."""

    def __init__(self, stream: IO[bytes], patches: Mapping[int, bytes]) -> None:
        self._stream = stream
        self._patches = patches

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int = -1) -> bytes:
        start = self._stream.tell()
        data = bytearray(self._stream.read(size))
        for at, patch in self._patches.items():
            first, last = max(at, start), min(at + len(patch), start + len(data))
            if first < last:
                data[first - start : last - start] = patch[first - at : last - at]
        return bytes(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
