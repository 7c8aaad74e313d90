"""The record of one exposure that never changes: header, gWCS, place on the sky, calibration.

A shard holds one beside its pixels; a change of metadata alone writes new ones into a file of their
own. Each begins with a magic number and the SHA-256 of all that follows, so that nothing of it is
parsed before it was checked; the index of a store repeats the digest.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from fpgpu.errors import StoreFormatError
from fpgpu.stores.metadata.skyrecords import SIP_FIELDS, Float, Key, SkyRecord, text_digest

__all__ = ["Place", "Record", "decode", "encode", "read_place", "sky_from_json"]

MAGIC = b"FPGPUR2\n"
_HEAD = struct.Struct("<32sI")
# Far above any header or gWCS; a damaged file must not make anybody allocate terabytes.
LARGEST = 1 << 28


class Place(NamedTuple):
    """Where a record is.

    Attributes
    ----------
    file : str
        Relative to the folder of the store.
    offset, length : int
        In bytes.
    digest : str
        SHA-256 of these bytes, hexadecimal.
    """

    file: str
    offset: int
    length: int
    digest: str

    @classmethod
    def of(cls, file: str, offset: int, content: bytes) -> Self:
        """Tell where a record is that a file is written with."""
        return cls(file, offset, len(content), hashlib.sha256(content).hexdigest())


class Record(NamedTuple):
    """All that is kept of an exposure beside its pixels.

    Attributes
    ----------
    key : (str, str)
        Band and expID.
    id : str
        Of the pixels; empty where they have none.
    store_id : str
        Of the store it was written for.
    text : str or None
        The header, None where the writer had no usable one.
    gwcs : bytes or None
        ASDF, from `fpgpu.stores.metadata.gwcs.gwcs_to_bytes`.
    sky : SkyRecord or None
        Where the exposure is on the sky, None without a header.
    calibration : dict or None
        `CalibrationRecord.to_json` of the pixels; None in a record of metadata alone.
    """

    key: Key
    id: str
    store_id: str
    text: str | None
    gwcs: bytes | None
    sky: SkyRecord | None
    calibration: Mapping[str, Any] | None = None


def encode(record: Record) -> bytes:
    """Return a record as bytes."""
    sky = record.sky
    content = {
        "key": record.key,
        "id": record.id,
        "store": record.store_id,
        "header": record.text,
        "sky": None if sky is None else _plain(sky),
        "calibration": record.calibration,
        "has_gwcs": record.gwcs is not None,
    }
    text = json.dumps(content).encode()
    body = text + (record.gwcs or b"")
    length = struct.pack("<I", len(text))
    return MAGIC + hashlib.sha256(length + body).digest() + length + body


def decode(content: bytes, place: object) -> Record:
    """Return the record that `encode` wrote."""
    start = len(MAGIC)
    if not content.startswith(MAGIC) or len(content) < start + _HEAD.size:
        raise StoreFormatError(f"{place}: is no record of an exposure that this fpgpu reads")
    digest, length = _HEAD.unpack_from(content, start)
    if hashlib.sha256(memoryview(content)[start + 32 :]).digest() != digest:
        raise StoreFormatError(f"{place}: the record of the exposure does not match its checksum")
    body = start + _HEAD.size
    try:
        found = json.loads(content[body : body + length])
        band, expID = found["key"]
        text, sky = found["header"], found["sky"]
        return Record(
            (str(band), str(expID)),
            str(found["id"]),
            str(found["store"]),
            text,
            content[body + length :] if found["has_gwcs"] else None,
            None if sky is None or text is None else sky_from_json(sky, text),
            found["calibration"],
        )
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as exc:
        raise StoreFormatError(
            f"{place}: the record of the exposure is not as fpgpu writes it: {exc!r}"
        ) from exc


def read_place(descriptor: int, place: Place, where: object) -> Record:
    """Read a record from an open file, checking it against what the index says."""
    if not 0 < place.length <= LARGEST or place.offset < 0:
        raise StoreFormatError(f"{where}: the index gives its record {place.length} bytes")
    content = os.pread(descriptor, place.length, place.offset)
    if hashlib.sha256(content).hexdigest() != place.digest:
        raise StoreFormatError(
            f"{where}: the header and WCS in {place.file} do not match the checksum in the index; "
            "put the file back from a copy, or ingest the exposure again"
        )
    return decode(content, where)


def _plain(sky: SkyRecord) -> dict[str, Any]:
    """Return a record as lists and numbers; Python writes floats so that they come back exactly."""
    sip = sky.sip
    return {
        "shape": list(sky.shape),
        "fits_outline": None if sky.fits_outline is None else sky.fits_outline.tolist(),
        "gwcs_outline": None if sky.gwcs_outline is None else sky.gwcs_outline.tolist(),
        "sip": sip and {name: np.asarray(getattr(sip, name)).tolist() for name in SIP_FIELDS},
        "has_gwcs": sky.has_gwcs,
    }


def sky_from_json(plain: Mapping[str, Any], text: str) -> SkyRecord:
    """Make a record from lists and numbers."""
    nx, ny = plain["shape"]
    sip = None
    if plain["sip"] is not None:
        from fpgpu.sky.sip import SipFit

        fields = {name: np.array(plain["sip"][name], np.float64) for name in SIP_FIELDS}
        residual = float(fields.pop("residual"))
        sip = SipFit(**fields, residual=residual)
    return SkyRecord(
        text_digest(text),
        (int(nx), int(ny)),
        fits_outline=_outline(plain["fits_outline"]),
        gwcs_outline=_outline(plain["gwcs_outline"]),
        sip=sip,
        has_gwcs=bool(plain["has_gwcs"]),
    )


def _outline(corners: Any) -> Float | None:
    """Make the corners of a footprint from lists."""
    return None if corners is None else np.array(corners, np.float64).reshape(-1, 2)
