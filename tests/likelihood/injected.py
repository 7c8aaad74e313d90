"""A synthetic survey of pairs of sources, drawn without fpgpu's likelihood, and fits by SciPy."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.table import Table
from astropy.wcs import WCS
from scipy.optimize import minimize

from fpgpu import CircularRegion, MetaStore, PixelStore, PSFStore, Survey
from fpgpu.layout import PSF_DTYPE
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import RADII
from tests.sky.made_wcs import tan_header

Float = npt.NDArray[np.float64]

BANDS = ("F090W", "F200W")
CENTRE = (53.16, -27.79)
SHAPES = ("ra", "dec", "q", "pa", "sersic", "rhalf")
LIMITS = {"q": (0.2, 0.999), "sersic": (0.51, 5.99), "rhalf": (0.011, 1.99)}
"""A little within what a source can be, and a mixture is known for: SciPy rounds at its bounds."""

_SCALE = 0.06  # arcsec a pixel
_APART = 4.0  # arcsec from pair to pair
_RADIUS = 0.9  # arcsec, of a patch
_REACH = 6.0  # arcsec, from where light comes
_EXPOSURES = 2  # in each band
_PSF = {"F090W": (1.1, 2.2), "F200W": (1.4, 2.8)}  # standard deviations in pixels ...
_SHARES = 0.75, 0.25  # ... of two Gaussians
_FAINTEST = 1e-5  # of the noise, of a Gaussian's middle
_WIDE = 8  # pixels, from where on the middle of a pixel is its mean
_POINTS = np.array([-1, 1]) / np.sqrt(12)  # of a pixel, whose mean is its own to fourth order


def smooth_mixture() -> SersicMixture:
    """Profiles that grow with the half-light radius and spread with the Sersic index."""
    sersic, rhalf = np.linspace(0.5, 6, 24), np.geomspace(0.01, 2, 24)
    distance = np.log(np.maximum(RADII, 0.005) / rhalf[:, None])
    shares = np.exp(-0.5 * (distance / (0.3 + 0.15 * sersic[:, None, None])) ** 2)
    return SersicMixture(sersic, rhalf, shares / shares.sum(axis=2, keepdims=True), RADII)


def draw_pairs(rng: np.random.Generator, n_pairs: int) -> Table:
    """Draw sources in pairs, half an arcsec or so apart."""
    side = int(np.ceil(np.sqrt(2 * n_pairs)))
    grid = np.stack(np.meshgrid(*[np.arange(-side, side + 1.0)] * 2), axis=-1).reshape(-1, 2)
    places = grid[np.argsort((grid**2).sum(axis=1), kind="stable")[:n_pairs]]
    angle, apart = rng.uniform(0, np.pi, n_pairs), rng.uniform(0.4, 0.7, n_pairs)
    half = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * apart[:, None] / 2
    middle = _APART * places + rng.uniform(-0.3, 0.3, (n_pairs, 2))
    east, north = np.stack([middle + half, middle - half], axis=1).reshape(-1, 2).T
    n = 2 * n_pairs
    table = Table(
        {
            "ra": CENTRE[0] + east / 3600 / np.cos(np.deg2rad(CENTRE[1] + north / 3600)),
            "dec": CENTRE[1] + north / 3600,
            "q": rng.uniform(0.6, 0.85, n),
            "pa": rng.uniform(-np.pi / 2, np.pi / 2, n),
            "sersic": rng.uniform(1.0, 3.0, n),
            "rhalf": rng.uniform(0.12, 0.25, n),
        }
    )
    for band in BANDS:
        table[band] = 10 ** rng.uniform(2.8, 3.8, n)
    return table


def write_survey(
    folder: Path, truth: Table, mixture: SersicMixture, rng: np.random.Generator
) -> None:
    """Write the stores: exposures at any roll that cover all sources, with noise of 1."""
    reach = 3600 * np.abs(truth["dec"] - CENTRE[1]).max() / _SCALE
    side = 8 * int(np.ceil((2.2 * reach + 120) / 8))
    pixels, meta = PixelStore(folder / "pixels.h5", (side, side)), MetaStore()
    for band in BANDS:
        for number in range(_EXPOSURES):
            header = tan_header(*CENTRE, (side, side), _SCALE, float(rng.uniform(0, 360)))
            header["FILTER"] = band
            image = _image(truth, band, header, mixture) + rng.normal(size=(side, side))
            ierr = np.ones(image.shape)
            lost = rng.uniform(size=image.shape) < 0.01
            image[lost], ierr[lost] = 1e4, 0
            exposure: Any = SimpleNamespace(
                im=image, ierr=ierr, mask=None, bkg=None, hdr=header, band=band,
                expID=f"e{number}", names=f"e{number}.fits",
            )  # fmt: skip
            pixels.add_exposure(exposure)
            meta.add_exposure(exposure)
    pixels.close()
    meta.write_to_file(folder / "meta.json")
    with PSFStore(folder / "psf.h5") as store:
        for band in BANDS:
            psf = np.zeros((mixture.n_radii, len(_SHARES)), PSF_DTYPE)
            psf["amp"], psf["sersic_bin"] = _SHARES, np.arange(mixture.n_radii)[:, None]
            psf["Cxx"] = psf["Cyy"] = np.square(_PSF[band])
            store.add_psf(band, psf.reshape(1, -1))


def _image(truth: Table, band: str, header: Any, mixture: SersicMixture) -> Float:
    """Draw all sources without noise, ``im[x, y]``."""
    image = np.zeros((header["NAXIS1"], header["NAXIS2"]))
    places, jacobians = _astrometry(WCS(header), truth["ra"], truth["dec"])
    shares = mixture.evaluate(truth["sersic"], truth["rhalf"]).amplitudes
    for source, place, jacobian, amplitudes in zip(truth, places, jacobians, shares, strict=True):
        c, s = np.cos(source["pa"]), np.sin(source["pa"])
        turned = jacobian @ np.array([[c, -s], [s, c]]) @ np.diag([1 / source["q"], source["q"]])
        for share, radius in zip(amplitudes, mixture.radii, strict=True):
            for part, width in zip(_SHARES, _PSF[band], strict=True):
                covariance = radius**2 * turned @ turned.T + width**2 * np.eye(2)
                _add(image, source[band] * share * part, place, covariance)
    return image


def _astrometry(wcs: WCS, ra: Float, dec: Float) -> tuple[Float, Float]:
    """Find places of sources in pixels, and how they move for an arcsec to the east and north."""
    step = 0.01 / 3600

    def at(east: float, north: float) -> Float:
        moved = ra + east * step / np.cos(np.deg2rad(dec)), dec + north * step
        return np.stack(wcs.all_world2pix(*moved, 0), axis=-1)

    slopes = [at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)]
    return at(0, 0), np.stack(slopes, axis=-1) / (2 * 3600 * step)


def _add(image: Float, counts: float, centre: Float, covariance: Float) -> None:
    """Add one Gaussian to an image, averaged over each pixel."""
    peak = counts / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))
    if abs(peak) < _FAINTEST:
        return
    reach = np.sqrt(-2 * np.log(_FAINTEST / abs(peak)) * np.diag(covariance))
    low = np.maximum(np.floor(centre - reach).astype(int), 0)
    high = np.minimum(np.ceil(centre + reach).astype(int) + 1, image.shape)
    (xx, xy), (_, yy) = np.linalg.inv(covariance)
    points = _POINTS if max(xx, yy) > _WIDE**-2 else np.zeros(1)
    x, y = (
        (np.arange(first, last)[:, None] + points).ravel() - middle
        for first, last, middle in zip(low, high, centre, strict=True)
    )
    values = np.exp(-0.5 * (xx * x[:, None] ** 2 + 2 * xy * np.outer(x, y) + yy * y**2))
    shape = len(x) // len(points), len(points), len(y) // len(points), len(points)
    image[low[0] : high[0], low[1] : high[1]] += peak * values.reshape(shape).mean(axis=(1, 3))


class Fit:
    """The sources of a patch as SciPy sees them: a row of numbers each, its fluxes and its shape.

    Parameters
    ----------
    patch : Patch
        With sources.
    mixture : SersicMixture
        Of the patch's radii.
    start : Table
        Where to begin, a row for each source of the patch.
    """

    def __init__(self, patch: Patch, mixture: SersicMixture, start: Table) -> None:
        self.patch, self.mixture = patch, mixture
        self.names = (*patch.bandlist, *SHAPES)
        self.start = self.values_of(start)
        limits = [LIMITS.get(name, (-np.inf, np.inf)) for name in self.names]
        self.low, self.high = np.broadcast_to(np.transpose(limits)[:, None], (2, *self.start.shape))

    def values_of(self, catalog: Table) -> Float:
        """Give the columns of a catalogue, (n_sources, n_names)."""
        return np.stack([np.asarray(catalog[name], float) for name in self.names], axis=-1)

    def evaluate(self, values: Float) -> tuple[Float, Float]:
        """Give chi2, (n,), and its slopes, (n, n_values), of n scenes."""
        catalog = np.ascontiguousarray(values).view([(name, float) for name in self.names])
        proposal = proposal_from_catalog(
            catalog.ravel(), self.patch.bandlist, self.mixture, self.patch.reference
        ).reshape(len(values), -1)
        found = self.patch.evaluate(proposal)
        slopes = np.moveaxis(found.derivatives.astype(float), 1, -1)  # batch, source, 7, band
        by_value = [slopes[:, :, 0], slopes[:, :, 1:].sum(axis=-1)]
        return found.chi2.sum(axis=1), np.concatenate(by_value, axis=-1).reshape(len(values), -1)

    def curvature(self, values: Float, steps: Float) -> Float:
        """Differentiate the slopes, in one call."""
        ways = np.diag(steps)
        around = np.concatenate([values + ways, values - ways])
        around = np.clip(around, self.low.ravel(), self.high.ravel())
        _, slopes = self.evaluate(around)
        width = np.ptp(np.stack(np.split(around, 2)), axis=0).max(axis=1)
        curvature = -np.diff(np.stack(np.split(slopes, 2)), axis=0)[0] / width[:, None]
        return (curvature + curvature.T) / 2

    def run(self) -> tuple[Float, Float]:
        """Find the best values, (n_sources, n_names), and the covariance of all."""
        x0 = self.start.ravel()
        usual = {"ra": 1e-6, "dec": 1e-6, "q": 0.01, "pa": 0.02, "sersic": 0.05, "rhalf": 0.003}
        steps = np.array([[usual.get(name, 5.0) for name in self.names]] * len(self.start)).ravel()
        scale = np.sqrt(2 / np.abs(np.diag(self.curvature(x0, steps))))

        def objective(z: Float) -> tuple[float, Float]:
            chi2, slopes = self.evaluate((x0 + scale * z)[None])
            return 0.5 * chi2[0], 0.5 * scale * slopes[0]

        bounds = np.stack([(edge.ravel() - x0) / scale for edge in (self.low, self.high)], axis=-1)
        found = minimize(objective, np.zeros_like(x0), jac=True, method="L-BFGS-B", bounds=bounds,
                         options={"maxiter": 300, "ftol": 1e-8})  # fmt: skip
        best = x0 + scale * found.x
        covariance = 2 * np.linalg.inv(self.curvature(best, 0.1 * scale))
        _, slopes = self.evaluate(best[None])
        best -= covariance @ slopes[0] / 2  # what the line search, of rounded values, has left
        return np.clip(best.reshape(self.start.shape), self.low, self.high), covariance


def nearby(truth: Table, rng: np.random.Generator) -> Table:
    """Give sources as somebody may have detected them."""
    n, start = len(truth), truth.copy()
    for name in ("ra", "dec"):
        start[name] += rng.uniform(-0.02, 0.02, n) / 3600
    for name, width in {"q": 0.1, "pa": 0.2, "sersic": 0.4, "rhalf": 0.02}.items():
        start[name] += rng.uniform(-width, width, n)
    for band in BANDS:
        start[band] *= rng.uniform(0.8, 1.2, n)
    return start


@contextmanager
def pair_alone(
    survey: Survey, truth: Table, start: Table, rows: slice, mixture: SersicMixture
) -> Iterator[Patch]:
    """Build the patch of a pair, the light of its neighbours subtracted."""
    ra, dec = (float(np.mean(truth[name][rows])) for name in ("ra", "dec"))
    east, north = (truth["ra"] - ra) * np.cos(np.deg2rad(dec)), truth["dec"] - dec
    is_fixed = np.hypot(east, north) < _REACH / 3600
    is_fixed[rows] = False
    region, fixed = CircularRegion(ra, dec, _RADIUS / 3600), truth[is_fixed]
    with survey.patch(region, fixed, radii=mixture.radii, margin=None) as patch:
        proposal = proposal_from_catalog(fixed, patch.bandlist, mixture, patch.reference)
        patch.evaluate(proposal, residual=True)
        patch.swap()
        patch.replace_metadata(start[rows])
        yield patch
