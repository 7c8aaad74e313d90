"""Checking all that a store folder holds, without changing it."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from fpgpu.errors import (
    ExposureNameError,
    FpgpuError,
    MissingStoreError,
    StoreError,
)
from fpgpu.stores.files.intent import is_pending
from fpgpu.stores.files.scratch import scratch_folders
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.hdf5.extents import Extent
from fpgpu.stores.hdf5.journal import journal_path
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.store_files import MetaPaths
from fpgpu.stores.names import check_band, check_expID
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.links import Link, vetted
from fpgpu.stores.pixels.reading import strips
from fpgpu.stores.pixels.records import update_checksum
from fpgpu.stores.psf import PSFStore
from fpgpu.stores.shards.files import find_orphans, find_parts, read_shard
from fpgpu.stores.shards.mainfile import BASE_PREFIX, MainFile
from fpgpu.stores.units import describe_units, mixed_units, units_of
from fpgpu.stores.upkeep.problems import Verdict

__all__ = ["SIP_AGREEMENT", "verify"]

Key = tuple[str, str]

SIP_AGREEMENT = 1e-6
"""Pixels by which the residual of a refit may differ from the one stored with it."""


class _Values(NamedTuple):
    """What the pixels of one exposure are like."""

    checksum: str
    n_bad: int
    n_negative: int


def verify(
    folder: str | Path,
    *,
    pixels: bool = True,
    wcs: bool = True,
    on_progress: Callable[[Key], None] = lambda key: None,
) -> Verdict:
    """Check a store folder: every checksum, value, shape, link, header, and refit.

    Nothing is changed, except that, as with every opening of a store, a change that a killed
    writer did not finish is completed or undone.

    Parameters
    ----------
    folder : path
        The store folder.
    pixels : bool, optional
        Read all pixels; without that only what is written about them is looked at.
    wcs : bool, optional
        Evaluate the gWCS of every exposure against the refit that was stored with it.
    on_progress : callable, optional
        Called with each ``(band, expID)`` that was looked at.

    Returns
    -------
    Verdict
        All problems.

    Raises
    ------
    MissingStoreError
        If there is no such folder, or it holds nothing of a store.
    """
    place = StoreFolder(Path(folder).resolve())
    if not place.holds_anything():
        place.require()
    verdict = Verdict(str(folder))
    _look_for_interrupted(place, verdict)
    main = _look_at_main(place, verdict)
    if main is not None:
        _look_at_exposures(main, verdict, pixels, on_progress)
    _look_at_meta(place, main, verdict, wcs)
    _look_for_leftovers(place, main, verdict)
    _look_at_units(place, verdict)
    _look_at_psfs(place, verdict)
    return verdict


def _look_for_interrupted(place: StoreFolder, verdict: Verdict) -> None:
    """Note what opening the stores is going to settle."""
    for pending, what in (
        (is_pending(place.path), "a change of several files"),
        (os.path.lexists(journal_path(place.pixels.resolve())), "a change of the pixel store"),
    ):
        if pending:
            verdict.add(
                "interrupted",
                place.path.name,
                f"{what} was not finished by its writer",
                "settled now, by opening the store",
                repairable=True,
            )


def _look_at_main(place: StoreFolder, verdict: Verdict) -> MainFile | None:
    """Open the main file of the pixel store."""
    path = place.pixels.resolve()
    if not path.exists():
        verdict.add(
            "unreadable",
            place.pixels.name,
            "is missing",
            "made again from shards, as far as there are any",
            repairable=True,
        )
        return None
    try:
        return MainFile(path)
    except FpgpuError as exc:
        verdict.add(
            "unreadable",
            place.pixels.name,
            exc,
            "restore it from a copy; if all its exposures are shards, move it away and repair",
        )
        return None


def _look_at_exposures(
    main: MainFile, verdict: Verdict, pixels: bool, on_progress: Callable[[Key], None]
) -> None:
    """Check each exposure of the pixel store."""
    with PixelStore(main.path, mode="r") as store:
        for key, link in main.links.items():
            verdict.n_exposures += 1
            name = "/".join(key)
            try:
                check_band(key[0]), check_expID(key[1])
                if link is not None:
                    vetted(main.path, link, f"{main.path}: {name}")
                _look_at_exposure(store, key, verdict, pixels)
                if link is not None:
                    _look_at_shard(main, link, verdict)
            except ExposureNameError as exc:
                verdict.add("refused link", name, exc, "remove it with another program")
            except MissingStoreError as exc:
                verdict.add(
                    "missing shard", name, exc, f"put it back, or fpgpu remove DIR '{name}'"
                )
            except FpgpuError as exc:
                kind, remedy = _kind_of(link, exc)
                verdict.add(kind, name, exc, remedy)
            on_progress(key)


def _kind_of(link: Link | None, exc: FpgpuError) -> tuple[str, str]:
    """Sort an error of reading."""
    if "are not followed" in str(exc):
        return "refused link", "do not trust this store; remove the exposure"
    if "has shape" in str(exc):
        return "wrong shape", "add the exposure again or remove it"
    return "unreadable", "add the exposure again or remove it"


def _look_at_exposure(store: PixelStore, key: Key, verdict: Verdict, pixels: bool) -> None:
    """Check shape, record and values of one exposure."""
    name = "/".join(key)
    stated = store.record(*key).checksum
    if not pixels:
        return
    found = store.reader.visit(*key, _values)
    if stated is None:
        verdict.n_unchecked += 1
    elif stated == found.checksum:
        verdict.n_verified += 1
    else:
        verdict.add(
            "damaged",
            name,
            f"its checksum is {found.checksum}, {stated} was stored with it",
            "add the exposure again or remove it",
        )
    if found.n_bad or found.n_negative:
        verdict.add(
            "not finite",
            name,
            f"{found.n_bad} values are not finite, {found.n_negative} inverse uncertainties are "
            "negative; a fit that meets one is lost",
            "add the exposure again or remove it",
        )


def _values(dataset: h5py.Dataset, extent: Extent) -> _Values:
    """Read all values of an exposure once."""
    checksum, n_bad, n_negative = update_checksum(b""), 0, 0
    n_pixels = extent.shape[2] // 2
    for strip in strips(dataset, extent):
        checksum = update_checksum(strip, checksum)
        n_bad += strip.size - int(np.count_nonzero(np.isfinite(strip)))
        n_negative += int(np.count_nonzero(strip[..., n_pixels:] < 0))
    return _Values(checksum, n_bad, n_negative)


def _look_at_shard(main: MainFile, link: Link, verdict: Verdict) -> None:
    """Check that a shard of fpgpu can stand for itself."""
    path = vetted(main.path, link, str(main.path))
    if path.suffix == ".h5" and path.parent.parent.name == main.path.stem + ".shards":
        shard = read_shard(path)
        shard.meta_entry()


def _look_at_meta(place: StoreFolder, main: MainFile | None, verdict: Verdict, wcs: bool) -> None:
    """Check the meta store, and that it and the pixel store hold the same exposures."""
    if not place.meta.exists():
        verdict.add(
            "unreadable",
            place.meta.name,
            "is missing",
            "made again from shards, as far as there are any",
            repairable=True,
        )
        return
    try:
        with MetaStore(place.meta) as meta:
            keys = list(meta)
            fault = meta.sidecar_fault()
            if fault is not None:
                name = MetaPaths.of(place.meta).sidecar.name
                verdict.add("sidecar", name, fault, "made again", repairable=True)
            if main is not None:
                meta.image_shape = None if main.geometry is None else main.geometry.shape
                _compare(set(main.links), set(keys), main, verdict)
            for key in keys:
                _look_at_header(meta, key, main, verdict, wcs)
    except StoreError as exc:
        verdict.add(
            "unreadable",
            place.meta.name,
            exc,
            "restore it from a copy, or move it away and make it again from shards",
        )


def _compare(pixels: set[Key], meta: set[Key], main: MainFile, verdict: Verdict) -> None:
    """Note exposures that only one of the stores holds."""
    for key in sorted(pixels - meta):
        own = main.links[key] is not None
        verdict.add(
            "only in pixels",
            "/".join(key),
            "has no header in the meta store, so no query finds it",
            "its header is taken from its shard" if own else "add it again or remove it",
            repairable=own,
        )
    for key in sorted(meta - pixels):
        verdict.add(
            "only in meta",
            "/".join(key),
            "has a header but no pixels, so that patches around it cannot be made",
            "add it again or remove it",
        )


def _look_at_header(
    meta: MetaStore, key: Key, main: MainFile | None, verdict: Verdict, wcs: bool
) -> None:
    """Check header, footprint, size and refit of one exposure."""
    name = "/".join(key)
    try:
        meta.footprint(*key)
        size = meta.shape(*key)
    except FpgpuError as exc:
        verdict.add("header", name, exc, "add the exposure again or remove it")
        return
    if main is not None and main.geometry is not None and size != main.geometry.shape:
        verdict.add(
            "wrong shape",
            name,
            f"its header says {size[0]} x {size[1]} pixels, the store has images of "
            f"{main.geometry.shape[0]} x {main.geometry.shape[1]}",
            "add the exposure again or remove it",
        )
    if wcs:
        _look_at_wcs(meta, key, verdict)


def _look_at_wcs(meta: MetaStore, key: Key, verdict: Verdict) -> None:
    """Compare the refit of an exposure with its gWCS."""
    sip = meta.sip_fit(*key)
    if sip is None:
        return
    from fpgpu.sky.sip import sip_residual
    from fpgpu.sky.wcs import SkyWCS

    verdict.n_wcs += 1
    name = "/".join(key)
    try:
        shape = meta.shape(*key)
        residual = sip_residual(SkyWCS.from_native(meta.tree[key[0]][key[1]], shape), sip, shape)
    except FpgpuError as exc:
        verdict.add("WCS", name, exc, "add the exposure again")
        return
    if not residual <= sip.residual + SIP_AGREEMENT:
        verdict.add(
            "WCS",
            name,
            f"the SIP refit is {residual:.3g} px from the gWCS, {sip.residual:.3g} px was stored "
            "with it",
            "add the exposure again",
        )


def _look_for_leftovers(place: StoreFolder, main: MainFile | None, verdict: Verdict) -> None:
    """Note shards that no store links to, and what killed writers left."""
    if main is not None:
        for path in find_orphans(place.path):
            name = path.relative_to(place.path).as_posix()
            base = path.name.startswith(BASE_PREFIX)
            verdict.add(
                "orphan",
                name,
                "was a single file before" if base else "was written and never published",
                "linked, or deleted if all it holds is in the store; kept where that is not clear",
                repairable=True,
            )
    draft = journal_path(place.pixels.resolve())
    for path in [
        *find_parts(place.path),
        *scratch_folders(place.path),
        *draft.parent.glob(draft.name + ".part"),
    ]:
        verdict.add(
            "leftover",
            path.relative_to(place.path).as_posix(),
            "belongs to a writer that was killed, or that is still at work",
            "deleted",
            repairable=True,
        )


def _look_at_units(place: StoreFolder, verdict: Verdict) -> None:
    """Note bands that mix units."""
    units: dict[Key, str] = {}
    # What cannot be read was told already.
    with suppress(FpgpuError), PixelStore(place.pixels, mode="r") as pixels:
        for key in pixels:
            with suppress(FpgpuError):
                units |= units_of(pixels, [key])
    for band, by_unit in mixed_units(units).items():
        verdict.add(
            "units",
            band,
            f"its exposures are in several units: {describe_units(by_unit)}",
            "ingest them again with their calibration, remove some, or name a unit when making a "
            "patch (--units)",
        )


def _look_at_psfs(place: StoreFolder, verdict: Verdict) -> None:
    """Check that the PSFs of every band can be had."""
    if not place.psf.exists():
        return
    where = place.psf.name
    remedy = "restore it from a copy or write it again"
    try:
        with PSFStore(place.psf) as store:
            for band in store.bands:
                try:
                    store.n_radii(band)
                except FpgpuError as exc:
                    verdict.add("PSF", f"{where}: {band}", exc, remedy)
    except FpgpuError as exc:
        verdict.add("PSF", where, exc, remedy)
