"""The units that stored fluxes are in, and bands that mix them."""

from collections.abc import Iterable, Mapping
from weakref import WeakKeyDictionary

from fpgpu.errors import UnusableExposureError
from fpgpu.fluxes import image_unit
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.names import some
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.records import CalibrationRecord
from fpgpu.stores.state import State

__all__ = ["describe_units", "mixed_units", "spelled", "stored_unit", "units_of"]

BUNIT = "bunit"
"""Name in the provenance of an exposure of the unit of its image."""

# Of each state, which does not change; plans ask again and again.
_known: WeakKeyDictionary[State, dict[Key, str]] = WeakKeyDictionary()


def stored_unit(record: CalibrationRecord) -> str:
    """Name the unit of an exposure's stored fluxes.

    ``"nJy"`` where it was calibrated; else BUNIT as astropy spells it, where that is known; else
    ``"counts"`` or ``"image"``.
    """
    unit = str(record.provenance.get(BUNIT, "")).strip()
    return record.flux_units if record.flux_units == "nJy" or not unit else spelled(unit)


def spelled(unit: str) -> str:
    """Spell a unit as `stored_unit` does."""
    try:
        return str(image_unit(unit) or unit)
    except UnusableExposureError:
        return unit


def units_of(pixels: PixelStore, keys: Iterable[Key]) -> dict[Key, str]:
    """Name the units of exposures."""
    known = _known.setdefault(pixels.state, {})
    found = {}
    for key in keys:
        if key not in known:
            known[key] = stored_unit(pixels.record(*key))
        found[key] = known[key]
    return found


def mixed_units(units: Mapping[Key, str]) -> dict[str, dict[str, list[str]]]:
    """Find the bands whose exposures are in several units: their expIDs by unit."""
    bands: dict[str, dict[str, list[str]]] = {}
    for (band, expID), unit in units.items():
        bands.setdefault(band, {}).setdefault(unit, []).append(expID)
    return {band: by_unit for band, by_unit in bands.items() if len(by_unit) > 1}


def describe_units(by_unit: Mapping[str, list[str]]) -> str:
    """Say which exposures of a band are in which unit."""
    return ", ".join(f"{unit} ({some(names, 3)})" for unit, names in by_unit.items())
