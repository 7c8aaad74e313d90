"""Pixels of a plan, from the store through staging memory into the arrays of a patch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import PatchPixels, StagedExposure
from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array
from fpgpu.errors import LayoutError
from fpgpu.patch.clock import Clock, untimed
from fpgpu.patch.plan import PatchPlan
from fpgpu.patch.resident import ResidentExposures
from fpgpu.stores.pixel import PixelStore
from fpgpu.superpixels import grid_shape

__all__ = ["send_pixels"]

_IN_CACHE = 16 << 20
"""Bytes staged at a time where nothing has to cross a bus: what was read is still in the cache that
cores share, and the calls for each piece are not felt."""

_PLACE_BYTES = 8


class Piece(NamedTuple):
    """Some super-pixels of one exposure: ``superpixels[start:stop]`` of its plan."""

    exposure: int
    start: int
    stop: int


def send_pixels(
    store: PixelStore,
    plan: PatchPlan,
    backend: Backend,
    out: PatchPixels,
    backgrounds: Sequence[float],
    max_snr: float = 0.0,
    resident: ResidentExposures | None = None,
    clock: Clock = untimed,
) -> None:
    """Read the super-pixels of a plan, and nothing else, and unpack them.

    They are read straight into staging memory, in the order of the file, and cross to the device as
    they are in one transfer, or in as few as slots allow. Where the backend can use staging memory
    itself, nothing is copied.

    Parameters
    ----------
    store : PixelStore
        Of ``pix_dtype`` float32.
    plan : PatchPlan
        What to read.
    backend : Backend
        Where `out` lives.
    out : PatchPixels
        Arrays of ``plan.n_pixels``.
    backgrounds : sequence of float, length n_exp
        Subtracted from the fluxes of each exposure.
    max_snr : float, optional
        Limit of flux times inverse uncertainty, 0 for none.
    resident : ResidentExposures, optional
        Exposures of the backend to take super-pixels from, instead of reading them alone.
    clock : callable, optional
        Told of the phases read, upload and unpack.

    Raises
    ------
    LayoutError
        If the plan was made for images of another size, the store gives no float32, or the
        resident exposures are of another backend.
    NotInStoreError, MissingStoreError, StoreFormatError, StoreBusyError
        If an exposure or the file is gone, damaged or being changed.
    StagingError, StagingBusyError
        If staging memory cannot serve.
    """
    _require_fit(store, plan)
    if resident is not None and resident.backend is not backend:
        raise LayoutError(
            f"the resident exposures are of another backend, on {resident.backend.description};"
            f" make those of the patch's, on {backend.description}"
        )
    keys = [(exposure.band, exposure.expID) for exposure in plan.exposures]
    with (
        resident.lent(store, keys) if resident is not None else nullcontext([None] * len(keys))
    ) as whole:
        start = 0
        for batch in _all_batches(store, plan, backend, backgrounds, whole, clock):
            stop = start + len(batch.places) * plan.super_pixel_size**2
            with clock("unpack"):
                backend.unpack(
                    batch.exposures,
                    batch.places,
                    PatchPixels(*(array[start:stop] for array in out)),
                    plan.super_pixel_size,
                    max_snr=max_snr,
                    places_on_device=batch.places_there,
                )
            start = stop


Staged: TypeAlias = tuple[list[Piece], Array, npt.NDArray[np.int32], Array | None]
"""Pieces, their super-pixels, where these belong, and the same in the backend's memory."""


class Batch(NamedTuple):
    """Super-pixels of each piece, or its whole exposure, and where they belong."""

    exposures: list[StagedExposure]
    places: npt.NDArray[np.int32]
    places_there: Array | None


