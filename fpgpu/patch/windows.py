"""Which part of each exposure a region can reach, so that nothing else of it is looked at.

A window is bounded by how much the WCS can stretch distances, not by where it puts the region: it
holds every super-pixel that matters even where the region's centre is far off the detector and a
distortion polynomial says nothing sound there.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.patch.astrometry import WcsTable
from fpgpu.sky.sphere import Floats, chord, positions, unit_vectors
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.superpixels import grid_shape

__all__ = ["Candidates", "Members"]

Integers = npt.NDArray[np.int64]

# Super-pixels that are tested at a time: a few megabytes, whatever the size of the region.
_AT_A_TIME = 1 << 13


class Members(NamedTuple):
    """Super-pixels of several exposures, in row-major order of each.

    Attributes
    ----------
    exposure : ndarray of int64, shape (n,)
        Number of the exposure among the candidates, ascending.
    ix, iy : ndarray of int64, shape (n,)
        Super-pixel indices.
    """

    exposure: Integers
    ix: Integers
    iy: Integers

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> "Members":
        """Pick some."""
        return Members(*(column[chosen] for column in self))


class Candidates:
    """Exposures that a region may touch.

    Parameters
    ----------
    meta : MetaStore
        Where they are described.
    keys : sequence of (band, expID)
        Which they are.
    shape : (int, int)
        Pixels of every exposure along x and y.
    size : int
        Pixels along each side of a super-pixel.
    """

    def __init__(
        self, meta: MetaStore, keys: Sequence[Key], shape: tuple[int, int], size: int
    ) -> None:
        self._meta = meta
        self.keys = list(keys)
        self.shape = shape
        self.size = size
        self.grid = grid_shape(shape, size)
        self.table = WcsTable.of_exposures(meta, self.keys)
        self.stretch = self.table.stretch(shape)

    def __len__(self) -> int:
        return len(self.keys)

    def sky(self, number: int) -> SkyWCS:
        """Give the WCS itself of one exposure."""
        return self._meta.sky_wcs(*self.keys[number])

    def positions(self, exposure: Integers, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Give the positions of pixels, each in its own exposure.

        Parameters
        ----------
        exposure : ndarray of int64, shape (n,)
            Numbers of exposures.
        x, y : ndarray of float64, shape (n, m)
            Zero-based pixels.

        Returns
        -------
        ra, dec : ndarray of float64, shape (n, m)
            Degrees.
        """
        row = self.table.row[exposure]
        if (row >= 0).all():
            return self.table.sip.take(row).pixel_to_world(x, y)
        ra, dec = np.empty((2, *x.shape))
        solved = row >= 0
        ra[solved], dec[solved] = self.table.sip.take(row[solved]).pixel_to_world(
            x[solved], y[solved]
        )
        for number in np.unique(exposure[~solved]).tolist():
            own = exposure == number
            ra[own], dec[own] = self.sky(number).pixel_to_world(x[own], y[own])
        return ra, dec

    def windows(self, centre: Floats, radius: float) -> Integers:
        """Bound the super-pixels that reach into a circle on the sphere.

        Parameters
        ----------
        centre : ndarray of float64, shape (3,)
            Unit vector.
        radius : float
            Radians.

        Returns
        -------
        ndarray of int64, shape (n_exp, 4)
            Half-open bounds x0, x1, y0, y1 of super-pixels.
        """
        anchor = self._anchors(centre)
        anchor_sky = unit_vectors(*self.table.pixel_to_world(*anchor[..., None]))[:, 0]
        gap = np.linalg.norm(anchor_sky - centre, axis=-1)
        least = self.stretch[0]
        # Between the anchor and a pixel in the circle lie at most gap and radius of sky.
        sky = chord(radius) + gap
        far = np.hypot(*self.shape)
        reach = np.divide(sky, least, out=np.full_like(sky, far), where=least > 0.0) + 1.0
        return self.around(anchor, np.minimum(reach, far))

    def around(self, pixel: Floats, reach: Floats) -> Integers:
        """Bound the super-pixels that have a point within a distance of a pixel along x and y.

        Parameters
        ----------
        pixel : ndarray of float64, shape (2, n_exp)
            Zero-based x and y, not NaN.
        reach : ndarray of float64, shape (n_exp,)
            Pixels.

        Returns
        -------
        ndarray of int64, shape (n_exp, 4)
            Half-open bounds x0, x1, y0, y1 of super-pixels; empty where none has.
        """
        grid = np.array(self.grid)[:, None]
        first = np.floor((pixel - reach + 0.5) / self.size)
        last = np.floor((pixel + reach + 0.5) / self.size)
        start, stop = np.clip(first, 0, grid), np.clip(last + 1, 0, grid)
        return np.stack([start[0], stop[0], start[1], stop[1]], axis=-1).astype(np.int64)

    def members(self, windows: Integers) -> Iterator[Members]:
        """List the super-pixels of windows, a limited number at a time.

        Parameters
        ----------
        windows : ndarray of int64, shape (n_exp, 4)
            Half-open bounds x0, x1, y0, y1.

        Yields
        ------
        Members
            In the order of exposures; not empty.
        """
        width, height = windows[:, 1] - windows[:, 0], windows[:, 3] - windows[:, 2]
        ends = np.cumsum(width * height)
        total = int(ends[-1]) if len(ends) else 0
        for start in range(0, total, _AT_A_TIME):
            place = np.arange(start, min(start + _AT_A_TIME, total))
            exposure = np.searchsorted(ends, place, side="right")
            tall = height[exposure]
            local = place - (ends[exposure] - width[exposure] * tall)
            x0, y0 = windows[exposure, 0], windows[exposure, 2]
            yield Members(exposure, x0 + local // tall, y0 + local % tall)

    def _anchors(self, centre: Floats) -> Floats:
        """Pixels (x, y) on each detector, near the centre if the WCS can say, shape (2, n_exp)."""
        ra, dec = (np.atleast_1d(value) for value in positions(centre))
        pixel = np.stack(self.table.world_to_pixel(ra, dec))[..., 0]
        sides = np.array(self.shape, np.float64)[:, None]
        pixel = np.where(np.isfinite(pixel).all(axis=0), pixel, 0.5 * sides)
        return np.clip(pixel, -0.5, sides - 0.5)
