"""The units that stored fluxes are in, and bands that mix them."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from fpgpu.errors import UnusableExposureError
from fpgpu.fluxes import image_unit
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.records import CalibrationRecord

__all__ = ["describe_units", "mixed_units", "spelled", "stored_unit", "units_of"]

Key = tuple[str, str]

BUNIT = "bunit"
"""Name in the provenance of an exposure of the unit of its image."""

# Of each open store, as long as its file is the same; plans ask again and again.
_known: WeakKeyDictionary[PixelStore, tuple[Any, dict[Key, str]]] = WeakKeyDictionary()


def stored_unit(record: CalibrationRecord) -> str:
    """Name the unit of an exposure's stored fluxes.

    Parameters
    ----------
    record : CalibrationRecord
        Its record.

    Returns
    -------
    str
        ``"nJy"`` where it was calibrated; else BUNIT as astropy spells it, where that is known;
        else ``"counts"`` or ``"image"``.
    """
    unit = str(record.provenance.get(BUNIT, "")).strip()
    return record.flux_units if record.flux_units == "nJy" or not unit else spelled(unit)


def spelled(unit: str) -> str:
    """Spell a unit as `stored_unit` does.

    Parameters
    ----------
    unit : str
        As in BUNIT.

    Returns
    -------
    str
        As it is where it is no unit.
    """
    try:
        return str(image_unit(unit) or unit)
    except UnusableExposureError:
        return unit


def units_of(pixels: PixelStore, keys: Iterable[Key]) -> dict[Key, str]:
    """Name the units of exposures.

    Parameters
    ----------
    pixels : PixelStore
        The store.
    keys : iterable of (band, expID)
        The exposures.

    Returns
    -------
    dict of (band, expID) to str
    """
    state = None
    with suppress(OSError):  # reading tells better what is wrong
        status = Path(pixels.h5file).stat()
        state = status.st_ino, status.st_size, status.st_mtime_ns
    seen, known = _known.get(pixels, (None, {}))
    if seen != state or state is None:
        known = {}
        _known[pixels] = state, known
    found = {}
    for key in keys:
        if key not in known:
            known[key] = stored_unit(pixels.record(*key))
        found[key] = known[key]
    return found


def mixed_units(units: Mapping[Key, str]) -> dict[str, dict[str, list[str]]]:
    """Find the bands whose exposures are in several units.

    Parameters
    ----------
    units : mapping of (band, expID) to str
        As `units_of` gives them.

    Returns
    -------
    dict of str to dict of str to list of str
        The expIDs by unit of each such band.
    """
    bands: dict[str, dict[str, list[str]]] = {}
    for (band, expID), unit in units.items():
        bands.setdefault(band, {}).setdefault(unit, []).append(expID)
    return {band: by_unit for band, by_unit in bands.items() if len(by_unit) > 1}


def describe_units(by_unit: Mapping[str, list[str]]) -> str:
    """Say which exposures of a band are in which unit.

    Parameters
    ----------
    by_unit : mapping of str to list of str
        ExpIDs by unit.

    Returns
    -------
    str
        Such as ``"nJy (a, b, c and 4 more), electron / s (x)"``.
    """
    return ", ".join(
        f"{unit} ({', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''})"
        for unit, names in by_unit.items()
    )
