"""Roman WFI images of level 2, which are ASDF files: tree ``roman``, with data, err and dq.

Pixels are DN/s. What one of it is, as a surface brightness in MJy/sr, is
``meta.photometry.conversion_megajanskys``; where the pipeline's step "flux" was done, they are
MJy/sr already. A pixel's flux is the surface brightness times its solid angle: pixel_area of the
photometry, which is the average over the detector, times its area relative to that average, by the
gWCS. Flags are those of Roman; DO_NOT_USE is bad unless the user names bits.
"""

import importlib.util
import io
import math
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fpgpu.errors import FpgpuError, MissingExtraError, UnusableExposureError
from fpgpu.fluxes import is_positive
from fpgpu.ingest.astrometry import read_gwcs
from fpgpu.ingest.cutting import cut_exposure
from fpgpu.ingest.exposure import Exposure, ImageNameSet
from fpgpu.ingest.fitsstream import allowed_size
from fpgpu.ingest.flags import ROMAN
from fpgpu.ingest.frame import LEFT_OUT
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.memory import exposure_from_arrays
from fpgpu.ingest.naming import name_exposure
from fpgpu.ingest.pixelarea import area_map
from fpgpu.ingest.tiles import Box
from fpgpu.ingest.units import settle_units
from fpgpu.stores.metadata.asdfguard import check_asdf

__all__ = ["is_asdf", "read_roman"]

_LONGEST_TREE = 1 << 25
_TREE_END = re.compile(rb"\n\.\.\.\r?\n")
_BLOCK_MAGIC = b"\xd3BLK"
_BLOCK_HEADER = struct.Struct(">4sHI4sQQQ16s")
_COMPRESSIONS = (b"\0\0\0\0", b"zlib", b"lz4\0")
"""Of blocks; what bzip2 expands to cannot be bounded."""

_STERADIAN = math.radians(1) ** 2
_NO_IMAGE = re.compile(r"GRISM|PRISM|DARK|NOT_CONFIGURED|ENGINEERING|\W*")


def is_asdf(head: bytes) -> bool:
    """Tell by its first bytes whether a file is an ASDF file."""
    return head.startswith(b"#ASDF")


def read_roman(
    path: Path, options: ReadOptions, companions: Mapping[str, Path] | None = None
) -> Iterator[Exposure]:
    """Read a Roman WFI image; an ASDF file has all of an exposure, so there are no companions.

    Pixels are as in the file, with ABMAG (or MJy/sr with PIXAR_SR) in a header made from the
    metadata, and the map of pixel areas.
    """
    named = [item for item in options.extensions.items() if item != ("mask", LEFT_OUT)]
    if companions or named or options.weight not in ("auto", "err"):
        raise UnusableExposureError(
            f"{path}: an ASDF file has image, uncertainties and flags in one tree; companions, "
            "extensions and weights are of FITS files"
        )
    if options.wcs == "fits":
        raise UnusableExposureError(
            f"{path}: an ASDF file has no FITS header; leave --wcs fits out"
        )
    _check_structure(path)
    with _opened(path) as tree:
        roman = _image_of(path, tree)
        meta, data, err, dq = (roman[name] for name in ("meta", "data", "err", "dq"))
        header = _header(path, meta, data)
        gwcs = _detached(path, meta["wcs"])
        images = [np.asarray(getattr(image, "value", image)) for image in (data, err, dq)]
    band, expID = name_exposure(header, path, options)
    data, err, dq = images
    try:
        whole = exposure_from_arrays(
            data,
            err,
            expID=expID,
            header=header,
            wcs=gwcs,
            mask=None if "mask" in options.extensions else dq,
            do_fluxcal=False,
        )
        _settle_fluxes(whole, str(path), options)
    except FpgpuError as error:
        raise type(error)(f"{path}: {error}") from error
    whole.band = band
    whole.bitmask = ROMAN.parse("DO_NOT_USE")
    whole.names = ImageNameSet(path.name, path.name, path.name, None)
    yield from cut_exposure(whole, options)


def _settle_fluxes(exposure: Exposure, where: str, options: ReadOptions) -> None:
    """Make the map of areas, and settle what one unit of the image is."""
    hdr = exposure.hdr
    area = area_map(hdr, Box.whole(exposure.shape), 1.0)  # square degrees
    average = float(area.mean(dtype=np.float64))
    exposure.area = area / np.float32(average)
    if options.do_fluxcal:
        exposure.notes += settle_units(
            hdr, where, lambda: average * _STERADIAN, pixel_area=options.pixel_area
        )
    if "PHOTMJSR" in hdr:
        hdr["BUNIT"] = "DN/s"
        if options.do_fluxcal:
            jansky = hdr["PHOTMJSR"] * 1e6 * hdr["PIXAR_SR"]
            hdr["ABMAG"] = (8.9 - 2.5 * math.log10(jansky), "[mag] AB magnitude of 1 BUNIT")


def _image_of(path: Path, tree: Any) -> Mapping[str, Any]:
    """Find the tree of an image of level 2; say what else it is."""
    roman = tree.get("roman")
    if not isinstance(roman, Mapping):
        found = ", ".join(str(key) for key in tree if key not in ("asdf_library", "history"))
        raise UnusableExposureError(
            f"{path}: is an ASDF file with {found or 'nothing'} at the top of its tree; of ASDF "
            "files, Roman WFI images of level 2 are read, which have 'roman' there"
        )
    lacking = [name for name in ("meta", "data", "err", "dq") if name not in roman]
    if lacking or np.ndim(roman["data"]) != 2 or roman["meta"].get("wcs") is None:
        sides = " x ".join(map(str, np.shape(roman.get("data", ()))))
        raise UnusableExposureError(
            f"{path}: is a Roman file whose tree has {', '.join(map(str, roman))} (data of "
            f"{sides or 'no'} pixels); expected an image of level 2 (_cal), calibrated, with data, "
            "err, dq and a gWCS (meta.wcs)"
        )
    return roman


