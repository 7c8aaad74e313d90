"""Which super-pixels of an exposure belong to a region.

``corners`` is forcepho's rule: a super-pixel is kept when the centre of one of its four corner
pixels is inside the region, a circle being tested as a circle in pixels. ``overlap`` keeps every
super-pixel that has any point in common with the region, its pixels taken to their outer edges.

All exposures are tested together, by their SIP coefficients. Where these leave open on which side
of an edge a corner lies, the WCS itself decides, so that the answer is that of the WCS.
"""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from fpgpu.errors import PlanError
from fpgpu.patch.windows import Candidates, Integers, Members
from fpgpu.sky.polygons import Polygons
from fpgpu.sky.regions import CircularRegion, PolygonRegion, Region
from fpgpu.sky.sphere import Floats, unit_vectors

__all__ = ["Selection", "select_superpixels"]

Bools = npt.NDArray[np.bool_]

Selection = Literal["corners", "overlap"]

# Pixels within which a solution by SIP coefficients agrees with the WCS they came from: forward to
# rounding, backwards to the tolerance that astropy iterates to.
_FORWARD = 1e-6
_BACKWARD = 1e-4

# Where forcepho's iteration is sure to end where the exact inverse does: up to this fraction of a
# side beyond the edges, on detectors where distances per pixel vary less than this.
_MARGIN = 0.1
_EVENNESS = 0.6

# Super-pixels that are tested at a time: few megabytes, whatever the size of the region.
_AT_A_TIME = 1 << 16


def select_superpixels(candidates: Candidates, region: Region, select: Selection) -> Members:
    """Find the super-pixels of exposures that belong to a region."""
    if select not in get_args(Selection):
        rules = " and ".join(map(repr, get_args(Selection)))
        raise PlanError(f"there is no selection {select!r} of super-pixels; there are {rules}")
    if select == "overlap":
        windows = candidates.windows(*region.bounding_cap)
        return _tested(candidates, windows, lambda members: _overlaps(candidates, region, members))
    if isinstance(region, CircularRegion):
        kept = _corners_in_discs(candidates, region)
    else:
        kept = _corners_on_sky(candidates, region)
    return _with_centres(candidates, region, kept)


def _tested(candidates: Candidates, windows: Integers, test: Callable[[Members], Bools]) -> Members:
    """Keep what passes a test."""
    none = np.empty(0, np.int64)
    kept = [Members(none, none, none)]
    for members in candidates.members(windows):
        kept.append(members.take(test(members)))
    return Members(*(np.concatenate(columns) for columns in zip(*kept, strict=True)))


def _corner_pixels(members: Members, size: int) -> tuple[Floats, Floats]:
    """Pixels at the corners of super-pixels in forcepho's order, two of shape (n, 4)."""
    last = size - 1
    x = size * members.ix[:, None] + np.array([0, last, last, 0])
    y = size * members.iy[:, None] + np.array([0, 0, last, last])
    return x.astype(np.float64), y.astype(np.float64)


# --- corners, on the sky -------------------------------------------------------------------------


def _corners_on_sky(candidates: Candidates, region: Region, only: Bools | None = None) -> Members:
    """Keep super-pixels with a corner pixel's position inside the region; of some exposures."""
    windows = candidates.windows(*region.bounding_cap)
    if only is not None:
        windows = np.where(only[:, None], windows, 0)
    return _tested(
        candidates, windows, lambda members: _has_corner_inside(candidates, region, members)
    )


def _has_corner_inside(candidates: Candidates, region: Region, members: Members) -> Bools:
    x, y = _corner_pixels(members, candidates.size)
    ra, dec = candidates.positions(members.exposure, x, y)
    inside = region.contains_sky(ra, dec)
    kept = np.asarray(inside.any(axis=1))
    is_close = _near_edge(candidates, region, members, (ra, dec), inside)
    # Corners that are inside for sure settle it, whatever the others are.
    doubtful = is_close.any(axis=1) & ~(inside & ~is_close).any(axis=1)
    for number in np.unique(members.exposure[doubtful]).tolist():
        own = doubtful & (members.exposure == number)
        sky = candidates.sky(number).pixel_to_world(x[own], y[own])
        kept[own] = region.contains_sky(*sky).any(axis=1)
    return kept


