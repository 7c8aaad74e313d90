"""The last steps of the demo: a patch of sky, there and back, and what is in it.

The sources of the synthetic field are round Gaussians, which are Sersic profiles of index 0.5. So
the machinery of real fits can be asked for their light, and what is left of the pixels must be the
noise that was put in.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fpgpu.survey
from fpgpu.backends.base import Backend
from fpgpu.demo.field import Field, pixel_scale, psf_sigma
from fpgpu.demo.report import Narrator
from fpgpu.layout import MAXRADII, PSF_DTYPE
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.likelihood.reference import evaluate
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import pack_metadata
from fpgpu.patch.plan import PatchPlan
from fpgpu.sky.regions import CircularRegion
from fpgpu.sky.sphere import separation
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore
from fpgpu.survey import Survey

__all__ = [
    "Scene",
    "check_patch",
    "gaussian_catalog",
    "gaussian_mixture",
    "open_stores",
    "pixel_psf",
    "scene",
]

Floats = npt.NDArray[np.float64]

ARCSEC = 1 / 3600
RADIUS = 0.6 * ARCSEC
# Sources further away than this from the region leave less light in it than rounding does.
REACH = 1.6 * ARCSEC

SERSIC_OF_GAUSSIAN = 0.5
RHALF_OF_SIGMA = float(np.sqrt(2 * np.log(2)))
"""Half of a round Gaussian's light is within this many standard deviations."""

SIGMA_RANGE = (0.02, 0.15)
"""Sizes of the field's sources, arcsec."""


def check_patch(tell: Narrator, engine: Backend, folder: StoreFolder, field: Field | None) -> None:
    """Build a patch, compare all of it with the stores, and its pixels with the true sources.

    Parameters
    ----------
    tell : Narrator
        Told of each step and check.
    engine : Backend
        Where the patch is built.
    folder : StoreFolder
        The stores.
    field : Field or None
        The synthetic field that they hold; None for a user's exposures, whose sources are not
        known.
    """
    if field is not None:
        with tell.step("stored PSFs") as detail, PSFStore(_psf_file(folder)) as psf:
            for band in sorted({name[5:] for name in field.truth.colnames if "flux_" in name}):
                psf.add_psf(band, pixel_psf(band))
            detail.append(f"{', '.join(psf.bands)}: {psf.n_psf_per_source(band)} Gaussians each")
    mixture = gaussian_mixture()
    with open_stores(folder, engine, field) as survey:
        region, catalog = scene(survey, field)
        with tell.step("planned a patch") as detail:
            plan = survey.plan(region)
            detail.append(f"{plan.n_exp} exposures, {plan.n_pixels} pixels within 0.6 arcsec")
        with tell.step("built the patch") as detail:
            patch = survey.patch(plan, catalog, radii=mixture.radii, margin=None)
            detail.append(f"{patch.n_sources} sources, {patch.nbytes / 1e6:.2f} MB")
        with patch:
            _check_round_trip(tell, survey, patch, catalog, mixture)
            if catalog is not None:
                _check_likelihood(tell, patch, catalog, mixture)


def open_stores(folder: StoreFolder, engine: Backend, field: Field | None) -> Survey:
    """Open the stores of a demo, with the PSFs of its synthetic field.

    Parameters
    ----------
    folder : StoreFolder
        The stores.
    engine : Backend
        Where patches are built.
    field : Field or None
        The synthetic field; None for a user's exposures.

    Returns
    -------
    Survey
        To be closed by its ``with`` block.
    """
    psf = None if field is None else _psf_file(folder)
    return fpgpu.survey.open(folder.path, psf=psf, backend=engine)


class Scene(NamedTuple):
    """The region that the demo looks at, and what is known to be in it.

    Attributes
    ----------
    region : CircularRegion
        The region.
    catalog : astropy.table.Table or None
        Its sources; None where they are not known.
    """

    region: CircularRegion
    catalog: Any


