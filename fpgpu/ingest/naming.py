"""Names of exposures: their band by the header, and their expID by the file or a pattern.

A pattern is text with fields in braces: ``{stem}`` (the file's name without its ending),
``{folder}`` (the path below `framedir`), ``{band}``, ``{part}`` (which of a file's exposures or
tiles; left out, with a separator before it, when there is but one, and added at the end when the
pattern has none), and any header keyword in upper case, such as ``{DETECTOR}``. Values are used in
lower case for keywords, as they are for the others; slashes make groups.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from fpgpu.errors import ExposureNameError, UnusableExposureError
from fpgpu.paths import absolute_path
from fpgpu.stores.names import check_band, check_expID, each_band

if TYPE_CHECKING:
    from astropy.io.fits import Header

    from fpgpu.ingest.inputs import ReadOptions

__all__ = ["FILE_ENDING", "check_pattern", "header_to_id", "name_exposure"]

FILE_ENDING = re.compile(r"(\.(fits|fit|fts)(\.(gz|fz|bz2|xz|zip))?|\.asdf)$", re.IGNORECASE)
"""Of the names of exposure files."""

# NIRCam detectors are called NRCA1 ... NRCBLONG: the module is the fourth letter.
_MODULE_POSITION = 3

_KEYWORD = re.compile(r"[A-Z0-9_-]{1,8}")
_PART = re.compile(r"[_.-]?\{part\}")
_FIELDS = ("stem", "folder", "band", "part")


def check_pattern(pattern: str) -> str:
    """Refuse a malformed pattern before any file is read."""
    try:
        parts = list(Formatter().parse(pattern))
    except ValueError as error:
        raise ExposureNameError(f"the expID pattern {pattern!r} is malformed: {error}") from None
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if spec or conversion or not (name in _FIELDS or _KEYWORD.fullmatch(name)):
            raise ExposureNameError(
                f"the expID pattern {pattern!r} has the field {name!r}; expected "
                f"{', '.join('{' + known + '}' for known in _FIELDS)} or a header keyword in "
                "upper case, without a format"
            )
    return pattern


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
    whole = check_expID(FILE_ENDING.sub("", path.name))
    if framedir is not None:
        # Not resolved: a survey's folders are often links, and names must follow the links.
        inner, outer = absolute_path(path.parent), absolute_path(Path(framedir))
        if not inner.is_relative_to(outer):
            raise ExposureNameError(
                f"{path.parent} is not inside framedir {framedir}; give the folder that holds all "
                "exposures"
            )
        whole = (inner.relative_to(outer) / whole).as_posix()
    return _band_of(hdr, path, split_by_detector, band_names), check_expID(whole)


def _band_of(
    hdr: "Header | Mapping[str, Any]",
    path: Path,
    split_by_detector: Collection[str],
    band_names: Mapping[str, str] | None,
) -> str:
    """Give the band of a header: FILTER, with the detector's module where asked, renamed."""
    filter_name, names = hdr.get("FILTER"), band_names or {}
    band = str(filter_name).strip().upper() if isinstance(filter_name, str | int | float) else ""
    key = band or "NONE"
    way_on = "" if band_names is None else f"; name it with rename_bands, as {{{key!r}: MYBAND}}"
    if not (band and isinstance(filter_name, str)) and key not in names:
        raise UnusableExposureError(
            f"{path}: the header has no usable FILTER (found {filter_name!r}); "
            f"the filter name is needed as the band{way_on}"
        )
    if band in {name.upper() for name in each_band(split_by_detector)}:
        detector = hdr.get("DETECTOR")
        if not isinstance(detector, str) or len(detector.strip()) <= _MODULE_POSITION:
            raise UnusableExposureError(
                f"{path}: {band} is split by detector, but DETECTOR is {detector!r}; expected a "
                "name like 'NRCA1' whose fourth letter is the module"
            )
        band += detector.strip()[_MODULE_POSITION].upper()
    try:
        return check_band(names.get(band or key, band))
    except ExposureNameError as error:
        raise ExposureNameError(f"{error}{way_on}") from error


def name_exposure(
    header: "Header | Mapping[str, Any]",
    path: str | os.PathLike[str],
    options: "ReadOptions",
    part: str = "",
) -> tuple[str, str]:
    """Name an exposure, or a part of it, as asked: band and expID."""
    band, whole = header_to_id(
        header, path, options.framedir, options.split_by_detector, options.band_names
    )
    pattern = options.expID
    folder, _, stem = whole.rpartition("/")
    if not pattern:
        return band, check_expID(f"{whole}_{part}" if part else whole)
    if not part:
        pattern = _PART.sub("", pattern)
    elif not _PART.search(pattern):
        pattern += "_{part}"  # or the exposures of a file would replace each other
    values = {"stem": stem, "folder": folder, "band": band, "part": part}
    for _, name, _, _ in Formatter().parse(pattern):
        if name is not None and name not in values:
            values[name] = _value(header, name, path)
    return band, check_expID(pattern.format_map(values).strip("/"))


def _value(header: "Header | Mapping[str, Any]", keyword: str, path: str | os.PathLike[str]) -> str:
    """Give a header value as part of a name."""
    value = header.get(keyword)
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise UnusableExposureError(
            f"{path}: the expID pattern asks for {keyword}, which the header "
            f"{'does not have' if value is None else f'gives as {value!r}'}"
        )
    return str(value).strip().lower().replace("/", "-")