def _near_edge(
    candidates: Candidates,
    region: Region,
    members: Members,
    sky: tuple[Floats, Floats],
    inside: Bools,
) -> Bools:
    """Which positions are so close to an edge that the coefficients do not decide."""
    pixels = np.where(candidates.table.row >= 0, 3.0 * candidates.table.residual + _FORWARD, 0.0)
    slack = (candidates.stretch[1] * pixels)[members.exposure, None]
    ra, dec = sky
    if isinstance(region, PolygonRegion):
        vertices = unit_vectors(region.ra, region.dec)[None]
        points = unit_vectors(ra, dec).reshape(-1, 3)
        near = Polygons.of(vertices).near_outline(points, float(slack.max()))
        return np.asarray(near.reshape(inside.shape) & (slack > 0.0))
    # Steps along the diagonals cross every edge, and both of those that meet in a corner.
    step = np.rad2deg(slack)
    step_ra = np.minimum(step / np.maximum(np.cos(np.deg2rad(dec)), 1e-12), 90.0)
    close = np.zeros(inside.shape, bool)
    for turn, lift in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        moved = np.clip(dec + lift * step, -90.0, 90.0)
        close |= region.contains_sky(ra + turn * step_ra, moved) != inside
    return close


# --- corners, in the pixels of circles -----------------------------------------------------------


def _corners_in_discs(candidates: Candidates, region: CircularRegion) -> Members:
    """Keep super-pixels with a corner pixel inside the circle in pixels that forcepho takes."""
    discs, is_estimate = _discs(candidates, region)
    kept, doubtful = _inside_discs(candidates, discs, is_estimate)
    for number in np.unique(doubtful).tolist():
        discs[:, number] = _disc_of_wcs(candidates, region, number)
        is_estimate[number] = False
    if doubtful.size:
        kept, _ = _inside_discs(candidates, discs, is_estimate)
    lost = np.isnan(discs[2])
    if not lost.any():
        return kept
    # A WCS that cannot place the circle in pixels: what is left is the sky.
    both = zip(kept, _corners_on_sky(candidates, region, only=lost), strict=True)
    merged = Members(*(np.concatenate(columns) for columns in both))
    return merged.take(np.argsort(merged.exposure, kind="stable"))


def _discs(candidates: Candidates, region: CircularRegion) -> tuple[Floats, Bools]:
    """Centre and squared radius in pixels, (3, n_exp), NaN where there is none; which may err."""
    ra, dec = np.array([region.ra] * 2), np.array([region.dec, region.dec + region.radius])
    solved = candidates.table.of_sip
    discs = np.full((3, len(candidates)), np.nan)
    x, y = candidates.table.sip.world_to_pixel(ra, dec)
    discs[:, solved] = x[:, 0], y[:, 0], (x[:, 0] - x[:, 1]) ** 2 + (y[:, 0] - y[:, 1]) ** 2
    is_estimate = np.zeros(len(candidates), bool)
    nx, ny = candidates.shape
    least, greatest = candidates.stretch[:, solved]
    is_estimate[solved] = (least > _EVENNESS * greatest) & (
        (np.abs(x - 0.5 * nx) < (0.5 + _MARGIN) * nx)
        & (np.abs(y - 0.5 * ny) < (0.5 + _MARGIN) * ny)
    ).all(axis=1)
    for number in np.flatnonzero(~is_estimate).tolist():
        discs[:, number] = _disc_of_wcs(candidates, region, number)
    return discs, is_estimate


def _disc_of_wcs(candidates: Candidates, region: CircularRegion, number: int) -> Floats:
    """Centre and squared radius in pixels by the WCS itself, NaN where it has none."""
    sky = candidates.sky(number)
    # The inverse that comes with a gWCS misses by hundredths of a pixel.
    disc = region.in_pixels(sky, exact=sky.kind == "gwcs")
    return np.array([np.nan] * 3 if disc is None else disc)


