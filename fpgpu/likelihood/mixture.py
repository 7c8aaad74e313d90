"""Sersic profiles as mixtures of Gaussians, from the table that forcepho interpolates in."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from fpgpu.errors import CatalogError, LayoutError, MissingStoreError, StoreFormatError
from fpgpu.layout import MAXRADII

__all__ = ["MixtureAmplitudes", "SersicMixture", "radii_in_arcsec"]

Float = npt.NDArray[np.float64]

DATASETS = ("nsersic", "rh", "amplitudes", "radii")
MAX_VALUES = 1 << 24
"""More than this is no table of mixtures; a damaged file can claim any size."""


def radii_in_arcsec(radii: npt.ArrayLike) -> Float:
    """Take the radii of a mixture, which may come with a unit, as plain numbers.

    Parameters
    ----------
    radii : array_like or Quantity, shape (n_radii,)
        Standard deviations of the Gaussians, arcsec or with units; 0 is a point.

    Returns
    -------
    ndarray of float64, shape (n_radii,)
        Arcsec.

    Raises
    ------
    LayoutError
        If they are no list of finite numbers from 0 on.
    """
    try:
        to_value = getattr(radii, "to_value", None)
        values = np.asarray(radii if to_value is None else to_value("arcsec"), np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 1 or not values.size or not ((values >= 0) & (values < np.inf)).all():
        raise LayoutError(
            f"the radii of the mixture are {radii!r}; expected a list of finite numbers of arcsec"
            " from 0 on, or a Quantity of it"
        )
    return values


class MixtureAmplitudes(NamedTuple):
    """Shares of a source's light in the Gaussians of its mixture.

    Attributes
    ----------
    amplitudes : ndarray of float64, shape (n_sources, n_radii)
        The share of each radius.
    d_sersic, d_rhalf : ndarray of float64, shape (n_sources, n_radii)
        Derivatives with respect to the Sersic index and to the half-light radius (per arcsec).
    """

    amplitudes: Float
    d_sersic: Float
    d_rhalf: Float


class SersicMixture:
    """Amplitudes of the Gaussians that together make a Sersic profile.

    Between the points of the table a bicubic spline goes through all of them, as forcepho's does by
    default. Outside the table nothing is extrapolated.

    Parameters
    ----------
    sersic : array_like, shape (n_sersic,)
        Sersic indices of the table, increasing, at least 4.
    rhalf : array_like, shape (n_rhalf,)
        Its half-light radii in arcsec, increasing, at least 4.
    amplitudes : array_like, shape (n_sersic, n_rhalf, n_radii)
        Shares of the light.
    radii : array_like, shape (n_radii,)
        Standard deviations of the Gaussians, arcsec; 0 is a point.

    Raises
    ------
    LayoutError
        If shapes do not fit together, values are not finite or not increasing, or there are more
        radii than a kernel takes.
    """

    def __init__(
        self,
        sersic: npt.ArrayLike,
        rhalf: npt.ArrayLike,
        amplitudes: npt.ArrayLike,
        radii: npt.ArrayLike,
    ) -> None:
        self._sersic = np.asarray(sersic, np.float64)
        self._rhalf = np.asarray(rhalf, np.float64)
        self._table = np.asarray(amplitudes, np.float64)
        self.radii = np.asarray(radii, np.float64)
        self._check()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read forcepho's HDF5 table."""
        path = Path(path)
        values = _read_table(path)
        indices, radii = values["nsersic"], values["rh"]
        amplitudes = values["amplitudes"]
        if not (indices.ndim == radii.ndim == 1 and amplitudes.ndim == 2) or not (
            len(indices) == len(radii) == len(amplitudes)
        ):
            shapes = ", ".join(f"{name} {array.shape}" for name, array in values.items())
            raise StoreFormatError(
                f"{path}: {shapes}; expected nsersic (n,), rh (n,), amplitudes (n, n_radii)"
            )
        sersic, row = np.unique(indices, return_inverse=True)
        rhalf, column = np.unique(radii, return_inverse=True)
        grid = np.full((len(sersic), len(rhalf), amplitudes.shape[1]), np.nan)
        grid[row, column] = amplitudes
        if len(indices) != len(sersic) * len(rhalf):
            raise StoreFormatError(
                f"{path}: {len(indices)} points are no full grid of {len(sersic)} Sersic indices "
                f"and {len(rhalf)} radii"
            )
        try:
            return cls(sersic, rhalf, grid, values["radii"])
        except LayoutError as exc:
            raise StoreFormatError(f"{path}: {exc}") from exc

    @property
    def n_radii(self) -> int:
        """Gaussians of a mixture."""
        return len(self.radii)

    @property
    def rad2(self) -> npt.NDArray[np.float32]:
        """Variances of the Gaussians, float32 (n_radii,), arcsec squared: as kernels read them."""
        return np.square(self.radii).astype(np.float32)

    @property
    def sersic_range(self) -> tuple[float, float]:
        """Smallest and largest Sersic index of the table."""
        return float(self._sersic[0]), float(self._sersic[-1])

    @property
    def rhalf_range(self) -> tuple[float, float]:
        """Smallest and largest half-light radius of the table, arcsec."""
        return float(self._rhalf[0]), float(self._rhalf[-1])

    def evaluate(self, sersic: npt.ArrayLike, rhalf: npt.ArrayLike) -> MixtureAmplitudes:
        """Interpolate the mixtures of many sources.

        Parameters
        ----------
        sersic : array_like, shape (n_sources,)
            Sersic indices.
        rhalf : array_like, shape (n_sources,)
            Half-light radii, arcsec.

        Returns
        -------
        MixtureAmplitudes
            Amplitudes and their derivatives.

        Raises
        ------
        CatalogError
            If a source is outside the table.
        """
        n, r = np.broadcast_arrays(
            np.atleast_1d(np.asarray(sersic, np.float64)), np.asarray(rhalf, np.float64)
        )
        _check_inside("sersic", n, self.sersic_range)
        _check_inside("rhalf", r, self.rhalf_range)
        return MixtureAmplitudes(
            self._interpolate(n, r), self._interpolate(n, r, dx=1), self._interpolate(n, r, dy=1)
        )

    def _interpolate(self, sersic: Float, rhalf: Float, **derivative: int) -> Float:
        values = [spline.ev(sersic, rhalf, **derivative) for spline in self._splines]
        return np.stack(values, axis=-1)

    @cached_property
    def _splines(self) -> list[Any]:
        """One spline for each radius."""
        from scipy.interpolate import RectBivariateSpline  # slow to import

        return [
            RectBivariateSpline(self._sersic, self._rhalf, self._table[:, :, i])
            for i in range(self.n_radii)
        ]

    def _check(self) -> None:
        """Refuse a table that cannot be interpolated or used."""
        expected = (len(self._sersic), len(self._rhalf), len(self.radii))
        if self._table.shape != expected:
            raise LayoutError(f"amplitudes have shape {self._table.shape}; expected {expected}")
        if not 1 <= self.n_radii <= MAXRADII:
            raise LayoutError(f"a mixture of {self.n_radii} radii; kernels take 1 to {MAXRADII}")
        for name, axis in (("sersic", self._sersic), ("rhalf", self._rhalf)):
            if len(axis) < 4 or not (np.diff(axis) > 0).all():
                raise LayoutError(f"{name} must be at least 4 increasing values, not {axis}")
        for name, array in (("amplitudes", self._table), ("radii", self.radii)):
            if not np.isfinite(array).all():
                raise LayoutError(f"{name} hold values that are not finite")
        if (self.radii < 0).any():
            raise LayoutError(f"radii hold {self.radii.min()}; they cannot be negative")


