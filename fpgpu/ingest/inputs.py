"""The unit of ingest work: files that belong together, and everything asked about them.

An `Input` is small, immutable and can be pickled: it is what a run sends to its workers. All
options of an exposure are in it, so that its digest says whether a stored exposure was made in the
way that is asked for now.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from operator import index
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import numpy as np

from fpgpu.errors import FlagError, FpgpuError, UnusableExposureError, WCSError
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.flags import HST, JWST, ROMAN, BitSpec
from fpgpu.ingest.naming import check_pattern
from fpgpu.ingest.tiles import check_tile
from fpgpu.stores.names import check_band, each_band
from fpgpu.superpixels import SUPER_PIXEL_SIZE

__all__ = [
    "OPTIONS",
    "ROLES",
    "CalibrationOptions",
    "Input",
    "Kind",
    "ReadOptions",
    "options_digest",
    "options_text",
]

ROLES = ("err", "wht", "mask", "bkg", "area")
"""What a companion file can be: uncertainty, weight, bad pixels, background, pixel area."""


class Kind(NamedTuple):
    """A kind of values that options have.

    Attributes
    ----------
    expected : str
        What messages call it.
    take : callable
        Gives a value its normal form; raises ValueError or TypeError for what is none.
    error : type
        What is raised for what is none.
    """

    expected: str
    take: Callable[[Any], Any]
    error: type[FpgpuError] = UnusableExposureError

    def checked(self, name: str, value: Any) -> Any:
        """Give the value of an option its normal form, or refuse it."""
        try:
            return self.take(value)
        except FpgpuError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise self.error(f"{name} is {value!r}; expected {self.expected}") from error


def _choice(*words: str, error: type[FpgpuError] = UnusableExposureError) -> Kind:
    """One of several words."""
    return Kind(f"one of {', '.join(words)}", lambda value: words[words.index(value)], error)


def _number(expected: str, low: float = -math.inf, high: float = math.inf) -> Kind:
    """A number between two others."""

    def take(value: Any) -> Any:
        if isinstance(value, bool) or not low < float(value) < high:
            raise ValueError
        # Numbers like 2e-2 are text to YAML 1.1, as are those of environment variables.
        return float(value) if isinstance(value, str) else value

    return Kind(expected, take)


def _integer(value: Any) -> int:
    """A whole number, or the text of one."""
    if isinstance(value, bool):
        raise TypeError
    return int(value) if isinstance(value, str) else index(value)


def _switch(value: Any) -> bool:
    """True or false, nothing that merely counts as one of them."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError
    return bool(value)


def _names(names: Collection[str]) -> tuple[str, ...]:
    """Names of bands in upper case and in order, whatever collection they came in."""
    return tuple(sorted({check_band(name).upper() for name in each_band(names)}))


def _new_names(names: Any) -> dict[str, str]:
    """New names of bands by the old ones, in upper case."""
    if not isinstance(names, Mapping):
        raise TypeError
    if not all(isinstance(name, str) for pair in names.items() for name in pair):
        raise TypeError
    return {old.upper(): new.upper() for old, new in sorted(names.items())}


def _sides(value: Any) -> tuple[int, ...]:
    """The sides of a tile: two, or one for both."""
    return tuple(map(_integer, value if isinstance(value, list | tuple) else (value, value)))


def _extensions(given: Mapping[str, Any]) -> dict[str, str | int]:
    """Extensions by their roles, names in upper case."""
    named: dict[str, str | int] = {}
    for role, name in sorted(given.items()):
        if role not in ("sci", *ROLES):
            raise UnusableExposureError(
                f"an extension has the role {role!r}; expected one of sci, {', '.join(ROLES)}"
            )
        is_number = isinstance(name, int) and not isinstance(name, bool) and name >= 0
        if not (is_number or (isinstance(name, str) and name.strip())):
            raise UnusableExposureError(
                f"the extension with {role} is {name!r}; expected its name, or its number from 0 on"
            )
        named[role] = name if is_number else name.strip().upper()
    used = [name for name in named.values() if name != "NONE"]
    if len(set(used)) < len(used):
        raise UnusableExposureError(
            f"one extension cannot be several images, but these are named: {named}"
        )
    return named


def _bits(given: Any) -> BitSpec:
    """A bitmask that means something for some observatory."""
    if isinstance(given, Mapping):
        raise TypeError
    spec: BitSpec = given if isinstance(given, int | str) else tuple(given)
    for flags in (HST, ROMAN):
        with suppress(FlagError):
            flags.parse(spec)
            return spec
    JWST.parse(spec)
    return spec


_POSITIVE = _number("a positive number", 0)
_SWITCH = Annotated[bool, Kind("true or false", _switch)]
_INTEGER = Annotated[int, Kind("an integer", _integer)]
_NAMES = Annotated[Collection[str], Kind("a name or a list of names", _names)]


