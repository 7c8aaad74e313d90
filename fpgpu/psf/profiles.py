"""The table that makes a Sersic profile of Gaussians of fixed radii.

The amplitudes are fitted to the light that an exact profile puts into circles, seen through round
PSFs from the narrowest of the telescopes here to a wide one: what lies below the width of all of
them cannot be seen. So the flux within three half-light radii is right, which is what photometry
is about; light beyond the widest Gaussian is left out. Amplitudes may be negative: Gaussians that
each are twice as wide as the one before cannot make the edge of a flat profile otherwise.
"""

from functools import cache
from importlib.resources import as_file, files
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.errors import FpgpuError, PSFError, StoreConflictError
from fpgpu.likelihood.mixture import SersicMixture

__all__ = ["RADII", "ProfileTable", "default_profiles", "make_profiles"]

Float = npt.NDArray[np.float64]

RADII = np.concatenate([[0.0], np.geomspace(0.013, 4.5, 9)])
"""Arcsec: a point, and Gaussians that each are twice as wide as the one before."""

SERSIC = np.concatenate([np.arange(0.5, 1.5, 0.1), np.arange(1.5, 6.01, 0.25)])
RHALF = np.geomspace(0.005, 2.0, 48)

SEEING = 0.015, 0.03, 0.06, 0.1
"""Arcsec, standard deviations: the narrowest PSF is JWST's in F070W, 0.012, on pixels of 0.031."""

RIDGE = 0.03
"""Weight of small amplitudes, so that neighbours in the table are neighbours in amplitudes."""

EDGE = 3.0
"""Half-light radii within which the flux has to be right."""

EDGE_WEIGHT = 12.0
"""Of that flux, as a share of it, beside the flux in a circle."""

FAR_WEIGHT = 3.0
"""Of circles as far as the Gaussians reach, who could have light where the profile has none."""


class ProfileTable(NamedTuple):
    """Mixtures of a grid of Sersic profiles.

    Attributes
    ----------
    sersic : ndarray of float64, shape (n,)
        Sersic index of each row.
    rhalf : ndarray of float64, shape (n,)
        Half-light radius, arcsec.
    amplitudes : ndarray of float64, shape (n, n_radii)
        Shares of the light.
    radii : ndarray of float64, shape (n_radii,)
        Standard deviations of the Gaussians, arcsec.
    error : ndarray of float64, shape (n,)
        Of the flux within three half-light radii, as a share of it.
    """

    sersic: Float
    rhalf: Float
    amplitudes: Float
    radii: Float
    error: Float

    def write(self, path: str | PathLike[str]) -> Path:
        """Write forcepho's HDF5 file: ``nsersic``, ``rh``, ``amplitudes``, ``radii``.

        Parameters
        ----------
        path : path
            The file; a table that is there is replaced.

        Returns
        -------
        Path
            The same.

        Raises
        ------
        StoreConflictError
            If something else is there.
        StoreWriteError
            If it cannot be written; what is there is as it was.
        """
        from fpgpu.stores.disk import write_beside
        from fpgpu.stores.hdf5.building import image_of

        path = Path(path)
        _require_replaceable(path)
        columns = {"nsersic": self.sersic, "rh": self.rhalf, "amplitudes": self.amplitudes}

        def fill(file: Any) -> None:
            for name, values in columns.items():
                narrow = values.astype(np.float32)
                file.create_dataset(name, data=narrow, compression="gzip", shuffle=True)
            file["radii"] = self.radii

        with write_beside(path) as draft:
            draft.write_bytes(image_of(fill))
        return path


