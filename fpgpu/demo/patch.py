"""The last steps of the demo: a patch of sky, there and back, and what is in it.

The sources of the synthetic field are Sersic profiles made of the Gaussians of
`fpgpu.psf.default_profiles`. So the machinery of real fits can be asked for their light, and what
is left of the pixels must be the noise that was put in.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fpgpu.survey
from fpgpu.backends.base import Backend
from fpgpu.demo.field import Field, write_psfs
from fpgpu.demo.report import Narrator
from fpgpu.likelihood.reference import evaluate
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import pack_metadata
from fpgpu.patch.plan import PatchPlan
from fpgpu.psf import default_profiles, fit_psf, read_psf_images
from fpgpu.sky.regions import CircularRegion
from fpgpu.sky.sphere import separation
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore
from fpgpu.survey import Survey

__all__ = ["Scene", "check_patch", "scene", "store_psfs"]

ARCSEC = 1 / 3600
RADIUS = 0.6 * ARCSEC


def store_psfs(tell: Narrator, folder: StoreFolder, field: Field) -> None:
    """Write the field's PSFs beside the stores, as images, and fit them, as a user does his own.

    Parameters
    ----------
    tell : Narrator
        Told of the step.
    folder : StoreFolder
        The stores.
    field : Field
        The synthetic field.
    """
    with tell.step("fitted PSFs") as detail:
        files = write_psfs(folder.path.parent / "psfs", field.bands)
        fits = [fit_psf(images, n_gauss=1) for images in read_psf_images(files)]
        with PSFStore(folder.psf) as store:
            for fit in fits:
                store.add_psf(fit.images.band, fit.parameters, fit.images.positions)
        error = max(fit.worst.energy for fit in fits)
        detail.append(f"{len(fits)} images, light in circles to {error:.1e}")


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
    with fpgpu.survey.open(folder.path, backend=engine) as survey:
        region, catalog = scene(survey, field)
        with tell.step("planned a patch") as detail:
            plan = survey.plan(region)
            detail.append(f"{plan.n_exp} exposures, {plan.n_pixels} pixels within 0.6 arcsec")
        with tell.step("built the patch") as detail:
            patch = survey.patch(plan, catalog, margin=None)
            detail.append(f"{patch.n_sources} sources, {patch.nbytes / 1e6:.2f} MB")
        with patch:
            _check_round_trip(tell, survey, patch, catalog)
            if catalog is not None:
                _check_likelihood(tell, patch, catalog)


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
    return Scene(_densest(field.truth), field.truth)


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


def _check_round_trip(tell: Narrator, survey: Survey, patch: Patch, catalog: Any) -> None:
    """Compare what the backend holds with the stores, read in another way, bit for bit."""
    packed = pack_metadata(survey.meta, survey.psf, patch.plan, catalog, reference=patch.reference)
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


def _check_likelihood(tell: Narrator, patch: Patch, catalog: Any) -> None:
    """Subtract the true sources: noise is left, which has a chi2 of 1 a pixel."""
    arrays = patch.host_arrays()
    with tell.step("compared with the truth") as detail:
        proposal = proposal_from_catalog(
            catalog, patch.bandlist, default_profiles(), patch.reference
        )
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
