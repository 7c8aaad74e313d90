"""What a patch will hold, known before anything is read: exposures, super-pixels, bytes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arena import ArenaLayout
from fpgpu.backends.base import Backend
from fpgpu.errors import LayoutError, NotInStoreError, PlanError, StoreConflictError
from fpgpu.html import html_table
from fpgpu.patch.select import Selection, select_superpixels
from fpgpu.patch.windows import Candidates
from fpgpu.sky.regions import Region, RegionLike, as_region
from fpgpu.sky.sphere import Floats
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.units import describe_units, mixed_units, spelled, units_of
from fpgpu.superpixels import Window

__all__ = ["ExposurePlan", "PatchPlan", "Selection", "make_plan"]

# Exposures are looked for in a circle around the region, with room for what its exact outline
# neglects: forcepho's circles in pixels that are not square, and the bulge of outlines.
_ROOM = 1.25
_ROOM_RADIANS = float(np.deg2rad(1.0 / 3600.0))

_PIXEL_BYTES = 2 * np.dtype(np.float32).itemsize


@dataclass(frozen=True, eq=False)
class ExposurePlan:
    """The super-pixels to take from one exposure.

    Attributes
    ----------
    band, expID : str
        The exposure.
    shape : (int, int)
        Its pixels along x and y.
    superpixels : ndarray of int32, shape (n, 2)
        Super-pixel indices (ix, iy) in row-major order, read-only; at least one.
    """

    band: str
    expID: str
    shape: tuple[int, int]
    superpixels: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        given = self.superpixels
        # Those of a plan are slices of one array that nobody can write to.
        is_ours = type(given) is np.ndarray and given.dtype == np.int32 and given.ndim == 2
        if not is_ours or given.flags.writeable:
            superpixels = np.array(given, np.int32).reshape(-1, 2)
            superpixels.setflags(write=False)
            object.__setattr__(self, "superpixels", superpixels)

    @property
    def n_superpixels(self) -> int:
        """Number of super-pixels."""
        return len(self.superpixels)

    @property
    def window(self) -> Window:
        """The smallest rectangle of super-pixels that holds them all."""
        (x0, y0), (x1, y1) = self.superpixels.min(axis=0), self.superpixels.max(axis=0)
        return Window(int(x0), int(x1) + 1, int(y0), int(y1) + 1)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExposurePlan):
            return NotImplemented
        names = self.band, self.expID, self.shape
        return names == (other.band, other.expID, other.shape) and np.array_equal(
            self.superpixels, other.superpixels
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # Arrays forget on the way that they are read-only.
        return type(self), (self.band, self.expID, self.shape, self.superpixels)


@dataclass(frozen=True)
class PatchPlan:
    """What to read for the patch of a region; a value, without any store behind it.

    Attributes
    ----------
    region : CircularRegion, RectangularRegion or PolygonRegion
        The region.
    bandlist : tuple of str
        Bands that have exposures here, in the order in which they were asked for.
    exposures : tuple of ExposurePlan
        By band in that order, then in the meta store's. Exposures of which no super-pixel is
        taken are left out.
    super_pixel_size : int
        Pixels along each side of a super-pixel.
    select : {"corners", "overlap"}
        How super-pixels were chosen.

    Examples
    --------
    >>> plan = survey.plan(region)
    >>> plan.n_exp, plan.bandlist
    (4, ('F200W', 'F444W'))
    >>> plan.n_pixels == 64 * plan.n_superpixels
    True
    """

    region: Region
    bandlist: tuple[str, ...]
    exposures: tuple[ExposurePlan, ...]
    super_pixel_size: int
    select: Selection

    __hash__ = None  # type: ignore[assignment]

    @property
    def n_exp(self) -> int:
        """Number of exposures; 0 when the region touches none."""
        return len(self.exposures)

    @property
    def n_bands(self) -> int:
        """Number of bands that have exposures."""
        return len(self.bandlist)

    @cached_property
    def n_superpixels(self) -> int:
        """Number of super-pixels of all exposures."""
        return sum([len(exposure.superpixels) for exposure in self.exposures])

    @property
    def n_pixels(self) -> int:
        """Number of pixels of all exposures."""
        return self.n_superpixels * self.super_pixel_size**2

    @property
    def pixel_bytes(self) -> int:
        """Bytes to read and to send: flux and inverse uncertainty of every pixel, float32."""
        return self.n_pixels * _PIXEL_BYTES

    @cached_property
    def places(self) -> npt.NDArray[np.int32]:
        """Index along x and y of every super-pixel, by exposure, shape (n, 2), read-only."""
        parts = [np.empty((0, 2), np.int32), *(e.superpixels for e in self.exposures)]
        places = np.concatenate(parts)
        places.setflags(write=False)
        return places

    @cached_property
    def band_N(self) -> npt.NDArray[np.int64]:
        """Number of exposures of each band, shape (n_bands,), read-only."""
        counts = Counter(exposure.band for exposure in self.exposures)
        return _fixed([counts[band] for band in self.bandlist])

    @property
    def band_start(self) -> npt.NDArray[np.int64]:
        """Number of each band's first exposure, shape (n_bands,)."""
        return _starts(self.band_N)

    @cached_property
    def exposure_N(self) -> npt.NDArray[np.int64]:
        """Number of pixels of each exposure, shape (n_exp,), read-only."""
        pixels_each = self.super_pixel_size**2
        return _fixed([exposure.n_superpixels * pixels_each for exposure in self.exposures])

    @property
    def exposure_start(self) -> npt.NDArray[np.int64]:
        """Number of each exposure's first pixel in the patch, shape (n_exp,)."""
        return _starts(self.exposure_N)

    def arena_layout(
        self, n_src: int, n_radii: int, n_psf: int, residual: bool = True
    ) -> ArenaLayout:
        """Lay out the arena of this patch.

        Parameters
        ----------
        n_src : int
            Sources.
        n_radii : int
            Gaussians in the mixture of a Sersic profile.
        n_psf : int
            PSF Gaussians of all exposures and sources.
        residual : bool, optional
            Whether there is room for residuals.

        Returns
        -------
        ArenaLayout
            With its sizes in bytes.

        Raises
        ------
        PlanError
            When a count is over its limit, with both figures.
        """
        counts = self.n_pixels, self.n_exp, self.n_bands
        try:
            return ArenaLayout(*counts, n_src, n_radii, n_psf, residual)
        except LayoutError as error:
            raise PlanError(f"{self.region!r}: {error}") from error

    def require_memory(self, backend: Backend, layout: ArenaLayout | None = None) -> None:
        """Refuse a patch for which a backend has not enough memory free.

        Parameters
        ----------
        backend : Backend
            Where the patch shall live.
        layout : ArenaLayout, optional
            Of its arena; by default that of its pixels and residuals alone.

        Raises
        ------
        PlanError
            With the bytes needed and those that are free.
        """
        needed = (layout or self.arena_layout(0, 0, 0)).total_bytes
        if not backend.has_free(needed):
            state = backend.memory_state()
            raise PlanError(
                f"{self.region!r}: the patch of {self.n_pixels:,} pixels of {self.n_exp} exposures"
                f" needs {needed:,} bytes, but {backend.description} has {state.free:,} of"
                f" {state.total:,} free; free other patches, or take a smaller region or fewer"
                " bands"
            )

    def as_rows(self) -> tuple[list[str], list[list[Any]]]:
        """Tell what is taken of each exposure, as a table.

        Returns
        -------
        (list of str, list of list)
            Names of the columns; a row for each exposure.
        """
        rows = [
            [e.band, e.expID, e.n_superpixels, int(n), f"{x0}:{x1}, {y0}:{y1}"]
            for e, n in zip(self.exposures, self.exposure_N, strict=True)
            for x0, x1, y0, y1 in [e.window]
        ]
        return ["band", "exposure", "super-pixels", "pixels", "window x, y"], rows

    def _repr_html_(self) -> str:
        title = (
            f"Plan of {self.region!r}, {self.select}: {self.n_exp} exposures,"
            f" {self.n_pixels:,} pixels, {self.pixel_bytes:,} bytes to read"
        )
        return html_table(title, *self.as_rows())

    def __str__(self) -> str:
        """Write a line for each exposure and a summary."""
        width = max((len(f"{e.band}/{e.expID}") for e in self.exposures), default=8)
        lines = [
            f"{self.region!r}, super-pixels chosen by {self.select}",
            f"{'exposure':<{width}}  {'super-pixels':>12}  {'pixels':>12}  window x, y",
        ]
        for band, expID, n_superpixels, n_pixels, window in self.as_rows()[1]:
            name = f"{band}/{expID}"
            lines.append(f"{name:<{width}}  {n_superpixels:>12,}  {n_pixels:>12,}  {window}")
        bands = ", ".join(self.bandlist) or "no bands"
        lines.append(
            f"{self.n_exp} exposures in {self.n_bands} bands ({bands}): {self.n_pixels:,} pixels,"
            f" {self.pixel_bytes:,} bytes to read"
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        return (
            f"<PatchPlan {self.region!r} {self.select}: {self.n_exp} exposures in"
            f" {', '.join(self.bandlist) or 'no bands'}, {self.n_pixels:,} pixels>"
        )


def make_plan(
    pixels: PixelStore,
    meta: MetaStore,
    region: RegionLike,
    bandlist: Iterable[str] | None = None,
    *,
    select: Selection = "corners",
    units: str | None = None,
    backend: Backend | None = None,
) -> PatchPlan:
    """Plan the patch of a region.

    Parameters
    ----------
    pixels : PixelStore
        Where the pixels are.
    meta : MetaStore
        Where the exposures are on the sky; its choice between FITS WCS and gWCS holds.
    region : CircularRegion, RectangularRegion, PolygonRegion or SkyRegion of regions
        The region.
    bandlist : iterable of str, optional
        The bands, or one, in the order that the patch shall have; all of the meta store by default.
        Bands without exposures here are passed over.
    select : {"corners", "overlap"}, optional
        Which super-pixels are taken of an exposure, and so which exposures take part: those of
        which any is. ``"corners"``: with a corner pixel's centre inside the region, as forcepho
        chooses; and where there is none, the one that holds the region's centre. ``"overlap"``:
        with any point in common with the region, to the outer edges of its pixels.
    units : str, optional
        The unit of the exposures to take, such as ``"nJy"``; ``"any"`` takes all. By default they
        are taken, and a band of which they are in several units is refused.
    backend : Backend, optional
        Where the patch shall live; then its free memory is asked, too.

    Returns
    -------
    PatchPlan
        Without exposures when the region touches none: that is an answer, not an error.

    Raises
    ------
    PlanError
        When the patch is over a limit of the format or of the backend's memory, with the figure;
        when there is no such selection; when a band mixes units here, or has none of `units`.
    NotInStoreError
        When the meta store does not have a band, or the pixel store an exposure that the meta store
        has and the region touches.
    StoreConflictError
        When its size in the two stores differs.
    RegionError
        When `region` is none.
    WCSError
        When the WCS of an exposure cannot be used.

    Notes
    -----
    Three differences from forcepho's choice. It drops an exposure when no corner of the region's
    bounding box falls on it, so that regions larger than a detector, or reaching over its edge,
    miss it; here all exposures take part that have a super-pixel inside. It takes the inverse that
    comes with a gWCS, which misses by up to 0.03 px; here it is exact. A circle that fits
    between the corners of a super-pixel selects nothing there.
    """
    region = as_region(region)
    size, shape = pixels.super_pixel_size, pixels.shape
    meta.image_shape = shape
    keys = meta.exposures_within(*_surroundings(region), bandlist)
    candidates = Candidates(meta, keys, shape, size)
    chosen = select_superpixels(candidates, region, select)
    places = np.empty((len(chosen.ix), 2), np.int32)
    places[:, 0], places[:, 1] = chosen.ix, chosen.iy
    places.setflags(write=False)
    bounds = np.searchsorted(chosen.exposure, np.arange(len(keys) + 1))
    numbers = np.flatnonzero(np.diff(bounds)).tolist()
    found = _agreed_units(pixels, meta, candidates, numbers)
    if units != "any":
        numbers = _of_unit(keys, numbers, found, units)
    exposures = tuple(
        ExposurePlan(*keys[n], shape, places[bounds[n] : bounds[n + 1]]) for n in numbers
    )
    bandlist = tuple(dict.fromkeys(exposure.band for exposure in exposures))
    plan = PatchPlan(region, bandlist, exposures, size, select)
    layout = plan.arena_layout(0, 0, 0)
    if backend is not None:
        plan.require_memory(backend, layout)
    return plan


def _of_unit(
    keys: Sequence[Key], numbers: list[int], units: Sequence[str], wanted: str | None
) -> list[int]:
    """Take the exposures of a unit; or all, if no band mixes several."""
    if wanted is None:
        by_key = {keys[number]: unit for number, unit in zip(numbers, units, strict=True)}
        for band, by_unit in mixed_units(by_key).items():
            raise PlanError(
                f"the exposures of {band} here are in several units: {describe_units(by_unit)}; "
                "name the one to take, as units='nJy' (--units nJy), or take all as they are with "
                "units='any'"
            )
        return numbers
    name = spelled(wanted)
    taken = [number for number, unit in zip(numbers, units, strict=True) if unit == name]
    if numbers and not taken:
        raise PlanError(
            f"no exposure here is in {wanted}; they are in {', '.join(sorted(set(units)))}"
        )
    return taken


def _fixed(counts: list[int]) -> npt.NDArray[np.int64]:
    """Make an array that nobody changes by mistake."""
    array = np.array(counts, np.int64)
    array.setflags(write=False)
    return array


def _starts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where each of several runs starts that follow one another."""
    return np.cumsum(counts) - counts


def _surroundings(region: Region) -> tuple[Floats, float]:
    """Return a circle, as unit vector and radians, that holds all that any selection can reach."""
    centre, radius = region.bounding_cap
    return centre, min(_ROOM * radius + _ROOM_RADIANS, np.pi)


def _agreed_units(
    pixels: PixelStore, meta: MetaStore, candidates: Candidates, numbers: list[int]
) -> list[str]:
    """Give the units of exposures, once the two stores were seen to agree on each of them."""
    known = candidates.table.agreed.setdefault(pixels.state, {})
    new = [number for number in numbers if number not in known]
    if new:
        keys = [candidates.keys[number] for number in new]
        _require_same(pixels, meta, keys)
        known.update(zip(new, units_of(pixels, keys).values(), strict=True))
    return [known[number] for number in numbers]


def _require_same(pixels: PixelStore, meta: MetaStore, keys: list[Key]) -> None:
    """Refuse exposures that the two stores do not agree on."""
    missing = pixels.reader.first_missing(keys)
    if missing is not None:
        raise NotInStoreError(
            f"{pixels.h5file}: has no exposure {'/'.join(missing)}, which the meta store has where"
            " the region is; the two stores do not belong together, or an exposure was not added to"
            " both"
        )
    for key in keys:
        ids = [store.pixel_id(*key) for store in (pixels, meta)]
        if all(ids) and ids[0] != ids[1]:
            raise StoreConflictError(
                f"exposure {'/'.join(key)} was replaced between the opening of its pixels and of"
                " its metadata; open both again, or the folder with fpgpu.open"
            )
        shape, stored = meta.shape(*key), pixels.shape
        if shape != stored:
            raise StoreConflictError(
                f"exposure {'/'.join(key)} has {shape[0]} x {shape[1]} pixels by its header, but"
                f" the images of {pixels.h5file} have {stored[0]} x {stored[1]}"
            )