def _all_batches(
    store: PixelStore,
    plan: PatchPlan,
    backend: Backend,
    backgrounds: Sequence[float],
    whole: Sequence[Array | None],
    clock: Clock,
) -> Iterator[Batch]:
    """Give all super-pixels of the plan in order: of resident exposures, or read."""
    in_place = backend.complaint(np.empty(0, np.float32)) is None
    slot_bytes = backend.staging_settings.slot_bytes
    batch_bytes = min(slot_bytes, _IN_CACHE) if in_place else slot_bytes
    most = max(1, batch_bytes // (8 * plan.super_pixel_size**2 + _PLACE_BYTES))
    staged = _staged_here if in_place else _staged_there
    not_empty = [n for n, exposure in enumerate(plan.exposures) if len(exposure.superpixels)]
    for is_read, group in groupby(not_empty, lambda number: whole[number] is None):
        numbers = list(group)
        if is_read:
            for pieces, superpixels, places, places_there in staged(
                store, plan, backend, _batches(plan, numbers, most), clock
            ):
                exposures = _staged_together(plan, pieces, superpixels, backgrounds)
                yield Batch(exposures, places, places_there)
        else:
            pieces = [Piece(n, 0, len(plan.exposures[n].superpixels)) for n in numbers]
            exposures = [StagedExposure(whole[n], stop, backgrounds[n]) for n, _, stop in pieces]
            yield Batch(exposures, _places(plan, pieces), None)


def _staged_here(
    store: PixelStore,
    plan: PatchPlan,
    backend: Backend,
    batches: Iterable[list[Piece]],
    clock: Clock,
) -> Iterator[Staged]:
    """Read batch after batch into one slot, where the backend can use them."""
    n_values = 2 * plan.super_pixel_size**2
    batches = list(batches)
    most = max(sum(stop - start for _, start, stop in pieces) for pieces in batches)
    with backend.stage(most * n_values * 4) as slot:
        for pieces in batches:
            places = _places(plan, pieces)
            superpixels = slot.view((len(places), n_values), np.float32)
            with clock("read"):
                _read(store, plan, pieces, superpixels)
            yield pieces, superpixels, places, None


def _staged_there(
    store: PixelStore,
    plan: PatchPlan,
    backend: Backend,
    batches: Iterable[list[Piece]],
    clock: Clock,
) -> Iterator[Staged]:
    """Read batch after batch, each into a slot of its own, and send it in one transfer."""
    n_values = 2 * plan.super_pixel_size**2
    for pieces in batches:
        places = _places(plan, pieces)
        shape, after = (len(places), n_values), len(places) * n_values * 4
        with backend.stage(after + places.nbytes) as slot:
            with clock("read"):
                _read(store, plan, pieces, slot.view(shape, np.float32))
                slot.view(places.shape, np.int32, after)[...] = places
            with clock("upload"):
                memory = backend.allocate(slot.nbytes)
                backend.upload(slot, out=memory.view((slot.nbytes,), np.uint8), fresh=True)
        yield (
            pieces,
            memory.view(shape, np.float32),
            places,
            memory.view(places.shape, np.int32, after),
        )


def _places(plan: PatchPlan, pieces: Sequence[Piece]) -> npt.NDArray[np.int32]:
    """Indices of the super-pixels of some pieces, shape (n, 2)."""
    parts = [plan.exposures[p.exposure].superpixels[p.start : p.stop] for p in pieces]
    return np.concatenate(parts).astype(np.int32, copy=False)


def _read(
    store: PixelStore, plan: PatchPlan, pieces: Sequence[Piece], out: npt.NDArray[np.float32]
) -> None:
    """Read some pieces one after the other."""
    exposures = [(plan.exposures[number], start, stop) for number, start, stop in pieces]
    lists = [(e.band, e.expID, e.superpixels[start:stop]) for e, start, stop in exposures]
    store.reader.read_lists(lists, out)


def _require_fit(store: PixelStore, plan: PatchPlan) -> None:
    """Refuse a store that is not the one the plan was made for."""
    found = {exposure.shape for exposure in plan.exposures} - {store.shape}
    if found or plan.super_pixel_size != store.super_pixel_size:
        shape = found.pop() if found else store.shape
        raise LayoutError(
            f"the plan is for images of {shape} in super-pixels of {plan.super_pixel_size}, but"
            f" {store.h5file} holds {store.shape} in {store.super_pixel_size}; plan again"
        )
    if store.pix_dtype != np.float32:
        raise LayoutError(
            f"{store.h5file} was opened with pix_dtype {store.pix_dtype}; open it with float32,"
            " which patches are of"
        )


def _batches(plan: PatchPlan, numbers: Iterable[int], most: int) -> Iterator[list[Piece]]:
    """Cut the super-pixels of some exposures into batches of at most so many."""
    batch: list[Piece] = []
    room = most
    for number in numbers:
        start, n = 0, len(plan.exposures[number].superpixels)
        while start < n:
            stop = min(n, start + room)
            batch.append(Piece(number, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield batch
                batch, room = [], most
    if batch:
        yield batch


def _staged_together(
    plan: PatchPlan,
    pieces: Iterable[Piece],
    superpixels: Array,
    backgrounds: Sequence[float],
) -> list[StagedExposure]:
    """Say what is subtracted from which super-pixels.

    To `unpack`, neighbours of the same background are one exposure: images have one size.
    """
    grid = grid_shape(plan.exposures[0].shape, plan.super_pixel_size)
    staged, row = [], 0
    for background, group in groupby(pieces, lambda piece: backgrounds[piece.exposure]):
        count = sum(stop - start for _, start, stop in group)
        staged.append(StagedExposure(superpixels[row : row + count], count, background, grid))
        row += count
    return staged
