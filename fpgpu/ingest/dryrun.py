"""What an ingest would do, found out by reading everything and writing nothing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fpgpu.errors import FpgpuError
from fpgpu.fluxes import flux_calibration
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.flags import flags_for
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.resume import Admission, look
from fpgpu.ingest.work import ShardResult, each_exposure, refused
from fpgpu.stores.meta import MetaStore

__all__ = ["PlannedExposure", "plan_ingest"]


@dataclass(frozen=True)
class PlannedExposure:
    """What would become of one exposure.

    Attributes
    ----------
    file : Path
        The file as given.
    status : str
        ``"new"``, ``"replace"``, ``"refused"`` or ``"left out"`` (of none of the bands asked for).
    reason : str
        Why it would be refused or left out; empty otherwise.
    reader : str
        What kind of file it is.
    companions : dict of str to str
        Further files by role.
    band, expID : str
        The exposure's key.
    nx, ny : int
        Its size in pixels, padding included.
    unit : str
        BUNIT.
    flux_factor : float
        Stored unit per unit of the file.
    flux_units : str
        Unit that would be stored.
    wcs : str
        ``"gwcs"`` or ``"fits"``.
    sip_residual : float or None
        Pixels by which a SIP refit misses.
    uncertainties : str
        What they come from: ``"err"``, ``"ivm"`` or ``"exptime"``.
    bad_flags : list of str
        The flags that make a pixel bad; ``["any"]`` for any.
    notes : list of str
        What a user should know.
    """

    file: Path
    status: str
    reason: str = ""
    reader: str = ""
    companions: dict[str, str] = field(default_factory=dict)
    band: str = ""
    expID: str = ""
    nx: int = 0
    ny: int = 0
    unit: str = ""
    flux_factor: float = 1.0
    flux_units: str = ""
    wcs: str = ""
    sip_residual: float | None = None
    uncertainties: str = ""
    bad_flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_ingest(
    items: Input | Iterable[Input], out: str | Path, nside_full: int | tuple[int, int] | None = None
) -> Iterator[PlannedExposure]:
    """Find out what an ingest would do."""
    folder = Path(out)
    present = look(folder, nside_full)
    known, admission = present.in_pixels | present.in_meta, Admission(folder, present)
    for item in [items] if isinstance(items, Input) else items:

        def plan(exposure: Exposure, _: float, item: Input = item) -> PlannedExposure:
            MetaStore().prepare(exposure)
            key = exposure.band, exposure.expID
            admission.admit(key, exposure.shape, item.path)
            return _planned(item, exposure, "replace" if key in known else "new")

        found = present.settle(item)
        try:
            for made in each_exposure(found, plan):
                yield made if isinstance(made, PlannedExposure) else _told(item, made)
        except FpgpuError as error:
            yield _told(item, refused(found.path, error))


def _told(item: Input, made: ShardResult) -> PlannedExposure:
    """Say what is left out or refused."""
    row = made.row
    return PlannedExposure(item.path, row.status, row.reason, band=row.band, expID=row.expID)


def _planned(item: Input, exposure: Exposure, status: str) -> PlannedExposure:
    """Say what would become of an exposure."""
    residual = exposure.provenance.get("sip_residual_px")
    factor, units = 1.0, "image"
    if item.calibration.do_fluxcal:
        factor, units = flux_calibration(exposure.hdr)
    return PlannedExposure(
        file=item.path,
        status=status,
        reader=str(exposure.provenance.get("reader", "")),
        companions={role: str(path) for role, path in item.companions.items()},
        band=exposure.band,
        expID=exposure.expID,
        nx=exposure.shape[0],
        ny=exposure.shape[1],
        unit=str(exposure.hdr.get("BUNIT", "")),
        flux_factor=factor,
        flux_units=units,
        wcs=exposure.wcs_choice,
        sip_residual=None if residual is None else float(residual),
        uncertainties=str(exposure.provenance.get("uncertainties", "err")),
        bad_flags=_bad_flags(exposure),
        notes=list(exposure.notes),
    )


def _bad_flags(exposure: Exposure) -> list[str]:
    """Name the flags that make a pixel bad."""
    if exposure.mask is None:
        return []
    if exposure.bitmask is None or exposure.mask.dtype == bool:
        return ["any"]
    return flags_for(exposure.telescope).names(exposure.bitmask)
