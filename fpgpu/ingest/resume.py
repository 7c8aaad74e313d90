"""What an earlier run has left in a store folder: exposures that are current, and stray shards."""

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from fpgpu.ingest.flags import ANY_BIT
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.record import is_current
from fpgpu.ingest.report import IngestRow, by_cause
from fpgpu.stores.files.scratch import scratch_folder
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.records import CalibrationRecord
from fpgpu.stores.shards import find_orphans, find_parts
from fpgpu.stores.units import stored_unit
from fpgpu.superpixels import SUPER_PIXEL_SIZE

__all__ = ["Earlier", "Present", "look", "remove_strays"]

logger = logging.getLogger(__name__)

Key = tuple[str, str]


class Present(NamedTuple):
    """What a store folder holds when a run begins.

    Attributes
    ----------
    shape : tuple of int or None
        Pixels (nx, ny) of every exposure; None where there is no pixel store.
    super_pixel_size : int
        Pixels along a side of a super-pixel.
    in_pixels, in_meta : set of (band, expID)
        The exposures of each store.
    """

    shape: tuple[int, int] | None
    super_pixel_size: int
    in_pixels: set[Key]
    in_meta: set[Key]


def look(path: Path, nside_full: int | tuple[int, int] | None) -> Present:
    """Look at the stores of a folder.

    Parameters
    ----------
    path : Path
        The folder; stores that are missing are empty.
    nside_full : int, tuple of int or None
        The size that was asked for.

    Returns
    -------
    Present

    Raises
    ------
    StoreFormatError, StoreConflictError
        When a store is damaged, or holds images of another size.
    LayoutError
        When the size is no whole number of super-pixels.
    """
    folder = StoreFolder(path)
    shape, size, in_pixels, in_meta = None, SUPER_PIXEL_SIZE, set(), set()
    if folder.pixels.exists():
        with PixelStore(folder.pixels, nside_full, mode="r") as pixels:
            shape, size, in_pixels = pixels.shape, pixels.super_pixel_size, set(pixels)
    elif nside_full is not None:
        shape = Geometry.of_arguments(nside_full, size).shape
    if folder.meta.exists():
        with MetaStore(folder.meta) as meta:
            in_meta = set(meta)
    return Present(shape, size, in_pixels, in_meta)


class Earlier:
    """Records of the exposures that a folder holds in both stores, by the file they came from.

    Parameters
    ----------
    path : Path
        The store folder.
    present : Present
        What it holds.
    """

    def __init__(self, path: Path, present: Present) -> None:
        self._by_input: dict[str, list[CalibrationRecord]] = defaultdict(list)
        keys = present.in_pixels & present.in_meta
        if keys:
            with PixelStore(StoreFolder(path).pixels, mode="r") as pixels:
                for key in sorted(keys):
                    record = pixels.record(*key)
                    self._by_input[str(record.provenance.get("input", ""))].append(record)

    def rows(self, item: Input) -> list[IngestRow]:
        """Give the exposures of an input when nothing about it has changed.

        Parameters
        ----------
        item : Input
            With absolute paths.

        Returns
        -------
        list of IngestRow
            One an exposure, ``"unchanged"``; none when the input must be read.
        """
        if item.exposure is not None:
            return []
        records = self._by_input.get(str(item.path), [])
        current = [record for record in records if is_current(record.provenance, item)]
        return [_unchanged(item, record) for record in current]


def remove_strays(folder: Path, level: int = logging.WARNING) -> list[Path]:
    """Remove shards that a killed run has written and not published, and finish a publication.

    Parameters
    ----------
    folder : Path
        The store folder, which must be held.
    level : int, optional
        How loudly to say so in the log.

    Returns
    -------
    list of Path
        What was removed, relative to the folder.
    """
    # This settles what a kill has interrupted, and removes the temporaries of that, too.
    with scratch_folder(folder, alone=True):
        strays = [*find_orphans(folder), *find_parts(folder)]
    for stray in strays:
        stray.unlink(missing_ok=True)
    strays = [stray.relative_to(folder.resolve()) for stray in strays]
    if strays:
        names = ", ".join(str(stray) for stray in strays[:5])
        more = f" and {len(strays) - 5} more" if len(strays) > 5 else ""
        logger.log(
            level,
            "%s: removed %d unpublished shard%s of a run that was killed: %s%s",
            folder,
            len(strays),
            "" if len(strays) == 1 else "s",
            names,
            more,
        )
    return strays


def _unchanged(item: Input, record: CalibrationRecord) -> IngestRow:
    """Make the row of an exposure that stays as it is."""
    masked = record.masked
    residual = record.provenance.get("sip_residual_px")
    # No bits are recorded where any is bad; no mask where there was none, or it was ignored.
    any_bit = ANY_BIT if "mask" in record.names else 0
    return IngestRow(
        file=item.path,
        status="unchanged",
        band=record.band,
        expID=record.expID,
        n_pixels=0 if masked is None else masked.n_pixels,
        n_masked=0 if masked is None else masked.n_masked,
        masked={} if masked is None else by_cause(masked),
        bitmask=any_bit if record.bitmask_applied is None else record.bitmask_applied,
        flags=json.loads(str(record.provenance.get("dq_pixels", "{}"))),
        masked_by_flag=json.loads(str(record.provenance.get("dq_masked", "{}"))),
        flux_factor=record.counts_to_flux,
        flux_units=record.flux_units,
        unit=stored_unit(record),
        wcs_kind=str(record.provenance.get("wcs", "")),
        sip_residual=None if residual is None else float(residual),
        notes=tuple(json.loads(str(record.provenance.get("notes", "[]")))),
    )
