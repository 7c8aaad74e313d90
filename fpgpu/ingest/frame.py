"""One image of a file and all that belongs to it, found but not yet read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.fitsfile import FitsFile, FitsImage
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.naming import name_exposure

__all__ = ["EXTENSIONS", "LEFT_OUT", "OPTIONAL", "Frame", "leave_out"]

EXTENSIONS = {"err": "ERR", "wht": "WHT", "mask": "DQ", "bkg": "BKG", "area": "AREA"}
"""Extension of the science image's file in which a role is looked for."""


OPTIONAL = {"mask": "mask", "bkg": "background", "area": "area"}
"""Roles that an exposure can do without, and the options that name them."""

LEFT_OUT = "NONE"
"""Named instead of an extension: an optional one is not to be used."""


@dataclass
class Frame:
    """An image and what belongs to it.

    Attributes
    ----------
    file : FitsFile
        The file with the science image.
    options : ReadOptions
        How to read.
    science : FitsImage
        The science image.
    header : astropy.io.fits.Header
        Its header, completed by the primary one.
    layers : dict of str to FitsImage
        The other images, by their role.
    part : str
        Which of the file's exposures it is, for its name.
    weights_are : str
        ``"ivm"`` or ``"exptime"``: what weights are unless the user says it.
    area_tolerance : float
        Factor by which PIXAR_SR and the area of a pixel by the WCS may differ.
    bkg_factor : float
        What brings the background into the unit of the image.
    bitmask : int or None
        Bits that are bad unless the user names some; None for any.
    has_distortion : bool
        Whether values are of pixels of several areas, which the WCS gives where no image does.
    notes : list of str
        What a user should know.
    """

    file: FitsFile
    options: ReadOptions
    science: FitsImage
    header: Any
    layers: dict[str, FitsImage] = field(default_factory=dict)
    part: str = ""
    weights_are: str = "ivm"
    area_tolerance: float = 1.5
    bkg_factor: float = 1.0
    bitmask: int | None = None
    has_distortion: bool = False
    notes: list[str] = field(default_factory=list)

    @classmethod
    def find(
        cls,
        file: FitsFile,
        options: ReadOptions,
        companions: dict[str, FitsFile],
        science: str | int = "SCI",
        version: int | None = None,
    ) -> "Frame":
        """Find the images of an exposure in its files.

        Companions go before extensions of the file; `version` is the EXTVER of the images, in a
        file of several exposures. Extensions that the user has named go before all others.
        """
        extensions = options.extensions
        science = extensions.get("sci", science)
        image = file.layer(science, None, version)
        if image is None:
            raise _no_extension(file, "sci", science)
        header = file.merged_header(science, version)
        header["NAXIS"], header["NAXIS1"], header["NAXIS2"] = 2, *image.shape
        for keyword in [key for key in header if re.fullmatch(r"NAXIS([3-9]|\d\d+)", key)]:
            header.remove(keyword)
        frame = cls(file, options, image, header, notes=list(file.notes))
        for role, name in (EXTENSIONS | {**extensions}).items():
            if role == "sci" or (role in OPTIONAL and name == LEFT_OUT):
                continue
            index = file.find(name, version)
            if index is not None and role not in extensions and file.is_empty(index):
                frame.notes.append(f"extension {name} has no data and was left out")
                continue
            with _way_on(role):
                layer = file.layer(name, image.shape, version)
            if layer is not None:
                frame.layers[role] = layer
            elif role in extensions:
                raise _no_extension(file, role, name)
        for role, other in companions.items():
            with _way_on(role):
                frame.layers[role] = _only_image(other, role, image.shape)
            frame.notes += other.notes
        return frame

    @property
    def path(self) -> Path:
        """The file with the science image."""
        return self.file.path

    @property
    def shape(self) -> tuple[int, int]:
        """Size of the image, (nx, ny)."""
        return self.science.shape

    def name(self, part: str) -> tuple[str, str]:
        """Name the exposure, or a part of it, as asked: band and expID."""
        return name_exposure(self.header, self.path, self.options, part)

    def require_mask(self, telescope: str) -> None:
        """Refuse a calibrated exposure without flags, unless the user has left them out."""
        if "mask" not in self.layers and self.options.extensions.get("mask") != LEFT_OUT:
            raise UnusableExposureError(
                f"{self.science.where}: has no extension DQ of this EXTVER (found "
                f"{self.file.content()}); a calibrated {telescope} image always has one, so the "
                "file is incomplete (--mask none takes it as it is)"
            )

    def origin(self, role: str) -> str | None:
        """Name the file of an image; None when there is none."""
        layer = self.layers.get(role)
        return None if layer is None else layer.file.path.name


@contextmanager
def _way_on(role: str) -> Iterator[None]:
    """Say of an image that cannot be used, and is not needed, how to leave it out."""
    try:
        yield
    except UnusableExposureError as error:
        if role not in OPTIONAL:
            raise
        raise UnusableExposureError(f"{error}; {leave_out(role)}") from error


def leave_out(role: str) -> str:
    """Name the option that leaves an image out whose role is in `OPTIONAL`."""
    option = OPTIONAL[role]
    return f"to leave it out: --{option} none ({option}: none in YAML)"


def _no_extension(file: FitsFile, role: str, name: str | int) -> UnusableExposureError:
    """Say that there is no such extension, and which there are."""
    return UnusableExposureError(
        f"{file.path}: has no extension {name}, to be used as {role}; it has {file.content()}"
    )


def _only_image(file: FitsFile, role: str, shape: tuple[int, int]) -> FitsImage:
    """The image of a companion: that of the role's name, or the only one."""
    named = file.layer(EXTENSIONS[role], shape)
    if named is not None:
        return named
    images = file.images()
    if len(images) != 1:
        raise UnusableExposureError(
            f"{file.path}: has {len(images)} images, none of them called {EXTENSIONS[role]} "
            f"(found {file.content()}); expected one, to be used as {role}"
        )
    return FitsImage(file, images[0], shape)
