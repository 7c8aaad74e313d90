"""What queries need of every exposure, kept beside the meta store so that opening is fast.

The sidecar ``<stem>.fpgpu.npz`` repeats nothing that cannot be computed again: it may be deleted,
forcepho does not look at it, and a damaged one is ignored. It names the exact JSON and ASDF file
it was made with, and says where in them the text of each exposure is.
"""

import io
import json
import logging
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.stores.metadata.pieces import FileIndex
from fpgpu.stores.metadata.records import SkyColumns, StoredRecords

__all__ = ["Sidecar"]

logger = logging.getLogger(__name__)

VERSION = 2

# All that reading a damaged zip or npy file was seen to raise.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


class Sidecar(NamedTuple):
    """The records of a meta store, and the indexes of its files.

    Attributes
    ----------
    json : FileIndex
        The headers; its names are those of the store.
    asdf : FileIndex or None
        The gWCS; None where there is no such file.
    columns : SkyColumns
        The records, in the order of the headers.
    """

    json: FileIndex
    asdf: FileIndex | None
    columns: SkyColumns

    @property
    def records(self) -> StoredRecords:
        """The records by exposure."""
        return StoredRecords(self.json.rows, self.columns)

    def write(self, path: Path) -> None:
        """Write the sidecar to a new file.

        Parameters
        ----------
        path : pathlib.Path
            A temporary that is published together with the files it belongs to.
        """
        columns: dict[str, Any] = {
            "version": np.array(VERSION),
            **_index_columns("json", self.json),
            **(_index_columns("asdf", self.asdf) if self.asdf else {}),
            **self.columns.arrays(),
        }
        with path.open("xb") as stream:
            np.savez(stream, **columns)

    @classmethod
    def read(cls, content: bytes, path: Path) -> "Sidecar | None":
        """Read a sidecar; a damaged or foreign one is None, with a warning in the log.

        Parameters
        ----------
        content : bytes
            The whole file.
        path : pathlib.Path
            Where it came from, for the message.

        Returns
        -------
        Sidecar or None
        """
        try:
            arrays = _read_arrays(content)
            if int(arrays["version"]) != VERSION:
                logger.info("%s: made by another version of fpgpu; it is made again", path)
                return None
            json_index = _read_index(arrays, "json")
            asdf_index = _read_index(arrays, "asdf") if "asdf_stat" in arrays else None
            columns = SkyColumns.from_arrays(arrays)
            if json_index.names is None or len(json_index.rows) != len(columns):
                raise ValueError(f"{len(columns)} records of {len(json_index.rows)} exposures")
            if columns.has_gwcs.any() and asdf_index is None:
                raise ValueError("exposures with a gWCS, but no ASDF file")
            return cls(json_index, asdf_index, columns)
        except DAMAGE as exc:
            logger.warning("%s: damaged and ignored (%s: %s)", path, type(exc).__name__, exc)
            return None


def _read_arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays; each member's checksum is tested before its bytes are interpreted."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            arrays[member.removesuffix(".npy")] = _read_array(archive.read(member))
    return arrays


def _read_array(content: bytes) -> npt.NDArray[Any]:
    """Read a npy file as a view of its bytes."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"npy format {version}")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran_order:
        raise ValueError("an array in Fortran order")
    return np.frombuffer(content, dtype, math.prod(shape), stream.tell()).reshape(shape)


def _index_columns(what: str, index: FileIndex) -> dict[str, npt.NDArray[Any]]:
    """Return the index of a file as arrays."""
    return {
        f"{what}_stat": np.array([index.size, index.mtime_ns], dtype=np.int64),
        f"{what}_names": np.frombuffer(json.dumps(index.names).encode(), dtype=np.uint8),
        f"{what}_head": np.frombuffer(index.head, dtype=np.uint8),
        f"{what}_spans": index.spans,
        f"{what}_digests": index.digests,
    }


def _read_index(arrays: Mapping[str, npt.NDArray[Any]], what: str) -> FileIndex:
    """Read the index of a file."""
    size, mtime_ns = arrays[f"{what}_stat"].tolist()
    names = json.loads(arrays[f"{what}_names"].tobytes())
    if names is not None and not all(isinstance(e, str) for ids in names.values() for e in ids):
        raise ValueError("names that are no strings")
    spans, digests = arrays[f"{what}_spans"], arrays[f"{what}_digests"]
    if spans.dtype != np.int64 or digests.dtype != np.uint8:
        raise ValueError(f"spans of {spans.dtype}, digests of {digests.dtype}")
    return FileIndex(size, mtime_ns, names, arrays[f"{what}_head"].tobytes(), spans, digests)
