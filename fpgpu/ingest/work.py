"""What a worker does with one input: read its exposures, calibrate them, write each as a shard.

Nothing here knows of other workers or of what is published. A task and what comes back are small:
file names and options one way, names of shards and counts the other.
"""

import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from fpgpu.backends.base import Backend
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.errors import (
    FpgpuError,
    StoreBusyError,
    StoreFormatError,
    StoreWriteError,
    UnusableExposureError,
)
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.prepare import is_empty_tile, prepare, require_weight
from fpgpu.ingest.readers import read_all
from fpgpu.ingest.record import FileMark, file_marks, record_of, require_unchanged
from fpgpu.ingest.report import IngestRow, made_row
from fpgpu.stores.shard import Shard, write_shard

__all__ = [
    "ShardResult",
    "Task",
    "discard",
    "each_exposure",
    "make_shards",
    "refused",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

# After these no other exposure could go in either.
_STORE_FAILURES = (StoreBusyError, StoreFormatError, StoreWriteError)
# Of a process, made once.
_backend_of = cache(get_backend)

# Executors of threads, and dask's workers, run several tasks in one process. Its memory is meant
# for one exposure, and catching the warnings of a library is not safe in threads.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Task:
    """One input, and where its exposures go.

    Attributes
    ----------
    item : Input
        As `Present.settle` gives it.
    folder : Path
        The store folder.
    shape : tuple of int or None
        Pixels (nx, ny) of every exposure of the store; None where there is no store yet.
    backend : str or Backend
        Where to calibrate.
    run_id : str
        What the ids of shards begin with.
    """

    item: Input
    folder: Path
    shape: tuple[int, int] | None
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
    """Turn an input into shards: a result an exposure, in the order of the reader, refused ones
    too.
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

    What cannot be removed is left to the next run, which finds it: that is nobody's error, least of
    all in place of the one that ends the run.
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
        made.extend(
            each_exposure(item, lambda each, begun: _make(task, each, marks, complete, begun))
        )
        try:
            require_unchanged(item, marks)
        except FpgpuError:
            discard(made)
            made = []
            raise
    except FpgpuError as error:
        if isinstance(error, _STORE_FAILURES):
            discard(made)
            raise
        made.append(refused(item.path, error, seconds=time.perf_counter() - start))
    except BaseException:
        discard(made)
        raise
    return made


def each_exposure(item: Input, make: Callable[[Exposure, float], T]) -> Iterator[ShardResult | T]:
    """Make something of the exposures of an input one by one, so that no two are in memory.

    `make` takes an exposure that is wanted and has weight, and when it was begun; for others there
    is a result that says why not.
    """
    exposures = read_all(item)
    empty_band, n_others = "", 0
    while True:
        start = time.perf_counter()
        exposure = next(exposures, None)
        if exposure is None:
            break
        key = exposure.band, exposure.expID
        if not item.wants(exposure.band):
            why = f"is of {exposure.band}; asked for were {', '.join(item.options.bands)}"
            yield ShardResult(IngestRow(item.path, "left out", why, *key))
            continue
        try:
            prepare(exposure, item.calibration)
            if is_empty_tile(exposure):
                empty_band = exposure.band
                why = "no pixel of this tile has any weight"
                yield ShardResult(IngestRow(item.path, "left out", why, *key))
                continue
            n_others += 1
            require_weight(exposure, item.calibration)
            yield make(exposure, start)
        except _STORE_FAILURES:
            raise
        except FpgpuError as refusal:
            yield refused(item.path, refusal, *key, seconds=time.perf_counter() - start)
        del exposure
    if empty_band and not n_others:
        yield refused(
            item.path, UnusableExposureError("no pixel of any tile has any weight"), empty_band
        )


def refused(
    file: Path, error: FpgpuError, band: str = "", expID: str = "", seconds: float = 0.0
) -> ShardResult:
    """Say why an exposure, or all that would have followed, cannot go in."""
    # What a store says names the exposure and the store, not the file it came from.
    reason = str(error) if str(file) in str(error) else f"{file}: {error}"
    row = IngestRow(file, "refused", reason, band, expID, seconds=seconds)
    return ShardResult(row, error=error)


def _make(
    task: Task, exposure: Exposure, marks: list[FileMark], complete: bool, start: float
) -> ShardResult:
    """Write one exposure."""
    exposure.provenance |= record_of(task.item, exposure, marks, complete=complete)
    backend = _backend_of(task.backend) if isinstance(task.backend, str) else task.backend
    shard = write_shard(
        task.folder,
        exposure,
        bitmask=exposure.bitmask,
        do_fluxcal=task.item.calibration.do_fluxcal,
        shape=task.shape or exposure.shape,
        super_pixel_size=task.item.options.super_pixel_size,
        backend=backend,
        run_id=task.run_id,
    )
    row = replace(
        made_row(task.item.path, "stored", shard.record, exposure),
        seconds=time.perf_counter() - start,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )
    return ShardResult(row, shard)
