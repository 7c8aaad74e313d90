"""The unit of ingest work: files that belong together, and everything asked about them.

An `Input` is small, immutable and can be pickled: it is what a run sends to its workers. All
options of an exposure are in it, so that its digest says whether a stored exposure was made in the
way that is asked for now.
"""

import hashlib
import json
import math
import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fpgpu.errors import FlagError, FpgpuError, UnusableExposureError, WCSError
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.flags import HST, JWST, ROMAN, BitSpec
from fpgpu.ingest.memory import exposure_from_ccddata
from fpgpu.ingest.naming import check_pattern
from fpgpu.ingest.tiles import check_tile
from fpgpu.paths import as_path
from fpgpu.stores.names import check_band, each_band
from fpgpu.superpixels import SUPER_PIXEL_SIZE

__all__ = [
    "CHOICES",
    "ROLES",
    "CalibrationOptions",
    "Input",
    "ReadOptions",
    "as_input",
    "is_single",
    "options_digest",
    "options_text",
]

CHOICES = {
    "wcs": ("auto", "gwcs", "fits"),
    "weight": ("auto", "err", "ivm", "exptime"),
    "pixel_area": ("auto", "header", "wcs"),
    "no_weight": ("refuse", "store"),
}
"""What options can be that are one of several words."""

ROLES = ("err", "wht", "mask", "bkg", "area")
"""What a companion file can be: uncertainty, weight, bad pixels, background, pixel area."""


