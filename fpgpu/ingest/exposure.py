"""One exposure as readers hand it to stores."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError
from fpgpu.ingest.flags import ANY_BIT, flags_for

if TYPE_CHECKING:
    from astropy.io.fits import Header

    from fpgpu.sky.sip import SipFit

__all__ = [
    "Exposure",
    "ImageNameSet",
    "ImageSet",
    "inverse_of",
    "pad_to",
]


class ImageNameSet(NamedTuple):
    """The names of the files, or of other origins, of an exposure's images.

    Attributes
    ----------
    im, err, mask, bkg : str or None
        Origin of the flux, uncertainty, data-quality and background image.

    Examples
    --------
    >>> ImageNameSet(im="x_cal.fits").err is None
    True
    """

    im: str | None = None
    err: str | None = None
    mask: str | None = None
    bkg: str | None = None


class ImageSet(NamedTuple):
    """An exposure's images and identifiers, with forcepho's field names.

    Attributes
    ----------
    im : ndarray, shape (nx, ny)
        Pixel values, indexed ``im[x, y]`` (a FITS image transposed).
    ierr : ndarray, shape (nx, ny)
        Inverse uncertainties, in the reciprocal of the unit of `im`.
    mask : ndarray of integers or bool, shape (nx, ny), or None
        Data-quality bits.
    bkg : ndarray, shape (nx, ny), or None
        Background to subtract, in the unit of `im`.
    hdr : astropy.io.fits.Header
        The header, with NAXIS1, NAXIS2, FILTER and a WCS.
    band, expID : str
        The exposure's key.
    names : ImageNameSet, str or None
        Where the images came from.

    Examples
    --------
    >>> pixels, header = np.ones((16, 8)), {"FILTER": "F200W"}
    >>> ImageSet(pixels, pixels, None, None, header, "F200W", "x_cal", "x_cal.fits").expID
    'x_cal'
    """

    im: npt.NDArray[Any]
    ierr: npt.NDArray[Any]
    mask: npt.NDArray[Any] | None
    bkg: npt.NDArray[Any] | None
    hdr: "Header"
    band: str
    expID: str
    names: ImageNameSet | str | None


@dataclass
class Exposure:
    """Everything the stores need of one exposure.

    The first eight attributes are those of `ImageSet`.

    Attributes
    ----------
    im : ndarray, shape (nx, ny)
        Pixel values as in the file, indexed ``im[x, y]``, in the file's byte order.
    ierr : ndarray, shape (nx, ny)
        Inverse uncertainties, in the reciprocal of the unit of `im`.
    mask : ndarray of integers or bool, shape (nx, ny), or None
        Data-quality bits.
    bkg : ndarray, shape (nx, ny), or None
        Background to subtract, in the unit of `im`.
    hdr : astropy.io.fits.Header
        The header, with NAXIS1, NAXIS2 and FILTER.
    band, expID : str
        The exposure's key.
    names : ImageNameSet
        Where the images came from.
    area : ndarray of float32, shape (nx, ny), or None
        Pixel area relative to the nominal one.
    gwcs : gwcs.WCS or None
        The generalized WCS that goes into the meta store.
    wcs_choice : str
        ``"gwcs"`` or ``"fits"``: the WCS that was believed.
    sip : SipFit or None
        Refit of the gWCS as a FITS-SIP WCS, with its residual.
    flags : dict of str to int
        Pixels per data-quality flag.
    bitmask : int or None
        Bits that are bad when the user names none; None means any bit.
    telescope : str
        The observatory, which decides what the bits are called.
    provenance : dict
        Extra facts stored beside the pixels.
    notes : list of str
        What a user should know about how this exposure was read.

    Examples
    --------
    >>> pixels, header = np.ones((16, 8)), {"FILTER": "F200W"}
    >>> exposure = Exposure(pixels, pixels, None, None, header, "F200W", "x", ImageNameSet())
    >>> exposure.shape
    (16, 8)
    """

    im: npt.NDArray[Any]
    ierr: npt.NDArray[Any]
    mask: npt.NDArray[Any] | None
    bkg: npt.NDArray[Any] | None
    hdr: "Header"
    band: str
    expID: str
    names: ImageNameSet
    area: npt.NDArray[Any] | None = None
    gwcs: Any = None
    wcs_choice: str = "fits"
    sip: "SipFit | None" = None
    flags: dict[str, int] = field(default_factory=dict)
    bitmask: int | None = None
    telescope: str = ""
    provenance: dict[str, str | float | int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """Size of the images, (nx, ny)."""
        nx, ny = self.im.shape
        return nx, ny

    def copy(self) -> "Exposure":
        """Copy all but the arrays and the gWCS.

        Returns
        -------
        Exposure
            Whose header, notes, flags and provenance can be changed without changing these.
        """
        return replace(
            self,
            hdr=self.hdr.copy(),
            flags=dict(self.flags),
            provenance=dict(self.provenance),
            notes=list(self.notes),
        )

    @property
    def bad_bits(self) -> int:
        """Bits of `mask` that make a pixel bad; 0 where there is no mask."""
        if self.mask is None:
            return 0
        return ANY_BIT if self.bitmask is None else self.bitmask

    @property
    def bad_flags(self) -> tuple[str, ...]:
        """The flags that make a pixel bad, ``("any",)`` for any."""
        if self.mask is None:
            return ()
        if self.bitmask is None or self.mask.dtype == bool:
            return ("any",)
        return tuple(flags_for(self.telescope).names(self.bitmask))

    def masked_by_flag(self) -> dict[str, int]:
        """Count the pixels that are masked, by the flag that did it.

        Returns
        -------
        dict of str to int
            The entries of `flags` whose bits are bad.
        """
        bad = self.bad_flags
        return {name: n for name, n in self.flags.items() if bad == ("any",) or name in bad}

    def image_set(self) -> ImageSet:
        """Give the images and identifiers as forcepho's stores take them.

        Returns
        -------
        ImageSet
            The same arrays and header, not copied.
        """
        return ImageSet(
            self.im, self.ierr, self.mask, self.bkg, self.hdr, self.band, self.expID, self.names
        )


def inverse_of(err: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give 1 / err in the precision of err: infinite where it is 0, 0 where it is infinite."""
    if err.dtype.kind != "f":
        err = err.astype(np.float32 if err.dtype.itemsize <= 2 else np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(1 / err)


def pad_to(exposure: Exposure, shape: tuple[int, int]) -> None:
    """Add pixels of zero weight so that an exposure gets a given size, in place.

    Parameters
    ----------
    exposure : Exposure
        Its images are replaced by larger ones and NAXIS1, NAXIS2 follow; unchanged when it has
        this size.
    shape : tuple of int
        (nx, ny), at least that of the exposure.

    Raises
    ------
    LayoutError
        When the exposure is larger.
    """
    nx, ny = exposure.shape
    add = (shape[0] - nx, shape[1] - ny)
    exposure.hdr["NAXIS1"], exposure.hdr["NAXIS2"] = shape
    if add == (0, 0):
        return
    if min(add) < 0:
        raise LayoutError(f"cannot pad {nx} x {ny} pixels to {shape[0]} x {shape[1]}")

    def padded(image: npt.NDArray[Any], value: float = 0) -> npt.NDArray[Any]:
        return np.pad(image, ((0, add[0]), (0, add[1])), constant_values=value)

    exposure.im = padded(exposure.im)
    exposure.ierr = padded(exposure.ierr)
    exposure.mask = None if exposure.mask is None else padded(exposure.mask)
    exposure.bkg = None if exposure.bkg is None else padded(exposure.bkg)
    exposure.area = None if exposure.area is None else padded(exposure.area, 1)
    exposure.notes.append(
        f"padded from {nx} x {ny} to {shape[0]} x {shape[1]} pixels with zero weight"
    )
    exposure.provenance["padded_from"] = f"{nx}x{ny}"
