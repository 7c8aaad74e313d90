"""What was done to each exposure of a store folder, as a table."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.errors import StoreWriteError
from fpgpu.stores.disk import write_beside
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.records import CalibrationRecord

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["FORMATS", "exposure_records", "write_records"]

FORMATS = {".ecsv": "ascii.ecsv", ".fits": "fits", ".json": "json"}
"""What a table of records can be written as, by the ending of the file."""

_UNITS = {"sip_residual_px": "pix", "input_size": "byte"}

# Said by other columns, or in a form for programs.
_NOT_SHOWN = {"input_files", "dq_pixels", "input_complete"}


def exposure_records(folder: str | Path) -> "Table":
    """Tabulate the records of all exposures of a store folder."""
    from astropy.table import MaskedColumn, Table

    place = StoreFolder(Path(folder)).require()
    with PixelStore(place.pixels, mode="r") as pixels:
        rows = [_row(pixels.record(band, expID)) for band, expID in pixels]
    names = _in_order(rows)
    table = Table()
    for name in names:
        values = [row.get(name) for row in rows]
        lacking = [value is None for value in values]
        fill = _blank(name, values)
        filled = [fill if value is None else value for value in values]
        if len({type(value) for value in filled}) > 1:
            filled = [str(value) for value in filled]
        column = MaskedColumn(filled, name=name, mask=lacking, unit=_UNITS.get(name))
        table[name] = column
    table.meta["stores"] = str(folder)
    return table


def write_records(table: "Table", path: str | Path) -> None:
    """Write a table of records for other programs."""
    path = Path(path)
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise StoreWriteError(
            f"{path}: ends in {path.suffix or 'nothing'!r}; expected one of {', '.join(FORMATS)}"
        )
    if not path.parent.is_dir():
        raise StoreWriteError(f"{path}: {path.parent} is not a folder")
    with write_beside(path) as draft:
        if form == "json":
            draft.write_text(json.dumps(as_dicts(table), indent=1))
        else:
            table.write(draft, format=form)


def as_dicts(table: "Table") -> list[dict[str, Any]]:
    """Return the rows of a table as plain values, None for what is masked."""
    columns = {name: table[name].tolist() for name in table.colnames}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _row(record: CalibrationRecord) -> dict[str, Any]:
    """Flatten a record."""
    found = dict(record.provenance)
    row: dict[str, Any] = {
        "band": record.band,
        "expID": record.expID,
        **_files(found),
        "flux_factor": record.counts_to_flux,
        "flux_units": record.flux_units,
        "sip_residual_px": found.get("sip_residual_px"),
        "bitmask": -1 if record.bitmask_applied is None else record.bitmask_applied,
        "fpgpu_version": record.version,
        "checksum": record.checksum,
    }
    if record.masked is not None:
        counts = asdict(record.masked)
        row |= {"n_pixels": counts.pop("n_pixels"), "n_masked": counts.pop("n_masked")}
        row |= {f"masked_{name.removeprefix('n_')}": n for name, n in counts.items()}
    flags = _parsed(found.get("dq_pixels"))
    if isinstance(flags, Mapping):
        row |= {f"dq_{name}": n for name, n in flags.items() if isinstance(n, int)}
    return row | {name: value for name, value in found.items() if name not in _NOT_SHOWN | {*row}}


def _files(found: Mapping[str, Any]) -> dict[str, Any]:
    """Tell the input file, and those that came with it."""
    try:
        first, *others = _parsed(found.get("input_files")) or [{}]
        time = datetime.fromtimestamp(first["mtime_ns"] / 1e9, UTC)
        return {
            "input": str(first["path"]),
            "input_size": int(first["size"]),
            "input_time": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "input_checksum": str(first["checksum"]),
            "companions": " ".join(f"{mark['role']}={mark['path']}" for mark in others) or None,
        }
    # Of another program, or damaged: no checksum is over attributes.
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError):
        return {}


def _parsed(text: object) -> Any:
    """Read JSON that fpgpu has stored; None when there is none, or it is something else."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None


_FIRST = (
    "band", "expID", "input", "input_size", "input_time", "input_checksum", "companions", "reader",
    "flux_factor", "flux_units", "wcs", "sip_residual_px", "n_pixels", "n_masked",
    "masked_nonfinite_flux", "masked_bad_err", "masked_flagged", "masked_bad_area", "bitmask",
)  # fmt: skip

_LAST = (
    "options", "options_digest", "fpgpu_version", "numpy_version", "astropy_version",
    "gwcs_version", "checksum", "date",
)  # fmt: skip


def _in_order(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Order all columns that any row has."""
    names = dict.fromkeys(name for row in rows for name in row)
    flags = [name for name in names if name.startswith("dq_")]
    others = [name for name in names if name not in {*_FIRST, *_LAST, *flags}]
    return [n for n in (*_FIRST, *flags, *others, *_LAST) if n in names]


def _blank(name: str, values: Iterable[Any]) -> Any:
    """Return what stands under the mask where a value is missing."""
    kind = float if name == "sip_residual_px" else str
    return next((type(value) for value in values if value is not None), kind)()
