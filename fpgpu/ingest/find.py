"""Which files are inputs: those named, those of folders and patterns, with their companions.

Teams keep the images of an exposure in separate files, told apart by the end of the name:
``goods_f160w_drz_sci.fits`` has its weights in ``goods_f160w_drz_wht.fits``. Such a set is one
input. A file that belongs to a set is none of its own.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

from fpgpu.errors import MissingFileError
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.inputs import CalibrationOptions, Input, ReadOptions
from fpgpu.ingest.memory import exposure_from_ccddata
from fpgpu.ingest.naming import FILE_ENDING
from fpgpu.paths import absolute_path, as_path

__all__ = ["COMPANION_ENDINGS", "companions_of", "find_inputs"]

COMPANION_ENDINGS = {
    "err": ("err", "rms", "sigma", "unc"),
    "wht": ("ivm", "wht", "weight"),
    "mask": ("mask", "dq", "flag", "flg"),
    "bkg": ("bkg", "bg", "background"),
    "area": ("area", "pam"),
}
"""Words that take the place of ``sci`` in the name of a companion; of several the first counts."""

_ENDINGS = [
    fits + packed
    for packed in ("", ".gz", ".fz", ".bz2", ".xz", ".zip")
    for fits in (".fits", ".fit", ".fts")
]
_SCIENCE = re.compile(r"(?<=[_.-])sci(?=[_.-]|$)", re.IGNORECASE)
_PATTERN = re.compile(r"[*?\[]")


def find_inputs(
    items: object,
    options: ReadOptions | None = None,
    calibration: CalibrationOptions | None = None,
) -> list[Input]:
    """Turn what a user names into inputs."""
    options, calibration = options or ReadOptions(), calibration or CalibrationOptions()
    # A name is not a list of characters, nor an image one of rows.
    single = not isinstance(items, Iterable) or isinstance(items, str) or _is_ccddata(items)
    inputs = []
    for item in [items] if single else cast("Iterable[object]", items):
        if isinstance(item, Input):
            inputs.append(item)
        elif isinstance(item, str | os.PathLike):
            if not str(item):
                raise MissingFileError(
                    "an input is an empty name, as of a variable that is not set; expected a file, "
                    "a folder or a pattern ('.' is the current folder)"
                )
            for path, root in _files(as_path(item)):
                inputs.append(_with_companions(path, root, options, calibration))
        elif isinstance(item, Exposure) or _is_ccddata(item):
            exposure = item
            if not isinstance(exposure, Exposure):
                exposure = exposure_from_ccddata(item, do_fluxcal=calibration.do_fluxcal)
            label = Path(exposure.names.im or exposure.expID)
            inputs.append(Input(label, {}, options, calibration, exposure=exposure))
        else:
            raise TypeError(
                f"a {type(item).__name__} cannot be ingested; expected a file name, an Input, an "
                "Exposure (see exposure_from_arrays) or a CCDData"
            )
    return _each_once(inputs)


def _is_ccddata(item: object) -> bool:
    """Whether something is an image with its uncertainty, of astropy's NDData or like it."""
    return all(hasattr(item, name) for name in ("uncertainty", "mask", "wcs", "header"))


def companions_of(path: Path) -> dict[str, Path]:
    """Find the files that belong to a science image with ``sci`` as a word of its name, by role."""
    stem = FILE_ENDING.sub("", path.name)
    places = list(_SCIENCE.finditer(stem))
    if not places:
        return {}
    start, end = places[-1].span()
    found = {}
    for role, words in COMPANION_ENDINGS.items():
        names = (
            f"{stem[:start]}{word.upper() if stem[start:end].isupper() else word}{stem[end:]}"
            for word in words
        )
        candidates = (path.parent / f"{name}{ending}" for name in names for ending in _ENDINGS)
        companion = next((each for each in candidates if each.exists()), None)
        if companion is not None:
            found[role] = companion
    return found


def _with_companions(
    path: Path, root: Path | None, options: ReadOptions, calibration: CalibrationOptions
) -> Input:
    """Make the input of a file; weights whose name says so are inverse variances."""
    companions = {
        role: companion
        for role, companion in companions_of(path).items()
        if role not in options.extensions
    }
    named_ivm = "wht" in companions and re.search(r"ivm", companions["wht"].name, re.IGNORECASE)
    if named_ivm and options.weight == "auto" and "err" not in companions:
        options = replace(options, weight="ivm")
    return Input(path, companions, options, calibration, root=root)


def _files(path: Path) -> Iterator[tuple[Path, Path | None]]:
    """The files that a name stands for, and the folder that they must not leave."""
    if path.is_dir():
        found = [(file, path.absolute()) for file in _walk(path)]
        if not found:
            raise MissingFileError(f"{path}: no FITS or ASDF file in this folder nor below it")
        yield from found
    elif _PATTERN.search(str(path)) and not path.exists():
        yield from _matching(path)
    else:
        yield path, None


def _walk(folder: Path) -> Iterator[Path]:
    """Exposure files of a folder; a link to a folder is not followed, but named if it leads out."""
    for where, folders, files in os.walk(folder):
        folders.sort()
        here = Path(where)
        for name in folders:
            link = here / name
            if link.is_symlink() and not link.resolve().is_relative_to(folder.resolve()):
                yield link
        yield from (here / name for name in sorted(files) if FILE_ENDING.search(name))


def _matching(pattern: Path) -> Iterator[tuple[Path, Path]]:
    """Files that a pattern matches, which stay in the folder where its wildcards begin."""
    parts = pattern.parts
    first = next(n for n, part in enumerate(parts) if _PATTERN.search(part))
    folder = Path(*parts[:first])
    try:
        found = sorted(path for path in folder.glob(str(Path(*parts[first:]))) if not path.is_dir())
    except ValueError as error:  # of "**" inside a name, before Python 3.13
        raise MissingFileError(f"{pattern}: cannot be used as a pattern: {error}") from error
    if not found:
        raise MissingFileError(f"{pattern}: no file matches")
    for path in found:
        yield path, folder.absolute()


def _each_once(inputs: list[Input]) -> list[Input]:
    """Leave out what was found twice, and files that belong to another input."""
    owned = {absolute_path(path) for item in inputs for path in item.companions.values()}
    seen: set[Path] = set()
    kept = []
    for item in inputs:
        place = absolute_path(item.path)
        is_again = place in seen and item.root is not None
        if item.exposure is None and (place in owned or is_again):
            continue
        seen.add(place)
        kept.append(item)
    return kept
