"""What a shard holds beside its exposure: all that the meta store and the ingest record need.

It lies outside the tree of bands, as two arrays of bytes: ``fpgpu_shard/entry``, JSON with the
header and the place on the sky; and ``fpgpu_shard/gwcs``, an ASDF file, where there is a gWCS.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from fpgpu.errors import StoreFormatError
from fpgpu.stores.metadata.entries import MetaEntry
from fpgpu.stores.metadata.gwcs_text import GwcsText
from fpgpu.stores.metadata.records import SIP_FIELDS, Float, SkyRecord, text_digest

__all__ = ["GROUP", "StoredEntry", "load_entry", "read_entry", "stored_entry", "write_entry"]

GROUP = "fpgpu_shard"
VERSION = 1
# Far above any header or gWCS; a damaged file must not make anybody allocate terabytes.
LARGEST = 1 << 28


class StoredEntry(NamedTuple):
    """The two arrays of bytes.

    Attributes
    ----------
    text : bytes
        JSON.
    gwcs : bytes or None
        ASDF file with the tree ``{"gwcs": {"gwcs": gwcs}}``.
    """

    text: bytes
    gwcs: bytes | None


def stored_entry(entry: MetaEntry | None) -> StoredEntry:
    """Serialise a meta entry.

    Parameters
    ----------
    entry : MetaEntry or None
        From `fpgpu.stores.metadata.entries.new_entry`; None where nothing is known.
    """
    gwcs = None
    if entry is not None and entry.gwcs is not None:
        gwcs = entry.with_gwcs_text().gwcs.to_asdf()
    content = {
        "version": VERSION,
        "header": None if entry is None else entry.text,
        "sky": None if entry is None else _sky_to_plain(entry.record),
        "gwcs_crc32": None if gwcs is None else zlib.crc32(gwcs),
    }
    return StoredEntry(json.dumps(content).encode(), gwcs)


def write_entry(h5: h5py.File, entry: StoredEntry) -> None:
    """Put the arrays into a shard that is being made."""
    group = h5.create_group(GROUP)
    group.attrs["crc32"] = np.int64(zlib.crc32(entry.text))
    group["entry"] = np.frombuffer(entry.text, np.uint8)
    if entry.gwcs is not None:
        group["gwcs"] = np.frombuffer(entry.gwcs, np.uint8)


def read_entry(h5: h5py.File, path: Path) -> StoredEntry:
    """Read the arrays of a shard.

    Raises
    ------
    StoreFormatError
        If they are missing or damaged.
    """
    group = h5.get(GROUP)
    if not isinstance(group, h5py.Group) or "entry" not in group:
        raise StoreFormatError(f"{path}: has no {GROUP}/entry, so it is no shard of fpgpu")
    text = _bytes_of(group["entry"], path)
    if zlib.crc32(text) != int(group.attrs.get("crc32", -1)):
        raise StoreFormatError(f"{path}: {GROUP}/entry does not match its checksum")
    gwcs = _bytes_of(group["gwcs"], path) if "gwcs" in group else None
    stated = _parsed(text, path)["gwcs_crc32"]
    if stated != (None if gwcs is None else zlib.crc32(gwcs)):
        raise StoreFormatError(f"{path}: {GROUP}/gwcs does not match its checksum")
    return StoredEntry(text, gwcs)


def load_entry(stored: StoredEntry, key: tuple[str, str], path: Path) -> MetaEntry | None:
    """Make the meta entry from what is stored.

    Parameters
    ----------
    stored : StoredEntry
        From `read_entry`.
    key : (str, str)
        Band and expID of the exposure.
    path : pathlib.Path
        The shard, for messages.

    Returns
    -------
    MetaEntry or None
        None where the writer knew nothing.

    Raises
    ------
    StoreFormatError
        If something is not as fpgpu writes it.
    """
    content = _parsed(stored.text, path)
    try:
        text, sky = content["header"], content["sky"]
        if text is None:
            return None
        record = _sky_from_plain(sky, text)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise StoreFormatError(
            f"{path}: {GROUP}/entry is not as fpgpu writes it: {type(exc).__name__}: {exc}"
        ) from exc
    gwcs = None
    if stored.gwcs is not None:
        gwcs = GwcsText.from_asdf(stored.gwcs, path)
    return MetaEntry(key, text, gwcs, record)


def _parsed(text: bytes, path: Path) -> dict[str, Any]:
    """Parse the JSON of an entry."""
    try:
        content = json.loads(text)
        if content["version"] != VERSION:
            raise StoreFormatError(
                f"{path}: is a shard of version {content['version']}; this fpgpu reads version "
                f"{VERSION}"
            )
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        if isinstance(exc, StoreFormatError):
            raise
        raise StoreFormatError(f"{path}: {GROUP}/entry cannot be read as JSON: {exc}") from exc
    found: dict[str, Any] = content
    return found


def _bytes_of(dataset: Any, path: Path) -> bytes:
    """Read an array of bytes."""
    if (
        not isinstance(dataset, h5py.Dataset)
        or dataset.dtype != np.uint8
        or dataset.ndim != 1
        or dataset.size > LARGEST
    ):
        raise StoreFormatError(f"{path}: {GROUP} holds something that is no array of bytes")
    content: bytes = dataset[()].tobytes()
    return content


def _sky_to_plain(record: SkyRecord) -> dict[str, Any]:
    """Return a record as lists and numbers; Python writes floats so that they come back exactly."""
    sip = record.sip
    return {
        "shape": list(record.shape),
        "fits_outline": None if record.fits_outline is None else record.fits_outline.tolist(),
        "gwcs_outline": None if record.gwcs_outline is None else record.gwcs_outline.tolist(),
        "sip": sip and {name: np.asarray(getattr(sip, name)).tolist() for name in SIP_FIELDS},
        "has_gwcs": record.has_gwcs,
    }


def _sky_from_plain(plain: Mapping[str, Any], text: str) -> SkyRecord:
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
