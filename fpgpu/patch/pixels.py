"""Pixels of a plan, from the store through staging memory into the arrays of a patch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fpgpu.backends.arguments import PatchPixels, StagedExposure
from fpgpu.backends.base import Backend
from fpgpu.backends.memory import Array
from fpgpu.backends.operations import FirstBad
from fpgpu.backends.unpacking import Unpacker
from fpgpu.errors import IntegrityError, LayoutError
from fpgpu.patch.clock import Clock, untimed
from fpgpu.patch.plan import PatchPlan
from fpgpu.patch.resident import ResidentExposures
from fpgpu.stores.pixel import PixelStore
from fpgpu.superpixels import grid_shape

__all__ = ["send_pixels"]

_IN_CACHE = 4 << 20
"""Bytes staged at a time where nothing has to cross a bus: what was read is still in the caches
when it is unpacked."""

_PLACE_BYTES = 8


def send_pixels(
    store: PixelStore,
    plan: PatchPlan,
    backend: Backend,
    out: PatchPixels,
    backgrounds: Sequence[float],
    max_snr: float = 0.0,
    resident: ResidentExposures | None = None,
    clock: Clock = untimed,
) -> Callable[[], None]:
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

    Returns
    -------
    callable
        To be called without arguments before the arrays are used: waits for the end where that is
        yet to come, and raises `IntegrityError` where a value is not finite.

    Raises
    ------
    IntegrityError
        If a value is not finite, where that is known at once.
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
    filling = _Filling(store, plan, backend, backgrounds, max_snr, clock)
    check = partial(_refuse_not_finite, store, plan, filling.checks)
    in_place = backend.complaint(np.empty(0, np.float32)) is None
    read = filling.read_in_place if in_place else filling.read_and_upload
    keys = [(exposure.band, exposure.expID) for exposure in plan.exposures]
    with (
        resident.lent(store, keys) if resident is not None else nullcontext([None] * len(keys))
    ) as whole:
        start = 0
        not_empty = [n for n, exposure in enumerate(plan.exposures) if len(exposure.superpixels)]
        for is_read, group in groupby(not_empty, lambda number: whole[number] is None):
            pieces = [Piece(n, 0, len(plan.exposures[n].superpixels)) for n in group]
            stop = start + _count(pieces) * plan.super_pixel_size**2
            here = PatchPixels(*(array[start:stop] for array in out))
            first = start // plan.super_pixel_size**2
            if is_read:
                read(pieces, here, first)
            else:
                filling.pick(whole, pieces, here, first)
            start = stop
    if not in_place:
        return check
    check()
    return lambda: None


class Piece(NamedTuple):
    """Some super-pixels of one exposure: ``superpixels[start:stop]`` of its plan."""

    exposure: int
    start: int
    stop: int


@dataclass(frozen=True)
class _Filling:
    """Ways to fill the pixel arrays of a plan, or of some exposures of it."""

    store: PixelStore
    plan: PatchPlan
    backend: Backend
    backgrounds: Sequence[float]
    max_snr: float
    clock: Clock
    checks: list[tuple[int, FirstBad]] = field(default_factory=list)

    def pick(
        self, whole: Sequence[Array | None], pieces: Sequence[Piece], out: PatchPixels, first: int
    ) -> None:
        """Take super-pixels from whole exposures in the backend's memory."""
        exposures = [StagedExposure(whole[n], stop, self.backgrounds[n]) for n, _, stop in pieces]
        self._unpack(exposures, self._places(pieces), out, first)

    def read_in_place(self, pieces: Sequence[Piece], out: PatchPixels, first: int) -> None:
        """Read a few exposures after the other into one slot, where the backend can use them."""
        at_most = self.backend.staging_settings.slot_bytes // self._bytes_each or 1
        batches = list(_batches(pieces, at_most, _IN_CACHE // self._bytes_each))
        largest = max(map(_count, batches))
        size, grid = self.plan.super_pixel_size, self._grid
        unpacker = Unpacker(
            self.backend, self._places(pieces), out, size, grid=grid, max_snr=self.max_snr
        )
        with self.backend.stage(largest * self._bytes_each) as slot, unpacker:
            memory = slot.view((largest, self._n_values), np.float32)
            for batch in batches:
                with self.clock("read"):
                    self._read(batch, memory[: _count(batch)])
                with self.clock("unpack"):
                    for staged in self._staged(batch, memory):
                        unpacker.add(staged.superpixels, staged.background)
            with self.clock("unpack"):
                unpacker.finish()
        self.checks.append((first, lambda: unpacker.first_bad))

    def read_and_upload(self, pieces: Sequence[Piece], out: PatchPixels, first: int) -> None:
        """Read as many exposures as fit into a slot, and send them with their places."""
        start, pixels = 0, self.plan.super_pixel_size**2
        at_most = self.backend.staging_settings.slot_bytes // (self._bytes_each + _PLACE_BYTES) or 1
        for batch in _batches(pieces, at_most, at_most):
            places = self._places(batch)
            shape, after = (len(places), self._n_values), len(places) * self._bytes_each
            with self.backend.stage(after + places.nbytes) as slot:
                with self.clock("read"):
                    self._read(batch, slot.view(shape, np.float32))
                    slot.view(places.shape, np.int32, after)[...] = places
                with self.clock("upload"):
                    memory = self.backend.allocate(slot.nbytes)
                    self.backend.upload(slot, out=memory.view((slot.nbytes,), np.uint8), fresh=True)
            stop = start + len(places) * pixels
            self._unpack(
                self._staged(batch, memory.view(shape, np.float32)),
                places,
                PatchPixels(*(array[start:stop] for array in out)),
                first + start // pixels,
                memory.view(places.shape, np.int32, after),
            )
            start = stop

    @property
    def _n_values(self) -> int:
        """Values of a super-pixel."""
        return 2 * self.plan.super_pixel_size**2

    @property
    def _bytes_each(self) -> int:
        """Bytes of a super-pixel."""
        return 4 * self._n_values

    @property
    def _grid(self) -> tuple[int, int]:
        """Super-pixels along x and y of every exposure: images have one size."""
        return grid_shape(self.plan.exposures[0].shape, self.plan.super_pixel_size)

    def _places(self, pieces: Sequence[Piece]) -> npt.NDArray[np.int32]:
        """Indices of the super-pixels of some pieces, shape (n, 2)."""
        parts = [self.plan.exposures[n].superpixels[start:stop] for n, start, stop in pieces]
        return np.concatenate(parts)

    def _read(self, pieces: Sequence[Piece], out: npt.NDArray[np.float32]) -> None:
        """Read some pieces one after the other."""
        exposures = [(self.plan.exposures[n], start, stop) for n, start, stop in pieces]
        lists = [(e.band, e.expID, e.superpixels[start:stop]) for e, start, stop in exposures]
        self.store.reader.read_lists(lists, out)

    def _staged(self, pieces: Iterable[Piece], superpixels: Array) -> list[StagedExposure]:
        """Say what is subtracted from which super-pixels.

        To `unpack`, neighbours of the same background are one exposure.
        """
        staged, row = [], 0
        for background, group in groupby(pieces, lambda piece: self.backgrounds[piece.exposure]):
            count = _count(group)
            rows = superpixels[row : row + count]
            staged.append(StagedExposure(rows, count, background, self._grid))
            row += count
        return staged

    def _unpack(
        self,
        exposures: Sequence[StagedExposure],
        places: npt.NDArray[np.int32],
        out: PatchPixels,
        first: int,
        places_there: Array | None = None,
    ) -> None:
        """Unpack what is in the backend's memory: the patch's super-pixels from `first` on."""
        with self.clock("unpack"):
            found = self.backend.unpack(
                exposures,
                places,
                out,
                self.plan.super_pixel_size,
                max_snr=self.max_snr,
                places_on_device=places_there,
            )
        self.checks.append((first, found))


def _refuse_not_finite(
    store: PixelStore, plan: PatchPlan, checks: Sequence[tuple[int, FirstBad]]
) -> None:
    """Raise for the first super-pixel with a value that is not finite."""
    for first, found in checks:
        bad = found()
        if bad is None:
            continue
        stops = np.cumsum([len(exposure.superpixels) for exposure in plan.exposures])
        number = int(np.searchsorted(stops, first + bad, side="right"))
        exposure = plan.exposures[number]
        row = first + bad - int(stops[number]) + len(exposure.superpixels)
        x, y = (exposure.superpixels[row] * plan.super_pixel_size).tolist()
        raise IntegrityError(
            f"{store.h5file}: {exposure.band}/{exposure.expID} holds values that are not finite, "
            f"the first in the super-pixel at [x, y] = [{x}, {y}]: the file was damaged, or "
            "written by another program; 'fpgpu verify' looks at all exposures; add this one again"
        )


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


def _count(pieces: Iterable[Piece]) -> int:
    """Number of super-pixels."""
    return sum(stop - start for _, start, stop in pieces)


def _batches(pieces: Iterable[Piece], at_most: int, enough: int) -> Iterator[list[Piece]]:
    """Gather pieces into batches of `enough` super-pixels, or of one piece of at most `at_most`.

    An exposure is only cut where it is more than `at_most`: what is read of it at once is of one
    state of the store.
    """
    enough = min(enough, at_most)
    batch: list[Piece] = []
    room = 0
    for exposure, begin, end in pieces:
        for start in range(begin, end, at_most):
            stop = min(end, start + at_most)
            if batch and stop - start > room:
                yield batch
                batch = []
            room = (room if batch else enough) - (stop - start)
            batch.append(Piece(exposure, start, stop))
    if batch:
        yield batch
