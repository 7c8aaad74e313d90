"""A synthetic multi-band field, written as JWST stage-2 files.

The files have the structure of real ``cal`` products: PRIMARY, SCI, ERR, DQ, AREA, VAR_POISSON,
VAR_RNOISE, VAR_FLAT and an ASDF extension with a gWCS, with a SIP approximation of it in the SCI
header. What is on the sky is known, and given as a catalogue; so are images of the
PSFs, as stpsf writes them.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.catalog import UNITS
from fpgpu.demo.telescope import Pointing
from fpgpu.ingest.flags import JWST
from fpgpu.psf import default_profiles
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.names import each_band

__all__ = ["CENTER", "Field", "make_field", "pixel_scale", "psf_sigma", "write_psfs"]

Floats = npt.NDArray[np.float64]

BANDS = ("F090W", "F200W", "F444W")
CENTER = (53.16, -27.79)

_NANOJANSKY_PER_MEGAJANSKY = 1e15
_SHORT_SCALE, _LONG_SCALE = 0.031, 0.063
_BORDER = 4
_PSF_REACH = 16  # pixels from the middle of a PSF's image to its edge
_LEAST_SHARE = 1e-9  # of a source's light in a Gaussian that is drawn
_SKY_NOISE = 0.8  # nJy a pixel
_NOISE_PER_FLUX = 0.05  # nJy of variance for every nJy


@dataclass(frozen=True)
class Field:
    """A synthetic field on disk.

    Attributes
    ----------
    files : list of Path
        The exposures, by band, then in the order of the dithers.
    truth : astropy.table.Table
        The sources, as a catalogue: ra, dec (deg), q, pa (rad), sersic, rhalf (arcsec), and a
        flux for each band (nJy).
    """

    files: list[Path]
    truth: Any

    @property
    def bands(self) -> list[str]:
        """The bands, in order."""
        return [name for name in self.truth.colnames if name not in UNITS]


def make_field(
    folder: str | Path,
    *,
    bands: Sequence[str] | str = BANDS,
    n_per_band: int = 2,
    size: int | tuple[int, int] = 256,
    seed: int = 1,
    center: tuple[float, float] = CENTER,
    n_sources: int = 40,
) -> Field:
    """Write a field of dithered exposures with different roll angles."""
    folder, bands = Path(folder), each_band(bands)
    folder.mkdir(parents=True, exist_ok=True)
    shape = (size, size) if isinstance(size, int) else size
    random = np.random.default_rng(seed)
    truth = _random_sources(random, bands, 0.35 * min(shape) * _SHORT_SCALE, center, n_sources)
    files = []
    for band in bands:
        for number in range(n_per_band):
            # A little beside the centre, each with a roll of its own.
            reach = 0.05 * min(shape) * pixel_scale(band)
            ra, dec = _beside(center, *random.uniform(-reach, reach, 2))
            pointing = Pointing(ra, dec, (17.0 + 31.0 * number) % 360, pixel_scale(band), shape)
            files.append(_write_exposure(folder, band, number, pointing, truth, random))
    return Field(files, truth)


def write_psfs(folder: str | Path, bands: Sequence[str] | str) -> list[Path]:
    """Write an image of the PSF of each band, sampled four times a pixel, as stpsf does."""
    from astropy.io import fits

    folder, samples = Path(folder), 4
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for band in each_band(bands):
        step = pixel_scale(band) / samples
        offset = np.arange(-_PSF_REACH * samples, _PSF_REACH * samples + 1) * step
        profile = np.exp(-0.5 * (offset / psf_sigma(band)) ** 2)
        image = fits.ImageHDU(np.outer(profile, profile), name="OVERSAMP")
        image.header.update(OVERSAMP=samples, PIXELSCL=step, FILTER=band)
        files.append(folder / f"psf_{band.lower()}.fits")
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(files[-1], overwrite=True)
    return files


def pixel_scale(band: str) -> float:
    """Give the size of a pixel in the middle of a detector."""
    return _LONG_SCALE if _is_long(band) else _SHORT_SCALE


def psf_sigma(band: str) -> float:
    """Give the width of the round Gaussian that the optics make of a point."""
    return 0.02 + 0.03 * int(band[1:4]) / 444


def _is_long(band: str) -> bool:
    """Whether a filter belongs to the long-wave channel."""
    return int(band[1:4]) >= 250


def _beside(center: tuple[float, float], east: Any, north: Any) -> tuple[Any, Any]:
    """RA, Dec in degrees at small offsets from a centre, arcsec."""
    dec = center[1] + north / 3600
    return (center[0] + east / 3600 / np.cos(np.deg2rad(center[1]))) % 360, dec


def _random_sources(
    random: np.random.Generator,
    bands: Sequence[str],
    reach: float,
    center: tuple[float, float],
    n_sources: int,
) -> Any:
    """Draw round sources over the part of the sky that every exposure sees."""
    from astropy.table import Table

    ra, dec = _beside(center, *random.uniform(-reach, reach, (2, n_sources)))
    brightness, ones = 10 ** random.uniform(2, 4, n_sources), np.ones(n_sources)
    columns = {
        "ra": ra,
        "dec": dec,
        "q": ones,
        "pa": 0 * ones,
        "sersic": random.uniform(0.5, 2, n_sources),
        "rhalf": random.uniform(0.03, 0.15, n_sources),
        **{band: brightness * random.uniform(0.5, 2, n_sources) for band in bands},
    }
    return Table(columns, units=UNITS | dict.fromkeys(bands, "nJy"))


def _write_exposure(
    folder: Path,
    band: str,
    number: int,
    pointing: Pointing,
    truth: Any,
    random: np.random.Generator,
) -> Path:
    """Simulate one exposure and write it as a stage-2 file."""
    from astropy.io import fits

    wcs = pointing.gwcs()
    images = _simulate(pointing, wcs, truth, band, random)
    detector = "NRCBLONG" if _is_long(band) else "NRCB1"
    visit = f"jw01234001001_02101_{number + 1:05d}"
    path = folder / f"{visit}_{detector.lower()}_{band.lower()}_cal.fits"
    hdus = fits.HDUList([fits.PrimaryHDU()])
    hdus[0].header.update(_primary_header(path.name, band, detector, number))
    hdus.extend(fits.ImageHDU(image.T, name=name) for name, image in images.items())
    hdus["SCI"].header.update(_science_header(pointing, wcs))
    hdus["ERR"].header["BUNIT"] = "MJy/sr"
    hdus.append(_asdf_extension(wcs))
    hdus.writeto(path, overwrite=True)
    return path


def _simulate(
    pointing: Pointing, wcs: Any, truth: Any, band: str, random: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Give the images of an exposure by extension, ``im[x, y]``, in surface brightness."""
    ra, dec, sersic, rhalf, flux = (
        np.asarray(truth[name]) for name in ("ra", "dec", "sersic", "rhalf", band)
    )
    x, y = wcs.invert(ra, dec, with_bounding_box=False)
    profiles = default_profiles()
    shares = profiles.evaluate(sersic, rhalf).amplitudes
    source, radius = np.nonzero(np.abs(shares) > _LEAST_SHARE)
    width = np.hypot(profiles.radii[radius], psf_sigma(band)) / pointing.scale
    light = flux[source] * shares[source, radius]
    image = _render(pointing.shape, x[source], y[source], width, light)
    var_sky, var_poisson = np.full(pointing.shape, _SKY_NOISE**2), _NOISE_PER_FLUX * image
    error = np.sqrt(var_sky + var_poisson)
    image += error * random.standard_normal(pointing.shape)
    quality = _defects(random, image)
    blind = (quality & JWST.parse("REFERENCE_PIXEL")) != 0
    image[blind] = error[blind] = np.nan
    area = pointing.area_map()
    to_brightness = 1 / (_NANOJANSKY_PER_MEGAJANSKY * pointing.pixel_steradian * area)
    return {
        "SCI": (image * to_brightness).astype(np.float32),
        "ERR": (error * to_brightness).astype(np.float32),
        "DQ": quality,
        "AREA": area,
        "VAR_POISSON": (var_poisson * to_brightness**2).astype(np.float32),
        "VAR_RNOISE": (var_sky * to_brightness**2).astype(np.float32),
        "VAR_FLAT": np.zeros(pointing.shape, np.float32),
    }