def _header(path: Path, meta: Mapping[str, Any], data: Any) -> Any:
    """Make the cards of a FITS header that say what the metadata do."""
    from astropy.io.fits import Header
    from astropy.units import Quantity

    def value(group: str, name: str, unit: str = "") -> Any:
        found = (meta.get(group) or {}).get(name)
        # Files of 2023 have quantities.
        return float(found.to_value(unit)) if isinstance(found, Quantity) else found

    element = str(value("instrument", "optical_element") or "").strip().upper()
    if _NO_IMAGE.fullmatch(element):
        raise UnusableExposureError(
            f"{path}: the optical element is {element or 'missing'}: no image of the sky"
        )
    unit = str(getattr(data, "unit", "") or "").replace(" ", "")
    is_flux = unit == "MJy/sr" or str(value("cal_step", "flux")).strip().upper() == "COMPLETE"
    if unit not in ("", "MJy/sr", "DN/s", "electron/s"):
        raise UnusableExposureError(f"{path}: data are in {unit}; expected DN/s or MJy/sr")
    cards = {
        "TELESCOP": "ROMAN",
        "INSTRUME": "WFI",
        "DETECTOR": str(value("instrument", "detector") or ""),
        "FILTER": element,
        "EXPTIME": value("exposure", "effective_exposure_time"),
        "EXP_TYPE": value("exposure", "type"),
        "DATE-OBS": str(value("exposure", "start_time") or ""),
        "BUNIT": "MJy/sr",
        "PIXAR_SR": value("photometry", "pixel_area", "sr"),
    }
    conversion = value("photometry", "conversion_megajanskys", "MJy/sr")
    if not is_flux:
        if not is_positive(conversion):
            raise UnusableExposureError(
                f"{path}: photometry.conversion_megajanskys is {conversion!r}; expected what 1 DN/s"
                " is in MJy/sr, a positive number"
            )
        cards["PHOTMJSR"] = float(conversion)
    return Header({key: each for key, each in cards.items() if each is not None})


def _detached(path: Path, gwcs: Any) -> Any:
    """Copy a gWCS so that it does not need its file any more."""
    import asdf

    content = io.BytesIO()
    asdf.AsdfFile({"meta": {"wcs": gwcs}}).write_to(content)
    return read_gwcs(str(path), content.getvalue())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file as plain types and gWCS, whether or not Roman's own package is installed."""
    import asdf

    try:
        with asdf.config_context() as config, warnings.catch_warnings():
            config.validate_on_read = False
            config.remove_extension(package="roman_datamodels")
            # That tags are not known is what is wanted.
            warnings.simplefilter("ignore")
            with asdf.open(path, memmap=False, validate_checksums=True) as file:
                yield file.tree
    except FpgpuError:
        raise
    # Damaged YAML and blocks make the libraries below raise almost anything.
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise UnusableExposureError(
            f"{path}: cannot be read as ASDF: {text} ({type(error).__name__}); it is damaged, or "
            "was written by a newer version of asdf"
        ) from error


def _check_structure(path: Path) -> None:
    """Refuse a file that is cut short or stands for far more than it holds."""
    size, expanded = path.stat().st_size, 0
    with path.open("rb") as stream:
        head = stream.read(_LONGEST_TREE)
        end = _TREE_END.search(head)
        if end is None:
            raise UnusableExposureError(
                f"{path}: cannot be read as ASDF: its tree does not end within {len(head)} bytes; "
                "it is truncated or damaged"
            )
        check_asdf(str(path), head[: end.end()])
        at = head.find(_BLOCK_MAGIC, end.end())
        while 0 <= at < size:
            stream.seek(at)
            block = stream.read(_BLOCK_HEADER.size)
            if not block.startswith(_BLOCK_MAGIC):
                break  # the index of blocks
            if len(block) < _BLOCK_HEADER.size:
                raise UnusableExposureError(f"{path}: is truncated at byte {at}; fetch it again")
            _, length, _, kind, allocated, used, n_bytes, _ = _BLOCK_HEADER.unpack(block)
            if kind not in _COMPRESSIONS:
                name = kind.decode("ascii", "replace").rstrip("\0")
                raise UnusableExposureError(
                    f"{path}: has a block compressed with {name}; expected LZ4, zlib or none, so "
                    "write it again (asdf: all_array_compression='lz4')"
                )
            if kind == b"lz4\0" and importlib.util.find_spec("lz4") is None:
                raise MissingExtraError(
                    f"{path}: is compressed with LZ4; to read it: pip install 'fpgpu[roman]'"
                )
            start, expanded = at + 6 + length, expanded + n_bytes
            if start + used > size or used > allocated:
                raise UnusableExposureError(
                    f"{path}: is truncated: a block of {used} bytes at byte {start}, but the file "
                    f"ends at {size}; fetch it again"
                )
            at = start + allocated
    if expanded > allowed_size(size):
        raise UnusableExposureError(
            f"{path}: declares {expanded} bytes in blocks of a file of {size}, which no image does"
        )
