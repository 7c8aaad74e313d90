"""The scenes of forcepho's demos: its own classes and kernel, and those in their place, agree.

The images have the numbers of the scripts in its folder ``demo``: ``basic`` is one source, ``pair``
two that overlap, ``mosaic`` those in dithered exposures, of which 4 of 9 are taken, of 64 pixels on
a side in place of 128.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.modeling.models import Sersic2D
from astropy.wcs import WCS
from scipy.ndimage import gaussian_filter

import tests.forcepho.needs_forcepho  # noqa: F401
from fpgpu import ingest
from fpgpu.forcepho import CPUPatch
from fpgpu.forcepho.upstream import forcepho_module
from fpgpu.layout import PSF_DTYPE
from fpgpu.psf.profiles import RADII
from fpgpu.stores.psf import PSFStore

patches = forcepho_module("patches")
superscene = forcepho_module("superscene")
fitting = forcepho_module("fitting")
CircularRegion = forcepho_module("region").CircularRegion

BAND = "CLEAR"
SIZE = 64  # pixels
SCALE = 0.03  # arcsec
CENTER = (53.0, -27.0)
RHALF, SERSIC, Q, PA = 0.2, 2.0, 0.9, np.pi / 2
APART = 1.5  # half-light radii
FINE = 5  # points in a pixel, along a side
PROFILES = str(files("fpgpu.psf") / "sersic_profiles.h5")


class Demo(NamedTuple):
    """What the scripts of a demo set."""

    n_sources: int
    sigma_psf: float  # pixels
    snr: float
    dithers: Sequence[tuple[float, float]]  # arcsec


DEMOS = {
    "basic": Demo(1, 2.5, 50.0, [(0.0, 0.0)]),
    "pair": Demo(2, 3.0, 50.0, [(0.0, 0.0)]),
    "mosaic": Demo(
        2, 1.5, 15.0, [(0.0, 0.0), (0.0352, 0.1387), (0.0640, 0.3093), (0.1067, 0.0640)]
    ),
}


class ForcephoPatch(patches.FITSPatch, patches.CPUPatchMixin):
    """The class that the demos define."""


class Scene(NamedTuple):
    """A demo's images on disk, and what is on them."""

    images: list[str]
    psfs: str
    folder: Path
    catalog: npt.NDArray[Any]


def write_image(path: Path, demo: Demo, catalog: Any, dither: Any, rng: Any) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], CENTER
    wcs.wcs.crpix, wcs.wcs.cdelt = (SIZE + 1) / 2 + np.array(dither) / SCALE, [SCALE / 3600] * 2
    y, x = (np.mgrid[: SIZE * FINE, : SIZE * FINE] + 0.5) / FINE - 0.5
    light = np.zeros_like(x)
    for source in catalog:
        place = wcs.all_world2pix(source["ra"], source["dec"], 0)
        profile = Sersic2D(1, RHALF / SCALE, SERSIC, *place, ellip=1 - Q**2, theta=PA)(x, y)
        light += source[BAND] * profile / profile.sum()
    seen = gaussian_filter(light, demo.sigma_psf * FINE, mode="constant")
    sci = seen.reshape(SIZE, FINE, SIZE, FINE).sum(axis=(1, 3))
    noise = catalog[BAND][0] / 2 / demo.snr / np.sqrt(np.pi) / (RHALF / SCALE)
    header = wcs.to_header()
    header["FILTER"] = BAND
    hdus = [
        fits.ImageHDU(sci + rng.normal(0, noise, sci.shape), header, "SCI"),
        fits.ImageHDU(np.full(sci.shape, noise), header, "ERR"),
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)


@pytest.fixture(scope="module", params=DEMOS)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """The images of a demo, also in stores."""
    demo, folder = DEMOS[request.param], tmp_path_factory.mktemp(request.param)
    rng = np.random.default_rng(1)
    catalog = np.zeros(demo.n_sources, superscene.sourcecat_dtype(bands=[BAND]))
    catalog["ra"], catalog["dec"] = CENTER
    catalog["dec"] += np.arange(demo.n_sources) * RHALF * APART / 3600
    catalog["rhalf"], catalog["sersic"], catalog["q"], catalog["pa"] = RHALF, SERSIC, Q, PA
    catalog[BAND] = 1.0
    images = [folder / f"dither_{number}.fits" for number in range(len(demo.dithers))]
    for image, dither in zip(images, demo.dithers, strict=True):
        write_image(image, demo, catalog, dither, rng)
    mixture = np.zeros((1, len(RADII)), PSF_DTYPE)
    mixture["amp"], mixture["Cxx"], mixture["Cyy"] = 1.0, demo.sigma_psf**2, demo.sigma_psf**2
    mixture["sersic_bin"] = np.arange(len(RADII))
    PSFStore(folder / "psf.h5").add_psf(BAND, mixture)
    ingest(images, folder / "stores", do_fluxcal=False)
    return Scene([str(image) for image in images], str(folder / "psf.h5"), folder, catalog)


