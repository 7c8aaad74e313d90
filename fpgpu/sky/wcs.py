"""World coordinate systems of exposures, FITS and gWCS alike.

Everything beyond this module sees a `SkyWCS`: zero-based pixels (x, y) with integer values at
pixel centres, ICRS right ascension and declination in degrees, no units, no bounding boxes.
"""

import logging
from functools import cache
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fpgpu.errors import WCSError
from fpgpu.sky.angles import AngleLike, PositionLike, sky_position
from fpgpu.sky.cards import has_lookup, image_shape, settle_cards, wcs_header
from fpgpu.sky.coverage import planar_area
from fpgpu.sky.frames import SkyFrame, fits_frame, gwcs_frame
from fpgpu.sky.inverse import Linearisation, invert, linearise
from fpgpu.sky.native import (
    bounding_box_of,
    degrees,
    fits_wcs,
    gwcs_forward,
    gwcs_inverse,
    has_inverse,
    physical_types,
    set_up,
)
from fpgpu.sky.polygons import bounding_caps
from fpgpu.sky.sphere import Floats, tangent_coordinates, unit_vectors, wrapped

__all__ = ["SkyWCS"]

_log = logging.getLogger(__name__)

# Where a WCS that states no extent is taken to be valid; only the start of an iteration.
_UNKNOWN_EXTENT = 1024.0

_GWCS_AXES = {"pos.eq.ra", "pos.eq.dec"}, {"pos.galactic.lon", "pos.galactic.lat"}
# Radians. No detector sees more; a footprint that does comes from nonsense in a header.
_LARGEST_RADIUS = np.deg2rad(30.0)


@cache
def _tell(note: str) -> None:
    """Log what was settled in a header, once: a store may have ten thousand that are alike."""
    _log.warning("a header was settled: %s", note)


