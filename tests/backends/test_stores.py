"""Stores read straight into staging memory, and compute with any backend."""

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
from fpgpu.errors import LayoutError
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