def _render(shape: tuple[int, int], x: Floats, y: Floats, width: Floats, flux: Floats) -> Floats:
    """Integrate Gaussians over the pixels; fluxes in nJy a pixel, ``im[x, y]``."""
    from scipy.special import ndtr

    shares = [
        np.diff(ndtr((np.arange(n + 1) - 0.5 - middle[:, None]) / width[:, None]))
        for middle, n in zip((x, y), shape, strict=True)
    ]
    return np.asarray((flux[:, None] * shares[0]).T @ shares[1])


def _defects(random: np.random.Generator, flux: Floats) -> npt.NDArray[np.uint32]:
    """Put defects into an image, in place, and give their data-quality flags."""
    nx, ny = flux.shape
    quality = np.zeros((nx, ny), np.uint32)
    for name, count in (("DEAD", nx * ny // 2000), ("HOT", nx * ny // 1000)):
        x, y = random.integers(0, nx, count), random.integers(0, ny, count)
        quality[x, y] |= JWST.parse(f"DO_NOT_USE+{name}")
        flux[x, y] = 0 if name == "DEAD" else 500
    for _ in range(nx * ny // 5000 + 2):
        # The track of a cosmic ray: its core is lost, its rims the jump detection has repaired.
        start, angle = random.uniform(0.2, 0.8, 2) * (nx, ny), random.uniform(0, 2 * np.pi)
        steps = np.arange(random.integers(2, 12))
        x = np.clip(start[0] + steps * np.cos(angle), 1, nx - 2).astype(int)
        y = np.clip(start[1] + steps * np.sin(angle), 1, ny - 2).astype(int)
        quality[x[:, None] + (-1, 0, 1), y[:, None]] |= JWST.parse("JUMP_DET")
        quality[x, y] |= JWST.parse("DO_NOT_USE")
        flux[x, y] += 2000
    border = np.ones((nx, ny), bool)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
    quality[border] = JWST.parse("DO_NOT_USE+REFERENCE_PIXEL")
    return quality


def _primary_header(name: str, band: str, detector: str, number: int) -> dict[str, Any]:
    """Build the primary header: what was observed, with what, when."""
    return {
        "DATE-OBS": "2025-01-15", "TIME-OBS": f"04:{10 * number % 60:02d}:00.000",
        "ORIGIN": "fpgpu", "FILENAME": name, "DATAMODL": "ImageModel", "TELESCOP": "JWST",
        "PROGRAM": "01234", "OBSERVTN": "001", "VISIT": "001", "EXPOSURE": str(number + 1),
        "INSTRUME": "NIRCAM", "DETECTOR": detector, "MODULE": detector[3], "SUBARRAY": "FULL",
        "CHANNEL": "LONG" if _is_long(band) else "SHORT", "FILTER": band, "PUPIL": "CLEAR",
        "EXP_TYPE": "NRC_IMAGE", "EFFEXPTM": 1000.0,
    }  # fmt: skip


def _science_header(pointing: Pointing, wcs: Any) -> Any:
    """Build the SCI header: units, outline, SIP approximation of the gWCS."""
    sky = SkyWCS.from_gwcs(wcs, pointing.shape)
    sip = fit_sip(sky, pointing.shape)
    header = sip.to_header()
    outline = " ".join(f"{ra:.9f} {dec:.9f}" for ra, dec in sky.footprint(1))
    header.update(
        BUNIT="MJy/sr",
        PIXAR_SR=pointing.pixel_steradian,
        PIXAR_A2=pointing.scale**2,
        PA_APER=pointing.roll,
        S_REGION=f"POLYGON ICRS  {outline}",
        SIPMXERR=float(sip.residual),
    )
    return header


def _asdf_extension(wcs: Any) -> Any:
    """Put a gWCS into the extension that JWST products keep it in."""
    import asdf
    from astropy.io import fits

    stream = io.BytesIO()
    asdf.AsdfFile({"meta": {"wcs": wcs}}).write_to(stream)
    content = np.frombuffer(stream.getvalue(), np.uint8)
    column = fits.Column("ASDF_METADATA", format=f"{content.size}B", array=content[None, :])
    return fits.BinTableHDU.from_columns([column], name="ASDF")
