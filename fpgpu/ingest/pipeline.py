"""From many files to the stores of one folder, one exposure at a time."""

import logging
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fpgpu.backends.base import Backend
from fpgpu.calibration import MaskCounts
from fpgpu.errors import (
    FlagError,
    FpgpuError,
    StoreBusyError,
    StoreFormatError,
    StoreWriteError,
    UnusableExposureError,
    WCSError,
)
from fpgpu.ingest.astrometry import WCS_CHOICES
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.flags import HST, JWST, BitSpec, flags_for
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.readers import read_exposure
from fpgpu.ingest.report import IngestReport, IngestRow
from fpgpu.stores.alone import alone_in
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore

__all__ = ["IngestReport", "IngestRow", "ingest"]

_log = logging.getLogger(__name__)

PUBLISH_INTERVAL = 60.0
"""Seconds between two publications of the meta store, which is rewritten as a whole."""

ANY_BIT = 2**32 - 1

# No file after one of these could go in either.
_STORE_FAILURES = (StoreBusyError, StoreFormatError, StoreWriteError)

_CAUSES = {
    "flux not finite": "n_nonfinite_flux",
    "uncertainty not finite or negative": "n_bad_err",
    "flagged in DQ": "n_flagged",
    "area not finite or positive": "n_bad_area",
}


def ingest(
    files: Iterable[str | Path],
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
    backend: Backend | None = None,
) -> IngestReport:
    """Put exposures into a store folder; an exposure that is already there is replaced.

    A file that cannot go in is reported and the others go in. Pixels are durable when a file is
    reported; headers are published every minute, at the end, and when the run is interrupted.

    Parameters
    ----------
    files : iterable of str or Path
        Exposure files of any kind that a reader knows.
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
        Called with the `IngestRow` of each file.
    strict : bool, optional
        Raise at the first file that cannot go in.
    backend : Backend, optional
        Where pixels are calibrated; NumPy when not given. The results are the same bits.

    Returns
    -------
    IngestReport
        One row per file, in order.

    Raises
    ------
    FlagError
        When `bitmask` means nothing for any observatory.
    StoreError
        When the store itself cannot be written; what was durable before still is.
    FpgpuError
        With `strict`, why the first refused file was refused.
    WCSError
        When `wcs` is none of the three.
    """
    if wcs not in WCS_CHOICES:
        raise WCSError(f"wcs is {wcs!r}; expected one of {', '.join(WCS_CHOICES)}")
    if bitmask is not None:
        _check_bitmask(bitmask)
    options = ReadOptions(
        wcs=wcs,
        pad=pad,
        framedir=None if framedir is None else Path(framedir),
        split_by_detector=split_by_detector,
    )
    report = IngestReport(Path(out))
    with (
        alone_in(report.out),
        _Run(report, options, bitmask, do_fluxcal, nside_full, backend) as run,
    ):
        for file in files:
            row, error = run.take(Path(file))
            report.rows.append(row)
            on_progress(row)
            if strict and error is not None:
                raise error
    return report


