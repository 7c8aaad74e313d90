"""Checking all that a store folder holds, without changing it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from fpgpu.errors import (
    ExposureNameError,
    FpgpuError,
    MissingStoreError,
    StoreError,
    StoreFormatError,
)
from fpgpu.stores.commit import Change, commit
from fpgpu.stores.disk import inside
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.index import Entry
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.metadata.skyrecords import Key
from fpgpu.stores.metadata.source import FileSource, MetaPaths
from fpgpu.stores.metafiles import are_known
from fpgpu.stores.names import check_band, check_expID, some
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.pixels.reading import bytes_checksum, strips
from fpgpu.stores.pixels.records import update_checksum
from fpgpu.stores.psf import PSFStore
from fpgpu.stores.psfs.file import note_checksums
from fpgpu.stores.shard import find_orphans, find_parts
from fpgpu.stores.state import State, open_state
from fpgpu.stores.units import describe_units, mixed_units, units_of
from fpgpu.stores.upkeep.problems import Verdict

__all__ = ["SIP_AGREEMENT", "record_checksums", "stale_views", "verify"]

SIP_AGREEMENT = 1e-6
"""Pixels by which the residual of a refit may differ from the one stored with it."""


def verify(
    folder: str | Path,
    *,
    pixels: bool = True,
    wcs: bool = True,
    on_progress: Callable[[Key], None] = lambda key: None,
) -> Verdict:
    """Check a store folder: every checksum, value, shape, link, header, and refit.

    Nothing is changed.

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
    state = _look_at_main(place, verdict)
    if state is not None:
        _look_at_exposures(state, verdict, pixels, on_progress)
    _look_at_meta(place, state, verdict, wcs)
    _look_for_leftovers(place, state, verdict)
    _look_at_units(place, verdict)
    _look_at_psfs(place, verdict)
    return verdict


def record_checksums(
    folder: str | Path, *, on_progress: Callable[[Key], None] = lambda key: None
) -> list[Key]:
    """Compute the checksums that exposures and PSFs of other programs lack, and keep them.

    Parameters
    ----------
    folder : path
        The store folder.
    on_progress : callable, optional
        Called with each ``(band, expID)`` that was read.

    Returns
    -------
    list of (band, expID)
        The exposures that had none.

    Raises
    ------
    MissingStoreError
        If the folder holds no stores.
    StoreBusyError, StoreWriteError
        If somebody else is changing the store or it cannot be written; it is as it was before.
    """
    place = StoreFolder(Path(folder)).require()

    def change(state: State) -> Change:
        put = {}
        for key, row in state.index.rows.items():
            calibration = state.calibration(key) if row.file else None
            if calibration is not None and calibration.checksum is None:
                found = bytes_checksum(state, key)
                known = replace(calibration, checksum=found)
                put[key] = Entry(row, state.index.sky(key), known)
                on_progress(key)
        done[:] = put
        return Change(put)

    done: list[Key] = []
    commit(place.pixels, change)
    if place.psf.exists():
        note_checksums(place.psf)
    return done


def stale_views(state: State, paths: MetaPaths) -> list[str]:
    """Name the exposures that forcepho's views lack, or have otherwise than the store.

    Parameters
    ----------
    state : State
        With an index.
    paths : MetaPaths
        The views.

    Returns
    -------
    list of str
        ``band/expID`` of each.
    """
    index = state.index
    wanted = {key for key, row in index.rows.items() if row.meta is not None}
    with_gwcs = [key for key in wanted if index.has_gwcs(key)]
    texts = FileSource(paths).names if paths.json.exists() else {}
    found = {(band, expID) for band, exposures in texts.items() for expID in exposures}
    differing = wanted ^ found
    for band, expID in wanted & found:
        with suppress(StoreError):  # what cannot be read is told of the exposure
            if state.record((band, expID)).text != texts[band][expID]:
                differing.add((band, expID))
    if with_gwcs and not paths.asdf.exists():
        differing |= set(with_gwcs)
    return ["/".join(key) for key in sorted(differing)]


def _look_at_main(place: StoreFolder, verdict: Verdict) -> State | None:
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
        state = open_state(path)
        _ = state.index
    except FpgpuError as exc:
        verdict.add(
            "unreadable",
            place.pixels.name,
            exc,
            "restore it from a copy; if all its exposures are shards, move it away and repair",
        )
        return None
    return state


def _look_at_exposures(
    state: State, verdict: Verdict, pixels: bool, on_progress: Callable[[Key], None]
) -> None:
    """Check each exposure of the pixel store."""
    for key, row in state.index.rows.items():
        if not row.file:
            continue
        verdict.n_exposures += 1
        name = "/".join(key)
        try:
            check_band(key[0]), check_expID(key[1])
            if row.file != state.store.name:
                inside(state.folder, row.file, f"{state.store}: {name}")
        except MissingStoreError as exc:
            verdict.add("missing shard", name, exc)
        except (ExposureNameError, StoreFormatError) as exc:
            verdict.add("refused link", name, exc)
        else:
            try:
                _look_at_exposure(state, key, verdict, pixels)
            except FpgpuError as exc:
                verdict.add("unreadable", name, exc)
        on_progress(key)