def scene(survey: Survey, field: Field | None) -> Scene:
    """Choose the region: the densest place of a synthetic field, or the middle of an exposure.

    Parameters
    ----------
    survey : Survey
        The stores.
    field : Field or None
        The synthetic field; None for a user's exposures.

    Returns
    -------
    Scene
        Region and sources.
    """
    if field is None:
        return Scene(_middle(survey), None)
    region = _densest(field.truth)
    return Scene(region, gaussian_catalog(field.truth, region))


def gaussian_mixture() -> SersicMixture:
    """Give a table of mixtures that makes round Gaussians of any size the field has.

    A Gaussian is a smooth function of its size, so it is interpolated between those of a few
    sizes, at Chebyshev's nodes: to a thousandth of its peak.

    Returns
    -------
    SersicMixture
        For sizes in `SIGMA_RANGE`; the same at every Sersic index near 0.5.
    """
    low, high = np.log(SIGMA_RANGE)
    angles = np.pi * (np.arange(MAXRADII)[::-1] + 0.5) / MAXRADII
    nodes = 0.5 * (low + high) + 0.5 * (high - low) * np.cos(angles)
    sizes = np.linspace(low, high, 200)
    shares = np.stack([_lagrange(nodes, k, sizes) for k in range(MAXRADII)], axis=-1)
    indices = SERSIC_OF_GAUSSIAN + np.array([-0.2, -0.1, 0.1, 0.2])
    table = np.broadcast_to(shares, (len(indices), *shares.shape))
    return SersicMixture(indices, RHALF_OF_SIGMA * np.exp(sizes), table, np.exp(nodes))


def pixel_psf(band: str) -> npt.NDArray[Any]:
    """Give the PSF of the field's telescope, with the pixel that light is integrated over.

    Four Gaussians stand for the square: along each axis they have its variance of 1/12 and its
    fourth cumulant of -1/120.

    Parameters
    ----------
    band : str
        NIRCam filter name.

    Returns
    -------
    ndarray of PSF_DTYPE, shape (4 * MAXRADII,)
        The same for each radius of `gaussian_mixture`, pixels.
    """
    offset = (1 / 240) ** 0.25
    variance = (psf_sigma(band) / pixel_scale(band)) ** 2 + 1 / 12 - offset**2
    psf = np.zeros((MAXRADII, 4), PSF_DTYPE)
    psf["amp"] = 0.25
    psf["xcen"] = offset * np.array([-1, -1, 1, 1])
    psf["ycen"] = offset * np.array([-1, 1, -1, 1])
    psf["Cxx"] = psf["Cyy"] = variance
    psf["sersic_bin"] = np.arange(MAXRADII)[:, None]
    return psf.ravel()


def gaussian_catalog(truth: Any, region: CircularRegion) -> Any:
    """Give the sources whose light reaches a region, as a catalogue of Sersic profiles.

    Parameters
    ----------
    truth : astropy.table.Table
        Of a `Field`.
    region : CircularRegion
        The region.

    Returns
    -------
    astropy.table.Table
        Columns ra, dec, q, pa, sersic, rhalf and a flux for each band.
    """
    from astropy.table import Table

    away = separation(region.ra, region.dec, np.asarray(truth["ra"]), np.asarray(truth["dec"]))
    near = truth[away < region.radius + REACH]
    fluxes = {name[5:]: near[name] for name in near.colnames if name.startswith("flux_")}
    shape = {"q": 1.0, "pa": 0.0, "sersic": SERSIC_OF_GAUSSIAN}
    columns = {name: np.full(len(near), value) for name, value in shape.items()}
    rhalf = RHALF_OF_SIGMA * near["sigma"]
    return Table({"ra": near["ra"], "dec": near["dec"], "rhalf": rhalf, **columns, **fluxes})


def _psf_file(folder: StoreFolder) -> Path:
    """Not the folder's psf.h5: other catalogues want PSFs for the radii of Sersic profiles."""
    return folder.path / "psf_of_gaussians.h5"