@dataclass
class _Run:
    """The stores while they are filled, and what has gone into them."""

    report: IngestReport
    options: ReadOptions
    bitmask: BitSpec | None
    do_fluxcal: bool
    nside_full: int | tuple[int, int] | None
    backend: Backend | None
    pixels: PixelStore | None = None
    meta: MetaStore | None = None
    origins: dict[tuple[str, str], Path] = field(default_factory=dict)
    unpublished: bool = False
    published_at: float = field(default_factory=time.monotonic)

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *exc_info: object) -> None:
        with ExitStack() as stack:
            for store in (self.pixels, self.meta):
                if store is not None:
                    stack.callback(store.close)
            self.publish()

    def take(self, file: Path) -> tuple[IngestRow, FpgpuError | None]:
        """Put one file in, or say why not."""
        start = time.perf_counter()
        try:
            exposure = read_exposure(file, self.options)
            row = self._store(file, exposure, start)
        except _STORE_FAILURES:
            raise
        except FpgpuError as error:
            _log.info("refused %s: %s", file, error)
            # What a store says names the exposure and the store, not the file it came from.
            reason = str(error) if str(file) in str(error) else f"{file}: {error}"
            seconds = time.perf_counter() - start
            return IngestRow(file, "refused", reason=reason, seconds=seconds), error
        if time.monotonic() - self.published_at > PUBLISH_INTERVAL:
            self.publish()
        return row, None

    def publish(self) -> None:
        """Make the headers that were added durable."""
        if self.meta is not None and self.unpublished:
            self.meta.write_to_file(self.folder.meta)
            self.unpublished = False
        self.published_at = time.monotonic()

    @property
    def folder(self) -> StoreFolder:
        """The store folder."""
        return StoreFolder(self.report.out)

    def _store(self, file: Path, exposure: Exposure, start: float) -> IngestRow:
        """Add an exposure to both stores, or to none."""
        key = exposure.band, exposure.expID
        if key in self.origins:
            raise UnusableExposureError(
                f"{file}: would replace {'/'.join(key)}, which {self.origins[key]} gave in this "
                "run; use --framedir to name exposures by their folders"
            )
        bitmask = _bad_bits(exposure, self.bitmask)
        pixels, meta = self._stores(exposure)
        is_new = not (self.folder.pixels.exists() and key in pixels)
        entry = meta.prepare(exposure)
        record = pixels.add_exposure(exposure, bitmask, self.do_fluxcal, backend=self.backend)
        meta.add_prepared(entry)
        self.unpublished = True
        self.origins[key] = file
        masked = record.masked or MaskCounts()
        return IngestRow(
            file=file,
            status="stored" if is_new else "replaced",
            band=exposure.band,
            expID=exposure.expID,
            n_pixels=masked.n_pixels,
            n_masked=masked.n_masked,
            masked={cause: getattr(masked, name) for cause, name in _CAUSES.items()},
            bitmask=_bits_used(exposure, bitmask),
            flags=exposure.flags,
            flux_factor=record.counts_to_flux,
            flux_units=record.flux_units,
            wcs_kind=exposure.wcs_choice,
            sip_residual=None if exposure.sip is None else exposure.sip.residual,
            notes=tuple(exposure.notes),
            seconds=time.perf_counter() - start,
        )

    def _stores(self, exposure: Exposure) -> tuple[PixelStore, MetaStore]:
        """Open both stores; a new one takes the size of the first exposure."""
        if self.pixels is None or self.meta is None:
            folder = self.folder
            shape = None if folder.pixels.exists() else self.nside_full or exposure.shape
            self.pixels = PixelStore(folder.pixels, shape or self.nside_full)
            known = folder.meta if folder.meta.exists() else None
            self.meta = MetaStore(known)
        return self.pixels, self.meta


def _check_bitmask(spec: BitSpec) -> None:
    """Refuse a bitmask that means nothing for any observatory, before any file is read."""
    try:
        JWST.parse(spec)
    except FlagError:
        try:
            HST.parse(spec)
        except FlagError:
            JWST.parse(spec)


def _bad_bits(exposure: Exposure, spec: BitSpec | None) -> int | None:
    """Give the bits of DQ that are bad; None for any. Drops the mask when none is."""
    if spec is None:
        return exposure.bitmask
    bits = flags_for(exposure.telescope).parse(spec)
    if bits == 0:
        # To a store, as to forcepho, a bitmask of 0 means that none was given.
        exposure.mask = None
        exposure.names = exposure.names._replace(mask=None)
        return None
    return bits


def _bits_used(exposure: Exposure, bitmask: int | None) -> int:
    """Give the bits that made a pixel bad as a number."""
    if exposure.mask is None:
        return 0
    return ANY_BIT if bitmask is None else bitmask