def _check_inside(name: str, values: Float, limits: tuple[float, float]) -> None:
    """Refuse sources outside the table, NaN among them."""
    outside = ~((values >= limits[0]) & (values <= limits[1]))
    if outside.any():
        source = int(np.flatnonzero(outside)[0])
        raise CatalogError(
            f"source {source}: {name} {values[source]} is outside the table of mixtures, "
            f"{limits[0]:g} to {limits[1]:g}; {int(outside.sum())} of {len(values)} sources are"
        )


def _read_table(path: Path) -> dict[str, Float]:
    """Read the datasets of a table."""
    import h5py

    from fpgpu.stores.hdf5.reading import reading_errors

    if not path.is_file():
        raise MissingStoreError(f"{path}: no such table of Sersic mixtures; check the path")
    with reading_errors(path), h5py.File(path, "r") as file:
        if missing := [name for name in DATASETS if name not in file]:
            raise StoreFormatError(
                f"{path}: no {', '.join(missing)}; expected forcepho's table of Sersic mixtures"
            )
        for name in DATASETS:
            stored = file[name]
            kind = getattr(getattr(stored, "dtype", None), "kind", "")
            if kind not in ("f", "i", "u") or stored.size > MAX_VALUES:
                raise StoreFormatError(f"{path}/{name}: expected a dataset of numbers")
        return {name: np.asarray(file[name][()], np.float64) for name in DATASETS}
