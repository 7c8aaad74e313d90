"""Images of PSFs: of a segmented telescope, made by poppy, and of formulas."""

import logging
import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

Float = npt.NDArray[np.float64]

OVERSAMPLE = 4
SCALE = 0.031
"""Arcsec a pixel."""


def segmented_psf(wavelength: float, tilt: float = 0.0, n_pixels: int = 61) -> Float:
    """Light in cells of a quarter of a pixel: 18 hexagons, a little astigmatism and coma."""
    poppy = pytest.importorskip("poppy", reason="poppy makes the PSF of a segmented telescope")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("poppy").setLevel(logging.ERROR)
        pupil = poppy.MultiHexagonAperture(rings=2, side=0.76, gap=0.007, center=False)
        system = poppy.OpticalSystem(npix=512)
        system.add_pupil(poppy.CompoundAnalyticOptic([pupil]))
        errors = [0, 0, 0, 0, 4e-8 + tilt, 3e-8, 3e-8 - tilt]
        system.add_pupil(poppy.ZernikeWFE(radius=3.3, coefficients=errors))
        system.add_detector(pixelscale=SCALE, fov_pixels=n_pixels, oversample=OVERSAMPLE)
        source = {"wavelengths": np.linspace(0.9, 1.1, 5) * wavelength, "weights": [1] * 5}
        return np.asarray(system.calc_psf(source=source)[0].data, np.float64)


@pytest.fixture(scope="session")
def telescope() -> Float:
    """The PSF at 2 microns, ``[y, x]``."""
    return segmented_psf(2e-6)


@pytest.fixture
def sampled() -> Callable[..., Float]:
    """Sample a profile finely and sum it over whole pixels at a sampling, ``[y, x]``."""

    def sample(
        density: Callable[[Float, Float], Float], n_pixels: int = 41, oversample: int = 1
    ) -> Float:
        fine = 16 * oversample
        n = n_pixels * oversample
        # Sub-pixels of whole pixels centred on each sample: sums by differences of a running sum.
        places = (np.arange(n * 16 + 2 * fine) - (n * 16 + 2 * fine - 1) / 2) / fine
        light = density(places[None], places[:, None]) / fine**2
        total = np.pad(light.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        middle = np.arange(n) * 16 + fine + 8
        low, high = middle - fine // 2, middle + fine // 2
        return np.asarray(
            total[np.ix_(high, high)]
            - total[np.ix_(low, high)]
            - total[np.ix_(high, low)]
            + total[np.ix_(low, low)]
        )

    return sample
