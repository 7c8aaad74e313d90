"""What queries need of every exposure, kept beside the meta store so that opening is fast.

The sidecar ``<stem>.fpgpu.npz`` repeats nothing that cannot be computed again: it may be deleted,
forcepho does not look at it, and a damaged one is ignored. It names the exact JSON and ASDF file
it was made with.
"""

import hashlib
import io
import json
import logging
import math
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.stores.files.publish import Signature

if TYPE_CHECKING:
    from fpgpu.sky.sip import SipFit

__all__ = ["FileMark", "Sidecar", "SkyRecord", "text_digest"]

logger = logging.getLogger(__name__)

Key = tuple[str, str]
Float = npt.NDArray[np.float64]

VERSION = 1
DIGEST_BYTES = 32
SIP_FIELDS = ("crval", "crpix", "cd", "a", "b", "ap", "bp", "residual")

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


def text_digest(text: str) -> bytes:
    """Return the SHA-256 of a header's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class FileMark(NamedTuple):
    """Which content of a file a sidecar was made with."""

    size: int
    mtime_ns: int
    sha256: bytes

    @classmethod
    def of(cls, content: bytes, seen: Signature) -> "FileMark":
        """Mark a file by its content and its signature."""
        return cls(seen.size, seen.mtime_ns, hashlib.sha256(content).digest())

    def matches(self, seen: Signature) -> bool:
        """Whether a file looks unchanged without being read."""
        return (self.size, self.mtime_ns) == seen.content

    def matches_content(self, content: bytes) -> bool:
        """Whether a file has the marked content, whenever it was written."""
        return self.size == len(content) and self.sha256 == hashlib.sha256(content).digest()


@dataclass(frozen=True)
class SkyRecord:
    """Where one exposure is on the sky.

    Attributes
    ----------
    digest : bytes
        SHA-256 of the header text it was computed from.
    shape : tuple of int
        Pixels (nx, ny).
    fits_outline, gwcs_outline : ndarray of float64, shape (n, 2), or None
        Corners of the footprint, ra and dec in degrees, by either WCS; None where there is none.
    sip : SipFit or None
        Refit of the gWCS that was stored with the exposure.
    has_gwcs : bool
        Whether the ASDF file has a gWCS of the exposure, which may be one without a footprint.
    """

    digest: bytes
    shape: tuple[int, int]
    fits_outline: Float | None = None
    gwcs_outline: Float | None = None
    sip: "SipFit | None" = None
    has_gwcs: bool = False

    def without_gwcs(self) -> "SkyRecord":
        """Return the record with nothing that came from a gWCS."""
        return replace(self, gwcs_outline=None, sip=None, has_gwcs=False)


class Sidecar:
    """The records of a meta store, as arrays.

    Parameters
    ----------
    json_mark, asdf_mark : FileMark
        The files the records belong to; no ASDF file is None.
    names : mapping of str to list of str
        The expIDs of every band, in the store's order.
    records : mapping of (band, expID) to SkyRecord
        One for each name.
    """

    def __init__(
        self,
        json_mark: FileMark,
        asdf_mark: FileMark | None,
        names: Mapping[str, list[str]],
        records: Mapping[Key, SkyRecord],
    ) -> None:
        self.json_mark = json_mark
        self.asdf_mark = asdf_mark
        self.names = dict(names)
        self.records = dict(records)

    def write(self, path: Path) -> None:
        """Write the sidecar to a new file.

        Parameters
        ----------
        path : pathlib.Path
            A temporary that is published together with the files it belongs to.
        """
        keys = [(band, expID) for band, expIDs in self.names.items() for expID in expIDs]
        records = [self.records[key] for key in keys]
        columns: dict[str, Any] = {
            "version": np.array(VERSION),
            "names": np.frombuffer(json.dumps(self.names).encode(), dtype=np.uint8),
            "digests": np.array([list(r.digest) for r in records], dtype=np.uint8),
            "shapes": np.array([r.shape for r in records], dtype=np.int64).reshape(-1, 2),
            "has_gwcs": np.array([r.has_gwcs for r in records], dtype=np.bool_),
            **_mark_columns("json", self.json_mark),
            **(_mark_columns("asdf", self.asdf_mark) if self.asdf_mark else {}),
            **_ragged_columns("fits_outline", [r.fits_outline for r in records]),
            **_ragged_columns("gwcs_outline", [r.gwcs_outline for r in records]),
        }
        for name in SIP_FIELDS:
            values = [None if r.sip is None else getattr(r.sip, name) for r in records]
            columns |= _ragged_columns(f"sip_{name}", values)
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
            Its records are views of one array.
        """
        try:
            columns = _read_columns(content)
            if int(columns["version"]) != VERSION:
                logger.info("%s: made by another version of fpgpu; it is made again", path)
                return None
            return cls(
                _read_mark(columns, "json"),
                _read_mark(columns, "asdf") if "asdf_stat" in columns else None,
                names := json.loads(columns["names"].tobytes()),
                dict(_read_records(columns, names)),
            )
        except DAMAGE as exc:
            logger.warning("%s: damaged and ignored (%s: %s)", path, type(exc).__name__, exc)
            return None