class SkyWCS:
    """Positions on the sky of the pixels of one exposure.

    Make one with `from_header`, `from_gwcs` or `from_native`.

    Parameters
    ----------
    kind : str
        ``"fits"`` or ``"gwcs"``.
    native : astropy.wcs.WCS or gwcs.WCS
        The object itself, which offers ``pixel_to_world_values`` and ``world_to_pixel_values``.
    shape : tuple of int or None
        Number of pixels (nx, ny), None when nothing states it.
    columns : tuple of int
        Which of the native outputs is the longitude and which the latitude.
    bounding_box : tuple of float, optional
        Where the WCS claims to be valid: x0, x1, y0, y1 in pixels. Only `footprint` heeds it.
    frame : SkyFrame, optional
        The frame of the native outputs where that is not ICRS.

    Notes
    -----
    Positions are ICRS, whatever the frame of the WCS.

    Examples
    --------
    >>> from astropy.wcs import WCS
    >>> wcs = WCS({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 53.16, "CRVAL2": -27.79,
    ...            "CRPIX1": 11, "CRPIX2": 21, "CDELT1": -1e-5, "CDELT2": 1e-5})
    >>> x, y = SkyWCS.from_native(wcs).world_to_pixel(53.16, -27.79)
    >>> print(f"{x:.3f} {y:.3f}")  # zero-based
    10.000 20.000
    """

    __slots__ = ("_columns", "_start", "bounding_box", "frame", "kind", "native", "shape")

    def __init__(
        self,
        kind: str,
        native: Any,
        shape: tuple[int, int] | None,
        columns: tuple[int, int],
        bounding_box: tuple[float, float, float, float] | None = None,
        frame: SkyFrame | None = None,
    ) -> None:
        self.frame = frame
        self.kind = kind
        self.native = native
        self.shape = shape
        self.bounding_box = bounding_box
        self._columns = columns
        self._start: Linearisation | None = None

    def __repr__(self) -> str:
        size = "size unknown" if self.shape is None else f"{self.shape[0]} x {self.shape[1]} px"
        return f"<SkyWCS {self.kind}, {size}>"

    @classmethod
    def from_header(cls, header: Any, fobj: Any = None) -> Self:
        """Read the celestial WCS of a FITS header, distortion included.

        Parameters
        ----------
        header : astropy.io.fits.Header
            With NAXIS1 and NAXIS2; of more than two axes the first two, of the sky, are taken.
        fobj : astropy.io.fits.HDUList, optional
            The file, for headers whose distortion is in its other extensions.

        Returns
        -------
        SkyWCS
            Of kind ``"fits"``.

        Raises
        ------
        WCSError
            When the header has no WCS of the sky, no NAXIS1 and NAXIS2, a malformed or
            contradictory WCS, or one in look-up tables that are not given.

        Notes
        -----
        What a header says twice, or in a form that WCSLIB reads otherwise than it was meant, is
        settled by `fpgpu.sky.cards.settle_cards`, and logged.
        """
        shape = image_shape(header)
        header = wcs_header(header) if fobj is None else header.copy()
        for note in settle_cards(header):
            _tell(note)
        if fobj is None and has_lookup(header):
            raise WCSError(
                "its distortion is in look-up tables, which are in the file and not in the header; "
                "ingest the file itself, which refits them to SIP"
            )
        return cls.from_native(fits_wcs(header, fobj), shape)

    @classmethod
    def from_gwcs(cls, gwcs: Any, shape: tuple[int, int] | None = None) -> Self:
        """Wrap a gWCS from two pixel axes to the sky.

        Parameters
        ----------
        gwcs : gwcs.WCS
            Bounding box and inverse transform may be present or not.
        shape : tuple of int, optional
            Number of pixels (nx, ny); by default what the gWCS says.

        Returns
        -------
        SkyWCS
            Of kind ``"gwcs"``.

        Raises
        ------
        WCSError
            When the gWCS has other dimensions, or does not end in equatorial or galactic
            coordinates of a known frame.
        """
        n_pixel, n_world = gwcs.pixel_n_dim, gwcs.world_n_dim
        if (n_pixel, n_world) != (2, 2):
            raise WCSError(
                f"the gWCS maps {n_pixel} pixel axes to {n_world} world axes; expected two pixel "
                "axes to right ascension and declination"
            )
        types = physical_types(gwcs)
        if {*types} not in _GWCS_AXES:
            raise WCSError(
                f"the gWCS ends in the axes {', '.join(types)}; expected right ascension and "
                "declination (pos.eq.ra, pos.eq.dec)"
            )
        # The types come back from ASDF in another order than the axes, this does not.
        columns = tuple(getattr(gwcs.output_frame, "axes_order", (0, 1)))
        size, box = shape or gwcs.pixel_shape, bounding_box_of(gwcs)
        return cls("gwcs", gwcs, size, columns, box, gwcs_frame(gwcs))

    @classmethod
    def from_native(cls, native: Any, shape: tuple[int, int] | None = None) -> Self:
        """Wrap an astropy FITS WCS or a gWCS that exists already.

        Parameters
        ----------
        native : astropy.wcs.WCS or gwcs.WCS
            Not changed.
        shape : tuple of int, optional
            Number of pixels (nx, ny); by default what the object says.

        Returns
        -------
        SkyWCS

        Raises
        ------
        WCSError
            When the object is neither, or not a map from two pixel axes to the sky.
        """
        from astropy.wcs import WCS

        if hasattr(native, "forward_transform"):
            return cls.from_gwcs(native, shape)
        if not isinstance(native, WCS):
            raise WCSError(
                f"a {type(native).__name__} was given as WCS; expected an astropy.wcs.WCS, "
                "a gwcs.WCS or a SkyWCS"
            )
        if native.naxis != 2:
            raise WCSError(
                f"the FITS WCS has {native.naxis} axes, expected 2; for the celestial part of a "
                "header with more use SkyWCS.from_header"
            )
        set_up(native)
        if native.wcs.lng < 0 or native.wcs.lngtyp.strip() not in ("RA", "GLON"):
            found = ", ".join(repr(name) for name in native.wcs.ctype)
            raise WCSError(
                f"the FITS WCS has no equatorial coordinates: CTYPE is {found}; expected "
                "RA---xxx and DEC--xxx as in 'RA---TAN', 'DEC--TAN'"
            )
        size, columns = shape or native.pixel_shape, (native.wcs.lng, native.wcs.lat)
        return cls("fits", native, size, columns, frame=fits_frame(native))

    @property
    def is_plain(self) -> bool:
        """Whether its own numbers are ICRS right ascensions and declinations, in this order."""
        return self.frame is None and self._columns == (0, 1)

    def pixel_to_world(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Give the positions of pixels, on the detector or beyond its edges.

        Parameters
        ----------
        x, y : array_like
            Zero-based pixels, shapes that broadcast together.

        Returns
        -------
        ra, dec : ndarray of float64
            Degrees, ra in [0, 360); NaN where the WCS is not defined, but not merely because
            of a bounding box.
        """
        x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        if self.kind == "fits":
            world = self.native.all_pix2world(x.ravel(), y.ravel(), 0)
        else:
            world = gwcs_forward(self.native, x.ravel(), y.ravel())
        units = self.native.world_axis_units  # worked out anew each time
        ra, dec = (degrees(world[k], units[k]) for k in self._columns)
        if self.frame is not None:
            ra, dec = self.frame.to_icrs(ra, dec)
        return wrapped(ra).reshape(x.shape), dec.reshape(x.shape)

    def world_to_pixel(
        self, ra: PositionLike, dec: AngleLike | None = None
    ) -> tuple[Floats, Floats]:
        """Give the pixels of positions: the exact inverse of `pixel_to_world`.

        Parameters
        ----------
        ra, dec : array_like or Quantity
            Degrees, or with units, shapes that broadcast together; or a SkyCoord alone.

        Returns
        -------
        x, y : ndarray of float64
            Zero-based pixels, to about 1e-8 px; NaN where no pixel has this position, as for
            directions on the other side of the sky or beyond the reach of a distortion.

        Notes
        -----
        Inverse polynomials that come with the WCS are not used: they only approximate.
        """
        return invert(self.pixel_to_world, *sky_position(ra, dec), self._linearisation())

    def native_world_to_pixel(self, ra: npt.ArrayLike, dec: npt.ArrayLike) -> tuple[Floats, Floats]:
        """Give the pixels of positions by the inverse that comes with the WCS.

        This is what forcepho uses. It can miss by 0.03 px (gWCS of JWST) and says nothing sound
        far from the detector.

        Parameters
        ----------
        ra, dec : array_like
            Degrees, shapes that broadcast together.

        Returns
        -------
        x, y : ndarray of float64
            Zero-based pixels, not NaN merely because of a bounding box.
        """
        ra, dec = np.broadcast_arrays(np.asarray(ra, np.float64), np.asarray(dec, np.float64))
        if self.kind == "gwcs" and not has_inverse(self.native):
            return self.world_to_pixel(ra, dec)
        world = [ra.ravel(), dec.ravel()]
        if self.frame is not None:
            world = [*self.frame.from_icrs(*world)]
        if self._columns == (1, 0):
            world.reverse()
        with np.errstate(all="ignore"):
            if self.kind == "fits":
                pixel = self.native.all_world2pix(*world, 0, quiet=True)
            else:
                pixel = gwcs_inverse(self.native, world)
        x, y = (np.asarray(getattr(p, "value", p), np.float64) for p in pixel)
        return x.reshape(ra.shape), y.reshape(ra.shape)

    def footprint(self, per_side: int = 8) -> Floats:
        """Outline of the detector on the sky, along the outer edges of its pixels.

        Parameters
        ----------
        per_side : int, optional
            Number of points along each side; more follow distortion more closely.

        Returns
        -------
        outline : ndarray of float64, shape (4 * per_side, 2)
            Right ascension and declination in degrees, inside the bounding box of the WCS where
            that is smaller than the detector.

        Raises
        ------
        WCSError
            When the size is unknown, the WCS gives no position somewhere on the outline, or the
            outline is none: without an area, or of a good part of the sky.
        """
        x0, x1, y0, y1 = self._extent()
        along = np.linspace(0.0, 1.0, per_side, endpoint=False)
        zero, one = np.zeros(per_side), np.ones(per_side)
        x = x0 + (x1 - x0) * np.concatenate([along, one, 1.0 - along, zero])
        y = y0 + (y1 - y0) * np.concatenate([zero, along, one, 1.0 - along])
        outline = np.stack(self.pixel_to_world(x, y), axis=-1)
        lost = np.flatnonzero(~np.isfinite(outline).all(axis=1))
        if lost.size:
            k = lost[0]
            raise WCSError(
                f"the {self.kind} WCS gives no position at pixel ({x[k]:g}, {y[k]:g}) on the "
                f"outline of the detector, {lost.size} of {len(x)} points in all"
            )
        self._check_outline(outline)
        return outline

    def domain(self) -> tuple[float, float, float, float]:
        """Give a part of the plane of pixels where the WCS is meant to hold.

        Returns
        -------
        x0, x1, y0, y1 : float
            Edges of the detector, cut by the bounding box; of a square of 1,024 pixels where
            neither is known.
        """
        if self.shape is None and self.bounding_box is None:
            return 0.0, _UNKNOWN_EXTENT, 0.0, _UNKNOWN_EXTENT
        return self._extent()

    def _check_outline(self, outline: Floats) -> None:
        """Refuse what a WCS with nonsensical numbers makes of a detector."""
        vectors = unit_vectors(*outline.T)
        centres, radii = bounding_caps(vectors[None])
        if radii[0] > _LARGEST_RADIUS:
            raise WCSError(
                f"the {self.kind} WCS spreads the detector over {2 * np.rad2deg(radii[0]):.0f} "
                "degrees of sky; check the scale of its pixels"
            )
        xi, eta = tangent_coordinates(vectors, centres[0])
        if planar_area(np.stack([xi, eta], axis=-1)) <= 1e-9 * radii[0] ** 2:
            raise WCSError(
                f"the {self.kind} WCS maps the detector to a line or a point at RA, Dec "
                f"{outline[0, 0]:.6f}, {outline[0, 1]:.6f}; check the scale of its pixels"
            )

    def _extent(self) -> tuple[float, float, float, float]:
        """Edges x0, x1, y0, y1 of the detector, cut by the bounding box."""
        box = self.bounding_box or (-np.inf, np.inf, -np.inf, np.inf)
        nx, ny = self.shape or (np.inf, np.inf)
        x0, x1 = max(box[0], -0.5), min(box[1], nx - 0.5)
        y0, y1 = max(box[2], -0.5), min(box[3], ny - 0.5)
        if not np.isfinite([x1, y1]).all():
            raise WCSError(
                f"the {self.kind} WCS states no size of its detector; give shape=(nx, ny)"
            )
        if x0 >= x1 or y0 >= y1:
            raise WCSError(
                f"the bounding box x {box[0]:g} to {box[1]:g}, y {box[2]:g} to {box[3]:g} of the "
                f"{self.kind} WCS lies outside its detector of {nx:g} x {ny:g} pixels"
            )
        return x0, x1, y0, y1

    def _linearisation(self) -> Linearisation:
        """Where the inversion starts, worked out once."""
        if self._start is None:
            self._start = linearise(self.pixel_to_world, self.domain())
        return self._start
