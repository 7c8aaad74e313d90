"""A patch as an HDF5 file: a dataset for each array of the struct, and what says what it is.

Text that is read back is of fixed length: HDF5 follows damaged text of variable length anywhere.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast, get_args

import h5py
import numpy as np
import numpy.typing as npt

from fpgpu import __version__
from fpgpu.backends.arena import ArenaLayout
from fpgpu.errors import (
    LayoutError,
    MissingStoreError,
    RegionError,
    StoreConflictError,
    StoreFormatError,
)
from fpgpu.layout import PATCH_ARRAYS
from fpgpu.patch.device import Patch
from fpgpu.patch.plan import ExposurePlan, PatchPlan, Selection
from fpgpu.sky.regions import CircularRegion, PolygonRegion, RectangularRegion, Region
from fpgpu.stores.disk import StrPath, write_beside
from fpgpu.stores.hdf5.building import image_of
from fpgpu.stores.hdf5.reading import (
    checked_storage,
    has_sound_type,
    read_attribute,
    reading_errors,
)

__all__ = ["PatchFile", "check_replaceable", "read_patch", "write_patch"]

FORMAT = b"fpgpu patch 1"

# Units ({flux}: that of the pixel store), axes, what it is. All arrays are in C order.
DESCRIPTIONS = {
    "data": ("{flux}", "pixel", "flux; pixels run over exposures, super-pixels, x, y"),
    "ierr": ("1/({flux})", "pixel", "inverse uncertainty, 0 where a pixel is not to be used"),
    "xpix": ("pixel", "pixel", "zero-based x of the pixel's centre on its exposure"),
    "ypix": ("pixel", "pixel", "zero-based y of the pixel's centre on its exposure"),
    "exposure_start": ("", "exposure", "number of the exposure's first pixel"),
    "exposure_N": ("", "exposure", "number of the exposure's pixels"),
    "band_start": ("", "band", "number of the band's first exposure"),
    "band_N": ("", "band", "number of the band's exposures"),
    "rad2": ("arcsec2", "radius", "variances of the Gaussians that a profile is made of"),
    "D": ("pixel/arcsec", "exposure, source, (x, y), (east, north)", "scale and rotation"),
    "crpix": ("pixel", "exposure, source, (x, y)", "zero-based pixel of the source"),
    "crval": ("deg", "exposure, source, (ra, dec)", "sky of that pixel, less the reference"),
    "CW": ("pixel/deg", "exposure, source, (x, y), (ra, dec)", "derivatives of the pixel"),
    "G": ("", "exposure", "factor from flux to the exposure's counts"),
    "n_psf_per_source": ("", "band", "Gaussians of one source's PSF, over all radii"),
    "psfgauss": (
        "amp: 1, xcen, ycen: pixel, C: pixel2",
        "exposure, source, Gaussian, one after the other",
        "PSF Gaussians; sersic_bin is the radius that they are for",
    ),
    "psfgauss_start": ("", "exposure", "number of the exposure's first PSF Gaussian"),
    "bandlist": ("", "band", "names of the bands"),
    "expIDs": ("", "exposure", "names of the exposures"),
    "shapes": ("pixel", "exposure, (x, y)", "size of the whole exposure"),
    "n_superpixels": ("", "exposure", "number of super-pixels taken"),
    "superpixels": ("", "super-pixel, (ix, iy)", "indices on the exposure, in the pixels' order"),
}

COUNTS = ("n_pixels", "n_exp", "n_bands", "n_src", "n_radii", "n_psf")
REGIONS: dict[str, type[Region]] = {
    kind.__name__: kind for kind in (CircularRegion, RectangularRegion, PolygonRegion)
}


@dataclass(frozen=True, eq=False)
class PatchFile:
    """What `read_patch` finds.

    Attributes
    ----------
    plan : PatchPlan
        Region, bands, exposures and super-pixels.
    arrays : mapping of str to ndarray or int
        By the struct's names, with ``n_sources`` and ``n_radii``: what
        `fpgpu.likelihood.reference.evaluate` takes.
    reference : (float, float)
        Right ascension and declination, degrees, that ``crval`` is relative to.
    flux_units : str
        Of ``data``.
    """

    plan: PatchPlan
    arrays: Mapping[str, Any]
    reference: tuple[float, float]
    flux_units: str


def check_replaceable(path: StrPath) -> None:
    """Refuse a place where a patch must not be written.

    Parameters
    ----------
    path : path
        Where it shall be written.

    Raises
    ------
    MissingStoreError
        If its folder does not exist.
    StoreConflictError
        If there is something else than a patch.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise MissingStoreError(f"{path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise StoreConflictError(
            f"{path}: is a folder; give the name of a file, such as {path / 'patch.h5'}"
        )
    if not path.exists():
        return
    try:
        with _opened(path):
            return
    except StoreFormatError as error:
        raise StoreConflictError(
            f"{path}: exists and is no patch; choose another name, or remove it first"
        ) from error


