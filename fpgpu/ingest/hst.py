"""HST images: calibrated exposures (``flt``, ``flc``) and drizzled mosaics (``drz``, ``drc``).

A calibrated file holds one exposure per chip, as extensions SCI, ERR and DQ of the same EXTVER;
each becomes an exposure of its own, called ``<file>_sci<EXTVER>``. Its distortion is in SIP
coefficients and look-up tables, which are refitted to SIP. Its pixels are flat-fielded, and so are
multiplied by their area relative to the pixel that the zero point is for, IDCSCALE squared.

A drizzled image has pixels of one area, and weights (WHT) instead of uncertainties: by the default
of the archive's pipeline exposure times, so that is what they are taken for unless the option
`weight` says ``ivm``.

The zero point comes from PHOTFLAM and PHOTPLAM. Any DQ bit is bad unless the user names bits.
"""

import re
from collections.abc import Callable, Iterator

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.assemble import assemble
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.frame import Frame
from fpgpu.ingest.inputs import ReadOptions

__all__ = ["is_hst", "read_hst"]

_FILTER_KEYWORDS = ("FILTER", "FILTER1", "FILTER2", "FILTNAM1", "FILTNAM2")
_NO_FILTER = re.compile(r"CLEAR.*|N/A|NONE|")


def is_hst(file: FitsFile) -> bool:
    """Tell whether TELESCOP of a file is HST and it has a SCI extension."""
    telescope = str(file.primary("TELESCOP")).strip().upper()
    return telescope == "HST" and "SCI" in file.names()


def read_hst(
    file: FitsFile, options: ReadOptions, companions: dict[str, FitsFile]
) -> Iterator[Exposure]:
    """Read the exposures of an HST file; companions are for one with one SCI extension.

    Pixels are in the unit of the file, with ABMAG in the header; of undrizzled images with the map
    of pixel areas.
    """
    versions = file.versions("SCI")
    _refuse_other_products(file, len(versions))
    of_one = [*companions, *(n for n in options.extensions.values() if isinstance(n, int))]
    if of_one and len(versions) > 1:
        raise UnusableExposureError(
            f"{file.path}: has {len(versions)} exposures; companion files and extensions by number "
            f"({', '.join(map(str, of_one))}) belong to one; give the name of the extensions"
        )
    for version in versions:
        frame = Frame.find(file, options, companions, version=version)
        if name := _filter_name(frame.header.get):  # ACS has two wheels
            frame.header["FILTER"] = (name, "filters in the light path")
        is_drizzled = _is_drizzled(frame)
        if len(versions) > 1 or not is_drizzled:
            frame.part = f"sci{version}"
        if not is_drizzled:
            frame.require_mask("HST")
        elif "wht" not in frame.layers:
            frame.notes.append(
                "no WHT extension; where ERR is sound, pixels are taken to have data"
            )
        frame.weights_are = "exptime"
        frame.has_distortion = not is_drizzled
        yield from assemble(frame)


def _is_drizzled(frame: Frame) -> bool:
    """Tell a drizzled image, whole or stripped of its weights, from a chip."""
    if "wht" in frame.layers:
        return True
    is_named = frame.path.name.partition(".")[0].endswith(("_drz", "_drc"))
    return "mask" not in frame.layers and (is_named or "CTX" in frame.file.names())


def _refuse_other_products(file: FitsFile, n_images: int) -> None:
    """Refuse spectra, and the reads of a ramp."""
    kind = str(file.primary("OBSTYPE") or "").strip().upper()
    if kind in ("SPECTROSCOPIC", "CORONAGRAPHIC SPECTROSCOPIC"):
        raise UnusableExposureError(f"{file.path}: OBSTYPE is {kind}: no image of the sky")
    name = _filter_name(file.primary)
    if re.fullmatch(r"(G\d{3}L?|PR\d{3}L)", name):
        raise UnusableExposureError(f"{file.path}: {name} is a grism or prism: no image of the sky")
    detector = str(file.primary("DETECTOR") or "").strip().upper()
    if n_images > 1 and (detector == "IR" or file.primary("INSTRUME") == "NICMOS"):
        name = str(file.primary("ROOTNAME") or file.path.name.partition("_")[0]).strip().lower()
        raise UnusableExposureError(
            f"{file.path}: holds the {n_images} reads of one ramp (ima), which are no exposures of "
            "their own; give what they were combined to, "
            f"{name}_{'flt' if detector == 'IR' else 'cal'}.fits"
        )


def _filter_name(get: Callable[[str], object]) -> str:
    """Name the filters in the light path, joined by a plus sign; empty when there is none."""
    found = [str(get(key) or "").strip().upper() for key in _FILTER_KEYWORDS]
    return "+".join(dict.fromkeys(name for name in found if not _NO_FILTER.fullmatch(name)))
