"""Which WCS of an exposure is believed: the gWCS of its ASDF extension or the FITS header's."""

import io
import math
import warnings
from dataclasses import dataclass, field
from typing import Any

from fpgpu.errors import UnusableExposureError, WCSDisagreementError, WCSError
from fpgpu.ingest.cards import replace_wcs
from fpgpu.ingest.frame import Frame
from fpgpu.ingest.refit import refit_gwcs, refit_header
from fpgpu.sky.disagreement import disagreement
from fpgpu.sky.sip import SipFit
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.metadata.asdfguard import check_asdf

__all__ = ["Astrometry", "choose_wcs", "read_gwcs"]

_NONE = object()


@dataclass
class Astrometry:
    """The WCS of an exposure after the choice.

    Attributes
    ----------
    kind : str
        ``"gwcs"`` or ``"fits"``.
    gwcs : gwcs.WCS or None
        The gWCS, when it was chosen and is ICRS: forcepho takes the numbers of any as ICRS.
    sip : SipFit or None
        Refit of `gwcs` as a FITS-SIP WCS.
    residual : float or None
        Pixels by which a refit misses what it was fitted to; None when nothing was refitted.
    notes : list of str
        What a user should know.
    """

    kind: str
    gwcs: Any = None
    sip: SipFit | None = None
    residual: float | None = None
    notes: list[str] = field(default_factory=list)

    def provenance(self) -> dict[str, str | float | int]:
        """What is stored beside the pixels about the WCS."""
        residual = {} if self.residual is None else {"sip_residual_px": self.residual}
        return {"wcs": self.kind, **residual}


def choose_wcs(frame: Frame) -> Astrometry:
    """Choose the WCS of an exposure to store, and check it.

    The header is changed in place when its own WCS is missing, overruled, or none that all readers
    take alike (`fpgpu.ingest.refit`): it then gets a SIP refit in ICRS, so that software that knows
    FITS only sees the same sky.
    """
    where, header, shape, options = str(frame.path), frame.header, frame.shape, frame.options
    asdf_bytes = None if options.wcs == "fits" else frame.file.table_bytes("ASDF")
    if asdf_bytes is None and options.wcs == "gwcs":
        raise WCSError(f"{where}: has no ASDF extension and so no gWCS; use --wcs fits or auto")
    if asdf_bytes is None:
        return _fits_wcs(frame)
    gwcs = read_gwcs(where, asdf_bytes)
    sky, sip = _refit(where, gwcs, shape, options.sip_tolerance)
    chosen = Astrometry("gwcs", gwcs, sip, sip.residual)
    fault: str | None = "was overruled by the gWCS"
    if options.wcs == "auto":
        try:
            notes, _ = refit_header(header, shape, options.sip_tolerance, frame.file.hdus)
            chosen.notes += notes
            fault = None
        except WCSError as error:
            fault = f"cannot be used ({error})"
        else:
            _refuse_disagreement(where, header, sky, shape, options.wcs_tolerance)
    if sky.frame is not None:
        chosen.gwcs = chosen.sip = None
        fault = f"gave way: the gWCS is {sky.frame.name}, and its refit was turned into ICRS"
    if fault:
        replace_wcs(header, sip)
        chosen.notes.append(f"the FITS WCS {fault}; the header now has the SIP refit of the gWCS")
    return chosen


