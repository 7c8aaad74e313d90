"""Stores read straight into staging memory, and compute with any backend."""

import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fpgpu.backends.base import Backend
from fpgpu.backends.cpu import CpuBackend
from fpgpu.errors import LayoutError, StoreConflictError
from fpgpu.layout import PSF_DTYPE
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore
from fpgpu.superpixels import Window
from tests.stores.imagesets import golden_set, image_set

SIDE = 512


@pytest.fixture(params=["cpu", "cuda logic"])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "cpu":
        return CpuBackend()
    backend: Backend = request.getfixturevalue("cuda_class")(0)
    return backend


@contextmanager
def peak_allocation() -> Iterator[Callable[[], int]]:
    """Trace what Python and NumPy allocate within the block."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield lambda: tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PixelStore:
    store = PixelStore(tmp_path_factory.mktemp("store") / "pixels.h5", nside_full=SIDE)
    store.add_exposure(image_set(side=SIDE))
    return store


WINDOWS = [Window(0, 64, 0, 64), Window(3, 40, 5, 60)]


@pytest.mark.parametrize("window", WINDOWS, ids=["all", "part"])
def test_windows_are_read_into_a_slot_without_a_copy(
    store: PixelStore, backend: Backend, window: Window
) -> None:
    shape = (*window.shape, 128)
    n_bytes = int(np.prod(shape)) * 4
    expected = store.read_window("F200W", "e1", window)
    with backend.stage(n_bytes) as slot:
        out = slot.view(shape, np.float32)
        with peak_allocation() as peak:
            store.read_window("F200W", "e1", window, out=out)
            assert peak() < 64 << 10
        assert n_bytes > 10 * (64 << 10), "a copy would have been seen"
        there = backend.upload(slot)
    assert backend.download(there).tobytes() == expected.tobytes()


def test_the_trace_would_see_a_copy(store: PixelStore) -> None:
    with peak_allocation() as peak:
        store.read_window("F200W", "e1", WINDOWS[0])
        assert peak() > 2 << 20


def test_psf_tables_go_into_a_slot_without_a_copy(tmp_path: Path, backend: Backend) -> None:
    n_locations, n_psf = 400, 30
    parameters = np.zeros((n_locations, n_psf), PSF_DTYPE)
    parameters["amp"] = np.random.default_rng(1).random(parameters.shape)
    parameters["Cxx"] = parameters["Cyy"] = 1
    parameters["sersic_bin"] = np.arange(n_psf) // 4
    locations = np.random.default_rng(2).uniform(0, 2048, (n_locations, 2))
    store = PSFStore(tmp_path / "psf.h5")
    store.add_psf("F200W", parameters, locations)
    table = store.table("F200W")
    assert table.tobytes() == parameters.tobytes()
    with backend.stage(table.nbytes) as slot:
        out = slot.view(table.shape, PSF_DTYPE)
        with peak_allocation() as peak:
            assert store.table("F200W", out=out) is out
            assert peak() < table.nbytes // 8
        there = backend.upload(slot)
    assert backend.download(there).tobytes() == parameters.tobytes()
    with pytest.raises(LayoutError, match="need"):
        store.table("F200W", out=np.empty(3, PSF_DTYPE))


ROW_BYTES = 64 * 128 * 4


@pytest.mark.parametrize("slot_bytes", [64 * ROW_BYTES, 5 * ROW_BYTES, ROW_BYTES // 4])
@pytest.mark.parametrize("window", WINDOWS, ids=["all", "part"])
def test_super_pixels_are_read_into_the_memory_of_a_backend(
    store: PixelStore, backend: Backend, window: Window, slot_bytes: int
) -> None:
    places = np.argwhere(np.random.default_rng(1).random((64, 64)) < 0.3)
    expected = (
        store.read_window("F200W", "e1", window),
        store.read_superpixels("F200W", "e1", places),
    )
    with backend.staging(slot_bytes=slot_bytes, depth=2) as ring:
        found = (
            store.read_window("F200W", "e1", window, backend=backend),
            store.read_superpixels("F200W", "e1", places, backend=backend),
        )
        for there, plain in zip(found, expected, strict=True):
            assert backend.why_foreign(there) is None
            assert backend.download(there).tobytes() == plain.tobytes()
        assert ring.n_free == 2


def test_they_are_read_into_staging_memory_without_a_copy(
    store: PixelStore, backend: Backend
) -> None:
    out = backend.empty((64, 64, 128), "f4")
    with backend.staging(slot_bytes=16 * ROW_BYTES, depth=2) as ring:
        assert ring.n_free == 2
        with peak_allocation() as peak:
            found = store.read_window("F200W", "e1", WINDOWS[0], out, backend=backend)
            assert peak() < 64 << 10
    assert found is out
    expected = store.read_window("F200W", "e1", WINDOWS[0])
    assert backend.download(out).tobytes() == expected.tobytes()


def test_images_are_read_into_the_memory_of_a_backend(store: PixelStore, backend: Backend) -> None:
    for there, plain in zip(
        store.read_exposure("F200W", "e1", backend=backend),
        store.read_exposure("F200W", "e1"),
        strict=True,
    ):
        assert backend.why_foreign(there) is None
        assert backend.download(there).tobytes() == plain.tobytes()


def test_chunked_exposures_are_read_into_the_memory_of_a_backend(
    store: PixelStore, backend: Backend, tmp_path: Path
) -> None:
    plain = store.read_window("F200W", "e1", WINDOWS[0])
    with h5py.File(tmp_path / "chunked.h5", "w") as file:
        file.attrs.update({"nside_full": SIDE, "super_pixel_size": 8})
        file.create_dataset("F200W/e1/data", data=plain, chunks=(8, 8, 128), compression="gzip")
    chunked = PixelStore(tmp_path / "chunked.h5", mode="r")
    with backend.staging(slot_bytes=5 * ROW_BYTES, depth=2):
        there = chunked.read_window("F200W", "e1", WINDOWS[0], backend=backend)
    assert backend.download(there).tobytes() == plain.tobytes()


def test_a_file_that_another_program_changes_between_two_pieces_is_not_read(
    store: PixelStore, cuda_class: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "foreign.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"nside_full": SIDE, "super_pixel_size": 8})
        file["F200W/e1/data"] = np.zeros((SIDE // 8, SIDE // 8, 128), "f4")
    foreign = PixelStore(path, mode="r")
    real = os.preadv

    def preadv(descriptor: int, *args: Any) -> int:
        n = real(descriptor, *args)
        os.utime(path)
        return n

    monkeypatch.setattr(os, "preadv", preadv)
    backend = cuda_class(0)
    with (
        backend.staging(slot_bytes=ROW_BYTES),
        pytest.raises(StoreConflictError, match="open the store again"),
    ):
        foreign.read_window("F200W", "e1", WINDOWS[0], backend=backend)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda backend: backend.empty((64, 64, 64), "f4"), r"shape \(64, 64, 64\); expected"),
        (lambda backend: backend.empty((64, 64, 128), "f8"), "dtype float64"),
        (lambda backend: [1], "it is a builtins.list"),
    ],
)
def test_memory_that_does_not_fit_is_refused(
    store: PixelStore, backend: Backend, make: Callable[[Backend], Any], message: str
) -> None:
    with pytest.raises(LayoutError, match=message):
        store.read_window("F200W", "e1", WINDOWS[0], make(backend), backend=backend)
    wide = PixelStore(store.h5file, pix_dtype=np.float64)
    with pytest.raises(LayoutError, match="opened with float64"):
        wide.read_exposure("F200W", "e1", backend=backend)


@pytest.mark.parametrize("do_fluxcal", [False, True])
@pytest.mark.parametrize("name", ["exp_f090w_00.fits.gz", "exp_f444w_01.fits.gz"])
def test_exposures_added_with_a_backend_have_the_same_bits(
    golden: Path, tmp_path: Path, backend: Backend, name: str, do_fluxcal: bool
) -> None:
    stored = []
    for file, where in (("plain.h5", None), ("backend.h5", backend)):
        imset = golden_set(golden / "tiny" / name)
        store = PixelStore(tmp_path / file, nside_full=imset.im.shape)
        record = store.add_exposure(imset, bitmask=1, do_fluxcal=do_fluxcal, backend=where)
        with h5py.File(tmp_path / file) as h5:
            data = h5[f"{imset.band}/{imset.expID}/data"]
            stored.append((data[()].tobytes(), record))
    assert stored[0] == stored[1]


def test_superpixelize_takes_a_backend(store: PixelStore, backend: Backend) -> None:
    imset: Any = image_set(side=64)
    plain = store.superpixelize(imset.im, imset.ierr)
    assert store.superpixelize(imset.im, imset.ierr, backend=backend).tobytes() == plain.tobytes()
    wide = store.superpixelize(imset.im, imset.ierr, np.float64, backend=backend)
    assert wide.dtype == np.float64