def _read_columns(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays; each member's checksum is tested before its bytes are interpreted."""
    columns = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            stream = io.BytesIO(archive.read(member))
            array = np.lib.format.read_array(stream, allow_pickle=False)
            columns[member.removesuffix(".npy")] = array
    return columns


def _read_records(
    columns: Mapping[str, npt.NDArray[Any]], names: Mapping[str, list[str]]
) -> Iterable[tuple[Key, SkyRecord]]:
    """Put the arrays together to one record an exposure."""
    keys = [(band, expID) for band, expIDs in names.items() for expID in expIDs]
    digests = columns["digests"].astype(np.uint8, copy=False).tobytes()
    shapes = columns["shapes"].tolist()
    fits_outlines = _read_ragged(columns, "fits_outline")
    gwcs_outlines = _read_ragged(columns, "gwcs_outline")
    has_gwcs = columns["has_gwcs"].astype(np.bool_, copy=False).tolist()
    if any(has_gwcs) and "asdf_stat" not in columns:
        raise ValueError("exposures with a gWCS, but no ASDF file")
    sips = _read_sips(columns, len(keys))
    if len(digests) != DIGEST_BYTES * len(keys):
        raise ValueError(f"{len(digests)} bytes of digests for {len(keys)} exposures")
    rows = zip(keys, shapes, fits_outlines, gwcs_outlines, sips, has_gwcs, strict=True)
    for i, (key, (nx, ny), *rest) in enumerate(rows):
        yield key, SkyRecord(digests[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)], (nx, ny), *rest)


def _read_sips(columns: Mapping[str, npt.NDArray[Any]], n: int) -> "list[SipFit | None]":
    """Read the refits; most stores without gWCS have none, and then their module is not needed."""
    fields = {name: _read_ragged(columns, f"sip_{name}") for name in SIP_FIELDS}
    if not any(value is not None for value in fields["residual"]):
        return [None] * n
    from fpgpu.sky.sip import SipFit

    sips: list[SipFit | None] = []
    for i in range(n):
        values = {name: column[i] for name, column in fields.items()}
        residual = values.pop("residual")
        sips.append(None if residual is None else SipFit(**values, residual=float(residual)))
    return sips


def _mark_columns(name: str, mark: FileMark) -> dict[str, npt.NDArray[Any]]:
    """Return a mark as arrays."""
    return {
        f"{name}_stat": np.array([mark.size, mark.mtime_ns], dtype=np.int64),
        f"{name}_sha256": np.frombuffer(mark.sha256, dtype=np.uint8),
    }


def _read_mark(columns: Mapping[str, npt.NDArray[Any]], name: str) -> FileMark:
    """Read a mark."""
    size, mtime_ns = columns[f"{name}_stat"].tolist()
    return FileMark(size, mtime_ns, columns[f"{name}_sha256"].tobytes())


def _ragged_columns(
    name: str, values: Iterable[npt.ArrayLike | None]
) -> dict[str, npt.NDArray[Any]]:
    """Return float arrays of any shapes as one flat array and the shapes; None has shape -1."""
    arrays = [None if v is None else np.asarray(v, dtype=np.float64) for v in values]
    shapes = [[-1, -1] if a is None else _padded_shape(a) for a in arrays]
    flat = [a.ravel() for a in arrays if a is not None]
    return {
        name: np.concatenate(flat) if flat else np.empty(0),
        f"{name}_shape": np.array(shapes, dtype=np.int64).reshape(-1, 2),
    }


def _padded_shape(array: Float) -> list[int]:
    """Return the shape as two numbers; 0 stands for a dimension that is not there."""
    return [*array.shape, 0, 0][:2]


def _read_ragged(columns: Mapping[str, npt.NDArray[Any]], name: str) -> list[Any]:
    """Cut a flat array into views of the stored shapes."""
    flat, shapes = columns[name], columns[f"{name}_shape"]
    if flat.dtype != np.float64 or flat.ndim != 1 or shapes.shape[1:] != (2,):
        raise ValueError(f"{name}: {flat.dtype} of shape {flat.shape}, {shapes.shape}")
    arrays: list[Float | None] = []
    start = 0
    for shape in shapes.tolist():
        if shape == [-1, -1]:
            arrays.append(None)
            continue
        dimensions = [n for n in shape if n]
        n_values = math.prod(dimensions)
        arrays.append(flat[start : start + n_values].reshape(dimensions))
        start += n_values
    if start != len(flat):
        raise ValueError(f"{name}: {len(flat)} values, {start} expected")
    return arrays