def _inside_discs(
    candidates: Candidates, discs: Floats, is_estimate: Bools
) -> tuple[Members, Integers]:
    """Super-pixels with a corner inside, and exposures whose estimate leaves one undecided.

    Of the four corners the one nearest to the centre decides, and that is the nearest along x and
    along y: rounding keeps the order of sums.
    """
    radius = np.sqrt(discs[2])
    there = np.flatnonzero(np.isfinite(radius))
    windows = candidates.around(discs[:2, there], radius[there] + 1.0)
    # Both the centre and the point that sets the radius may be off.
    error = np.where(is_estimate, 4.0 * np.maximum(_BACKWARD, 3.0 * candidates.table.residual), 0.0)
    slack = 2.0 * error * (radius + 1.0)
    starts, stops = windows.T.reshape(2, 2, -1).swapaxes(0, 1)
    most = int(np.max(stops - starts, initial=1))
    along = _squared_distances(discs[:2, there], starts, stops, most, candidates.size)
    at_a_time = max(1, _AT_A_TIME // most**2)
    none = np.empty(0, np.int64)
    runs, doubtful = [np.empty((4, 0), np.int64)], [none]
    for begin in range(0, len(there), at_a_time):
        some = slice(begin, begin + at_a_time)
        numbers = there[some]
        nearest = along[0, some, :, None] + along[1, some, None, :]
        r2, unsure = discs[2, numbers, None, None], slack[numbers, None, None]
        close = (nearest > r2 - unsure) & (nearest < r2 + unsure)
        doubtful.append(numbers[close.any(axis=(1, 2))])
        # Along y the distance falls and then grows: of each column one run is inside.
        inside = nearest < r2
        length, first = inside.sum(axis=2), inside.argmax(axis=2)
        row, column = np.nonzero(length)
        x, y = starts[0, some][row] + column, starts[1, some][row] + first[row, column]
        runs.append(np.stack([numbers[row], x, y, length[row, column]]))
    return _in_runs(*np.concatenate(runs, axis=1)), np.concatenate(doubtful)


def _in_runs(exposure: Integers, ix: Integers, iy: Integers, length: Integers) -> Members:
    """List the super-pixels of runs along y, all at once: what is large is made once."""
    along_y = np.repeat(iy - (np.cumsum(length) - length), length)
    along_y += np.arange(len(along_y))
    return Members(np.repeat(exposure, length), np.repeat(ix, length), along_y)


def _squared_distances(
    centre: Floats, start: Integers, stop: Integers, most: int, size: int
) -> Floats:
    """Squared distances along x and y from points to the nearer edge pixels of super-pixels.

    Of shape (2, n_exp, most), of the super-pixels from start on; infinite from stop on.
    """
    index = start[..., None] + np.arange(most)
    first, centre = (size * index).astype(np.float64), centre[..., None]
    nearer = np.minimum((centre - first) ** 2, (centre - (first + (size - 1))) ** 2)
    return np.where(index < stop[..., None], nearer, np.inf)


def _with_centres(candidates: Candidates, region: Region, kept: Members) -> Members:
    """Add the super-pixel that holds the region's centre where an exposure keeps no other.

    A region can fit between the corners of a super-pixel.
    """
    bare = np.flatnonzero(np.bincount(kept.exposure, minlength=len(candidates)) == 0)
    ra, dec = region.center
    if not bare.size or not region.contains_sky(ra, dec):
        return kept
    x, y = candidates.table.world_to_pixel(np.array([ra]), np.array([dec]))
    pixel = np.stack([x[bare, 0], y[bare, 0]])
    with np.errstate(invalid="ignore"):
        index = np.floor((pixel + 0.5) / candidates.size)
        nsx, nsy = candidates.grid
        holds = (index[0] >= 0) & (index[0] < nsx) & (index[1] >= 0) & (index[1] < nsy)
    if not holds.any():
        return kept
    ix, iy = index[:, holds].astype(np.int64)
    added = zip(kept, (bare[holds], ix, iy), strict=True)
    merged = Members(*(np.concatenate(columns) for columns in added))
    return merged.take(np.argsort(merged.exposure, kind="stable"))


# --- overlap -------------------------------------------------------------------------------------


def _overlaps(candidates: Candidates, region: Region, members: Members) -> Bools:
    """Whether outlines of super-pixels have a point in common with the region."""
    size = candidates.size
    x = size * members.ix[:, None] + np.array([0, size, size, 0]) - 0.5
    y = size * members.iy[:, None] + np.array([0, 0, size, size]) - 0.5
    ra, dec = candidates.positions(members.exposure, x, y)
    # A vertex inside settles it; only outlines along the edge need the exact test.
    kept = np.asarray(region.contains_sky(ra, dec).any(axis=1))
    open_cases = np.flatnonzero(~kept)
    if open_cases.size:
        outlines = unit_vectors(ra[open_cases], dec[open_cases])
        kept[open_cases] = region.touches(Polygons.of(outlines))
    return kept
