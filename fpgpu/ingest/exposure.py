"""One exposure as readers hand it to stores, and what names it has."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.errors import ExposureNameError, LayoutError, UnusableExposureError
from fpgpu.ingest.flags import ANY_BIT, flags_for
from fpgpu.paths import absolute_path
from fpgpu.stores.names import check_band, check_expID

if TYPE_CHECKING:
    from astropy.io.fits import Header

    from fpgpu.sky.sip import SipFit

__all__ = [
    "Exposure",
    "ImageNameSet",
    "ImageSet",
    "header_to_id",
    "inverse_of",
    "pad_exposure",
    "pad_to",
    "sip_residual",
]

FILE_ENDING = re.compile(r"(\.(fits|fit|fts)(\.(gz|fz|bz2|xz|zip))?|\.asdf)$", re.IGNORECASE)
"""Of the names of exposure files."""


# NIRCam detectors are called NRCA1 ... NRCBLONG: the module is the fourth letter.
_MODULE_POSITION = 3


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

    def masked_by_flag(self) -> dict[str, int]:
        """Count the pixels that are masked, by the flag that did it.

        Returns
        -------
        dict of str to int
            The entries of `flags` whose bits are bad.
        """
        if self.mask is None:
            return {}
        if self.mask.dtype == bool:
            return dict(self.flags)
        bad = flags_for(self.telescope).names(self.bad_bits)
        return {name: n for name, n in self.flags.items() if name in bad}

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


def sip_residual(exposure: Exposure) -> float | None:
    """Give the pixels by which the SIP refit of an exposure's WCS misses."""
    sip = exposure.sip
    residual = exposure.provenance.get("sip_residual_px", None if sip is None else sip.residual)
    return None if residual is None else float(residual)


def header_to_id(
    hdr: "Header | Mapping[str, Any]",
    name: str | os.PathLike[str],
    framedir: str | os.PathLike[str] | None = None,
    split_by_detector: Collection[str] = (),
    band_names: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Derive an exposure's key from its header and file name.

    Parameters
    ----------
    hdr : astropy.io.fits.Header or mapping
        Must have FILTER, and DETECTOR when the filter is split by detector.
    name : str or path
        The exposure's file.
    framedir : str or path, optional
        A folder that holds `name`, at any depth; the path below it becomes part of the expID.
    split_by_detector : collection of str, optional
        Filters whose detector modules are bands of their own, such as ``F200WA`` and ``F200WB``.
    band_names : mapping of str to str, optional
        New names of bands, by the old ones in upper case; ``NONE`` stands for no FILTER.

    Returns
    -------
    band : str
        FILTER in upper case, with the detector module appended when the filter is split, and
        renamed.
    expID : str
        File name without ``.fits``, ``.fit``, ``.fts`` or ``.asdf`` and what a compressed file has
        after it, after the path below `framedir`.

    Raises
    ------
    UnusableExposureError
        When FILTER is missing, or DETECTOR is missing or names no module.
    ExposureNameError
        When the file is outside `framedir` or the names cannot be used in a store.

    Examples
    --------
    >>> header_to_id({"FILTER": "F200W"}, "jwst/jw01180_nrca1_cal.fits.gz")
    ('F200W', 'jw01180_nrca1_cal')
    """
    path = Path(name)
    stem = check_expID(FILE_ENDING.sub("", path.name))
    folder = "" if framedir is None else _path_below(path.parent, Path(framedir))
    band = _renamed(hdr, path, split_by_detector, band_names)
    return band, check_expID(f"{folder}/{stem}" if folder else stem)


def _renamed(
    hdr: "Header | Mapping[str, Any]",
    path: Path,
    split_by_detector: Collection[str],
    band_names: Mapping[str, str] | None,
) -> str:
    """Give the name of the band, where FILTER cannot be one that which the user gives."""
    filter_name, names = hdr.get("FILTER"), band_names or {}
    text = str(filter_name).strip().upper() if isinstance(filter_name, str | int | float) else ""
    key = text or "NONE"
    way_on = "" if band_names is None else f"; name it with rename_bands, as {{{key!r}: MYBAND}}"
    if not (text and isinstance(filter_name, str)) and key not in names:
        raise UnusableExposureError(
            f"{path}: the header has no usable FILTER (found {filter_name!r}); "
            f"the filter name is needed as the band{way_on}"
        )
    band = _split(text, hdr, path, split_by_detector)
    try:
        return check_band(names.get(band or key, band))
    except ExposureNameError as error:
        raise ExposureNameError(f"{error}{way_on}") from error


def _split(
    band: str,
    hdr: "Header | Mapping[str, Any]",
    path: Path,
    split_by_detector: Collection[str],
) -> str:
    """Add the module of the detector to a band that is split."""
    if isinstance(split_by_detector, str):
        split_by_detector = [split_by_detector]
    if band not in {name.upper() for name in split_by_detector}:
        return band
    detector = hdr.get("DETECTOR")
    if not isinstance(detector, str) or len(detector.strip()) <= _MODULE_POSITION:
        raise UnusableExposureError(
            f"{path}: {band} is split by detector, but DETECTOR is {detector!r}; expected a name "
            "like 'NRCA1' whose fourth letter is the module"
        )
    return band + detector.strip()[_MODULE_POSITION].upper()


def _path_below(folder: Path, framedir: Path) -> str:
    """Give the path from `framedir` to `folder`, with slashes; empty when they are the same."""
    # Not resolved: a survey's folders are often links, and names must follow the links.
    inner, outer = absolute_path(folder), absolute_path(framedir)
    if not inner.is_relative_to(outer):
        raise ExposureNameError(
            f"{folder} is not inside framedir {framedir}; give the folder that holds all exposures"
        )
    below = inner.relative_to(outer).as_posix()
    return "" if below == "." else below


def pad_exposure(exposure: Exposure, multiple: int) -> None:
    """Add pixels of zero weight so that both sides become multiples of a number, in place.

    Pixels are added at the high end of each axis only, so CRPIX and a gWCS stay valid.
    """
    if multiple < 1:
        raise LayoutError(f"cannot pad to multiples of {multiple}; expected 1 or more")
    nx, ny = exposure.shape
    pad_to(exposure, (nx + -nx % multiple, ny + -ny % multiple))


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
