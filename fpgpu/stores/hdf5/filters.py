"""Compression of datasets: which there are, how they are asked for, and what reads them.

gzip and lzf come with h5py. The others are plugins of HDF5 that the package ``hdf5plugin`` (extra
``compress``) brings; importing it makes them known to HDF5 in this process.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import h5py

from fpgpu.errors import LayoutError, MissingExtraError

__all__ = ["COMPRESSIONS", "Compression", "require_filters"]

INSTALL = 'pip install "fpgpu[compress]"'

# Super-pixels along x and y in one chunk: 128 kB, a few of which make a small patch of sky.
CHUNK_SIDE = 16

_BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "gzip": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "lzf": {"compression": "lzf", "shuffle": True},
}
_PLUGINS: Mapping[str, Callable[[Any, int | None], Mapping[str, Any]]] = {
    "zstd": lambda plugin, level: {**plugin.Zstd(clevel=level or 3), "shuffle": True},
    "lz4": lambda plugin, level: {**plugin.LZ4(), "shuffle": True},
    "blosc": lambda plugin, level: plugin.Blosc(
        cname="zstd", clevel=level or 5, shuffle=plugin.Blosc.BITSHUFFLE
    ),
    "bitshuffle": lambda plugin, level: plugin.Bitshuffle(cname="zstd", clevel=level or 3),
}
_LEVELLED = {"gzip", "zstd", "blosc", "bitshuffle"}

COMPRESSIONS = ("none", *_BUILT_IN, *_PLUGINS)
"""Names that `Compression` takes."""


class Compression(NamedTuple):
    """How the values of exposures are to be stored.

    Attributes
    ----------
    name : str
        One of `COMPRESSIONS`; ``"none"`` is one plain run of bytes, the form that is read fastest
        and the only one that forcepho writes.
    level : int or None
        How hard to try, from 1 to 9; None for the usual.
    """

    name: str = "none"
    level: int | None = None

    def checked(self) -> "Compression":
        """Return this, if it means something and can be had here.

        Returns
        -------
        Compression
            This object.

        Raises
        ------
        LayoutError
            If there is no such compression or level.
        MissingExtraError
            If it needs a package that is not there.
        """
        if self.name not in COMPRESSIONS:
            raise LayoutError(
                f"no compression named {self.name!r}; expected one of {', '.join(COMPRESSIONS)}"
            )
        if self.level is not None and (self.name not in _LEVELLED or not 1 <= self.level <= 9):
            raise LayoutError(
                f"compression {self.name} of level {self.level}: levels are from 1 to 9, for "
                f"{', '.join(sorted(_LEVELLED))}"
            )
        self.options((1, 1, 1))
        return self

    def options(self, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Return what `h5py.Group.create_dataset` is to be told for super-pixels.

        Parameters
        ----------
        shape : (int, int, int)
            Super-pixels along x and y, values in each.

        Returns
        -------
        dict
            Keyword arguments: filters, chunks, and a checksum of each chunk.
        """
        if self.name == "none":
            return {}
        if self.name in _BUILT_IN:
            options = dict(_BUILT_IN[self.name])
            if self.level is not None:
                options["compression_opts"] = self.level
        else:
            options = dict(_PLUGINS[self.name](_plugin(self.name), self.level))
        chunks = tuple(min(n, CHUNK_SIDE) for n in shape[:2])
        # Tested before anything is inflated, so that damage does not reach the plugin.
        return {**options, "chunks": (*chunks, shape[2]), "fletcher32": True}


def require_filters(dataset: h5py.Dataset) -> None:
    """Make HDF5 able to read a dataset.

    Parameters
    ----------
    dataset : h5py.Dataset
        Of any file.

    Raises
    ------
    MissingExtraError
        If that needs a package that is not there.
    """
    plist = dataset.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(i)
        if not h5py.h5z.filter_avail(code):
            what = name.decode("utf-8", "replace") or f"filter {code}"
            place = f"{dataset.file.filename}: {dataset.name}"
            _plugin(f"{what} ({place} is stored with it)")
            if not h5py.h5z.filter_avail(code):
                raise MissingExtraError(
                    f"{place} is stored with {what}, HDF5 filter {code}, which neither h5py nor "
                    "hdf5plugin brings"
                )


def _plugin(what: str) -> Any:
    """Import hdf5plugin, which registers its filters with HDF5."""
    try:
        import hdf5plugin
    except ImportError as exc:
        raise MissingExtraError(
            f"compression {what} needs the package hdf5plugin, which is not installed: {INSTALL}"
        ) from exc
    return hdf5plugin
