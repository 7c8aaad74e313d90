"""Mixtures against the images they stand for, and Sersic sources against a direct convolution."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import fftconvolve
from scipy.special import gamma, gammaincinv

from fpgpu.errors import PSFError
from fpgpu.psf import BandFit, Mixture, PSFImages, default_profiles, fit_psf
from fpgpu.psf.mixtures import render
from fpgpu.stores.psf import PSFStore
from tests.psf.conftest import OVERSAMPLE, SCALE, segmented_psf

Float = npt.NDArray[np.float64]


def centroid_and_energy(images: PSFImages, mixture: Mixture) -> tuple[float, float]:
    """By whole-sample sums: shift of the core's centroid [pixel], error of circles over 0.1"."""
    image = images.images[0]
    n = len(image)
    places = (np.arange(n) - (n - 1) / 2) / images.oversample
    x, y = np.broadcast_arrays(places[None], places[:, None])
    model = render(mixture, x.ravel(), y.ravel()).reshape(n, n)
    radius = np.hypot(x, y)
    core = radius <= 8
    shifts = [
        (model * axis)[core].sum() / model[core].sum()
        - (image * axis)[core].sum() / image[core].sum()
        for axis in (x, y)
    ]
    energy = [
        (model - image)[radius <= r].sum() / image.sum()
        for r in np.linspace(0.1 / images.pixel_scale, places[-1], 40)
    ]
    return float(np.hypot(*shifts)), float(np.abs(energy).max())


def moffat(alpha: float, beta: float, x0: float = 0.0) -> Callable[[Float, Float], Float]:
    norm = (beta - 1) / (np.pi * alpha**2)
    return lambda x, y: norm * (1 + ((x - x0) ** 2 + y**2) / alpha**2) ** -beta


def gaussian(sx: float, sy: float, x0: float) -> Callable[[Float, Float], Float]:
    return lambda x, y: (
        np.exp(-((x - x0) ** 2) / (2 * sx**2) - y**2 / (2 * sy**2)) / (2 * np.pi * sx * sy)
    )


@pytest.mark.parametrize(
    ("density", "oversample"),
    [
        (gaussian(1.5, 1.0, 0.2), 1),
        (gaussian(0.6, 0.6, 0.1), 1),  # undersampled: 1.4 pixels at half maximum
        (moffat(2.0, 2.5), 1),
        (moffat(1.2, 3.0, -0.3), 2),
    ],
)
def test_formulas_come_out(
    sampled: Callable[..., Float], density: Callable[[Float, Float], Float], oversample: int
) -> None:
    image = sampled(density, oversample=oversample)
    images = PSFImages.from_arrays("F200W", image, pixel_scale=SCALE, oversample=oversample)
    shift, energy = centroid_and_energy(images, fit_psf(images, [0.0]).mixtures[0])
    assert shift < 0.01
    assert energy < 0.01


def test_two_gaussians_are_found_as_they_are(sampled: Callable[..., Float]) -> None:
    both = [gaussian(1.2, 1.2, 0.0), gaussian(4.0, 3.0, 0.5)]
    image = sampled(lambda x, y: 0.7 * both[0](x, y) + 0.3 * both[1](x, y))
    images = PSFImages.from_arrays("F200W", image, pixel_scale=SCALE)
    mixture = fit_psf(images, [0.0], n_gauss=2).mixtures[0]
    order = np.argsort(mixture.cov[:, 0])
    np.testing.assert_allclose(mixture.amp[order], [0.7, 0.3], atol=0.005)
    np.testing.assert_allclose(np.sqrt(mixture.cov[order, 0]), [1.2, 4.0], rtol=0.02)
    np.testing.assert_allclose(np.sqrt(mixture.cov[order, 1]), [1.2, 3.0], rtol=0.02)


@pytest.fixture(scope="module")
def telescope_images(telescope: Float) -> PSFImages:
    return PSFImages.from_arrays(
        "F200W", telescope, pixel_scale=SCALE, oversample=OVERSAMPLE, integrated=False
    )


@pytest.fixture(scope="module")
def telescope_fit(telescope_images: PSFImages) -> BandFit:
    """For all radii of fpgpu's own table; it takes long, so that one has to do."""
    return fit_psf(telescope_images, default_profiles().radii)


def assert_telescope(fit: BandFit) -> None:
    shift, energy = centroid_and_energy(fit.images, fit.mixtures[0])
    assert shift < 0.01
    assert energy < 0.01
    # What the fit says of itself is what is measured here in another way.
    assert fit.worst.energy == pytest.approx(energy, abs=0.003)


