"""Where exposures are on the sky: one record, and the records of a whole store as arrays."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from fpgpu.sky.sip import SipFit

__all__ = ["Float", "Key", "Ragged", "SkyColumns", "SkyRecord", "StoredRecords", "text_digest"]

Key = tuple[str, str]
Float = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[Any]]

DIGEST_BYTES = 32
OUTLINES = ("fits_outline", "gwcs_outline")
SIP_FIELDS = ("crval", "crpix", "cd", "a", "b", "ap", "bp", "residual")
RAGGED = (*OUTLINES, *(f"sip_{name}" for name in SIP_FIELDS))
NONE = -1

UNKNOWN_SHAPE = (0, 0)
"""Remembered of an exposure whose header has no usable WCS."""


def text_digest(text: str) -> bytes:
    """Return the SHA-256 of a header's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


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


@dataclass(frozen=True)
class Ragged:
    """Float arrays of up to two dimensions, or None: one a row.

    Attributes
    ----------
    flat : ndarray of float64, shape (n_values,)
        All values, row after row.
    shapes : ndarray of int64, shape (n, 2)
        Of each row; 0 stands for a dimension that is not there, -1 twice for None.
    """

    flat: Float
    shapes: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.flat.dtype != np.float64 or self.flat.ndim != 1 or self.shapes.shape[1:] != (2,):
            raise ValueError(
                f"{self.flat.dtype} values of shape {self.flat.shape}, {self.shapes.shape} shapes"
            )
        is_none = np.all(self.shapes == NONE, axis=1)
        # Beyond the number of values a product could come round to the right one.
        fits = np.all((self.shapes >= 0) & (self.shapes <= len(self.flat)), axis=1)
        if not np.all(is_none | fits):
            raise ValueError(f"shapes that {len(self.flat)} values cannot have")
        if self.ends[-1] != len(self.flat):
            raise ValueError(f"{len(self.flat)} values, {self.ends[-1]} expected")

    @classmethod
    def of(cls, values: Iterable[npt.ArrayLike | None]) -> "Ragged":
        """Put arrays together."""
        arrays = [None if v is None else np.asarray(v, dtype=np.float64) for v in values]
        shapes = [[NONE, NONE] if a is None else [*a.shape, 0, 0][:2] for a in arrays]
        flat = [a.ravel() for a in arrays if a is not None]
        return cls(
            np.concatenate(flat) if flat else np.empty(0),
            np.array(shapes, dtype=np.int64).reshape(-1, 2),
        )

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Where each row ends in `flat`, after a 0."""
        counts = np.where(self.shapes == 0, 1, self.shapes).prod(axis=1)
        counts[self.shapes[:, 0] == NONE] = 0
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, row: int) -> Float | None:
        """Return a view of one array."""
        shape = self.shapes[row].tolist()
        if shape[0] == NONE:
            return None
        dimensions = [n for n in shape if n]
        return self.flat[self.ends[row] : self.ends[row + 1]].reshape(dimensions)

    def join(self, other: "Ragged") -> "Ragged":
        """Return the rows of this one and then those of another."""
        flat = np.concatenate([self.flat, other.flat])
        return Ragged(flat, np.concatenate([self.shapes, other.shapes]))

    def take(self, runs: Sequence[tuple[int, int]]) -> "Ragged":
        """Return some rows in runs of neighbours, each as its first row and the one after."""
        pieces = [self.flat[self.ends[i] : self.ends[j]] for i, j in runs]
        shapes = [self.shapes[i:j] for i, j in runs]
        return Ragged(
            np.concatenate([np.empty(0), *pieces]),
            np.concatenate([np.empty((0, 2), np.int64), *shapes]),
        )

    def stacked(self, rows: Sequence[int]) -> Float | None:
        """Return some rows as one array, None where they are not all of one shape."""
        taken = self.take(_runs(rows))
        if not rows or (taken.shapes != taken.shapes[0]).any() or taken.shapes[0, 0] == NONE:
            return None
        return taken.flat.reshape(len(rows), *(n for n in taken.shapes[0].tolist() if n))


@dataclass(frozen=True)
class SkyColumns:
    """Records as arrays: what a sidecar holds.

    Attributes
    ----------
    digests : ndarray of uint8, shape (n, 32)
    shapes : ndarray of int64, shape (n, 2)
    has_gwcs : ndarray of bool, shape (n,)
    ragged : dict of str to Ragged
        Outlines and coefficients by name.
    """

    digests: npt.NDArray[np.uint8]
    shapes: npt.NDArray[np.int64]
    has_gwcs: npt.NDArray[np.bool_]
    ragged: dict[str, Ragged] = field(repr=False)

    def __post_init__(self) -> None:
        n = len(self)
        lengths = {len(self.shapes), len(self.has_gwcs), *map(len, self.ragged.values())}
        if lengths != {n} or self.digests.shape != (n, DIGEST_BYTES):
            raise ValueError(f"columns of {n} digests and {sorted(lengths)} other values")

    @classmethod
    def of(cls, records: Sequence[SkyRecord]) -> "SkyColumns":
        """Put records together."""
        ragged = {name: Ragged.of(getattr(r, name) for r in records) for name in OUTLINES}
        for name in SIP_FIELDS:
            values = [None if r.sip is None else getattr(r.sip, name) for r in records]
            ragged[f"sip_{name}"] = Ragged.of(values)
        return cls(
            np.frombuffer(b"".join(r.digest for r in records), np.uint8).reshape(-1, DIGEST_BYTES),
            np.array([r.shape for r in records], dtype=np.int64).reshape(-1, 2),
            np.array([r.has_gwcs for r in records], dtype=np.bool_),
            ragged,
        )

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "SkyColumns":
        """Take what `arrays` gave."""
        return cls(
            arrays["digests"].astype(np.uint8, copy=False),
            arrays["shapes"].astype(np.int64, copy=False).reshape(-1, 2),
            arrays["has_gwcs"].astype(np.bool_, copy=False),
            {name: Ragged(arrays[name], arrays[f"{name}_shape"]) for name in RAGGED},
        )

    def arrays(self) -> Arrays:
        """Return all as named arrays."""
        plain: Arrays = {"digests": self.digests, "shapes": self.shapes, "has_gwcs": self.has_gwcs}
        for name, values in self.ragged.items():
            plain |= {name: values.flat, f"{name}_shape": values.shapes}
        return plain

    def __len__(self) -> int:
        return len(self.digests)

    def record(self, row: int) -> SkyRecord:
        """Return one record; its arrays are views."""
        nx, ny = self.shapes[row].tolist()
        values = {name: self.ragged[name][row] for name in RAGGED}
        sip = None
        if values["sip_residual"] is not None:
            from fpgpu.sky.sip import SipFit

            parts: dict[str, Any] = {name: values[f"sip_{name}"] for name in SIP_FIELDS}
            sip = SipFit(**{**parts, "residual": float(parts["residual"])})
        return SkyRecord(
            bytes(self.digests[row]),
            (nx, ny),
            values["fits_outline"],
            values["gwcs_outline"],
            sip,
            bool(self.has_gwcs[row]),
        )

    def without_gwcs(self) -> "SkyColumns":
        """Return the records with nothing that came from a gWCS."""
        nothing = Ragged(np.empty(0), np.full((len(self), 2), NONE, np.int64))
        rest = {n: self.ragged[n] if n == "fits_outline" else nothing for n in RAGGED}
        return replace(self, has_gwcs=np.zeros(len(self), np.bool_), ragged=rest)

    def combine(self, entries: Sequence[int | SkyRecord]) -> "SkyColumns":
        """Return rows of these records and new ones, in the order given."""
        new = [entry for entry in entries if isinstance(entry, SkyRecord)]
        numbers = iter(range(len(self), len(self) + len(new)))
        rows = [entry if isinstance(entry, int) else next(numbers) for entry in entries]
        added = SkyColumns.of(new)
        runs, order = _runs(rows), np.array(rows, np.intp)
        return SkyColumns(
            np.concatenate([self.digests, added.digests])[order],
            np.concatenate([self.shapes, added.shapes])[order],
            np.concatenate([self.has_gwcs, added.has_gwcs])[order],
            {n: self.ragged[n].join(added.ragged[n]).take(runs) for n in RAGGED},
        )


class StoredRecords(Mapping[Key, SkyRecord]):
    """Records by exposure, each made of the columns when it is first asked for.

    Parameters
    ----------
    rows : mapping of (band, expID) to int
        Which row is whose.
    columns : SkyColumns
        The rows.
    """

    def __init__(self, rows: Mapping[Key, int], columns: SkyColumns) -> None:
        self.rows = rows
        self.columns = columns
        self._made: dict[Key, SkyRecord] = {}

    def __getitem__(self, key: Key) -> SkyRecord:
        if key not in self._made:
            self._made[key] = self.columns.record(self.rows[key])
        return self._made[key]

    def __contains__(self, key: object) -> bool:
        return key in self.rows

    def __iter__(self) -> Iterator[Key]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return runs of neighbouring rows, each as its first row and the one after its last."""
    if not rows:
        return []
    table = np.asarray(rows)
    cuts = [0, *(np.flatnonzero(np.diff(table) != 1) + 1).tolist(), len(rows)]
    return [(rows[i], rows[j - 1] + 1) for i, j in pairwise(cuts)]
