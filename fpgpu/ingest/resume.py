"""What a store folder holds when a run begins, and what that means for the run.

Exposures that are current need not be made again, shards of a run that was killed can be taken up,
and what goes in beside the others must fit them.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fpgpu.errors import MissingStoreError, StoreError, UnusableExposureError
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.record import absolute, is_current
from fpgpu.ingest.report import IngestRow, stored_row
from fpgpu.stores.commit import commit_shards
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.names import NameTree
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.records import CalibrationRecord
from fpgpu.stores.shard import find_orphans, find_parts, read_shard
from fpgpu.superpixels import SUPER_PIXEL_SIZE

__all__ = ["Admission", "Earlier", "Present", "look", "remove_own", "take_up", "tell_strays"]

logger = logging.getLogger(__name__)


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

    def settle(self, item: Input) -> Input:
        """Make an input mean the same in every process, for exposures of this store."""
        item = absolute(item)
        return replace(item, options=replace(item.options, super_pixel_size=self.super_pixel_size))


def look(path: Path, nside_full: int | tuple[int, int] | None) -> Present:
    """Look at the stores of a folder, and the size that was asked for; stores that are missing are
    empty.
    """
    folder = StoreFolder(path)
    shape, size, in_pixels, in_meta = None, SUPER_PIXEL_SIZE, set(), set()
    if folder.pixels.exists():
        with PixelStore(folder.pixels, nside_full, mode="r") as pixels:
            shape, size, in_pixels = pixels.shape, pixels.super_pixel_size, set(pixels)
    elif nside_full is not None:
        shape = Geometry.of_arguments(nside_full, size).shape
    if folder.meta.exists() or folder.pixels.exists():
        with suppress(MissingStoreError):
            in_meta = set(MetaStore(folder.meta))
    return Present(shape, size, in_pixels, in_meta)


class Admission:
    """Lets exposures of one size, and of names that do not collide, into a store.

    Parameters
    ----------
    folder : Path
        The store folder, for messages.
    present : Present
        What it holds.

    Attributes
    ----------
    shape : tuple of int or None
        Pixels (nx, ny) of every exposure; None before the first one.
    """

    def __init__(self, folder: Path, present: Present) -> None:
        self.shape = present.shape
        self._folder = folder
        self._given_by: dict[Key, Path] = {}
        expIDs: dict[str, set[str]] = {}
        for band, expID in present.in_pixels | present.in_meta:
            expIDs.setdefault(band, set()).add(expID)
        self._names = {band: NameTree(names) for band, names in expIDs.items()}

    def admit(self, key: Key, shape: tuple[int, int], file: Path) -> None:
        """Take note of an exposure, of (nx, ny) pixels, that goes in."""
        if self.shape is not None and shape != self.shape:
            raise UnusableExposureError(
                f"{file}: its image has shape {shape}, but {self._folder} holds images of "
                f"{self.shape}; all images of a store have one size"
            )
        if key in self._given_by:
            raise UnusableExposureError(
                f"{file}: would replace {'/'.join(key)}, which {self._given_by[key]} gave in this "
                "run; use --framedir to name exposures by their folders"
            )
        band, expID = key
        self._names.setdefault(band, NameTree(())).add(expID)
        self._given_by[key] = file
        self.shape = shape


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
        """Give a row an exposure of an input when nothing about it has changed; none when it must
        be read.
        """
        if item.exposure is not None:
            return []
        records = self._by_input.get(str(item.path), [])
        current = [record for record in records if is_current(record.provenance, item)]
        return [stored_row(item.path, "unchanged", record) for record in current]


def take_up(folder: Path, items: Iterable[Input]) -> bool:
    """Commit the complete shards that a killed run has written of inputs, settled, that are the
    same now; whether there were any.
    """
    inputs = {str(item.path): item for item in items if item.exposure is None}
    shards = []
    for path in find_orphans(folder):
        with suppress(StoreError):  # damaged ones are told, and their inputs read again
            shard = read_shard(path)
            item = inputs.get(str(shard.record.provenance.get("input", "")))
            if item is None or shard.entry.row.meta is None:
                continue
            if is_current(shard.record.provenance, item):
                shards.append(shard)
    if shards:
        commit_shards(StoreFolder(folder).pixels, shards)
        logger.info("%s: %d shards of a run that was killed are taken up", folder, len(shards))
    return bool(shards)


def tell_strays(folder: Path) -> None:
    """Tell of files that a killed run has written and not committed.

    They stay: another writer may be about to commit them.
    """
    strays = [*find_orphans(folder), *find_parts(folder)]
    if strays:
        logger.warning(
            "%s: %d of its files belong to no commit, as a killed run leaves them; 'fpgpu verify "
            "--repair' tells more and removes what is not complete",
            folder,
            len(strays),
        )


def remove_own(folder: Path, run: str) -> None:
    """Remove what the workers of a run have written that no commit names; they have ended."""
    with suppress(StoreError, OSError):  # what is told is why the run ended
        for path in (*find_orphans(folder), *find_parts(folder)):
            if f"-{run}" in path.name:
                path.unlink(missing_ok=True)