def write_patch(path: StrPath, patch: Patch, *, flux_units: str = "nJy") -> int:
    """Write a patch, all at once; an older patch of that name is replaced.

    Parameters
    ----------
    path : path
        The HDF5 file.
    patch : Patch
        What to write: every array but the residual, which only kernels define.
    flux_units : str, optional
        Of its data.

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    MissingStoreError, StoreConflictError
        If its folder does not exist, or the file exists and is no patch.
    StoreWriteError
        If it cannot be written; an older file is as it was.
    ReleasedMemoryError
        If the patch was freed.
    """
    check_replaceable(path)
    arrays = patch.host_arrays()

    def fill(file: h5py.File) -> None:
        _write_root(file, patch, arrays, flux_units)
        for key, values in (arrays | _plan_arrays(patch.plan)).items():
            if key not in DESCRIPTIONS:
                continue  # n_sources and n_radii are attributes
            units, axes, description = DESCRIPTIONS[key]
            dataset = file.create_dataset(key, data=values)
            dataset.attrs["units"] = units.format(flux=flux_units)
            dataset.attrs["axes"] = axes
            dataset.attrs["description"] = description

    content = image_of(fill)
    with write_beside(path) as temporary:
        temporary.write_bytes(content)
    return len(content)


def read_patch(path: StrPath) -> PatchFile:
    """Read a patch that `write_patch` wrote.

    Parameters
    ----------
    path : path
        The HDF5 file.

    Returns
    -------
    PatchFile
        In memory.

    Raises
    ------
    MissingStoreError
        If there is no such file.
    StoreFormatError
        If it is no patch, or is damaged.
    """
    path = Path(path)
    with _opened(path) as file:
        flux_units, select = _word(file, "flux_units"), _word(file, "select")
        counts = (int(read_attribute(file.attrs, key)) for key in COUNTS)
        n_pixels, n_exp, n_bands, n_src, n_radii, n_psf = counts
        size = int(read_attribute(file.attrs, "super_pixel_size"))
        reference = tuple(float(value) for value in read_attribute(file.attrs, "reference"))
        try:
            shapes = ArenaLayout(n_pixels, n_exp, n_bands, n_src, n_radii, n_psf).shapes
        except LayoutError as error:
            raise StoreFormatError(f"{path}: {error}") from error
        arrays: dict[str, Any] = {
            key: _read(file, key, PATCH_ARRAYS[key], shapes[key])
            for key in PATCH_ARRAYS
            if key != "residual"
        }
        plan = _read_plan(file, arrays, size, select)
    is_whole = np.array_equal(plan.exposure_N, arrays["exposure_N"]) and plan.n_pixels == n_pixels
    if not is_whole or len(reference) != 2:
        raise StoreFormatError(f"{path}: its sizes contradict each other; it is damaged")
    arrays |= {"n_sources": n_src, "n_radii": n_radii}
    return PatchFile(plan, arrays, (reference[0], reference[1]), flux_units)


def _write_root(file: h5py.File, patch: Patch, arrays: Mapping[str, Any], flux_units: str) -> None:
    """Write what holds for the whole patch."""
    plan = patch.plan
    counts = (
        plan.n_pixels, plan.n_exp, plan.n_bands,
        patch.n_sources, patch.n_radii, len(arrays["psfgauss"]),
    )  # fmt: skip
    file.attrs["fpgpu_format"] = np.bytes_(FORMAT)
    file.attrs["fpgpu_version"] = np.bytes_(__version__.encode())
    file.attrs["flux_units"] = np.bytes_(flux_units.encode())
    file.attrs["select"] = np.bytes_(plan.select.encode())
    file.attrs["super_pixel_size"] = plan.super_pixel_size
    file.attrs["reference"] = patch.reference
    file.attrs["reference_units"] = np.bytes_(b"deg: ra, dec that crval is relative to")
    for key, count in zip(COUNTS, counts, strict=True):
        file.attrs[key] = count
    region = file.create_group("region")
    region.attrs["kind"] = np.bytes_(type(plan.region).__name__.encode())
    for name in (field.name for field in fields(cast("CircularRegion", plan.region))):
        region.create_dataset(name, data=np.float64(getattr(plan.region, name)))
        region[name].attrs["units"] = "deg"


