"""Plain FITS exposures: SCI with ERR or WHT, and DQ, BKG and AREA where there are any.

The layout of forcepho's own images, and of the mosaics that teams make. Without SCI, the primary
image or the only one is the science image, or that which the user names. The other images are
extensions of the file or in files of their own. Units: ABMAG, the AB magnitude of one unit of the
image; or BUNIT, a flux density (``10.0*nanoJansky``), a surface brightness, or counts with PHOTFLAM
and PHOTPLAM. Weights are inverse variances unless the option `weight` says ``exptime``.
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
    """Tell whether a file has a SCI extension or any image."""
    return "SCI" in file.names() or bool(file.images())


def read_plain(
    file: FitsFile, options: ReadOptions, companions: dict[str, FitsFile]
) -> Iterator[Exposure]:
    """Read a plain FITS exposure, in the unit of the file; any flag of DQ is bad, unless bits are
    named.
    """
    science = "SCI" if "sci" in options.extensions else _science(file)
    yield from assemble(Frame.find(file, options, companions, science))


def _science(file: FitsFile) -> str | int:
    """Find the science image: SCI, the primary image, or the only one, as of files of fpack."""
    if "SCI" in file.names():
        return "SCI"
    images = file.images()
    if 0 in images or len(images) == 1:
        return images[0]
    raise UnusableExposureError(
        f"{file.path}: no extension is called SCI, and {len(images)} are images; say which is which"
        f" with --sci N --err N (extensions in Python), by name or number; there are "
        f"{file.content()}"
    )