def make_profiles(
    radii: npt.ArrayLike | None = None,
    sersic: npt.ArrayLike | None = None,
    rhalf: npt.ArrayLike | None = None,
) -> ProfileTable:
    """Fit the mixtures of a grid of Sersic profiles.

    Parameters
    ----------
    radii : array_like, shape (n_radii,), optional
        Standard deviations of the Gaussians, arcsec; 0 is a point.
    sersic : array_like, shape (n_sersic,), optional
        Sersic indices, increasing, 0.3 to 10.
    rhalf : array_like, shape (n_rhalf,), optional
        Half-light radii, arcsec, increasing.

    Returns
    -------
    ProfileTable
        All pairs of an index and a radius.

    Raises
    ------
    PSFError
        If a number makes no sense.

    Examples
    --------
    >>> table = make_profiles(sersic=[1.0], rhalf=[0.1])
    >>> bool(table.error.max() < 0.003)
    True
    """
    widths = RADII if radii is None else np.asarray(radii, np.float64)
    indices = SERSIC if sersic is None else np.asarray(sersic, np.float64)
    sizes = RHALF if rhalf is None else np.asarray(rhalf, np.float64)
    for name, values, least, most in (
        ("radii", widths, 0.0, np.inf),
        ("sersic", indices, 0.3, 10.0),
        ("rhalf", sizes, 1e-4, np.inf),
    ):
        rising = values.ndim == 1 and len(values) > 0 and (np.diff(values) > 0).all()
        if not (rising and values[0] >= least and values[-1] <= most):
            raise PSFError(f"{name}: expected increasing numbers of at least {least:g}: {values}")
    rows = [(n, r, *_fitted(n, r, widths)) for n in indices for r in sizes]
    n, r, amplitudes, error = (np.array(column) for column in zip(*rows, strict=True))
    return ProfileTable(n, r, amplitudes, widths, error)


@cache
def default_profiles() -> SersicMixture:
    """Return the table that comes with fpgpu: n 0.5 to 6, half-light radii 0.005" to 2".

    Returns
    -------
    SersicMixture
        With ten Gaussians.

    Examples
    --------
    >>> default_profiles().n_radii
    10
    """
    with as_file(files("fpgpu.psf") / "sersic_profiles.h5") as path:
        return SersicMixture.from_file(path)


def _require_replaceable(path: Path) -> None:
    """Refuse a file that is there and holds no table of profiles."""
    if not path.exists():
        return
    try:
        SersicMixture.from_file(path)
    except FpgpuError as error:
        raise StoreConflictError(
            f"{path}: exists and is no table of profiles; choose another name, or remove it first"
        ) from error


def _fitted(n: float, rhalf: float, radii: Float) -> tuple[Float, float]:
    """Fit one profile; also the largest error of the flux within `EDGE` half-light radii."""
    edge = EDGE * rhalf
    rows, wanted, at_edge = [], [], []
    for seeing in SEEING:
        reach = max(edge, 3 * seeing)
        near = np.geomspace(max(0.05 * rhalf, 0.15 * seeing), reach, 25)
        far = np.geomspace(1.15 * reach, max(2.5 * radii[-1], 1.5 * reach), 12)
        circles = np.concatenate([near, far, [edge]])
        exact = _exact_energy(n, rhalf, seeing, circles)
        energy = 1 - np.exp(-(circles[:, None] ** 2) / (2 * (radii**2 + seeing**2)))
        weights = np.concatenate([np.ones(25), np.full(12, FAR_WEIGHT), [EDGE_WEIGHT / exact[-1]]])
        rows.append(energy * weights[:, None])
        wanted.append(exact * weights)
        at_edge.append(energy[-1] / exact[-1])
    amplitudes, *_ = np.linalg.lstsq(
        np.concatenate([*rows, RIDGE * np.eye(len(radii))]),
        np.concatenate([*wanted, np.zeros(len(radii))]),
        rcond=None,
    )
    return amplitudes, float(abs(at_edge @ amplitudes - 1).max())


def _exact_energy(n: float, rhalf: float, seeing: float, circles: Float) -> Float:
    """Light of a Sersic profile, seen through a round PSF, within circles.

    The profile is taken as 400 rings of equal light (Graham & Driver 2005, eq. 2); what a ring puts
    into a circle is the non-central chi-squared distribution with two degrees of freedom.
    """
    from scipy.special import gammaincinv
    from scipy.stats import ncx2

    share = (np.arange(400) + 0.5) / 400
    rings = rhalf * (gammaincinv(2 * n, share) / gammaincinv(2 * n, 0.5)) ** n
    scaled = (circles[:, None] / seeing) ** 2
    return np.asarray(ncx2.cdf(scaled, 2, (rings / seeing) ** 2).mean(axis=1))