def make_model(kind: Any, scene: Scene, start: Any) -> Any:
    """Make the model of a demo, and the parameters that it starts from."""
    common = {"psfstore": scene.psfs, "splinedata": PROFILES, "return_residual": True}
    if kind is ForcephoPatch:
        patch = kind(fitsfiles=scene.images, sci_ext="SCI", unc_ext="ERR", **common)
    else:
        stores = scene.folder / "stores"
        names = {"pixelstore": stores / "pixels.h5", "metastore": stores / "meta.json"}
        patch = kind(**names, **common)
    # All of the images, as the regions of the two are not cut alike.
    patch.build_patch(CircularRegion(*CENTER, SIZE * SCALE / 3600), None, allbands=[BAND])
    assert patch.npix == len(scene.images) * SIZE**2
    bounds = superscene.make_bounds(scene.catalog, [BAND])
    return patch.prepare_model(active=start, bounds=bounds)


def test_a_fit_ends_at_the_same_optimum(scene: Scene) -> None:
    start = scene.catalog.copy()
    for name, change in (("ra", 5e-6), ("sersic", 0.5), ("rhalf", -0.04), (BAND, 0.2)):
        start[name] += change
    fits = {}
    for kind in (ForcephoPatch, CPUPatch):
        model, q = make_model(kind, scene, start)
        model.sampling = False
        before = model.nll(model.transform.inverse_transform(q))[0]
        result, found = fitting.run_opt(model, q)
        assert result.fun < before - 100, "the fit must have gone somewhere"
        fits[kind] = model, found
    (their_model, theirs), (our_model, ours) = fits.values()
    width = np.sqrt(np.diag(theirs.hess_inv))
    assert (np.abs(ours.x - theirs.x) < 0.03 * width).all()
    assert their_model.nll(ours.x)[0] < theirs.fun + 1e-3
    assert our_model.nll(theirs.x)[0] < ours.fun + 1e-3


@pytest.mark.timeout(1800)  # forcepho's kernel, in the long form
@pytest.mark.filterwarnings("ignore")  # littlemcmc's
def test_the_same_posterior_is_sampled(scene: Scene, long_form: bool) -> None:
    pytest.importorskip(
        "littlemcmc", reason="forcepho samples with littlemcmc", exc_type=ImportError
    )
    draws, warmup, depth = (300, 150, 6) if long_form else (40, 40, 4)
    models = [make_model(kind, scene, scene.catalog) for kind in (CPUPatch, ForcephoPatch)]
    options = {"n_draws": draws, "warmup": [warmup], "max_treedepth": depth, "full": True}
    chains = [
        fitting.run_lmc(model, q, z_cov=np.eye(len(q)), **options)[0].chain
        for model, q in (models if long_form else models[:1])
    ]
    assert all(np.ptp(chain, axis=0).min() > 0 for chain in chains), "the sampler must have moved"
    # Where two log posteriors differ with this spread, means differ by that much of their widths.
    (ours, _), (theirs, _) = models
    places = [ours.transform.inverse_transform(q) for q in np.concatenate(chains)[::2]]
    assert np.std([ours.lnprob(z) - theirs.lnprob(z) for z in places]) < 1e-3
    if long_form:
        assert_same_distribution(*chains)


def assert_same_distribution(*chains: Any) -> None:
    """Whether two chains, which soon are independent, have the same means and widths."""
    means, errors, widths = zip(*(moments(chain) for chain in chains), strict=True)
    assert (np.abs(means[0] - means[1]) < 6 * np.hypot(*errors)).all()
    assert (np.abs(np.log2(widths[0] / widths[1])) < 1).all()


def moments(chain: Any) -> tuple[Any, Any, Any]:
    """Means, their standard errors from those of 12 pieces, and standard deviations."""
    chain = chain.copy()
    angle = slice(4, None, 7)
    chain[:, angle] = (chain[:, angle] - PA + np.pi / 2) % np.pi  # an axis, not a direction
    pieces = np.stack([piece.mean(axis=0) for piece in np.array_split(chain, 12)])
    return chain.mean(axis=0), pieces.std(axis=0, ddof=1) / np.sqrt(12), chain.std(axis=0)
