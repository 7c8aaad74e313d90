"""What a store holds, of all exposures at once: the part of a commit that is no HDF5.

It stands behind the HDF5 part of ``pixels.h5`` in the same file, so that one rename replaces both,
a copy of the file has both, and whatever HDF5 program opens the file for writing cuts it off. It is
checked by its digest before anything of it is parsed.
"""

import hashlib
import json
import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fpgpu.errors import StoreFormatError
from fpgpu.stores.metadata.record import Place
from fpgpu.stores.metadata.skyrecords import UNKNOWN_SHAPE, Key, SkyColumns, SkyRecord
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.records import CalibrationRecord

__all__ = ["Entry", "Index", "Row", "split_tail"]

VERSION = 2
MAGIC = b"FPGPUX2\n"
# Length and SHA-256 of what is before the index, length and SHA-256 of the index, and the magic.
_FOOTER = struct.Struct("<Q32sQ32s8s")
_HASHED = 1 << 26
"""Bytes before the index of which the digest is kept. What is longer holds pixels; that somebody
wrote into it is known by the index being cut off."""

_NOTHING = SkyRecord(bytes(32), UNKNOWN_SHAPE)


class Row(NamedTuple):
    """An exposure.

    Attributes
    ----------
    band, expID : str
        Its key.
    id : str
        Of its pixels, new for each time that an exposure is written; empty where forcepho or
        fpgpu 0.1 wrote them.
    file : str
        The file with its pixels, relative to the folder of the store; empty where it has none.
    path : str
        Its dataset in that file.
    offset : int
        Byte at which its float32 pixels begin; -1 where only HDF5 can read them.
    size : int
        Bytes of that file; -1 in the store's own, which holds this index, too.
    meta : Place or None
        Where its metadata are; None where there are none.
    """

    band: str
    expID: str
    id: str = ""
    file: str = ""
    path: str = ""
    offset: int = -1
    size: int = -1
    meta: Place | None = None

    @property
    def key(self) -> Key:
        """Band and expID."""
        return self.band, self.expID


class Entry(NamedTuple):
    """All that the index holds of an exposure; can be sent between processes.

    Attributes
    ----------
    row : Row
        Where it is.
    sky : SkyRecord or None
        Where it is on the sky; None without metadata.
    calibration : CalibrationRecord or None
        How its pixels were made; None without pixels.
    """

    row: Row
    sky: SkyRecord | None = None
    calibration: CalibrationRecord | None = None


