"""What a store folder holds, without reading a pixel."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fpgpu.sky.coverage import covered_area
from fpgpu.stores.disk import inside
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore

__all__ = ["BandSummary", "FolderSummary", "disagreements", "summarize"]

ARCMIN2 = 3600.0  # square arcminutes in a square degree


@dataclass(frozen=True)
class BandSummary:
    """One band of a store folder.

    Parameters
    ----------
    name : str
        The band.
    n_exposures : int
        Exposures in the pixel store.
    units : list of str
        Flux units found, such as ``["nJy"]``.
    wcs : dict
        Number of exposures by kind of WCS, ``"gwcs"`` or ``"fits"``.
    sky_arcmin2 : float
        Area covered by at least one exposure, square arcminutes.
    exposures_arcmin2 : float
        Sum of the areas of the exposures, square arcminutes.
    """

    name: str
    n_exposures: int
    units: list[str]
    wcs: dict[str, int]
    sky_arcmin2: float
    exposures_arcmin2: float


@dataclass(frozen=True)
class FolderSummary:
    """A store folder.

    Parameters
    ----------
    folder : str
        Its path.
    shape : tuple of int
        Pixels (nx, ny) of every exposure.
    super_pixel_size : int
        Pixels along a side of a super-pixel.
    n_bytes : int
        Size of the pixel store on disk, its shards included.
    bands : list of BandSummary
        Bands in the order of the pixel store.
    psf_bands : list of str
        Bands that have PSFs; empty without a PSF store.
    only_in_pixels, only_in_meta : list of str
        Exposures ``band/expID`` that the other store lacks.
    """

    folder: str
    shape: tuple[int, int]
    super_pixel_size: int
    n_bytes: int
    bands: list[BandSummary]
    psf_bands: list[str]
    only_in_pixels: list[str]
    only_in_meta: list[str]

    @property
    def n_exposures(self) -> int:
        """Number of exposures in the pixel store."""
        return sum(band.n_exposures for band in self.bands)

    @property
    def consistent(self) -> bool:
        """Whether pixel and meta store hold the same exposures."""
        return not (self.only_in_pixels or self.only_in_meta)

    def disagreements(self) -> dict[str, list[str]]:
        """List the exposures that only one of the stores holds.

        Returns
        -------
        dict
            Exposures by the store that has them; empty when the stores agree.
        """
        return _by_store(self.only_in_pixels, self.only_in_meta)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain types.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return asdict(self) | {"n_exposures": self.n_exposures, "consistent": self.consistent}


def summarize(folder: str | Path) -> FolderSummary:
    """Look at the stores of a folder.

    Parameters
    ----------
    folder : str or Path
        A store folder.

    Returns
    -------
    FolderSummary
        What it holds.

    Raises
    ------
    MissingStoreError
        If the folder holds no stores.
    StoreFormatError
        If a store cannot be read.
    """
    place = StoreFolder(Path(folder)).require()
    with PixelStore(place.pixels, mode="r") as pixels, MetaStore(place.meta) as meta:
        meta.image_shape = pixels.shape
        return FolderSummary(
            folder=str(folder),
            shape=pixels.shape,
            super_pixel_size=pixels.super_pixel_size,
            n_bytes=_size_on_disk(place.pixels, pixels),
            bands=[_summarize_band(band, pixels, meta) for band in pixels.bands],
            psf_bands=_psf_bands(place.psf),
            only_in_pixels=_lacking(pixels, meta),
            only_in_meta=_lacking(meta, pixels),
        )


def disagreements(folder: str | Path) -> dict[str, list[str]]:
    """List the exposures that only one of a folder's stores holds, and nothing else.

    Parameters
    ----------
    folder : str or Path
        A store folder.

    Returns
    -------
    dict
        Exposures ``band/expID`` by the store that has them; empty when the stores agree.

    Raises
    ------
    MissingStoreError
        If the folder holds no stores.
    StoreFormatError
        If a store cannot be read.
    """
    place = StoreFolder(Path(folder)).require()
    with PixelStore(place.pixels, mode="r") as pixels, MetaStore(place.meta) as meta:
        return _by_store(_lacking(pixels, meta), _lacking(meta, pixels))


def _by_store(only_in_pixels: list[str], only_in_meta: list[str]) -> dict[str, list[str]]:
    """Name the stores of exposures that the other one lacks."""
    found = {"the pixel store": only_in_pixels, "the meta store": only_in_meta}
    return {where: names for where, names in found.items() if names}


def _summarize_band(band: str, pixels: PixelStore, meta: MetaStore) -> BandSummary:
    """Summarize one band of open stores."""
    names = pixels.exposures(band)
    known = [expID for expID in names if (band, expID) in meta]
    outlines = [meta.footprint(band, expID) for expID in known]
    return BandSummary(
        name=band,
        n_exposures=len(names),
        units=sorted({pixels.record(band, expID).flux_units for expID in names}),
        wcs=dict(Counter(meta.wcs_kind(band, expID) for expID in known)),
        sky_arcmin2=ARCMIN2 * covered_area(outlines),
        exposures_arcmin2=ARCMIN2 * sum(covered_area([outline]) for outline in outlines),
    )


def _size_on_disk(path: Path, pixels: PixelStore) -> int:
    """Return the bytes of a pixel store's main file and of every other file it leads to."""
    main = path.resolve()
    files = {inside(main.parent, name, str(path)) for name in pixels.state.index.files}
    return sum(file.stat().st_size for file in {main, *files})


def _psf_bands(path: Path) -> list[str]:
    """Bands of the PSF store, if there is one."""
    if not path.exists():
        return []
    with PSFStore(path) as psf:
        return list(psf.bands)


def _lacking(one: Iterable[Key], other: Iterable[Key]) -> list[str]:
    """Name the exposures of one store that another lacks."""
    return sorted("/".join(key) for key in set(one) - set(other))