def read_gwcs(where: str, asdf_bytes: bytes) -> Any:
    """Read the gWCS, at ``meta.wcs``, out of the bytes of an ASDF file, independent of them."""
    import asdf

    place = f"{where}: extension ASDF"
    check_asdf(place, asdf_bytes)
    try:
        with warnings.catch_warnings():
            # Written by other versions of asdf and jwst: noted by asdf, of no importance here.
            warnings.simplefilter("ignore")
            # lazy_tree: asdf before 6 resolves the references of the whole tree otherwise, and
            # those of a file without a name fail.
            source = io.BytesIO(asdf_bytes)
            with asdf.open(source, lazy_load=False, memmap=False, lazy_tree=True) as tree:
                gwcs = tree["meta"].get("wcs", _NONE)
    # Damaged YAML makes the libraries below raise almost anything.
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise UnusableExposureError(
            f"{place} cannot be read: {text} ({type(error).__name__}); "
            "use --wcs fits to take the WCS of the FITS header"
        ) from error
    if gwcs is _NONE:
        raise UnusableExposureError(
            f"{place} has no gWCS (meta.wcs), as that of a rate file: give the cal or crf file, or "
            "use --wcs fits to take the WCS of the FITS header"
        )
    if not hasattr(gwcs, "pixel_to_world_values"):
        raise UnusableExposureError(
            f"{place} holds a {type(gwcs).__name__} at meta.wcs, expected a gWCS; "
            "use --wcs fits to take the WCS of the FITS header"
        )
    return gwcs


def _fits_wcs(frame: Frame) -> Astrometry:
    """Take the FITS WCS, refitted where it needs more than its header."""
    header, hdus = frame.header, frame.file.hdus
    try:
        notes, residual = refit_header(header, frame.shape, frame.options.sip_tolerance, hdus)
    except WCSError as error:
        hint = ""
        if "CTYPE1" not in header and "CTYPE1" in hdus[0].header:
            hint = "; the WCS of the primary header holds for an extension only with INHERIT = T"
        raise WCSError(f"{frame.path}: {error}{hint}") from error
    return Astrometry("fits", residual=residual, notes=notes)


def _refit(
    where: str, gwcs: Any, shape: tuple[int, int], tolerance: float | None
) -> tuple[SkyWCS, SipFit]:
    """Fit a SIP approximation to a gWCS, naming the file when that fails."""
    try:
        sky = SkyWCS.from_gwcs(gwcs, shape)
        return sky, refit_gwcs(sky, shape, tolerance)
    except WCSError as error:
        raise WCSError(
            f"{where}: gWCS: {error}; use --wcs fits to take the WCS of the FITS header"
        ) from error
    # A gWCS that was read can still hold nonsense, on which its libraries raise almost anything.
    except Exception as error:
        raise UnusableExposureError(
            f"{where}: the gWCS cannot be evaluated: {error} ({type(error).__name__}); "
            "use --wcs fits to take the WCS of the FITS header"
        ) from error


def _refuse_disagreement(
    where: str, header: Any, sky: SkyWCS, shape: tuple[int, int], tolerance: float
) -> None:
    """Refuse a gWCS and a header that are of two places, and say what speaks for which."""
    found = disagreement(sky, SkyWCS.from_header(header), shape)
    # Where one of the two gives no position at all, the difference is NaN, and refused.
    if found.max_pixels <= tolerance:
        return
    detector = header.get("SUBSIZE1"), header.get("SUBSIZE2")
    cause = "one of them is wrong, as in a cutout whose gWCS was not shifted"
    if detector == shape:
        cause = "the image is a whole exposure, whose positions the pipeline has from the gWCS"
    elif all(isinstance(side, int) and side >= n for side, n in zip(detector, shape, strict=True)):
        cause = (
            f"the image is a cutout, {shape[0]} x {shape[1]} of {detector[0]} x {detector[1]} "
            "pixels (SUBSIZE1, SUBSIZE2), whose gWCS was perhaps not shifted"
        )
    (x, y), a, b = found.pixel, found.position_a, found.position_b
    # The comparison is linear at the pixel; hundreds of pixels away distortion counts.
    other = sky.world_to_pixel(*b)
    distance = math.hypot(other[0] - x, other[1] - y)
    raise WCSDisagreementError(
        f"{where}: gWCS and FITS WCS disagree by "
        f"{distance if math.isfinite(distance) else found.max_pixels:.1f} px (tolerance "
        f"{tolerance:g}), by {found.median_pixels:.1f} px in the median: pixel ({x:g}, {y:g}), the "
        f"worst, is at RA, Dec {a[0]:.6f}, {a[1]:.6f} by the gWCS and {b[0]:.6f}, {b[1]:.6f} by "
        f"the FITS header; {cause}; choose with --wcs gwcs or --wcs fits"
    )