@dataclass(frozen=True)
class ReadOptions:
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

    wcs: str = "auto"
    wcs_tolerance: float = 1.0
    pad: bool = False
    super_pixel_size: int = SUPER_PIXEL_SIZE
    framedir: Path | None = None
    split_by_detector: Collection[str] = ()
    expID: str = ""
    bands: Collection[str] = ()
    band_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    sip_tolerance: float | None = None
    tile: tuple[int, int] | None = None
    tile_overlap: int = 0
    weight: str = "auto"
    err_scale: float = 1.0
    abmag: float | None = None
    pixel_area: str = "auto"
    do_fluxcal: bool = True
    extensions: Mapping[str, str | int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _require_choice(self, "wcs", WCSError)
        check_pattern(self.expID)
        _settle(self, "split_by_detector", _names(self.split_by_detector))
        _settle(self, "bands", _names(self.bands))
        names = {old.upper(): new.upper() for old, new in sorted(self.band_names.items())}
        _settle(self, "band_names", names)
        if self.framedir is not None:
            _settle(self, "framedir", Path(self.framedir))
        self._check_extensions()
        self._check_numbers()
        if self.tile is not None:
            sides = (self.tile, self.tile) if isinstance(self.tile, int) else tuple(self.tile)
            _settle(self, "tile", check_tile(sides, self.tile_overlap, self.super_pixel_size))

    def _check_extensions(self) -> None:
        """Refuse extensions that cannot be, and give names their normal form."""
        for role, name in self.extensions.items():
            if role not in ("sci", *ROLES):
                raise UnusableExposureError(
                    f"an extension has the role {role!r}; expected one of sci, {', '.join(ROLES)}"
                )
            is_number = isinstance(name, int) and not isinstance(name, bool) and name >= 0
            if not (is_number or (isinstance(name, str) and name.strip())):
                raise UnusableExposureError(
                    f"the extension with {role} is {name!r}; expected its name, or its number from "
                    "0 on"
                )
        named = {
            role: name.strip().upper() if isinstance(name, str) else name
            for role, name in sorted(self.extensions.items())
        }
        used = [name for name in named.values() if name != "NONE"]
        if len(set(used)) < len(used):
            raise UnusableExposureError(
                f"one extension cannot be several images, but these are named: {named}"
            )
        _settle(self, "extensions", named)

    def _check_numbers(self) -> None:
        """Refuse what cannot be meant."""
        _require_choice(self, "weight")
        _require_choice(self, "pixel_area")
        for name in ("wcs_tolerance", "sip_tolerance", "err_scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UnusableExposureError(f"{name} is {value!r}; expected a positive number")
        if self.abmag is not None and not -60 < self.abmag < 60:
            raise UnusableExposureError(f"abmag is {self.abmag!r}; expected an AB magnitude")


@dataclass(frozen=True)
class CalibrationOptions:
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

    bitmask: BitSpec | None = None
    do_fluxcal: bool = True
    background_offset: float | None = None
    max_snr: float | None = None
    no_weight: str = "refuse"

    def __post_init__(self) -> None:
        _require_choice(self, "no_weight")
        if self.bitmask is not None:
            if not isinstance(self.bitmask, int | str):
                _settle(self, "bitmask", tuple(self.bitmask))
            _check_bitmask(self.bitmask)
        if self.background_offset is not None and not math.isfinite(self.background_offset):
            raise UnusableExposureError(
                f"the background offset is {self.background_offset!r}; expected a finite number"
            )
        if self.max_snr is not None and not 0 < self.max_snr < math.inf:
            raise UnusableExposureError(
                f"the largest signal-to-noise ratio is {self.max_snr!r}; expected a positive number"
            )

    @property
    def ignores_mask(self) -> bool:
        """Whether `bitmask` names no bit, in whatever way."""
        if self.bitmask is None:
            return False
        with suppress(FlagError):
            return JWST.parse(self.bitmask) == 0
        return False


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

    def as_found(self) -> "Input":
        """Give the same input, of all bands and with nothing done to the pixels.

        Returns
        -------
        Input
            For what is to be known of exposures that are left out.
        """
        calibration = CalibrationOptions(
            bitmask=0 if self.calibration.ignores_mask else None,
            do_fluxcal=self.calibration.do_fluxcal,
        )
        return replace(self, options=replace(self.options, bands=()), calibration=calibration)

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


def as_input(
    item: object,
    options: ReadOptions | None = None,
    calibration: CalibrationOptions | None = None,
) -> Input:
    """Turn what a user hands to ingest into an `Input`; an `Input` keeps its options."""
    if isinstance(item, Input):
        return item
    options, calibration = options or ReadOptions(), calibration or CalibrationOptions()
    if isinstance(item, Exposure):
        label = Path(item.names.im or item.expID)
        return Input(label, {}, options, calibration, exposure=item)
    if isinstance(item, str | os.PathLike):
        return Input(as_path(item), {}, options, calibration)
    if is_single(item):
        exposure = exposure_from_ccddata(item, do_fluxcal=calibration.do_fluxcal)
        return as_input(exposure, options, calibration)
    raise TypeError(
        f"a {type(item).__name__} cannot be ingested; expected a file name, an Input, an Exposure "
        "(see exposure_from_arrays) or a CCDData"
    )


def is_single(item: object) -> bool:
    """Tell one thing to ingest, which `as_input` takes, from several."""
    is_ccddata = all(hasattr(item, name) for name in ("uncertainty", "mask", "wcs", "header"))
    return is_ccddata or isinstance(item, str | os.PathLike | Input | Exposure)


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


def _names(names: Collection[str]) -> tuple[str, ...]:
    """Names of bands in upper case and in order, whatever collection they came in."""
    return tuple(sorted({check_band(name).upper() for name in each_band(names)}))


def _settle(options: Any, name: str, value: Any) -> None:
    """Give a field of a frozen dataclass its normal form."""
    object.__setattr__(options, name, value)


def _require_choice(
    options: Any, name: str, error: type[FpgpuError] = UnusableExposureError
) -> None:
    """Refuse an option that is none of those there are."""
    value = getattr(options, name)
    if value not in CHOICES[name]:
        raise error(f"{name} is {value!r}; expected one of {', '.join(CHOICES[name])}")


def _check_bitmask(spec: BitSpec) -> None:
    """Refuse a bitmask that means nothing for any observatory, before any file is read."""
    for flags in (HST, ROMAN):
        with suppress(FlagError):
            flags.parse(spec)
            return
    JWST.parse(spec)
