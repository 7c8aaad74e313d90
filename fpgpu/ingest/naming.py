"""Names of exposures by a pattern.

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
from typing import Any

from fpgpu.errors import ExposureNameError, UnusableExposureError
from fpgpu.ingest.exposure import header_to_id
from fpgpu.stores.names import check_expID

__all__ = ["check_pattern", "name_exposure"]

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


def name_exposure(
    header: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    part: str = "",
    pattern: str = "",
    framedir: Path | None = None,
    split_by_detector: Collection[str] = (),
    band_names: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Name an exposure."""
    band, whole = header_to_id(header, path, framedir, split_by_detector, band_names)
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


def _value(header: Mapping[str, Any], keyword: str, path: str | os.PathLike[str]) -> str:
    """Give a header value as part of a name."""
    value = header.get(keyword)
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise UnusableExposureError(
            f"{path}: the expID pattern asks for {keyword}, which the header "
            f"{'does not have' if value is None else f'gives as {value!r}'}"
        )
    return str(value).strip().lower().replace("/", "-")