def test_a_segmented_telescope(telescope_fit: BandFit) -> None:
    assert_telescope(telescope_fit)
    assert (telescope_fit.mixtures[0].amp > 0).all()


def test_a_segmented_telescope_signed(telescope_images: PSFImages) -> None:
    assert_telescope(fit_psf(telescope_images, [0.0], signed=True))


def test_a_sersic_source_has_the_flux_of_a_direct_convolution(telescope_fit: BandFit) -> None:
    fit, images, profiles = telescope_fit, telescope_fit.images, default_profiles()
    psf = images.images[0] / OVERSAMPLE**2  # share of the light of a pixel, a sample
    n = 4 * 161
    places = (np.arange(n + 1) - n / 2) / OVERSAMPLE
    x, y = np.broadcast_arrays(places[None], places[:, None])
    pixel = np.hypot(x, y)
    for index, rhalf in ((1.0, 0.2), (2.0, 0.4), (4.0, 0.15)):
        # The profile on a grid 8 times finer, summed to samples.
        fine = (np.arange((n + 1) * 8) - ((n + 1) * 8 - 1) / 2) / OVERSAMPLE / 8 * SCALE
        r = np.hypot(fine[None], fine[:, None]) / rhalf
        b = gammaincinv(2 * index, 0.5)
        light = np.exp(-b * (r ** (1 / index) - 1))
        light = light.reshape(n + 1, 8, n + 1, 8).sum(axis=(1, 3))
        inside = pixel * SCALE <= 3 * rhalf
        # All of the light, also what is not on the grid: Graham & Driver 2005, eq. 4.
        total = 2 * np.pi * index * rhalf**2 * np.exp(b) * b ** (-2 * index) * gamma(2 * index)
        total /= (SCALE / OVERSAMPLE / 8) ** 2
        direct = fftconvolve(light / total, psf, mode="same")[inside].sum()
        amplitudes = profiles.evaluate([index], [rhalf]).amplitudes[0]
        model = 0.0
        for radius, amplitude, k in zip(
            profiles.radii, amplitudes, range(profiles.n_radii), strict=True
        ):
            row = fit.parameters[0][fit.parameters[0]["sersic_bin"] == k]
            cov = np.stack([row[c] for c in ("Cxx", "Cyy", "Cxy")], 1).astype(float)
            center = np.stack([row["xcen"], row["ycen"]], 1).astype(float)
            mixture = Mixture(row["amp"].astype(float), center, cov)
            broad = mixture.broadened((radius / SCALE) ** 2)
            model += amplitude * render(broad, x[inside], y[inside]).sum() / OVERSAMPLE**2
        assert model == pytest.approx(direct, rel=0.005)


def test_large_radii_need_fewer_gaussians(telescope_fit: BandFit) -> None:
    fit = telescope_fit
    assert fit.per_radius[0] == 4
    assert fit.per_radius[-1] == 1
    assert list(fit.per_radius) == sorted(fit.per_radius, reverse=True)
    sums = [
        fit.parameters["amp"][0][fit.parameters["sersic_bin"][0] == k].sum()
        for k in range(len(fit.per_radius))
    ]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)


def test_places_go_into_a_store_that_looks_them_up(tmp_path: Path) -> None:
    cube = np.stack([segmented_psf(2e-6, tilt, 31) for tilt in (0.0, 2e-8)])
    images = PSFImages.from_arrays(
        "F200W",
        cube,
        pixel_scale=SCALE,
        oversample=OVERSAMPLE,
        integrated=False,
        positions=[[100, 200], [1500, 1800]],
    )
    fit = fit_psf(images, [0.0, 0.5])
    with PSFStore(tmp_path / "psf.h5") as store:
        store.add_psf("F200W", fit.parameters, images.positions)
        np.testing.assert_array_equal(store.lookup("F200W", (1400, 1700)), fit.parameters[1])
        assert store.n_psf_per_source("F200W") == sum(fit.per_radius)


def test_what_is_worse_than_allowed_is_refused(telescope_images: PSFImages) -> None:
    images = telescope_images
    with pytest.raises(PSFError, match=r"1 Gaussians miss .* more Gaussians"):
        fit_psf(images, [0.0], n_gauss=1, max_error=0.01)
    with pytest.raises(PSFError, match="at least one"):
        fit_psf(images, [0.0], n_gauss=0)
