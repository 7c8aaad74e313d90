"""Plain FITS exposures: SCI and ERR, with DQ, BKG and AREA where there are any.

The layout of forcepho's own images. Without SCI, a 2-dimensional primary image is the science
image. Units: ABMAG, the AB magnitude of one unit of the image, or none.
"""

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.assemble import assemble
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.fitsfile import FitsFile
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


def read_plain(file: FitsFile, options: ReadOptions) -> Exposure:
    """Read a plain FITS exposure.

    Parameters
    ----------
    file : FitsFile
        The opened file.
    options : ReadOptions
        How to read.

    Returns
    -------
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
    exposure = assemble(file, science, options)
    if "ABMAG" not in exposure.hdr:
        exposure.notes.append("the header has no ABMAG; fluxes stay in the unit of the file")
    return exposure


def _science(file: FitsFile) -> str | None:
    """Name the extension with the science image; None when there is none."""
    names = file.names()
    if "SCI" in names:
        return "SCI"
    return names[0] if file.primary("NAXIS") else None
