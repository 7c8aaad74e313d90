"""From many files to the stores of one folder, in parallel, killed at any moment."""

import logging
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Executor
from pathlib import Path

from fpgpu.backends.base import Backend
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.ingest.coordinator import Coordinator
from fpgpu.ingest.executors import open_workers
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.find import find_inputs
from fpgpu.ingest.flags import BitSpec
from fpgpu.ingest.inputs import CalibrationOptions, Input, ReadOptions
from fpgpu.ingest.readers import registered_readers
from fpgpu.ingest.report import IngestReport, IngestRow, unknown_bands
from fpgpu.ingest.resume import Earlier, Present, look, remove_own, take_up, tell_strays
from fpgpu.paths import as_path
from fpgpu.progress import progress_bar
from fpgpu.stores.commit import holding
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.units import describe_units, mixed_units, units_of
from fpgpu.stores.views import write_views

__all__ = ["IngestReport", "IngestRow", "ingest"]

logger = logging.getLogger(__name__)


_WAIT = 1.0
"""Seconds for another writer to end, before a run is refused."""


def ingest(
    files: str | Path | Input | Exposure | Iterable[str | Path | Input | Exposure],
    out: str | Path,
    *,
    bitmask: BitSpec | None = None,
    wcs: str = "auto",
    pad: bool = False,
    do_fluxcal: bool = True,
    nside_full: int | tuple[int, int] | None = None,
    framedir: str | Path | None = None,
    split_by_detector: Collection[str] = (),
    on_progress: Callable[[IngestRow], None] = lambda row: None,
    strict: bool = False,
    backend: Backend | BackendName | None = None,
    executor: str | Executor | None = None,
    workers: int | None = None,
    resume: bool = False,
    break_lock: bool = False,
    progress: bool | None = None,
) -> IngestReport:
    """Put exposures into a store folder; an exposure that is already there is replaced.

    Workers read files, calibrate, and write each exposure into a file of its own, a shard; this
    process commits them, which makes them part of the store. A file that cannot go in is
    reported and the others go in. Whatever was reported survives a kill at any moment. forcepho's
    ``meta.json`` and ``meta.asdf`` are written at the end.

    Parameters
    ----------
    files : str, Path, Input, Exposure, CCDData, or iterable of these
        Files of any kind that a reader knows, folders of them, patterns, inputs with options of
        their own, or exposures in memory, which are always worked on in this process.
    out : str or Path
        The store folder; made when missing.
    bitmask : int, str or iterable of these, optional
        Bad bits of DQ by number or name; 0 ignores DQ. By default the reader's: DO_NOT_USE for
        JWST, any bit for plain files.
    wcs : {"auto", "gwcs", "fits"}, optional
        Which WCS to believe.
    pad : bool, optional
        Add pixels of zero weight where a size is no multiple of the super-pixel.
    do_fluxcal : bool, optional
        Convert to nJy.
    nside_full : int or tuple of int, optional
        Size of the exposures (nx, ny) of a new store; that of the first exposure by default.
    framedir : str or Path, optional
        Exposures are named by their path below this folder.
    split_by_detector : collection of str, optional
        Filters whose detector modules are bands of their own.
    on_progress : callable, optional
        Called with each `IngestRow`, in the order of the files, once it is durable.
    strict : bool, optional
        Stop and raise at the first exposure that cannot go in.
    backend : Backend, str, optional
        Where pixels are calibrated; NumPy when not given. The results are the same bits.
    executor : str or concurrent.futures.Executor, optional
        ``"processes"`` of this machine by default, ``"serial"``, ``"dask://HOST:PORT"``, ``"mpi"``
        (under ``mpiexec -n N python -m mpi4py.futures``), or any executor, such as that of
        ``dask.distributed.Client.get_executor``; yours is not shut down. Readers that were added
        with `register_reader` are known to this process only: with them the default is
        ``"serial"``; those of installed packages are known to all.
    workers : int, optional
        Processes to start; by default as many as cores, memory and files suggest. A single one
        works in this process. For an executor of yours, how many tasks it works on at a time; by
        default as many as this machine has cores.
    resume : bool, optional
        Leave out what is in the store and made with the same options of files that have not
        changed since.
    break_lock : bool, optional
        Go on although another process seems to be changing the stores; only when it is dead.
    progress : bool, optional
        Whether to draw a progress bar; by default on a terminal and in a notebook.

    Returns
    -------
    IngestReport
        One row an exposure, in the order of the files.

    Raises
    ------
    FlagError, WCSError, LayoutError
        When an option means nothing.
    StoreBusyError
        When another process is changing the stores.
    StoreError
        When the store itself cannot be written; what was reported before is durable.
    ExecutorError, MissingExtraError
        When the executor cannot be started or is lost.
    FpgpuError
        With `strict`, why the first refused exposure was refused.

    Examples
    --------
    >>> report = fpgpu.ingest("exposures/*_cal.fits", tmp_path / "stores")
    >>> report
    <IngestReport of ...: 4 stored>
    >>> report.added[0].band, report.added[0].unit
    ('F200W', 'nJy')
    """
    options = ReadOptions(
        wcs=wcs,
        pad=pad,
        framedir=None if framedir is None else as_path(framedir),
        split_by_detector=split_by_detector,
    )
    calibration = CalibrationOptions(bitmask=bitmask, do_fluxcal=do_fluxcal)
    items = find_inputs(files, options, calibration)
    report = IngestReport(as_path(out))
    folder = report.out.absolute()
    store = StoreFolder(folder).pixels
    with (
        holding(store, timeout=_WAIT, break_lease=break_lock),
        progress_bar(len(items), "ingest", progress) as bar,
    ):
        told: set[Path] = set()

        def tell(row: IngestRow) -> None:
            bar.set_postfix_str(row.file.name, refresh=False)
            # Several exposures of a file are one step.
            bar.update(row.file not in told)
            told.add(row.file)
            on_progress(row)

        present = look(folder, nside_full)
        if resume and take_up(folder, map(present.settle, items)):
            present = look(folder, nside_full)
        tell_strays(folder)
        earlier = Earlier(folder, present) if resume else None
        if executor is None and registered_readers():
            executor = "serial"
        pool = open_workers(executor, workers, [item.path for item in items])
        coordinator = Coordinator(
            folder=folder,
            workers=pool,
            present=present,
            report=report,
            backend=get_backend("cpu") if backend is None else backend,
            on_progress=tell,
            strict=strict,
            earlier=earlier,
        )
        try:
            coordinator.run(items)
        finally:
            pool.close()
            if coordinator.ended_early and pool.ends_when_told:
                remove_own(folder, coordinator.run_id)
            if coordinator.has_committed:
                write_views(store)
    report.mixed_units = _mixed_units(report, present)
    report.unknown_bands = unknown_bands(items, (row.band for row in report.rows))
    return report


def _mixed_units(report: IngestReport, present: Present) -> dict[str, dict[str, list[str]]]:
    """Find the bands that are in several units now, and warn of them.

    Of what was there before, one exposure of a band tells: had they differed, earlier runs would
    have warned, and ``fpgpu verify`` tells all.
    """
    units = {(r.band, r.expID): r.unit for r in [*report.unchanged, *report.added]}
    bands = {band for band, _ in units}
    before = {key[0]: key for key in sorted(present.in_pixels - units.keys()) if key[0] in bands}
    if before:
        with PixelStore(StoreFolder(report.out).pixels, mode="r") as pixels:
            units |= units_of(pixels, before.values())
    mixed = mixed_units(units)
    for band, by_unit in mixed.items():
        logger.warning(
            "%s: the exposures of %s are in several units: %s; a patch of them is refused unless "
            "one unit is named",
            report.out,
            band,
            describe_units(by_unit),
        )
    return mixed
