"""A survey's exposures as headers: a crowded field with random roll angles."""

import json
from pathlib import Path

import numpy as np
from astropy.io.fits import Header

from fpgpu import CircularRegion, MetaStore

__all__ = ["BANDS", "POSITION", "REGION", "write_meta_store"]

BANDS = ["F090W", "F200W", "F444W"]
POSITION = (53.0, -27.0)
REGION = CircularRegion(*POSITION, 3 / 3600)
_DEPTH = 24
_FIELD = 1.0  # degrees on a side
_SCALE = 0.063 / 3600  # degrees per pixel
_SIDE = 2048


def write_meta_store(folder: Path, n_exposures: int) -> Path:
    """Write a meta store with the sidecar that fpgpu keeps beside it, and return the JSON file."""
    rng = np.random.default_rng(n_exposures)
    offsets = rng.uniform(-0.5, 0.5, (n_exposures, 2)) * _FIELD
    offsets[: min(_DEPTH, n_exposures // 2)] *= 0.01  # these cover the position
    angles = rng.uniform(0, 2 * np.pi, n_exposures)
    texts: dict[str, dict[str, str]] = {band: {} for band in BANDS}
    for n, ((east, north), angle) in enumerate(zip(offsets, angles, strict=True)):
        band = BANDS[n % len(BANDS)]
        texts[band][f"visit{n // 100:03d}/e{n:05d}"] = _header(band, east, north, angle).tostring()
    path = folder / "meta.json"
    path.write_text(json.dumps(texts))
    with MetaStore(path) as store:
        store.write_to_file(path)
    return path


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
