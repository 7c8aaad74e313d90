"""Images of PSFs, as stpsf (WebbPSF), photutils and plain FITS files hold them, in one form.

Whatever the sampling, an image becomes the effective PSF: the share of the light that a pixel gets
whose middle is there. A file says by its kind whether the light was summed over pixels already
(grids for photutils are) or only over the cells of a finer sampling (``OVERSAMP`` and ``OVERDIST``
of stpsf).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import MissingFileError, PSFError
from fpgpu.paths import as_path
from fpgpu.sky.angles import AngleLike, mask_of

__all__ = ["PSFImages", "read_psf_images"]

Float = npt.NDArray[np.float64]

_PATTERN = re.compile(r"[*?[]")

OFF_CENTER = 0.5
"""Pixels: a PSF whose light is further from the middle of its image would move every source."""


@dataclass(frozen=True)
class PSFImages:
    """Images of the PSF of one band at places of the detector.

    Attributes
    ----------
    band : str
        The band, in upper case.
    images : ndarray of float64, shape (n, ny, nx)
        Effective PSFs ``[y, x]``: the share of the light that a pixel gets whose middle is there,
        `oversample` samples a pixel along each axis; each sums to ``oversample**2``.
    oversample : float
        Samples a pixel.
    pixel_scale : float
        Arcsec a pixel of the detector.
    positions : ndarray of float64, shape (n, 2), or None
        Zero-based x and y on the detector; None for one image without a place.
    """

    band: str
    images: Float
    oversample: float
    pixel_scale: float
    positions: Float | None

    @classmethod
    def from_arrays(
        cls,
        band: str,
        images: npt.ArrayLike,
        *,
        pixel_scale: AngleLike,
        oversample: npt.ArrayLike = 1,
        positions: npt.ArrayLike | None = None,
        integrated: bool = True,
        recenter: bool = False,
        name: str = "the PSF",
    ) -> "PSFImages":
        """Check images and bring them to the form of effective PSFs.

        Parameters
        ----------
        band : str
            The band.
        images : array_like of float, shape (n, ny, nx) or (ny, nx)
            Images ``[y, x]``, the source in the middle of each; in any unit.
        pixel_scale : float, Quantity or str
            Arcsec a pixel of the detector, or with units.
        oversample : float or (float, float), optional
            Samples a pixel along each axis, the same for both.
        positions : array_like of float, shape (n, 2), optional
            Zero-based x and y on the detector; needed for several images.
        integrated : bool, optional
            Whether samples hold the light of whole pixels (effective PSFs, stars), or of cells of
            the sampling only.
        recenter : bool, optional
            Move the light's centroid to the middle instead of refusing an image where it is not.
        name : str, optional
            What messages call them.

        Returns
        -------
        PSFImages
            To be fitted.

        Raises
        ------
        PSFError
            If shapes or values do not fit, pixels are masked, the scale is none, or the light is
            not in the middle.

        Examples
        --------
        >>> import numpy as np
        >>> r2 = np.add.outer(np.arange(-12, 13) ** 2, np.arange(-12, 13) ** 2)
        >>> star = np.exp(-r2 / (2 * 1.5**2))
        >>> images = PSFImages.from_arrays("F200W", star, pixel_scale=0.03)
        >>> round(float(images.images.sum()), 6)
        1.0
        """
        from scipy.ndimage import shift

        if not isinstance(band, str):
            raise PSFError(f"{name}: the band is {band!r}; expected a name such as 'F200W'")
        per_pixel = "pix" in str(getattr(pixel_scale, "unit", ""))
        scale = _positive(
            "pixel scale", pixel_scale, "arcsec / pix" if per_pixel else "arcsec", name
        )
        samples = _positive("oversampling", oversample, "", name)
        cube = _numbers(images, name)
        cube = cube[None] if cube.ndim == 2 else cube
        if cube.ndim != 3 or cube.shape[1] != cube.shape[2] or 0 in cube.shape:
            raise PSFError(
                f"{name}: images have shape {np.shape(images)}; expected square ones, (n, size, "
                "size) or (size, size), with the source in the middle"
            )
        if cube.shape[1] < 5 * samples:
            raise PSFError(
                f"{name}: images of {cube.shape[1]} samples at {samples:g} a pixel are "
                f"{cube.shape[1] / samples:.3g} pixels wide; at least 5 are needed"
            )
        if not np.isfinite(cube).all():
            bad = int(np.flatnonzero(~np.isfinite(cube).all(axis=(1, 2)))[0])
            raise PSFError(
                f"{name}: image {bad} holds {int((~np.isfinite(cube[bad])).sum())} values that are "
                "masked or not finite; interpolate over them first"
            )
        total = cube.sum(axis=(1, 2))
        if (total <= 0).any():
            bad = int((total <= 0).argmax())
            raise PSFError(f"{name}: image {bad} sums to {total[bad]:g}; a PSF has light")
        cube = cube * (samples**2 / total)[:, None, None]
        if not integrated:
            cube = _over_pixels(cube, samples)
        centers = _centroids(cube, samples)
        for k, center in enumerate(centers):
            if recenter:
                cube[k] = shift(cube[k], -center[::-1] * samples, order=3, mode="constant")
            elif np.hypot(*center) > OFF_CENTER:
                raise PSFError(
                    f"{name}: the light of image {k} is centred {center[0]:+.2f}, {center[1]:+.2f} "
                    "pixels (x, y) from its middle, and would move every source by that; cut it "
                    "with the source in the middle, or give --recenter (recenter=True)"
                )
        return cls(band.upper(), cube, samples, scale, _positions(positions, cube, name))


def read_psf_images(
    files: str | Path | Iterable[str | Path],
    *,
    band: str | None = None,
    oversample: float | None = None,
    pixel_scale: AngleLike | None = None,
    integrated: bool | None = None,
    recenter: bool = False,
) -> list[PSFImages]:
    """Read FITS files of PSFs, one band or several.

    Parameters
    ----------
    files : path or iterable of path
        Files, folders, or patterns such as ``"psfs/*.fits"``: of stpsf (``calc_psf``: ``OVERDIST``,
        else ``OVERSAMP``, else the first image), grids as stpsf's ``psf_grid`` and photutils have
        them (a cube and ``DET_YX0``...), or plain images and cubes. Several files of a band are its
        places on the detector.
    band : str, optional
        The band; by default FILTER of the header. Given and different, it is refused.
    oversample : float, optional
        Samples a pixel; by default OVERSAMP (DET_SAMP for detector-sampled images), else 1.
    pixel_scale : float, Quantity or str, optional
        Arcsec a pixel of the detector, or with units; by default from PIXELSCL, or FOV and
        FOVPIXEL.
    integrated : bool, optional
        Whether samples hold the light of whole pixels; by default by the kind of the file.
    recenter : bool, optional
        Move the light's centroid to the middle of each image.

    Returns
    -------
    list of PSFImages
        One a band, in the order in which they appear.

    Raises
    ------
    MissingFileError
        If a file is not there.
    PSFError
        If a file is no FITS image of a PSF, or does not say what must be known.
    """
    paths = [files] if isinstance(files, (str, Path)) else list(files)
    given = {"oversample": oversample, "pixel_scale": pixel_scale, "integrated": integrated}
    found: dict[str, list[PSFImages]] = {}
    for path in chain.from_iterable(map(_expanded, paths)):
        images = _read(path, band, recenter, {k: v for k, v in given.items() if v is not None})
        found.setdefault(images.band, []).append(images)
    return [_joined(parts) for parts in found.values()]


def _expanded(name: str | Path) -> list[Path]:
    """The files that a name stands for, as in ingest: those of a folder, or of a pattern."""
    if not isinstance(name, (str, Path)):
        raise PSFError(
            f"a {type(name).__name__} was given as a file of a PSF; expected its name, or give"
            " the images to PSFImages.from_arrays"
        )
    path = as_path(name)
    if path.is_dir() or (_PATTERN.search(str(path)) and not path.exists()):
        from fpgpu.ingest.find import find_inputs

        return [item.path for item in find_inputs(path)]
    return [path]


def _positive(what: str, value: Any, unit: str, name: str) -> float:
    """Take a scale, which may come with a unit, or a sampling, which photutils gives by axis."""
    from astropy.units import Quantity

    if "pix" in str(getattr(value, "unit", "")):
        unit += " / pix"
    try:
        found = np.unique(Quantity(value, unit).value)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.size != 1 or not (np.isfinite(found[0]) and found[0] > 0):
        expected = "the same for both axes" if unit == "" else f"or a Quantity ({unit})"
        raise PSFError(f"{name}: the {what} is {value!r}; expected a positive number, {expected}")
    return float(found[0])


def _numbers(images: Any, name: str) -> Float:
    """Take images as numbers, NaN where they are masked."""
    try:
        values = np.asarray(images, np.float64)
    except (TypeError, ValueError) as error:
        raise PSFError(
            f"{name}: images were given as {images!r}; expected numbers (of files: read_psf_images)"
        ) from error
    mask = mask_of(images)
    return values if mask is None else np.where(mask, np.nan, values)


def _read(path: Path, band: str | None, recenter: bool, given: dict[str, Any]) -> PSFImages:
    """Read one file; what is given counts before what it says."""
    from astropy.io import fits

    if not path.is_file():
        raise MissingFileError(f"{path}: no such file of a PSF")
    try:
        with fits.open(path, memmap=False) as hdus:
            hdu = _chosen(hdus)
            header = hdus[0].header.copy()
            header.update(hdu.header)
            data, kind = np.asarray(hdu.data, np.float64), hdu.name
    except (OSError, TypeError, ValueError, AttributeError) as error:
        raise PSFError(f"{path}: cannot be read as FITS images of a PSF: {error}") from error
    own_band = str(header.get("FILTER", "")).strip().upper()
    if band and own_band and own_band != band.upper():
        raise PSFError(f"{path}: is of {own_band}, not {band.upper()}; leave the band out")
    if not (band or own_band):
        raise PSFError(f"{path}: the header has no FILTER; name the band with --band (band=)")
    for key in ("OVERSAMP", "PIXELSCL", "FOV", "FOVPIXEL"):
        if not isinstance(header.get(key) or 0, int | float):
            raise PSFError(f"{path}: {key} is {header[key]!r}; expected a number")
    grid = {int(key[6:]): header[key] for key in header if re.fullmatch(r"DET_YX\d+", key)}
    is_sampled = kind in ("DET_SAMP", "DET_DIST")
    samples = given.get("oversample", 1.0 if is_sampled else header.get("OVERSAMP") or 1.0)
    said = {
        "oversample": samples,
        "pixel_scale": _scale(header, 1.0 if is_sampled or grid else samples),
        "integrated": bool(grid) or kind not in ("OVERSAMP", "OVERDIST"),
    } | given
    if said["pixel_scale"] is None:
        raise PSFError(
            f"{path}: the header has neither PIXELSCL nor FOV and FOVPIXEL, so the size of its "
            "pixels is not known; give the detector's with --pixel-scale ARCSEC (pixel_scale=)"
        )
    places = _grid_positions(grid, path) if grid else _position(header)
    return PSFImages.from_arrays(
        band or own_band, data, positions=places, recenter=recenter, name=str(path), **said
    )


def _chosen(hdus: Any) -> Any:
    """Take the image that knows most: distorted before not, oversampled before not."""
    named = {hdu.name: hdu for hdu in reversed(hdus) if getattr(hdu, "data", None) is not None}
    for name in ("OVERDIST", "OVERSAMP", "DET_DIST", "DET_SAMP"):
        if name in named:
            return named[name]
    return next(hdu for hdu in hdus if getattr(hdu, "data", None) is not None or hdu is hdus[-1])


def _scale(header: Any, samples: float) -> float | None:
    """Return arcsec a pixel: PIXELSCL is of the samples of the image it stands with."""
    if own := header.get("PIXELSCL"):
        return float(own * samples)
    if header.get("FOV") and header.get("FOVPIXEL"):
        return float(header["FOV"] / header["FOVPIXEL"])
    return None


def _grid_positions(grid: dict[int, Any], path: Path) -> Float:
    """Read ``DET_YX0 = '(y, x)'`` and so on, in the order of the images."""
    places = []
    for k, text in sorted(grid.items()):
        try:
            y, x = map(float, str(text).strip("() ").split(","))
        except ValueError as error:
            raise PSFError(f"{path}: DET_YX{k} is {text!r}; expected '(y, x)'") from error
        places.append((x, y))
    return np.array(places)


def _position(header: Any) -> Float | None:
    """Return where on the detector stpsf says that a single PSF is."""
    place = (header.get("DET_X"), header.get("DET_Y"))
    return None if None in place else np.array([place], np.float64)


def _positions(positions: npt.ArrayLike | None, cube: Float, name: str) -> Float | None:
    """Check positions against their images."""
    if positions is None:
        if len(cube) > 1:
            raise PSFError(
                f"{name}: {len(cube)} images without places on the detector; expected DET_YX0, ... "
                "in the header, or positions="
            )
        return None
    places = np.asarray(positions, np.float64)
    if places.shape != (len(cube), 2) or not np.isfinite(places).all():
        raise PSFError(
            f"{name}: {len(cube)} images and positions of shape {places.shape}; expected one "
            "finite (x, y) for each"
        )
    return places


def _joined(parts: list[PSFImages]) -> PSFImages:
    """Put the places of a band together."""
    first = parts[0]
    if len(parts) == 1:
        return first
    looks = {(part.images.shape[1:], part.oversample, part.pixel_scale) for part in parts}
    if len(looks) > 1:
        raise PSFError(f"{first.band}: files differ in size or sampling: {sorted(looks)}")
    places = [part.positions for part in parts if part.positions is not None]
    if len(places) < len(parts):
        raise PSFError(
            f"{first.band}: {len(parts)} files, of which {len(parts) - len(places)} do not say "
            "where on the detector they are (DET_X and DET_Y, or DET_YX0, ...)"
        )
    images = np.concatenate([part.images for part in parts])
    return replace(first, images=images, positions=np.concatenate(places))


def _over_pixels(cube: Float, oversample: float) -> Float:
    """Sum cells over pixels: a box as wide as a pixel, its ends by their share of a cell."""
    from scipy.ndimage import convolve1d

    half = int(np.ceil((oversample - 1) / 2))
    cells = np.arange(-half, half + 1)
    box = np.clip(
        np.minimum(cells + 0.5, oversample / 2) - np.maximum(cells - 0.5, -oversample / 2), 0, 1
    )
    for axis in (1, 2):
        cube = convolve1d(cube, box / oversample, axis=axis, mode="constant")
    return cube


def _centroids(cube: Float, oversample: float) -> Float:
    """Centroids of the core, x and y in pixels from the middle: of what is above a tenth."""
    n = cube.shape[1]
    places = (np.arange(n) - (n - 1) / 2) / oversample
    light = np.clip(cube - 0.1 * cube.max(axis=(1, 2), keepdims=True), 0, None)
    total = light.sum(axis=(1, 2))
    return np.stack([light.sum(axis=1) @ places / total, light.sum(axis=2) @ places / total], 1)
