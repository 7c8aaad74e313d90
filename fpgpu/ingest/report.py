"""What became of the files of an ingest run."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fpgpu.calibration import MaskCounts
from fpgpu.html import html_table
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.flags import ANY_BIT
from fpgpu.ingest.inputs import Input
from fpgpu.stores.names import nearest_band
from fpgpu.stores.pixels.records import CalibrationRecord
from fpgpu.stores.units import stored_unit

__all__ = ["IngestReport", "IngestRow", "made_row", "stored_row", "unknown_bands"]

_CAUSES = {
    "flux not finite": "n_nonfinite_flux",
    "uncertainty not finite or negative": "n_bad_err",
    "flagged in DQ": "n_flagged",
    "area not finite or positive": "n_bad_area",
}


@dataclass(frozen=True)
class IngestRow:
    """What became of one exposure, or of a file of which nothing could be read.

    Attributes
    ----------
    file : Path
        The file as given; the label of an exposure in memory.
    status : str
        ``"stored"``, ``"replaced"``, ``"unchanged"`` (a resumed run found it as it should be),
        ``"refused"``, or ``"left out"`` (it is of none of the bands asked for, or a tile without
        any weight).
    reason : str
        Why it was refused or left out; empty otherwise.
    band, expID : str
        The exposure's key; empty when it could not be found out.
    n_pixels, n_masked : int
        Pixels stored, and how many of them have zero weight because they are bad.
    masked : dict of str to int
        Bad pixels by cause; one pixel may count for several causes.
    bitmask : int
        The bits of the data-quality image that were taken as bad.
    flags : dict of str to int
        Pixels per data-quality flag of the file, bad or not.
    masked_by_flag : dict of str to int
        Of these, the flags that make a pixel bad: how many pixels are masked for it.
    flux_factor : float
        Nanojansky (or other unit) for one unit of the file.
    flux_units : str
        Unit of the stored flux: ``"nJy"``, ``"counts"`` or ``"image"``.
    unit : str
        The same, with the unit of the image where it was not calibrated.
    wcs_kind : str
        ``"gwcs"`` or ``"fits"``.
    sip_residual : float or None
        Largest difference of the SIP refit from the gWCS, in pixels.
    notes : tuple of str
        What a user should know.
    seconds : float
        Time spent.
    peak_bytes : int
        Most memory that the process which did it has ever held; 0 when it did nothing.
    file_unit : str
        BUNIT of the file.
    bad_flags : tuple of str
        The flags that make a pixel bad, ``("any",)`` for any; empty for what a resumed run found.
    reader : str
        What kind of file it is.
    uncertainties : str
        What they come from: ``"err"``, ``"variance"``, ``"ivm"`` or ``"exptime"``.
    """

    file: Path
    status: str
    reason: str = ""
    band: str = ""
    expID: str = ""
    n_pixels: int = 0
    n_masked: int = 0
    masked: dict[str, int] = field(default_factory=dict)
    bitmask: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    masked_by_flag: dict[str, int] = field(default_factory=dict)
    flux_factor: float = 1.0
    flux_units: str = ""
    unit: str = ""
    wcs_kind: str = ""
    sip_residual: float | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0
    file_unit: str = ""
    bad_flags: tuple[str, ...] = ()
    reader: str = ""
    uncertainties: str = ""


@dataclass(repr=False)
class IngestReport:
    """What became of all files of a run.

    Attributes
    ----------
    out : Path
        The store folder.
    rows : list of IngestRow
        One an exposure, in the order of the files given.
    unknown_bands : list of str
        Of each band that was asked for and that no input holds, a sentence with what is near.
    mixed_units : dict of str to dict of str to list of str
        Of each band that this run has left in several units, exposures by unit: those of the run,
        and one that was there before.
    """

    out: Path
    rows: list[IngestRow] = field(default_factory=list)
    unknown_bands: list[str] = field(default_factory=list)
    mixed_units: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what became of each exposure as plain types.

        Returns
        -------
        dict
            Ready for JSON.
        """
        rows = [asdict(row) | {"file": str(row.file)} for row in self.rows]
        return {
            "out": str(self.out),
            "ok": self.ok,
            "exposures": rows,
            "unknown_bands": self.unknown_bands,
            "mixed_units": self.mixed_units,
        }

    def __repr__(self) -> str:
        counts = Counter(row.status for row in self.rows)
        told = ", ".join(f"{n} {status}" for status, n in counts.items()) or "no exposures"
        return f"<IngestReport of {self.out}: {told}>"

    def _repr_html_(self) -> str:
        columns = ["file", "band", "exposure", "status", "unit", "pixels", "masked", "what to know"]
        rows = [
            [
                *(r.file.name, r.band, r.expID, r.status, r.unit, r.n_pixels, r.n_masked),
                r.reason or "; ".join(r.notes),
            ]
            for r in self.rows
        ]
        return html_table(repr(self).strip("<>"), columns, rows)

    @property
    def ok(self) -> bool:
        """Whether every file went in that was asked for, and every band was found."""
        return not self.unknown_bands and all(row.status != "refused" for row in self.rows)

    @property
    def added(self) -> list[IngestRow]:
        """The exposures that went in."""
        return [row for row in self.rows if row.status in {"stored", "replaced"}]

    @property
    def unchanged(self) -> list[IngestRow]:
        """The exposures that were there as they should be."""
        return [row for row in self.rows if row.status == "unchanged"]

    @property
    def n_pixels(self) -> int:
        """Pixels of all files that went in."""
        return sum(row.n_pixels for row in self.rows)

    @property
    def refused(self) -> list[IngestRow]:
        """The files that did not go in."""
        return [row for row in self.rows if row.status == "refused"]

    @property
    def left_out(self) -> list[IngestRow]:
        """The exposures of bands that were not asked for, and tiles without any weight."""
        return [row for row in self.rows if row.status == "left out"]

    def masked_by_cause(self) -> dict[str, int]:
        """Sum the bad pixels of all files.

        Returns
        -------
        dict of str to int
            Pixels per cause.
        """
        return _total(row.masked for row in self.rows)

    def masked_by_flag(self) -> dict[str, int]:
        """Sum the pixels of all files that a flag has masked.

        Returns
        -------
        dict of str to int
            Pixels per data-quality flag that is bad.
        """
        return _total(row.masked_by_flag for row in self.rows)


