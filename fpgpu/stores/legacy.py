"""What fpgpu 0.1 kept of an exposure's place on the sky: read, so that nothing is fitted again.

Beside the meta store it was ``meta.fpgpu.npz``; in a shard, the group ``fpgpu_shard``.
"""

import io
import json
import logging
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu.errors import StoreFormatError
from fpgpu.stores.disk import read_regular, signature
from fpgpu.stores.hdf5.reading import bytes_in, member, opened_for_reading
from fpgpu.stores.metadata.record import LARGEST, Record, sky_from_json
from fpgpu.stores.metadata.skyrecords import Key, SkyColumns, StoredRecords, text_digest

__all__ = ["shard_record", "sidecar_records"]

logger = logging.getLogger(__name__)

_NONE = StoredRecords({}, SkyColumns.of([]))

# All that reading a damaged zip or npy file was seen to raise.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, ArithmeticError, AttributeError, EOFError, LookupError,
    MemoryError, NotImplementedError, OSError, RuntimeError, SyntaxError, TypeError, ValueError,
)  # fmt: skip


def sidecar_records(
    json_path: Path, asdf_path: Path, texts: dict[str, dict[str, str]]
) -> StoredRecords:
    """Read the records of those headers that are still what they were.

    What came from gWCS is left out when the ASDF file is another one than it was. A damaged file
    gives no records.
    """
    path = json_path.with_name(f"{json_path.name.removesuffix('.json')}.fpgpu.npz")
    try:
        content, _ = read_regular(path)
        arrays = _read_arrays(content)
        names = json.loads(arrays["json_names"].tobytes())
        keys = [(str(band), str(expID)) for band, expIDs in names.items() for expID in expIDs]
        columns = SkyColumns.from_arrays(arrays)
        if len(keys) != len(columns):
            raise ValueError(f"{len(columns)} records of {len(keys)} exposures")
        rows = {
            (band, expID): row
            for row, (band, expID) in enumerate(keys)
            if expID in texts.get(band, {})
            and columns.digests[row].tobytes() == text_digest(texts[band][expID])
        }
        if asdf_path.exists():
            found = signature(asdf_path)
            stated = arrays["asdf_stat"].tolist() if "asdf_stat" in arrays else None
            if stated != [found.size, found.mtime_ns]:
                columns = columns.without_gwcs()
        return StoredRecords(rows, columns)
    except FileNotFoundError:
        return _NONE
    except _DAMAGE as exc:
        logger.warning("%s: damaged and ignored (%s: %s)", path, type(exc).__name__, exc)
        return _NONE


def shard_record(path: Path, key: Key, store_id: str) -> Record | None:
    """Read the metadata that a shard of fpgpu 0.1 holds; None where there are none."""
    with opened_for_reading(path) as h5:
        stored = member(h5, ["fpgpu_shard", "entry"])
        if not isinstance(stored, h5py.Dataset):
            return None
        text = _bytes_of(stored, path)
        if zlib.crc32(text) != int(h5["fpgpu_shard"].attrs.get("crc32", -1)):
            raise StoreFormatError(f"{path}: fpgpu_shard/entry does not match its checksum")
        content = json.loads(text)
        header, sky = content["header"], content["sky"]
        if header is None:
            return None
        found = member(h5, ["fpgpu_shard", "gwcs"])
        gwcs = None if found is None else _bytes_of(found, path)
        if content["gwcs_crc32"] != (None if gwcs is None else zlib.crc32(gwcs)):
            raise StoreFormatError(f"{path}: fpgpu_shard/gwcs does not match its checksum")
    return Record(key, "", store_id, header, gwcs, sky_from_json(sky, header))


def _bytes_of(stored: Any, path: Path) -> bytes:
    """Read an array of bytes."""
    content = bytes_in(stored, LARGEST)
    if content is None:
        raise StoreFormatError(f"{path}: fpgpu_shard holds something that is no array of bytes")
    return content


def _read_arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read all arrays of a file whose members match their checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            # 0.1 did not compress them; what does so stands for more than it holds.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                raise ValueError(f"{info.filename} is compressed")
        # An array whose type was damaged need not be read to its end, where its checksum is.
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"{damaged} does not match its checksum")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