def _plan_arrays(plan: PatchPlan) -> dict[str, npt.NDArray[Any]]:
    """Make arrays of what a plan says of its exposures."""
    return {
        "bandlist": _text(plan.bandlist),
        "expIDs": _text([exposure.expID for exposure in plan.exposures]),
        "shapes": np.array([exposure.shape for exposure in plan.exposures], np.int32),
        "n_superpixels": np.array([e.n_superpixels for e in plan.exposures], np.int32),
        "superpixels": np.concatenate([exposure.superpixels for exposure in plan.exposures]),
    }


def _text(words: Any) -> npt.NDArray[Any]:
    """Make UTF-8 of fixed length."""
    encoded = [word.encode() for word in words]
    return np.array(encoded, h5py.string_dtype("utf-8", max(map(len, encoded))))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a file that says that it is a patch."""
    if not path.is_file():
        raise MissingStoreError(f"{path}: no such patch; 'fpgpu patch' writes one")
    with reading_errors(path), h5py.File(path, "r") as file:
        found = "fpgpu_format" in file.attrs and read_attribute(file.attrs, "fpgpu_format")
        if found != FORMAT:
            raise StoreFormatError(f"{path}: is no patch of fpgpu, or one of another version")
        yield file


def _read(
    file: h5py.File, name: str, dtype: Any, shape: tuple[int, ...] | None
) -> npt.NDArray[Any]:
    """Read one array if it is what it should be, and no larger than its file.

    Names are of any length, so of no given dtype; outlines have any number of vertices.
    """
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset):
        raise StoreFormatError(f"{file.filename}: has no array {name!r}")
    if shape is not None and stored.shape != shape:
        raise StoreFormatError(
            f"{file.filename}: {name} has shape {stored.shape}; expected {shape}"
        )
    if dtype is not None and stored.dtype != dtype:
        raise StoreFormatError(f"{file.filename}: {name} is {stored.dtype}; expected {dtype}")
    checked_storage(stored)
    checked_storage(stored)
    is_sound = has_sound_type(stored.id.get_type(), stored.dtype)
    if not is_sound or stored.nbytes > file.id.get_filesize():
        raise StoreFormatError(f"{file.filename}: {name} has a damaged type or size")
    return np.asarray(stored[()])


def _read_names(file: h5py.File, name: str, n: int) -> list[str]:
    """Read an array of text."""
    found = _read(file, name, None, (n,))
    if found.dtype.kind != "S":
        raise StoreFormatError(f"{file.filename}: {name} is {found.dtype}; expected text")
    return [word.decode() for word in found]


def _read_plan(file: h5py.File, arrays: Mapping[str, Any], size: int, select: str) -> PatchPlan:
    """Make the plan again."""
    n_bands, n_exp = len(arrays["band_N"]), len(arrays["exposure_N"])
    bandlist, expIDs = _read_names(file, "bandlist", n_bands), _read_names(file, "expIDs", n_exp)
    shapes = _read(file, "shapes", np.int32, (n_exp, 2)).tolist()
    counts = _read(file, "n_superpixels", np.int32, (n_exp,))
    superpixels = _read(file, "superpixels", np.int32, (int(counts.sum(dtype=np.int64)), 2))
    bands = np.repeat(np.array(bandlist, object), arrays["band_N"])
    pieces = np.split(superpixels, np.cumsum(counts)[:-1])
    exposures = tuple(
        ExposurePlan(band, expID, tuple(shape), piece)
        for band, expID, shape, piece in zip(bands, expIDs, shapes, pieces, strict=True)
    )
    if select not in get_args(Selection):
        raise StoreFormatError(f"{file.filename}: select is {select!r}; it is damaged")
    region = _read_region(file["region"])
    return PatchPlan(region, tuple(bandlist), exposures, size, cast("Selection", select))


def _read_region(group: h5py.Group) -> Region:
    """Make the region again."""
    kind = REGIONS[_word(group, "kind")]
    values = {name: _read(group.file, f"region/{name}", np.float64, None) for name in group}
    try:
        return kind(**values)
    except RegionError as error:
        raise StoreFormatError(f"{group.file.filename}: its region is damaged: {error}") from error


def _word(place: h5py.File | h5py.Group, name: str) -> str:
    """Read an attribute of text."""
    return bytes(read_attribute(place.attrs, name)).decode()
