"""Plain FITS exposures: SCI with ERR or WHT, and DQ, BKG and AREA where there are any.

The layout of forcepho's own images, and of the mosaics that teams make. Without SCI, a
2-dimensional primary image is the science image. The other images are extensions of the file or in
files of their own. Units: ABMAG, the AB magnitude of one unit of the image; or BUNIT, a flux
density (``10.0*nanoJansky``), a surface brightness, or counts with PHOTFLAM and PHOTPLAM. Weights
are inverse variances unless the option `weight` says ``exptime``.
"""

from collections.abc import Iterator

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.assemble import assemble
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.frame import Frame
from fpgpu.ingest.inputs import ReadOptions

__all__ = ["is_plain", "read_plain"]


def is_plain(file: FitsFile) -> bool:
    """Tell whether a file holds a science image in the plain layout.

    Parameters
    ----------
    file : FitsFile
        The opened file.

    Returns
    -------
    bool
        Whether there is a SCI extension or a primary image.
    """
    return _science(file) is not None


def read_plain(
    file: FitsFile, options: ReadOptions, companions: dict[str, FitsFile] | None = None
) -> Iterator[Exposure]:
    """Read a plain FITS exposure.

    Parameters
    ----------
    file : FitsFile
        The opened file.
    options : ReadOptions
        How to read.
    companions : dict of str to FitsFile, optional
        Further files by role.

    Yields
    ------
    Exposure
        Pixel values in the unit of the file; any flag of DQ is bad unless the user names bits.

    Raises
    ------
    UnusableExposureError
        When an image is missing or cannot be used.
    WCSError
        When there is no usable WCS.
    """
    science = _science(file)
    if science is None:
        raise UnusableExposureError(
            f"{file.path}: no science image: neither an extension SCI nor a primary image "
            f"(found {', '.join(file.names())})"
        )
    yield from assemble(Frame.find(file, companions, science), options)


def _science(file: FitsFile) -> str | None:
    """Name the extension with the science image; None when there is none."""
    names = file.names()
    if "SCI" in names:
        return "SCI"
    return names[0] if file.primary("NAXIS") else None
