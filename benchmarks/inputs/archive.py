"""An archive's exposures as headers and gWCS: a crowded field with random roll angles."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io.fits import Card, Header

from fpgpu import MetaStore, PixelStore
from fpgpu.demo.telescope import Pointing
from fpgpu.sky.sip import SipFit, fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.metadata.entries import MetaEntry, new_entry
from fpgpu.stores.metadata.gwcs import gwcs_to_bytes
from fpgpu.stores.metadata.skyrecords import text_digest

__all__ = [
    "BANDS",
    "BLANK_SIDE",
    "POSITION",
    "archive_bytes",
    "archive_entries",
    "archive_recipe",
    "blank_exposure",
    "write_archive",
]

BANDS = ["F090W", "F200W", "F444W"]
POSITION = (53.0, -27.0)
SIDE = 2048
BLANK_SIDE = 8
_DEPTH = 24
_FIELD = 1.0  # degrees on a side
_SCALE = 0.063 / 3600  # degrees per pixel
_FILLER = 54
"""Cards beside the WCS, so that a header has the 5,760 bytes of one of JWST."""
_ENTRY_BYTES = 26_000  # of a header and half a gWCS, twice, and a row


def archive_recipe(n_exposures: int) -> dict[str, int]:
    """All that decides what `write_archive` writes."""
    return {"recipe": 7, "exposures": n_exposures, "depth": _DEPTH}


def archive_bytes(n_exposures: int) -> int:
    """About how much that takes on disk."""
    return n_exposures * _ENTRY_BYTES


def write_archive(folder: Path, n_exposures: int) -> None:
    """Write metadata, their index and ``meta.json`` with gWCS, for pixels that are not there."""
    PixelStore(folder / "pixels.h5", BLANK_SIDE).add_exposure(blank_exposure("none", "none"))
    store = MetaStore()
    store.add_prepared(*archive_entries(n_exposures))
    store.write_to_file(folder / "meta.json")


def blank_exposure(band: str, expID: str) -> Any:
    """Make the pixels that are the fewest which a store takes."""
    shape = BLANK_SIDE, BLANK_SIDE
    return SimpleNamespace(
        im=np.zeros(shape), ierr=np.ones(shape), mask=None, bkg=None, hdr={}, names=expID,
        band=band, expID=expID,
    )  # fmt: skip


def archive_entries(n_exposures: int, name: str = "e") -> Iterator[MetaEntry]:
    """Make what a meta store holds of exposures, every other one with a gWCS."""
    rng = np.random.default_rng(n_exposures)
    offsets = rng.uniform(-0.5, 0.5, (n_exposures, 2)) * _FIELD
    offsets[: min(_DEPTH, n_exposures // 2)] *= 0.01  # these cover the position
    angles = rng.uniform(0, 2 * np.pi, n_exposures)
    gwcs, sip = _gwcs()
    for n, ((east, north), angle) in enumerate(zip(offsets, angles, strict=True)):
        band, expID = BANDS[n % len(BANDS)], f"visit{n // 100:03d}/{name}{n:05d}"
        header = _header(band, east, north, angle)
        key, short, _, record = new_entry(SimpleNamespace(hdr=header, band=band, expID=expID))
        text = _filled(short)
        record = replace(record, digest=text_digest(text))
        if n % 2:
            record = replace(record, gwcs_outline=record.fits_outline, sip=sip, has_gwcs=True)
        yield MetaEntry(key, text, gwcs if n % 2 else None, record)


@cache
def _gwcs() -> tuple[bytes, SipFit]:
    """Make one gWCS, which stands for all: only its text and its refit are stored."""
    shape = (SIDE, SIDE)
    pointing = Pointing(*POSITION, roll=20, scale=3600 * _SCALE, shape=shape)
    gwcs = pointing.gwcs()
    return gwcs_to_bytes(gwcs, "a gWCS"), fit_sip(SkyWCS.from_gwcs(gwcs, shape), shape)


def _header(band: str, east: float, north: float, angle: float) -> Header:
    """Write the header of a square detector at an offset (degrees) from the field's centre."""
    cos, sin = _SCALE * np.cos(angle), _SCALE * np.sin(angle)
    center = POSITION[0] + east, POSITION[1] + north
    return Header(
        {
            "NAXIS": 2, "NAXIS1": SIDE, "NAXIS2": SIDE, "FILTER": band,
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
            "CRPIX1": (SIDE + 1) / 2, "CRPIX2": (SIDE + 1) / 2,
            "CRVAL1": center[0], "CRVAL2": center[1],
            "CD1_1": -cos, "CD1_2": sin, "CD2_1": sin, "CD2_2": cos,
            "S_REGION": _s_region(*center, np.array([[-cos, sin], [sin, cos]])),
        }
    )  # fmt: skip


@cache
def _filler() -> str:
    """Write the cards beside the WCS."""
    cards = [Card(f"KEY{k}", 0.1 * k, "as a pipeline writes many") for k in range(_FILLER)]
    return "".join(map(str, cards))


def _filled(text: str) -> str:
    """Put more cards into the text of a header; to make them one by one would take long."""
    cards = f"{text.rstrip().removesuffix('END')}{_filler()}END"
    return cards.ljust(2880 * -(-len(cards) // 2880))


def _s_region(ra: float, dec: float, cd: npt.NDArray[np.float64]) -> str:
    """Write the outline of a detector on the sky, as the headers of JWST have it."""
    half = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * SIDE / 2
    x, y = np.deg2rad(cd @ half.T)  # in the tangent plane
    sin, cos = np.sin(np.deg2rad(dec)), np.cos(np.deg2rad(dec))
    corner_ra = ra + np.rad2deg(np.arctan2(x, cos - y * sin))
    corner_dec = np.rad2deg(np.arctan((sin + y * cos) / np.hypot(x, cos - y * sin)))
    corners = zip(corner_ra, corner_dec, strict=True)
    return "POLYGON ICRS  " + " ".join(f"{a:.9f} {d:.9f}" for a, d in corners)
