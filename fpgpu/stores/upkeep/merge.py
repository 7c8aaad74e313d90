"""Putting the exposures of several store folders into one."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fpgpu.errors import StoreConflictError, StoreFormatError
from fpgpu.stores.commit import commit_shards, discard, holding
from fpgpu.stores.disk import after_commit
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.names import some
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.psf import PSFStore
from fpgpu.stores.psfs.file import copy_bands
from fpgpu.stores.shard import Shard
from fpgpu.stores.upkeep.copying import copied_to_shard, same_exposure
from fpgpu.stores.views import write_views

__all__ = ["Merged", "merge"]


@dataclass
class Merged:
    """What a merge did.

    Attributes
    ----------
    out : str
        The store folder that holds all.
    added, replaced : list of str
        Exposures ``band/expID`` that are new in it, and those that took the place of others.
    psf_bands : dict of str to str
        Where the PSFs of each band come from; empty when no folder has any.
    """

    out: str
    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    psf_bands: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain types.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return asdict(self)


@dataclass(frozen=True)
class _Source:
    """One of the folders to be merged."""

    place: StoreFolder
    pixels: PixelStore
    meta: MetaStore


def merge(
    folders: Sequence[str | Path] | str | Path,
    out: str | Path,
    *,
    replace: bool = False,
    on_progress: Callable[[Key], None] = lambda key: None,
) -> Merged:
    """Copy the exposures of store folders, with their headers and PSFs, into one folder.

    All appear in one instant, when all are copied and compared; a process killed before leaves
    `out` as it was. The folders that are merged are not changed.

    Parameters
    ----------
    folders : sequence of path, or path
        Store folders of one size of images and super-pixels.
    out : path
        The folder to add to; made when missing.
    replace : bool, optional
        Where an exposure, or the PSFs of a band, are in several folders and differ, take those of
        the last folder that has them. Otherwise that is refused. What is the same is no matter.
    on_progress : callable, optional
        Called with each ``(band, expID)`` that was copied.

    Returns
    -------
    Merged
        What was done.

    Raises
    ------
    MissingStoreError
        If a folder holds no stores.
    StoreConflictError
        If sizes differ, or exposures or PSFs collide; nothing is changed.
    StoreFormatError
        If a folder's stores disagree about which exposures there are.
    ExposureNameError
        If an exposure would lie inside another one.
    IntegrityError
        If an exposure does not match its checksum.
    StoreBusyError, StoreWriteError
        If `out` is being changed or cannot be written; it is as it was before.
    """
    if isinstance(folders, str | Path):
        folders = [folders]
    target = StoreFolder(Path(out))
    places = [StoreFolder(Path(folder)).require() for folder in folders]
    if not places:
        raise StoreConflictError(f"{out}: no folders to merge were given")
    done = Merged(str(out))
    store = target.pixels.resolve()
    with holding(store):
        sources = [_opened(p) for p in places if p.path.resolve() != target.path.resolve()]
        there = PixelStore(store, mode="r") if store.exists() else None
        geometry = _one_geometry(there, sources, store)
        chosen = _choose(there, target, sources, replace)
        psfs = _choose_psfs(target, sources, replace)
        made: list[Shard] = []
        try:
            for key, source in chosen.items():
                metadata = source.meta.entry(*key)
                made.append(copied_to_shard(source.pixels.state, key, store, geometry, metadata))
                on_progress(key)
                known = done.added if there is None or key not in there else done.replaced
                known.append("/".join(key))
            if made:
                commit_shards(store, made)
        except BaseException:
            discard(store, made)
            raise
        if new := {band: path for band, path in psfs.items() if path != target.psf}:
            with after_commit("the exposures are merged, the PSFs are not: merge again"):
                copy_bands(target.psf, new)
        if made:
            write_views(store)
    done.psf_bands = {band: str(path) for band, path in psfs.items()}
    return done


def _opened(place: StoreFolder) -> _Source:
    """Open the stores of a folder, if they hold the same exposures."""
    pixels, meta = PixelStore(place.pixels, mode="r"), MetaStore(place.meta)
    differing = sorted("/".join(key) for key in set(pixels) ^ set(meta))
    if differing:
        raise StoreFormatError(
            f"{place.path}: its pixel and meta store disagree about {some(differing)}; see "
            f"'fpgpu verify {place.path} --repair'"
        )
    return _Source(place, pixels, meta)


def _one_geometry(there: PixelStore | None, sources: list[_Source], store: Path) -> Geometry:
    """Return the size that all stores have."""
    known = None if there is None else there.state.index.geometry
    of = store
    for source in sources:
        geometry = source.pixels.state.index.geometry
        if known is None:
            known, of = geometry, source.place.pixels
        elif geometry != known:
            raise StoreConflictError(
                f"{source.place.pixels}: holds {geometry}, but {of} holds {known}; only stores of "
                "one size of images can be merged"
            )
    if known is None:
        raise StoreConflictError(f"{store}: no other folder was given to merge into it")
    return known


def _choose(
    there: PixelStore | None, target: StoreFolder, sources: list[_Source], replace: bool
) -> dict[Key, _Source]:
    """Choose the folder that each exposure is taken from; the same bits need no choice."""
    chosen: dict[Key, _Source] = {}
    colliding = []
    for source in sources:
        for key in source.pixels:
            other = chosen[key].pixels if key in chosen else None
            if other is None and there is not None and key in there:
                other = there
            if other is None:
                chosen[key] = source
            elif not same_exposure(other, source.pixels, key):
                colliding.append("/".join(key))
                chosen[key] = source
    if colliding and not replace:
        raise StoreConflictError(
            f"{target.path}: {some(colliding)} would be there more than once, with other pixels; "
            "nothing was changed; --replace takes those of the last folder that has them"
        )
    return chosen


def _choose_psfs(target: StoreFolder, sources: list[_Source], replace: bool) -> dict[str, Path]:
    """Choose the PSF file that each band is taken from."""
    origins: dict[str, Path] = {}
    colliding = []
    for path in [target.psf, *(source.place.psf for source in sources)]:
        if not path.exists():
            continue
        with PSFStore(path) as store:
            for band in store.bands:
                if band in origins and not _same_psfs(origins[band], path, band):
                    colliding.append(band)
                    origins[band] = path
                origins.setdefault(band, path)
    if colliding and not replace:
        raise StoreConflictError(
            f"{target.path}: the PSFs of {some(colliding)} differ between the folders; nothing "
            "was changed; --replace takes those of the last folder that has them"
        )
    return origins


def _same_psfs(a: Path, b: Path, band: str) -> bool:
    """Whether two PSF stores hold the same mixtures of a band."""
    with PSFStore(a) as one, PSFStore(b) as other:
        return one.table(band).tobytes() == other.table(band).tobytes() and np.array_equal(
            np.asarray(one.locations(band), np.float64),
            np.asarray(other.locations(band), np.float64),
            equal_nan=True,
        )
