"""The HDF5 file of a PSF store: opened for reading, and replaced as a whole."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import h5py

from fpgpu.errors import MissingStoreError, StoreFormatError
from fpgpu.stores.disk import real_path, signature_if_there, write_beside
from fpgpu.stores.hdf5.building import image_of
from fpgpu.stores.hdf5.reading import (
    open_for_reading,
    read_attribute,
    reading_errors,
    refuse_links,
)
from fpgpu.stores.lease import leased
from fpgpu.stores.pixels.records import CHECKSUM
from fpgpu.stores.psfs.format import BandPSF, Float, Parameters, read_band

__all__ = ["copy_bands", "note_checksums", "open_psf", "replace_band", "require_psf_file"]

_MIXTURES = {"parameters", "psfs"}


def open_psf(path: Path) -> h5py.File:
    """Open a PSF file for reading."""
    with reading_errors(path):
        if not path.exists():
            raise MissingStoreError(f"{path}: no such PSF store; check the path")
        return open_for_reading(path)


def require_psf_file(path: Path) -> None:
    """Refuse a file that is there and holds something else than PSFs, which would be lost."""
    if not path.exists():
        return
    with reading_errors(path), open_psf(path) as file:
        _require_mixtures(path, file)


def _require_mixtures(path: Path, file: h5py.File) -> None:
    """Refuse a file whose members are not all PSFs of its own."""
    refuse_links(file, path)
    for name in file:
        if not isinstance(file[name], h5py.Group) or not _MIXTURES & set(file[name]):
            raise StoreFormatError(
                f"{path}: is no PSF store: {name} holds no PSF mixtures; give another file"
            )


def replace_band(path: Path, band: str, parameters: Parameters, locations: Float | None) -> None:
    """Replace the file by one with a new or other band; the other bands are copied."""

    def fill(target: h5py.File) -> None:
        group = target.create_group(band)
        group.attrs["n_psf_per_source"] = parameters.shape[1]
        group.attrs[CHECKSUM] = BandPSF(parameters, locations).checksum
        group.create_dataset("parameters", data=parameters)
        if locations is not None:
            group.create_dataset("detector_locations", data=locations.T)

    _replace(path, {band}, fill)


def copy_bands(path: Path, origins: Mapping[str, Path]) -> None:
    """Replace the file by one with bands of other ones; what it has beside them stays."""

    def fill(target: h5py.File) -> None:
        for origin in dict.fromkeys(origins.values()):
            with reading_errors(origin), open_psf(origin) as source:
                for attribute in source.attrs:
                    if attribute not in target.attrs:
                        target.attrs[attribute] = read_attribute(source.attrs, attribute)
                for band in (band for band in origins if origins[band] == origin):
                    source.copy(band, target)

    _replace(path, origins, fill)


def note_checksums(path: Path) -> None:
    """Keep the checksums of bands that have none, as another program has written them."""

    def fill(target: h5py.File) -> None:
        for band, group in target.items():
            if CHECKSUM not in group.attrs:
                group.attrs[CHECKSUM] = read_band(group, f"{path}: band {band}").checksum

    with reading_errors(path), open_psf(path) as source:
        _require_mixtures(path, source)
        is_needed = any(CHECKSUM not in source[band].attrs for band in source)
    if is_needed:
        _replace(path, (), fill)


def _replace(path: Path, bands: Collection[str], fill: Callable[[h5py.File], None]) -> None:
    """Replace a PSF file, in which only some bands change, while no other writer does."""
    path = real_path(path)

    def fill_all(target: h5py.File) -> None:
        if path.exists():
            with reading_errors(path), open_psf(path) as source:
                _require_mixtures(path, source)
                for name in source.attrs:
                    target.attrs[name] = read_attribute(source.attrs, name)
                for name in source:
                    if name not in bands:
                        source.copy(name, target)
        fill(target)

    with leased(path.with_name(f".{path.name}.lease"), path):
        before = signature_if_there(path)
        content = image_of(fill_all)
        # A writer that slept through its lease finds what another has written meanwhile.
        with write_beside(path, lambda: signature_if_there(path) == before) as draft:
            draft.write_bytes(content)