def _look_at_exposure(state: State, key: Key, verdict: Verdict, pixels: bool) -> None:
    """Check record and values of one exposure."""
    name = "/".join(key)
    stated = state.calibration(key).checksum
    if state.index.rows[key].meta is not None:
        state.record(key)
    with state.dataset(key):
        pass
    if not pixels:
        return
    checksum, n_bad, n_negative = update_checksum(b""), 0, 0
    for strip in strips(state, key):
        checksum = update_checksum(strip, checksum)
        n_bad += strip.size - int(np.count_nonzero(np.isfinite(strip)))
        n_negative += int(np.count_nonzero(strip[..., strip.shape[2] // 2 :] < 0))
    if stated is None:
        verdict.n_unchecked += 1
    elif stated == checksum:
        verdict.n_verified += 1
    else:
        what = f"its checksum is {checksum}, {stated} was stored with it"
        verdict.add("damaged", name, what)
    if n_bad or n_negative:
        verdict.add(
            "not finite",
            name,
            f"{n_bad} values are not finite, {n_negative} inverse uncertainties are "
            "negative; a fit that meets one is lost",
        )


def _look_at_meta(place: StoreFolder, state: State | None, verdict: Verdict, wcs: bool) -> None:
    """Check the meta store, and that it and the pixel store hold the same exposures."""
    try:
        if state is not None and state.stored is not None:
            _look_at_views(place, state, verdict)
        meta = MetaStore(place.meta)
        keys = list(meta)
        if state is not None:
            meta.image_shape = None if state.geometry is None else state.geometry.shape
            _compare(state, set(keys), verdict)
        told = {problem.where for problem in verdict.problems}
        for key in keys:
            if "/".join(key) not in told:
                _look_at_header(meta, key, state, verdict, wcs)
    except StoreError as exc:
        verdict.add(
            "unreadable",
            place.meta.name,
            exc,
            "made again from the shards once it is moved away, as far as they tell",
        )


def _look_at_views(place: StoreFolder, state: State, verdict: Verdict) -> None:
    """Compare forcepho's files with the store."""
    paths = MetaPaths.of(place.meta)
    if not are_known(state, paths):
        what = "is not as fpgpu wrote it, or the ASDF file beside it"
        verdict.add("changed", paths.json.name, what)
        return
    stale = stale_views(state, paths)
    if stale:
        what = f"forcepho does not see {some(stale, 3)} as they are"
        verdict.add("view", paths.json.name, what)


def _compare(state: State, meta: set[Key], verdict: Verdict) -> None:
    """Note exposures that only one of the stores holds."""
    pixels = {key for key, row in state.index.rows.items() if row.file}
    for key in sorted(pixels - meta):
        what = "has no header in the meta store, so no query finds it"
        verdict.add("only in pixels", "/".join(key), what)
    for key in sorted(meta - pixels):
        what = "has a header but no pixels, so that patches around it cannot be made"
        verdict.add("only in meta", "/".join(key), what)


def _look_at_header(
    meta: MetaStore, key: Key, state: State | None, verdict: Verdict, wcs: bool
) -> None:
    """Check header, footprint, size and refit of one exposure."""
    name = "/".join(key)
    try:
        meta.footprint(*key)
        size = meta.shape(*key)
    except FpgpuError as exc:
        verdict.add("header", name, exc)
        return
    geometry = None if state is None else state.geometry
    if geometry is not None and size != geometry.shape:
        verdict.add(
            "wrong shape",
            name,
            f"its header says {size[0]} x {size[1]} pixels, the store has images of "
            f"{geometry.shape[0]} x {geometry.shape[1]}",
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
        verdict.add("WCS", name, exc)
        return
    if not residual <= sip.residual + SIP_AGREEMENT:
        verdict.add(
            "WCS",
            name,
            f"the SIP refit is {residual:.3g} px from the gWCS, {sip.residual:.3g} px was stored "
            "with it",
        )


def _look_for_leftovers(place: StoreFolder, state: State | None, verdict: Verdict) -> None:
    """Note shards that no commit names, and what killed writers left."""
    if state is not None:
        for path in find_orphans(place.path):
            name = path.relative_to(place.path).as_posix()
            verdict.add("orphan", name, "was written and never committed")
    for path in find_parts(place.path):
        name = path.relative_to(place.path).as_posix()
        what = "belongs to a writer that was killed, or that is still at work"
        verdict.add("leftover", name, what)


def _look_at_units(place: StoreFolder, verdict: Verdict) -> None:
    """Note bands that mix units."""
    units: dict[Key, str] = {}
    # What cannot be read was told already.
    with suppress(FpgpuError), PixelStore(place.pixels, mode="r") as pixels:
        for key in pixels:
            with suppress(FpgpuError):
                units |= units_of(pixels, [key])
    for band, by_unit in mixed_units(units).items():
        what = f"its exposures are in several units: {describe_units(by_unit)}"
        verdict.add("units", band, what)


def _look_at_psfs(place: StoreFolder, verdict: Verdict) -> None:
    """Check that the PSFs of every band can be had."""
    if not place.psf.exists():
        return
    where = place.psf.name
    try:
        with PSFStore(place.psf) as store:
            for band in store.bands:
                try:
                    store.n_radii(band)
                except FpgpuError as exc:
                    verdict.add("PSF", f"{where}: {band}", exc)
    except FpgpuError as exc:
        verdict.add("PSF", where, exc)
