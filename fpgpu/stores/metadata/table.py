"""Key header fields of a meta store's exposures as a table."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu.errors import StoreWriteError
from fpgpu.stores.disk import StrPath, write_beside
from fpgpu.stores.metadata.catalog import ExposureCatalog

if TYPE_CHECKING:
    from astropy.table import MaskedColumn, Table

    from fpgpu.sky.wcs import SkyWCS

__all__ = ["exposure_table", "write_table"]

# forcepho's columns; each is filled from the keyword of its name in upper case.
COLUMNS: dict[type, tuple[str, ...]] = {
    str: (
        "filename", "cal_ver", "prd_ver", "visit_id", "obs_id", "obslabel", "program", "observatn",
        "visit", "visit_grp", "seq_id", "exposure", "date-obs", "time-obs", "detector", "module",
        "filter", "readpatt",
    ),
    int: ("sca_num", "expcount"),
    float: ("expstart", "effexptm", "pa_aper"),
}  # fmt: skip
# Names of nine letters are no keywords of FITS; JWST calls these two so.
KEYWORDS = {"observatn": "OBSERVTN", "visit_grp": "VISITGRP"}
FILL: dict[type, Any] = {str: "", int: -1, float: float("nan")}


def exposure_table(store: ExposureCatalog, info: Mapping[str, Any] | None = None) -> "Table":
    """Tabulate the exposures of a store."""
    from astropy.table import Table

    keys = list(store)
    headers = [store.headers[band][expID] for band, expID in keys]
    centres = [_centre(store.sky_wcs(band, expID)) for band, expID in keys]
    table = Table(meta=dict(info or {}))
    table["band"] = _column((band for band, _ in keys), str)
    table["expID"] = _column((expID for _, expID in keys), str)
    for i, name in enumerate(("ra", "dec")):
        table[name] = _column((centre[i] for centre in centres), float)
        table[name].unit = "deg"
    for kind, names in COLUMNS.items():
        for name in names:
            keyword = KEYWORDS.get(name, name.upper())
            values = (_value(header.get(keyword), kind) for header in headers)
            table[name] = _column(values, kind)
    shapes = [store.shape(band, expID) for band, expID in keys]
    for i, name in enumerate(("nx", "ny")):
        table[name] = _column((shape[i] for shape in shapes), int)
    return table


def write_table(table: "Table", tablename: StrPath, **kwargs: Any) -> None:
    """Write a table as a FITS file, all at once."""
    from astropy.io import fits

    if Path(tablename).exists() and not kwargs.pop("overwrite", False):
        raise StoreWriteError(f"{tablename}: exists already; give overwrite=True to replace it")
    hdus = fits.HDUList([fits.PrimaryHDU(), fits.table_to_hdu(table)])
    with write_beside(tablename) as temporary:
        hdus.writeto(temporary, **kwargs)


def _centre(wcs: "SkyWCS") -> tuple[float, float]:
    """Return right ascension and declination of the middle of a detector."""
    nx, ny = wcs.shape or (1, 1)
    ra, dec = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2)
    return float(ra), float(dec)


def _value(value: Any, kind: type) -> Any:
    """Return a header's value as a column's type; None where it is no such value."""
    try:
        return None if value is None else kind(value)
    except (TypeError, ValueError):
        return None


def _column(values: Iterable[Any], kind: type) -> "MaskedColumn":
    """Make a column in which None is masked."""
    from astropy.table import MaskedColumn

    values = list(values)
    filled = [FILL[kind] if value is None else value for value in values]
    return MaskedColumn(filled, mask=[value is None for value in values], dtype=kind)
