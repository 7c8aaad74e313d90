"""Where every source falls on every exposure, and how the sky is mapped to pixels there.

Almost all exposures are gnomonic projections with SIP distortion, or have a refit that is; one
table then answers for all of them and all sources at once. The others (further projections, look-up
tables, gWCS without a refit) are asked one by one, for all sources at once.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from fpgpu.errors import WCSError
from fpgpu.likelihood.scene import relative_longitude
from fpgpu.sky.sip import SipFit, SipTable, fit_sip
from fpgpu.sky.sphere import Floats, tangent_basis, tangent_coordinates, unit_vectors, wrapped
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key

__all__ = ["Astrometry", "WcsTable", "local_astrometry", "reference_position"]

_LARGEST_RESIDUAL = 2e-5
"""Of a refit in pixels: the astrometry of a patch is good to 1e-4 px."""

_POLAR_PIXELS = 1000.0
"""Closer to a pole than this, a step of a pixel is no small step in right ascension."""

_ARCSEC = 3600.0

# Positions along each side of the detector where the WCS is differentiated, and how much more
# than between these its derivatives may vary elsewhere.
_PROBES = 5
_VARIATION = 1.5

_N_LATEST = 4
"""Tables that are remembered of a meta store."""


class Astrometry(NamedTuple):
    """Local linear maps from the sky to pixels: ``pixel = crpix + CW (position - crval)``.

    Attributes
    ----------
    crpix : ndarray of float64, shape (n_exp, n_src, 2)
        Zero-based pixel (x, y) of each source.
    crval : ndarray of float64, shape (n_exp, n_src, 2)
        Right ascension and declination of each source minus the reference, degrees.
    D : ndarray of float64, shape (n_exp, n_src, 2, 2)
        Pixels (x, y) per arcsec along east and north.
    CW : ndarray of float64, shape (n_exp, n_src, 2, 2)
        Pixels (x, y) per degree of right ascension and declination.
    """

    crpix: Floats
    crval: Floats
    D: Floats
    CW: Floats

    @classmethod
    def of_no_sources(cls, n_exp: int) -> Self:
        """Give arrays of the right shapes without elements; no WCS is asked.

        Parameters
        ----------
        n_exp : int
            Exposures.

        Returns
        -------
        Astrometry
            With n_src = 0.
        """
        pairs = n_exp, 0, 2
        return cls(*map(np.empty, (pairs, pairs, (*pairs, 2), (*pairs, 2))))


class WcsTable:
    """The WCS of several exposures, asked together.

    Parameters
    ----------
    solutions : sequence of SipFit or SkyWCS
        One an exposure; whatever is a `SipFit` is evaluated in one sweep.
    names : sequence of str
        What messages call them.

    Attributes
    ----------
    of_sip : ndarray of int64
        Numbers of the exposures whose solution is a `SipFit`.
    sip : SipTable
        Those, in the order of `of_sip`.
    row : ndarray of int64, shape (n_exp,)
        Where each exposure is in `sip`, -1 where it is not.
    residual : ndarray of float64, shape (n_exp,)
        Pixels by which a `SipFit` and the WCS it was fitted to may differ.
    agreed : mapping of State to dict of int to str
        By a state of the pixels: units of the exposures, by number, that were found to be the same
        in both stores.
    """

    def __init__(self, solutions: Sequence[SipFit | SkyWCS], names: Sequence[str]) -> None:
        self.names = list(names)
        self.solutions = list(solutions)
        fits = [(k, s) for k, s in enumerate(solutions) if isinstance(s, SipFit)]
        self.of_sip = np.array([k for k, _ in fits], np.int64)
        self.sip = SipTable([fit for _, fit in fits])
        self.row = np.full(len(self.solutions), -1)
        self.row[self.of_sip] = np.arange(len(fits))
        self.residual = np.zeros(len(self.solutions))
        self.residual[self.of_sip] = [fit.residual for _, fit in fits]
        self.agreed: WeakKeyDictionary[Any, dict[int, str]] = WeakKeyDictionary()
        self._others = [(k, s) for k, s in enumerate(solutions) if isinstance(s, SkyWCS)]
        self._stretches: dict[tuple[int, int], Floats] = {}

    @classmethod
    def of_exposures(cls, meta: MetaStore, keys: Iterable[Key]) -> "WcsTable":
        """Take the WCS of exposures from a meta store."""
        keys, changes = list(keys), meta.changes
        tables = _latest.setdefault(meta, deque(maxlen=_N_LATEST))
        for known, when, table in list(tables):
            if when == changes and known == keys:
                return table
        table = cls([_solution(meta, *key) for key in keys], ["/".join(key) for key in keys])
        tables.append((keys, changes, table))
        return table

    def __len__(self) -> int:
        return len(self.solutions)

    def pixel_to_world(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Give the positions of pixels.

        Parameters
        ----------
        x, y : ndarray of float64, shape (n_exp, n_pos)
            Zero-based pixels.

        Returns
        -------
        ra, dec : ndarray of float64, shape (n_exp, n_pos)
            Degrees, ra in [0, 360).
        """
        if not self._others:
            return self.sip.pixel_to_world(x, y)
        ra, dec = np.empty((2, *x.shape))
        rows = self.of_sip
        ra[rows], dec[rows] = self.sip.pixel_to_world(x[rows], y[rows])
        for k, wcs in self._others:
            ra[k], dec[k] = wcs.pixel_to_world(x[k], y[k])
        return ra, dec

    def world_to_pixel(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Give the pixels of positions in every exposure: the exact inverse of `pixel_to_world`.

        Parameters
        ----------
        ra, dec : ndarray of float64, shape (n_pos,)
            Degrees.

        Returns
        -------
        x, y : ndarray of float64, shape (n_exp, n_pos)
            Zero-based pixels, on the detector or beyond its edges; NaN where a WCS gives none.
        """
        if not self._others:
            return self.sip.world_to_pixel(ra, dec)
        x, y = np.empty((2, len(self), len(ra)))
        x[self.of_sip], y[self.of_sip] = self.sip.world_to_pixel(ra, dec)
        for k, wcs in self._others:
            x[k], y[k] = wcs.world_to_pixel(ra, dec)
        return x, y

    def stretch(self, shape: tuple[int, int]) -> Floats:
        """Least and greatest distance on the unit sphere per pixel of distance, shape (2, n_exp).

        Bounds for any two pixels of detectors of that shape, however far apart. The least is not
        above 0 where nothing can be said.
        """
        if shape not in self._stretches or self._others:  # another WCS may be changed by hand
            known = [_remembered(solution).get(shape) for solution in self.solutions]
            unknown = [k for k, bounds in enumerate(known) if bounds is None]
            if unknown:
                some = WcsTable([self.solutions[k] for k in unknown], [""] * len(unknown))
                for k, bounds in zip(unknown, _stretch(some, shape), strict=True):
                    known[k] = _remembered(self.solutions[k])[shape] = bounds
            self._stretches[shape] = np.array(known).reshape(-1, 2).T
        return self._stretches[shape]


def _stretch(table: WcsTable, shape: tuple[int, int]) -> Floats:
    """Bounds of `WcsTable.stretch` for each exposure, shape (n_exp, 2)."""
    probes = [np.linspace(-0.5, side - 0.5, _PROBES) for side in shape]
    x, y = (side.ravel() for side in np.meshgrid(*probes))
    step = 0.5
    xs = np.concatenate([x - step, x + step, x, x])
    ys = np.concatenate([y, y, y - step, y + step])
    everywhere = (len(table), xs.size)
    sky = table.pixel_to_world(np.broadcast_to(xs, everywhere), np.broadcast_to(ys, everywhere))
    # Axes: exposure, pixel axis, which side, probe, component.
    there = unit_vectors(*sky).reshape(len(table), 2, 2, x.size, 3)
    jacobian = np.moveaxis(there[:, :, 1] - there[:, :, 0], 1, -1)
    mean = jacobian.mean(axis=1)
    variation = _VARIATION * np.linalg.norm(jacobian - mean[:, None], axis=(2, 3)).max(axis=1)
    singular = np.linalg.svd(mean, compute_uv=False)
    return np.stack([singular[:, 1] - variation, singular[:, 0] + variation], axis=-1)


def _remembered(solution: SipFit | SkyWCS) -> dict[tuple[int, int], Floats]:
    """Bounds that were worked out for a solution, by the shape of the detector."""
    return _bounds.setdefault(solution, {}) if isinstance(solution, SipFit) else {}


_bounds: WeakKeyDictionary[SipFit, dict[tuple[int, int], Floats]] = WeakKeyDictionary()
"""Of every survey that is open: its exposures are asked for again and again."""

_latest: WeakKeyDictionary[MetaStore, deque[tuple[list[Key], int, WcsTable]]] = WeakKeyDictionary()
"""Of each meta store: neighbouring regions are in the same exposures, as are plan and patch."""


def _solution(meta: MetaStore, band: str, expID: str) -> SipFit | SkyWCS:
    """Choose the quickest sound description of the WCS of an exposure."""
    if meta.use_gwcs is not False and (refit := meta.sip_fit(band, expID)) is not None:
        # A WCS that was put in by hand is not the one that was refitted.
        made = meta.wcs[band].made(expID)
        if made is None or made is meta.tree[band].made(expID):
            is_fine = refit.residual <= _LARGEST_RESIDUAL
            return refit if is_fine else meta.sky_wcs(band, expID)
    wcs = meta.sky_wcs(band, expID)
    if wcs.native not in _coefficients:
        try:
            fit = (
                SipFit.from_wcs(wcs)
                if wcs.kind == "fits"
                else fit_sip(wcs, meta.shape(band, expID), tolerance=_LARGEST_RESIDUAL)
            )
            _coefficients[wcs.native] = fit
        except WCSError:  # another projection, look-up tables, or no polynomials of degree 5
            _coefficients[wcs.native] = None
    return _coefficients[wcs.native] or wcs


_coefficients: WeakKeyDictionary[Any, SipFit | None] = WeakKeyDictionary()
"""What was taken from WCS objects, which say it slowly, for as long as they live."""


def reference_position(ra: Floats, dec: Floats) -> tuple[float, float]:
    """Choose the position to which coordinates of a patch are relative.

    Parameters
    ----------
    ra, dec : ndarray of float64, shape (n_src,)
        Degrees, at least one source.

    Returns
    -------
    ra, dec : float
        The medians, ra in [0, 360): that of a scene over ra = 0 lies within the scene.
    """
    # Whole turns only, so that what needs none keeps its bits.
    together = ra - 360.0 * np.round((ra - ra[0]) / 360.0)
    return float(wrapped(np.median(together))), float(np.median(dec))


def local_astrometry(
    table: WcsTable,
    ra: Floats,
    dec: Floats,
    reference: tuple[float, float],
) -> Astrometry:
    """Work out the astrometry of all sources on all exposures.

    Parameters
    ----------
    table : WcsTable
        The WCS of the exposures.
    ra, dec : ndarray of float64, shape (n_src,)
        Positions of the sources, degrees.
    reference : (float, float)
        Right ascension and declination, degrees, that `crval` is relative to.

    Returns
    -------
    Astrometry
        For each exposure and source.

    Raises
    ------
    WCSError
        If an exposure's WCS gives no pixel for a source. Sources beyond the edges of an exposure
        are no error as long as its WCS reaches there: they shine in.

    Notes
    -----
    Derivatives are forward differences over one pixel, as forcepho takes them of distorted WCSs:
    the same step everywhere, so that edges and bounding boxes make no difference. Close to a pole
    they are taken in the tangent plane, which has no pole. A WCS without distortion is treated
    alike; forcepho takes its constant matrix, which is off by the turn of north over the field.
    """
    x, y = table.world_to_pixel(ra, dec)
    _refuse_lost(table, ra, dec, np.isfinite(x) & np.isfinite(y))
    crval = np.stack([relative_longitude(ra, reference[0]), dec - reference[1]], axis=-1)
    D, CW = _derivatives(table, x, y, ra, dec)
    return Astrometry(
        np.stack([x, y], axis=-1), np.broadcast_to(crval, (len(table), *crval.shape)), D, CW
    )


def _derivatives(
    table: WcsTable, x: Floats, y: Floats, ra: Floats, dec: Floats
) -> tuple[Floats, Floats]:
    """D and CW at the pixels of the sources."""
    there = table.pixel_to_world(
        np.concatenate([x + 1.0, x], axis=1), np.concatenate([y, y + 1.0], axis=1)
    )
    # Axes: exposure, which pixel axis the step is along, source.
    ra_there, dec_there = (values.reshape(len(table), 2, len(ra)) for values in there)
    cos_dec = np.cos(np.deg2rad(dec))
    east = relative_longitude(ra_there - ra, 0.0) * cos_dec
    north = dec_there - dec
    centre = unit_vectors(ra, dec)
    xi, eta = tangent_coordinates(unit_vectors(ra_there, dec_there), centre, tangent_basis(centre))
    plane_east, plane_north = np.rad2deg(xi), np.rad2deg(eta)
    step = np.hypot(plane_east, plane_north).max(axis=1, keepdims=True)
    is_polar = 90.0 - np.abs(dec) < _POLAR_PIXELS * step
    east, north = np.where(is_polar, plane_east, east), np.where(is_polar, plane_north, north)

    # Degrees (east, north) by pixel, inverted: pixels by degree.
    (a, b), (c, d) = np.moveaxis(east, 1, 0), np.moveaxis(north, 1, 0)
    determinant = a * d - b * c
    _refuse_lost(table, ra, dec, np.isfinite(determinant) & (determinant != 0.0))
    per_degree = np.stack([np.stack([d, -b], -1), np.stack([-c, a], -1)], axis=-2)
    per_degree /= determinant[..., None, None]
    CW = per_degree.copy()
    CW[..., 0] *= cos_dec[:, None]
    return per_degree / _ARCSEC, CW


def _refuse_lost(table: WcsTable, ra: Floats, dec: Floats, is_found: npt.NDArray[np.bool_]) -> None:
    """Raise for the first exposure and source without a pixel."""
    if not is_found.all():
        exposure, source = np.argwhere(~is_found)[0]
        raise WCSError(
            f"source {source} at ra {ra[source]:.6f}, dec {dec[source]:.6f} has no pixel by the "
            f"WCS of exposure {table.names[exposure]}; take it out of the catalogue of this patch"
        )