class _Checked:
    """Options whose values are of their kinds; None is one where it is the default."""

    def __post_init__(self) -> None:
        for entry in fields(self):  # type: ignore[arg-type]
            value = getattr(self, entry.name)
            if value is not None or entry.default is not None:
                _settle(self, entry.name, OPTIONS[entry.name].checked(entry.name, value))


@dataclass(frozen=True)
class ReadOptions(_Checked):
    """How exposures are to be read.

    Attributes
    ----------
    wcs : str
        ``"auto"``, ``"gwcs"`` or ``"fits"``.
    wcs_tolerance : float
        Pixels by which gWCS and FITS WCS may differ with ``"auto"``; JWST's own SIP headers are off
        by up to 0.2.
    pad : bool
        Add pixels of zero weight where a side is no multiple of the super-pixel.
    super_pixel_size : int
        Pixels on a side of a super-pixel.
    framedir : Path or None
        Exposures are named by their path below this folder.
    split_by_detector : tuple of str
        Filters whose detector modules are bands of their own.
    expID : str
        Pattern of the exposures' names, see `fpgpu.ingest.naming`; empty for the file's name.
    bands : tuple of str
        Bands to take, after renaming; others are left out. Empty takes all.
    band_names : mapping of str to str
        Names that bands get instead of those that the header gives.
    sip_tolerance : float or None
        Pixels by which a SIP refit may miss; None takes what suits the kind of WCS.
    tile : tuple of int or None
        (nx, ny) of the tiles into which a larger image is cut; with `pad`, a smaller one is padded
        to it.
    tile_overlap : int
        Pixels that neighbouring tiles share.
    weight : str
        Where uncertainties come from: ``"err"``, ``"ivm"`` (weights that are inverse variances),
        ``"exptime"`` (weights that are exposure times), or ``"auto"``.
    err_scale : float
        Factor on the uncertainties.
    abmag : float or None
        AB magnitude of one unit of the image, whatever the header says.
    pixel_area : str
        Where the solid angle of a pixel comes from, for surface brightnesses: ``"header"``
        (PIXAR_SR), ``"wcs"``, or ``"auto"``: PIXAR_SR, unless the WCS contradicts it.
    do_fluxcal : bool
        Whether units must have a way to nanojansky; `CalibrationOptions` says so for an `Input`.
    extensions : mapping of str to (str or int)
        Extensions of the file by what they are, ``"sci"`` or one of `ROLES`: name (EXTNAME), or
        number, the primary one being 0; ``"none"`` leaves mask, bkg or area out.

    Raises
    ------
    WCSError
        When `wcs` is none of the three.
    ExposureNameError
        When the pattern is malformed.
    LayoutError
        When tiles of this size and overlap are impossible.
    UnusableExposureError
        When another value makes no sense.
    """

    wcs: Annotated[str, _choice("auto", "gwcs", "fits", error=WCSError)] = "auto"
    wcs_tolerance: Annotated[float, _POSITIVE] = 1.0
    pad: _SWITCH = False
    super_pixel_size: _INTEGER = SUPER_PIXEL_SIZE
    framedir: Annotated[Path | None, Kind("a folder", Path)] = None
    split_by_detector: _NAMES = ()
    expID: Annotated[str, Kind("text", check_pattern)] = ""
    bands: _NAMES = ()
    band_names: Annotated[
        Mapping[str, str], Kind("names with new names, as {F606W: ACS_F606W}", _new_names)
    ] = field(default_factory=dict, hash=False)
    sip_tolerance: Annotated[float | None, _POSITIVE] = None
    tile: Annotated[tuple[int, int] | None, Kind("an integer or two, as [2048, 2048]", _sides)] = (
        None
    )
    tile_overlap: _INTEGER = 0
    weight: Annotated[str, _choice("auto", "err", "ivm", "exptime")] = "auto"
    err_scale: Annotated[float, _POSITIVE] = 1.0
    abmag: Annotated[float | None, _number("an AB magnitude", -60, 60)] = None
    pixel_area: Annotated[str, _choice("auto", "header", "wcs")] = "auto"
    do_fluxcal: _SWITCH = True
    extensions: Annotated[Mapping[str, str | int], Kind("extensions by role", _extensions)] = field(
        default_factory=dict, hash=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile is not None:
            check_tile(self.tile, self.tile_overlap, self.super_pixel_size)


@dataclass(frozen=True)
class CalibrationOptions(_Checked):
    """What is done to the pixels of exposures on their way into a store.

    Attributes
    ----------
    bitmask : int, str, tuple of int and str, or None
        Bad bits of the data-quality image; 0 ignores it, None leaves it to the reader.
    do_fluxcal : bool
        Convert to nJy.
    background_offset : float or None
        What a patch is to subtract from every pixel, in the unit of the store. It goes into the
        header as ``TWEAKBG``; the pixels stay as they are.
    max_snr : float or None
        Largest signal-to-noise ratio of a pixel: where it is exceeded, the inverse uncertainty
        becomes ``max_snr / flux`` before the pixels are stored.
    no_weight : str
        What to do with an exposure of which no pixel has any weight: ``"refuse"`` it, or
        ``"store"`` it with zero weight and a note. Tiles without weight are left out.

    Raises
    ------
    FlagError
        When `bitmask` means nothing for any observatory.
    UnusableExposureError
        When a number makes no sense.
    """

    bitmask: Annotated[BitSpec | None, Kind("a number, a flag name, or a list of them", _bits)] = (
        None
    )
    do_fluxcal: _SWITCH = True
    background_offset: Annotated[float | None, _number("a finite number")] = None
    max_snr: Annotated[float | None, _POSITIVE] = None
    no_weight: Annotated[str, _choice("refuse", "store")] = "refuse"

    @property
    def ignores_mask(self) -> bool:
        """Whether `bitmask` names no bit, in whatever way."""
        if self.bitmask is None:
            return False
        with suppress(FlagError):
            return JWST.parse(self.bitmask) == 0
        return False


OPTIONS: dict[str, Kind] = {
    name: hint.__metadata__[0]
    for options in (ReadOptions, CalibrationOptions)
    for name, hint in get_type_hints(options, include_extras=True).items()
}
"""What can be asked for, and what values it has."""


@dataclass(frozen=True)
class Input:
    """Files that give one or several exposures, and how to make exposures of them.

    Attributes
    ----------
    path : Path
        The file with the science image; a mere label for an exposure in memory.
    companions : mapping of str to Path
        Further files by their role, one of `ROLES`.
    options : ReadOptions
        How to read.
    calibration : CalibrationOptions
        What to do to the pixels.
    exposure : Exposure or None
        An exposure in memory, which is taken as it is instead of a file.
    root : Path or None
        Folder that the files must not leave by a symbolic link, for files that were found in it.

    Raises
    ------
    UnusableExposureError
        When a companion has a role that does not exist.

    Examples
    --------
    >>> item = Input("x_sci.fits", {"err": "x_rms.fits"}, ReadOptions(tile=128))
    >>> item.path.name, item.options.tile
    ('x_sci.fits', (128, 128))
    """

    path: Path
    companions: Mapping[str, Path] = field(default_factory=dict, hash=False)
    options: ReadOptions = field(default_factory=ReadOptions)
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    exposure: Exposure | None = field(default=None, repr=False, compare=False)
    root: Path | None = None

    def __post_init__(self) -> None:
        _settle(self, "path", Path(self.path))
        for role in self.companions:
            if role not in ROLES:
                raise UnusableExposureError(
                    f"{self.path}: a companion has the role {role!r}; expected one of "
                    f"{', '.join(ROLES)}"
                )
        companions = {role: Path(path) for role, path in sorted(self.companions.items())}
        _settle(self, "companions", companions)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file whose change means that the exposures must be made again."""
        if self.exposure is not None:
            return ()
        return (self.path, *self.companions.values())

    def wants(self, band: str) -> bool:
        """Tell whether exposures of a band are asked for.

        Parameters
        ----------
        band : str
            After renaming.

        Returns
        -------
        bool
        """
        return not self.options.bands or band in self.options.bands

    def require_inside(self) -> None:
        """Refuse files that a symbolic link takes out of the folder they were found in.

        Raises
        ------
        UnusableExposureError
            When one is outside `root`.
        """
        if self.root is None:
            return
        folder = self.root.resolve()
        for path in self.files:
            target = path.resolve()
            if not target.is_relative_to(folder):
                raise UnusableExposureError(
                    f"{path}: is a symbolic link that leaves {self.root} (to {target}); name the "
                    "file itself if it is wanted"
                )


def options_text(item: Input) -> str:
    """Write how an input is to be read and calibrated, whatever its files are called and hold.

    JSON without what has its default; the same in every process and under every version of Python.
    """
    content = {
        "companions": sorted(item.companions),
        "options": _plain(item.options),
        "calibration": _plain(item.calibration),
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def options_digest(item: Input) -> str:
    """Condense `options_text` to its SHA-256 in hexadecimal."""
    return hashlib.sha256(options_text(item).encode()).hexdigest()


def _plain(options: Any) -> dict[str, Any]:
    """Options as JSON can hold them, without those that have their default.

    An option that a later version adds does not change the digest of those who do not use it.
    """
    default = type(options)()
    found = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in found.items()
        if value != getattr(default, name)
    }


def _settle(options: Any, name: str, value: Any) -> None:
    """Give a field of a frozen dataclass its normal form."""
    object.__setattr__(options, name, value)