@dataclass(frozen=True, eq=False)
class Index:
    """What a store holds.

    Attributes
    ----------
    geometry : Geometry
        Of every image.
    store_id : str
        Which store this is, in all its states and copies.
    generation : int
        Number of the commit.
    rows : dict of (band, expID) to Row
        The exposures, in the order in which they first came.
    columns : SkyColumns
        Their places on the sky, row by row.
    calibrations : tuple of bytes
        `CalibrationRecord.to_json` as text, row by row; empty without pixels.
    taken : mapping of str to str
        Digests of the ``meta.json`` and ``meta.asdf`` of a user that went into these rows.
    replaced : tuple of (str, float)
        Files that an earlier commit replaced and when, seconds since 1970.
    """

    geometry: Geometry
    store_id: str
    generation: int = 0
    rows: Mapping[Key, Row] = field(default_factory=dict)
    columns: SkyColumns = field(default_factory=lambda: SkyColumns.of([]), repr=False)
    calibrations: tuple[bytes, ...] = field(default=(), repr=False)
    taken: Mapping[str, str] = field(default_factory=dict)
    replaced: tuple[tuple[str, float], ...] = ()

    @cached_property
    def _numbers(self) -> dict[Key, int]:
        return dict(zip(self.rows, range(len(self.rows)), strict=True))

    @cached_property
    def files(self) -> frozenset[str]:
        """The files that it names."""
        rows = self.rows.values()
        return frozenset({row.file for row in rows} | {r.meta.file for r in rows if r.meta}) - {""}

    def has_gwcs(self, key: Key) -> bool:
        """Whether there is a gWCS of an exposure."""
        return bool(self.columns.has_gwcs[self.number(key)])

    def number(self, key: Key) -> int:
        """Return which row an exposure has in `columns` and `calibrations`."""
        return self._numbers[key]

    def sky(self, key: Key) -> SkyRecord | None:
        """Return where an exposure is on the sky."""
        return self.columns.record(self.number(key)) if self.rows[key].meta else None

    def calibration(self, key: Key) -> CalibrationRecord | None:
        """Return how the pixels of an exposure were made."""
        text = self.calibrations[self.number(key)]
        return CalibrationRecord.from_json(json.loads(text)) if text else None

    def entry(self, key: Key) -> Entry:
        """Return all of an exposure, such as for another store."""
        return Entry(self.rows[key], self.sky(key), self.calibration(key))

    def changed(
        self, put: Mapping[Key, Entry], drop: Collection[Key] = (), **changes: Any
    ) -> "Index":
        """Return the index of a store after exposures were added or taken out."""
        gone = set(drop)
        keys = [key for key in dict.fromkeys((*self.rows, *put)) if key not in gone]
        entries = [put[key].sky or _NOTHING if key in put else self.number(key) for key in keys]
        texts = [
            _text(put[key].calibration) if key in put else self.calibrations[self.number(key)]
            for key in keys
        ]
        return replace(
            self,
            rows={key: put[key].row if key in put else self.rows[key] for key in keys},
            columns=self.columns.combine(entries),
            calibrations=tuple(texts),
            **changes,
        )

    def encode(self) -> bytes:
        """Return the index as bytes."""
        arrays = self.columns.arrays()
        arrays["calibration_ends"] = np.cumsum([len(t) for t in self.calibrations], dtype=np.int64)
        arrays["calibrations"] = np.frombuffer(b"".join(self.calibrations), np.uint8)
        head = {
            "version": VERSION,
            "store": self.store_id,
            "generation": self.generation,
            "shape": self.geometry.shape,
            "super_pixel_size": self.geometry.size,
            "taken": dict(self.taken),
            "replaced": self.replaced,
            "rows": list(self.rows.values()),
            "arrays": {name: [a.dtype.str, list(a.shape)] for name, a in arrays.items()},
        }
        text = json.dumps(head).encode()
        text += b" " * (-(8 + len(text)) % 8)
        parts = [struct.pack("<Q", len(text)), text]
        for array in arrays.values():
            parts += [np.ascontiguousarray(array).tobytes(), bytes(-array.nbytes % 8)]
        return b"".join(parts)

    @classmethod
    def decode(cls, content: memoryview, place: object) -> Self:
        """Return the index that `encode` wrote; its arrays are views of these bytes."""
        try:
            (length,) = struct.unpack_from("<Q", content)
            head = json.loads(bytes(content[8 : 8 + length]))
            if head["version"] != VERSION:
                raise StoreFormatError(
                    f"{place}: its index has version {head['version']}; this fpgpu reads {VERSION}"
                )
            arrays = _arrays(content[8 + length :], head["arrays"])
            texts, ends = arrays["calibrations"].tobytes(), arrays["calibration_ends"].tolist()
            starts = [0, *ends][:-1]
            rows = [_row(*fields) for fields in head["rows"]]
            found = cls(
                Geometry(tuple(head["shape"]), head["super_pixel_size"]),
                _name(head["store"]),
                int(head["generation"]),
                {row.key: row for row in rows},
                SkyColumns.from_arrays(arrays),
                tuple(texts[i:j] for i, j in zip(starts, ends, strict=True)),
                {str(name): str(digest) for name, digest in head["taken"].items()},
                tuple((str(file), float(when)) for file, when in head["replaced"]),
            )
            if {len(rows), len(found.columns), len(found.calibrations)} != {len(found.rows)}:
                raise ValueError(f"{len(rows)} rows do not fit {len(found.columns)} columns")
        except StoreFormatError:
            raise
        except (
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            struct.error,
            RecursionError,
        ) as exc:
            raise StoreFormatError(
                f"{place}: its index is not as fpgpu writes it: {type(exc).__name__}: {exc}"
            ) from exc
        return found

    def tail(self, before: bytes | int) -> bytes:
        """Return what stands behind the HDF5 part, or its length where that holds pixels."""
        content = self.encode()
        digest, length = bytes(32), before if isinstance(before, int) else len(before)
        if isinstance(before, bytes) and length <= _HASHED:
            digest = hashlib.sha256(before).digest()
        own = hashlib.sha256(content).digest()
        return content + _FOOTER.pack(length, digest, len(content), own, MAGIC)


class Tail(NamedTuple):
    """Where the index of a store is, by the end of its file.

    Attributes
    ----------
    n_before, n_index : int
        Bytes of the HDF5 part, and of the index.
    before, digest : bytes
        Their SHA-256; that of the HDF5 part is zeros where it holds pixels.
    """

    n_before: int
    n_index: int
    before: bytes
    digest: bytes


FOOTER_BYTES = _FOOTER.size


def split_tail(end: bytes, size: int) -> Tail | None:
    """Read where the index of a store is; None for a file that has none."""
    if len(end) != _FOOTER.size:
        return None
    n_before, before, n_index, index, magic = _FOOTER.unpack(end)
    if magic != MAGIC or n_before + n_index + _FOOTER.size != size:
        return None
    return Tail(n_before, n_index, before, index)


def _text(calibration: CalibrationRecord | None) -> bytes:
    """Return a calibration record as the index keeps it."""
    return b"" if calibration is None else json.dumps(calibration.to_json()).encode()


def _name(value: object) -> str:
    """Return a string, refusing anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _row(
    band: object, expID: object, id_: object, file: object, path: object, offset: Any, size: Any,
    meta: Any,
) -> Row:  # fmt: skip
    """Return a row of what JSON holds of it."""
    place = None
    if meta is not None:
        name, start, length, digest = meta
        place = Place(_name(name), int(start), int(length), _name(digest))
    names = (_name(band), _name(expID), _name(id_), _name(file), _name(path))
    return Row(*names, int(offset), int(size), place)


def _arrays(content: memoryview, described: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Return views of the arrays of an index."""
    arrays, start = {}, 0
    for name, (kind, shape) in described.items():
        dtype = np.dtype(kind)
        if dtype.kind not in "biuf" or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError(f"array {name!r} of {dtype} and shape {shape}")
        count = math.prod(shape)
        arrays[name] = np.frombuffer(content, dtype, count, start).reshape(shape)
        start += count * dtype.itemsize + -count * dtype.itemsize % 8
    return arrays