def stored_row(file: Path, status: str, record: CalibrationRecord) -> IngestRow:
    """Tell of an exposure that is in the store by what is recorded of it."""
    masked, provenance = record.masked or MaskCounts(), record.provenance
    residual = provenance.get("sip_residual_px")
    # No bits are recorded where any is bad; no mask where there was none, or it was ignored.
    any_bit = ANY_BIT if "mask" in record.names else 0
    return IngestRow(
        file=file,
        status=status,
        band=record.band,
        expID=record.expID,
        n_pixels=masked.n_pixels,
        n_masked=masked.n_masked,
        masked={cause: getattr(masked, name) for cause, name in _CAUSES.items()},
        bitmask=any_bit if record.bitmask_applied is None else record.bitmask_applied,
        flags=json.loads(str(provenance.get("dq_pixels", "{}"))),
        masked_by_flag=json.loads(str(provenance.get("dq_masked", "{}"))),
        flux_factor=record.counts_to_flux,
        flux_units=record.flux_units,
        unit=stored_unit(record),
        wcs_kind=str(provenance.get("wcs", "")),
        sip_residual=None if residual is None else float(residual),
        notes=tuple(json.loads(str(provenance.get("notes", "[]")))),
        file_unit=str(provenance.get("bunit", "")),
        reader=str(provenance.get("reader", "")),
        uncertainties=str(provenance.get("uncertainties", "err")),
    )


def made_row(file: Path, status: str, record: CalibrationRecord, exposure: Exposure) -> IngestRow:
    """Tell of an exposure that was made just now."""
    row = stored_row(file, status, record)
    return replace(row, bitmask=exposure.bad_bits, bad_flags=exposure.bad_flags)


def unknown_bands(items: Iterable[Input], found: Iterable[str]) -> list[str]:
    """Say of each band that was asked for, and that no input holds, what is near."""
    known = sorted(set(found) - {""})
    asked = dict.fromkeys(band for item in items for band in item.options.bands)
    return [
        f"no band {band!r} in any input that could be read; {nearest_band(band, known)}"
        for band in asked
        if band not in known
    ]


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add counts by key, keys in the order of their first appearance."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)
