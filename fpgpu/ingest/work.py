"""What a worker does with one input: read its exposures, calibrate them, write each as a shard.

Nothing here knows of other workers or of what is published. A task and what comes back are small:
file names and options one way, names of shards and counts the other.
"""

import logging
import resource
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fpgpu.backends.base import Backend
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.calibration import MaskCounts
from fpgpu.errors import (
    FpgpuError,
    StoreBusyError,
    StoreFormatError,
    StoreWriteError,
    UnusableExposureError,
)
from fpgpu.ingest.exposure import Exposure, sip_residual
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.prepare import is_empty_tile, prepare, require_weight
from fpgpu.ingest.readers import read_exposures
from fpgpu.ingest.record import FileMark, file_marks, record_of, require_unchanged
from fpgpu.ingest.report import IngestRow, by_cause, empty_tile_row, left_out_row
from fpgpu.stores.shard import Shard, write_shard
from fpgpu.stores.units import stored_unit

__all__ = ["STORE_FAILURES", "ShardResult", "Task", "discard", "make_shards"]

logger = logging.getLogger(__name__)

STORE_FAILURES = (StoreBusyError, StoreFormatError, StoreWriteError)
"""Errors after which no other exposure could go in either."""

# Executors of threads, and dask's workers, run several tasks in one process. Its memory is meant
# for one exposure, and catching the warnings of a library is not safe in threads.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Task:
    """One input, and where its exposures go.

    Attributes
    ----------
    item : Input
        With absolute paths.
    folder : Path
        The store folder.
    shape : tuple of int or None
        Pixels (nx, ny) of every exposure of the store; None where there is no store yet.
    super_pixel_size : int
        Pixels along a side of a super-pixel.
    backend : str or Backend
        Where to calibrate.
    run_id : str
        What the ids of shards begin with.
    """

    item: Input
    folder: Path
    shape: tuple[int, int] | None
    super_pixel_size: int
    backend: BackendName | Backend
    run_id: str = ""


@dataclass(frozen=True)
class ShardResult:
    """What became of one exposure.

    Attributes
    ----------
    row : IngestRow
        For the report; a shard counts as ``"stored"`` until it is known what it replaces.
    shard : Shard or None
        Where it was written; None when it was refused.
    error : FpgpuError or None
        Why it was refused.
    """

    row: IngestRow
    shard: Shard | None = None
    error: FpgpuError | None = None


def make_shards(task: Task) -> list[ShardResult]:
    """Turn an input into shards.

    Parameters
    ----------
    task : Task
        What to do.

    Returns
    -------
    list of ShardResult
        One an exposure, in the order of the reader, refused ones too.

    Raises
    ------
    StoreError
        When shards cannot be written at all. No shard of this input is left.
    """
    with _one_at_a_time:
        made = _attempt(task, complete=True)
        if any(each.error for each in made) and any(each.shard for each in made):
            # A shard says whether its input went in whole, which is only known at the end.
            discard(made)
            made = _attempt(task, complete=False)
    return made


def discard(made: list[ShardResult]) -> None:
    """Remove shards that will not be published.

    What cannot be removed is left to the next run, which finds it: that is nobody's error, least
    of all in place of the one that ends the run.

    Parameters
    ----------
    made : list of ShardResult
        What they came from.
    """
    for each in made:
        if each.shard is not None:
            try:
                each.shard.file.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s: cannot be removed: %s", each.shard.file, error)


def _attempt(task: Task, *, complete: bool) -> list[ShardResult]:
    """Write what can be written; nothing is left when that ends in an error of the store."""
    item = task.item
    start = time.perf_counter()
    made: list[ShardResult] = []
    try:
        marks = file_marks(item, read=True)
        made.extend(_each(task, marks, complete))
        try:
            require_unchanged(item, marks)
        except FpgpuError:
            discard(made)
            made = []
            raise
    except FpgpuError as error:
        if isinstance(error, STORE_FAILURES):
            discard(made)
            raise
        made.append(_refused(item, error, start))
    except BaseException:
        discard(made)
        raise
    return made


def _each(task: Task, marks: list[FileMark], complete: bool) -> Iterator[ShardResult]:
    """Write the exposures one by one, so that no two are in memory."""
    exposures = read_exposures(task.item.as_found())
    empty_band, n_others = "", 0
    while True:
        start = time.perf_counter()
        exposure = next(exposures, None)
        if exposure is None:
            break
        if not task.item.wants(exposure.band):
            yield ShardResult(left_out_row(task.item, exposure))
            continue
        try:
            prepare(exposure, task.item.calibration)
            if is_empty_tile(exposure):
                empty_band = exposure.band
                yield ShardResult(empty_tile_row(task.item, exposure))
                continue
            n_others += 1
            require_weight(exposure, task.item.calibration)
            yield _make(task, exposure, marks, complete, start)
        except STORE_FAILURES:
            raise
        except FpgpuError as refusal:
            yield _refused(task.item, refusal, start, exposure.band, exposure.expID)
        del exposure
    if empty_band and not n_others:
        error = UnusableExposureError("no pixel of any tile has any weight")
        yield _refused(task.item, error, start, empty_band)


def _make(
    task: Task, exposure: Exposure, marks: list[FileMark], complete: bool, start: float
) -> ShardResult:
    """Write one exposure."""
    exposure.provenance |= record_of(task.item, exposure, marks, complete=complete)
    shard = write_shard(
        task.folder,
        exposure,
        bitmask=exposure.bitmask,
        do_fluxcal=task.item.calibration.do_fluxcal,
        shape=task.shape or exposure.shape,
        super_pixel_size=task.super_pixel_size,
        backend=_backend(task.backend),
        run_id=task.run_id,
    )
    record = shard.record
    masked = record.masked or MaskCounts()
    row = IngestRow(
        file=task.item.path,
        status="stored",
        band=exposure.band,
        expID=exposure.expID,
        n_pixels=masked.n_pixels,
        n_masked=masked.n_masked,
        masked=by_cause(masked),
        bitmask=exposure.bad_bits,
        flags=exposure.flags,
        masked_by_flag=exposure.masked_by_flag(),
        flux_factor=record.counts_to_flux,
        flux_units=record.flux_units,
        unit=stored_unit(record),
        wcs_kind=exposure.wcs_choice,
        sip_residual=sip_residual(exposure),
        notes=tuple(exposure.notes),
        seconds=time.perf_counter() - start,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )
    return ShardResult(row, shard)


def _refused(
    item: Input, error: FpgpuError, start: float, band: str = "", expID: str = ""
) -> ShardResult:
    """Say why an exposure, or all that would have followed, cannot go in."""
    # What a store says names the exposure and the store, not the file it came from.
    reason = str(error) if str(item.path) in str(error) else f"{item.path}: {error}"
    seconds = time.perf_counter() - start
    row = IngestRow(item.path, "refused", reason=reason, band=band, expID=expID, seconds=seconds)
    return ShardResult(row, error=error)


@cache
def _named_backend(name: BackendName) -> Backend:
    """Make a process's backend once."""
    return get_backend(name)


def _backend(backend: BackendName | Backend) -> Backend:
    """Return a backend given by name or as it is."""
    return _named_backend(backend) if isinstance(backend, str) else backend
