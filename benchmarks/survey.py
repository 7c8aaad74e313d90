"""A survey's exposures as headers and gWCS: a crowded field with random roll angles."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from astropy.io.fits import Card, Header

from fpgpu import CircularRegion, MetaStore
from fpgpu.demo.telescope import Pointing
from fpgpu.sky.sip import SipFit, fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.metadata.entries import MetaEntry, new_entry
from fpgpu.stores.metadata.gwcs_text import GwcsText
from fpgpu.stores.metadata.records import text_digest

__all__ = ["BANDS", "POSITION", "REGION", "survey_entries", "write_meta_store"]

BANDS = ["F090W", "F200W", "F444W"]
POSITION = (53.0, -27.0)
REGION = CircularRegion(*POSITION, 3 / 3600)
_DEPTH = 24
_FIELD = 1.0  # degrees on a side
_SCALE = 0.063 / 3600  # degrees per pixel
_SIDE = 2048
_FILLER = 55
"""Cards beside the WCS, so that a header has the 5,760 bytes of one of JWST."""


def survey_entries(n_exposures: int, name: str = "e") -> Iterator[MetaEntry]:
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


def write_meta_store(folder: Path, n_exposures: int) -> Path:
    """Write a meta store with the sidecar that fpgpu keeps beside it, and return the JSON file."""
    path = folder / "meta.json"
    store = MetaStore()
    store.add_prepared(*survey_entries(n_exposures))
    store.write_to_file(path)
    return path


@cache
def _gwcs() -> tuple[GwcsText, SipFit]:
    """Make one gWCS, which stands for all: only its text and its refit are stored."""
    shape = (_SIDE, _SIDE)
    gwcs = Pointing(ra=POSITION[0], dec=POSITION[1], roll=20, scale=0.063, shape=shape).gwcs()
    return GwcsText.of(gwcs, "a gWCS"), fit_sip(SkyWCS.from_gwcs(gwcs, shape), shape)


def _header(band: str, east: float, north: float, angle: float) -> Header:
    """Write the header of a square detector at an offset (degrees) from the field's centre."""
    cos, sin = _SCALE * np.cos(angle), _SCALE * np.sin(angle)
    return Header(
        {
            "NAXIS": 2, "NAXIS1": _SIDE, "NAXIS2": _SIDE, "FILTER": band,
            "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
            "CRPIX1": (_SIDE + 1) / 2, "CRPIX2": (_SIDE + 1) / 2,
            "CRVAL1": POSITION[0] + east, "CRVAL2": POSITION[1] + north,
            "CD1_1": -cos, "CD1_2": sin, "CD2_1": sin, "CD2_2": cos,
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