def _lagrange(nodes: Floats, k: int, x: Floats) -> Floats:
    """The polynomial that is 1 at one node and 0 at all others."""
    others = np.delete(nodes, k)
    return np.asarray(np.prod((x[:, None] - others) / (nodes[k] - others), axis=1))


def _densest(truth: Any) -> CircularRegion:
    """The circle around the source that has most others around it."""
    ra, dec = np.asarray(truth["ra"]), np.asarray(truth["dec"])
    neighbours = (separation(ra[:, None], dec[:, None], ra, dec) < RADIUS).sum(axis=1)
    place = int(neighbours.argmax())
    return CircularRegion(float(ra[place]), float(dec[place]), RADIUS)


def _middle(survey: Survey) -> CircularRegion:
    """A circle in the middle of the first exposure."""
    nx, ny = survey.pixels.shape
    ra, dec = survey.meta.sky_wcs(*next(iter(survey.pixels))).pixel_to_world(nx / 2, ny / 2)
    return CircularRegion(float(ra), float(dec), RADIUS)


def _check_round_trip(
    tell: Narrator, survey: Survey, patch: Patch, catalog: Any, mixture: SersicMixture
) -> None:
    """Compare what the backend holds with the stores, read in another way, bit for bit."""
    packed = pack_metadata(
        survey.meta, survey.psf, patch.plan, catalog, radii=mixture.radii, reference=patch.reference
    )
    expected = {**packed.arrays, **_pixels_of(survey.pixels, patch.plan)}
    with tell.step("fetched the patch") as detail:
        fetched = patch.host_arrays()
        n_bytes = sum(array.nbytes for array in expected.values())
        detail.append(f"{len(expected)} arrays, {n_bytes / 1e6:.2f} MB")
    different = [
        name for name, array in expected.items() if array.tobytes() != fetched[name].tobytes()
    ]
    tell.check(
        "every array of the patch comes back as it went",
        not different,
        f"{len(expected)} arrays, {n_bytes} bytes, different: {', '.join(different) or 'none'}",
    )


def _pixels_of(pixels: PixelStore, plan: PatchPlan) -> dict[str, npt.NDArray[np.float32]]:
    """Cut the pixels of a plan from whole exposures."""
    size, pieces = pixels.super_pixel_size, []
    for exposure in plan.exposures:
        nx, ny = exposure.shape
        images = np.stack(
            [*pixels.read_exposure(exposure.band, exposure.expID), *np.indices((nx, ny))]
        )
        blocks = images.reshape(4, nx // size, size, ny // size, size)
        ix, iy = exposure.superpixels.T
        pieces.append(blocks.transpose(0, 1, 3, 2, 4)[:, ix, iy].reshape(4, -1))
    values = np.concatenate(pieces, axis=1).astype(np.float32)
    return dict(zip(("data", "ierr", "xpix", "ypix"), values, strict=True))


def _check_likelihood(tell: Narrator, patch: Patch, catalog: Any, mixture: SersicMixture) -> None:
    """Subtract the true sources: noise is left, which has a chi2 of 1 a pixel."""
    arrays = patch.host_arrays()
    with tell.step("compared with the truth") as detail:
        proposal = proposal_from_catalog(catalog, patch.bandlist, mixture, patch.reference)
        fit = evaluate(arrays, proposal)
        detail.append(f"{patch.n_sources} sources, {patch.plan.n_pixels} pixels")
    n_used = int(np.count_nonzero(arrays["ierr"]))
    without = float(np.sum((arrays["data"] * arrays["ierr"]).astype(np.float64) ** 2)) / n_used
    remaining = without + float(fit.chi2.sum()) / n_used
    # The variance of chi2 is twice the number of pixels; five standard deviations are allowed.
    allowed = 5 * float(np.sqrt(2 / n_used))
    tell.check(
        "the true sources leave nothing but noise",
        abs(remaining - 1) < allowed and without > 1 + 10 * allowed,
        f"chi2 a pixel {remaining:.3f} (1 +- {allowed:.3f} expected of {n_used} pixels); "
        f"{without:.1f} without them",
    )
