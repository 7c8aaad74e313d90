"""What every backend must do with memory and transfers; test classes inherit it."""

import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpgpu.backends.arena import Arena, ArenaLayout
from fpgpu.backends.arguments import StagedExposure
from fpgpu.backends.base import Backend
from fpgpu.errors import (
    DeviceMemoryError,
    LayoutError,
    ReleasedMemoryError,
    StagingBusyError,
    StagingError,
)
from fpgpu.layout import PSF_DTYPE

DTYPES = ["f4", ">f4", "f8", "u1", "?", ">i2", "i4", "u4", PSF_DTYPE]


def some_bytes(shape: tuple[int, ...], dtype: npt.DTypeLike, seed: int = 0) -> npt.NDArray[Any]:
    """Any bits whatever, as an array."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    bits = np.random.default_rng(seed).integers(0, 2 if dtype == "?" else 256, count, np.uint8)
    return bits.view(dtype).reshape(shape)


class MemoryConformance:
    """Subclasses give the fixture `backend`."""

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("shape", [(), (0,), (1,), (33,), (3, 0, 2), (5, 7)], ids=str)
    def test_what_is_uploaded_is_downloaded(
        self, backend: Backend, shape: tuple[int, ...], dtype: npt.DTypeLike
    ) -> None:
        host = some_bytes(shape, dtype)
        there = backend.upload(host)
        assert backend.download(there).tobytes() == host.tobytes()
        assert there.dtype.isnative
        assert there.nbytes == host.nbytes

    def test_structs_are_held_as_words(self, backend: Backend) -> None:
        there = backend.upload(some_bytes((3, 2), PSF_DTYPE))
        assert there.shape == (3, 2, 7)
        assert there.dtype == np.uint32

    def test_any_host_layout_can_be_uploaded(self, backend: Backend) -> None:
        host = np.arange(60, dtype="f4").reshape(5, 12)
        for view in (host.T, host[::2, ::3], host[:, ::-1]):
            np.testing.assert_array_equal(backend.download(backend.upload(view)), view)

    def test_an_upload_does_not_see_later_changes_of_its_source(self, backend: Backend) -> None:
        host = some_bytes((1000,), "u1")
        before = host.copy()
        there = backend.upload(host)
        host[:] = 0
        np.testing.assert_array_equal(backend.download(there), before)

    def test_an_upload_larger_than_all_slots_arrives(self, backend: Backend) -> None:
        host = some_bytes((3_000_017,), "u1")
        with backend.staging(slot_bytes=100_000, depth=2):
            np.testing.assert_array_equal(backend.download(backend.upload(host)), host)

    def test_slots_carry_many_uploads_in_flight(self, backend: Backend) -> None:
        hosts = [some_bytes((5000,), "u1", seed) for seed in range(20)]
        there = []
        with backend.staging(slot_bytes=8192, depth=2):
            for host in hosts:
                slot = backend.stage(host.nbytes)
                slot.array[...] = host
                there.append(backend.upload(slot))
                assert slot.released
            for host, array in zip(hosts, there, strict=True):
                np.testing.assert_array_equal(backend.download(array), host)

    def test_an_upload_into_used_memory_waits_for_its_users(self, backend: Backend) -> None:
        first, second = (np.full((1, 16, 16), value, "f4") for value in (1, 2))
        im, ierr = backend.upload(first), backend.upload(first)
        superpixels = backend.superpixelize(im, ierr)
        backend.upload(second, out=im)
        assert (backend.download(superpixels) == 1).all()
        assert (backend.download(im) == 2).all()

    def test_a_refused_upload_gives_its_slot_back(self, backend: Backend) -> None:
        out = backend.empty((3,), "u1")
        with backend.staging(depth=1, slot_bytes=4096, timeout=0.2) as ring:
            with backend.stage(8) as slot, pytest.raises(LayoutError, match="8 bytes"):
                backend.upload(slot, out=out)
            assert ring.n_free == 1

    @pytest.mark.parametrize(
        "out", ["a string", np.empty(3, "u1")[::2]], ids=["foreign", "strided"]
    )
    def test_an_unfit_destination_is_refused(self, backend: Backend, out: Any) -> None:
        with pytest.raises(LayoutError, match="cannot be uploaded"):
            backend.upload(np.zeros(2, "u1"), out=out)

    def test_download_goes_where_it_is_told(self, backend: Backend) -> None:
        host = some_bytes((7, 4), "f4")
        with backend.stage(host.nbytes) as slot:
            out = slot.view(host.shape, "f4")
            assert backend.download(backend.upload(host), out=out) is out
            assert out.tobytes() == host.tobytes()

    def test_unfit_downloads_are_refused(self, backend: Backend) -> None:
        there = backend.upload(np.zeros(4, "f4"))
        with pytest.raises(LayoutError, match="expected 16"):
            backend.download(there, out=np.empty(3, "f4"))
        with pytest.raises(LayoutError, match="cannot download"):
            backend.download([1, 2])

    def test_slots_are_aligned_to_pages(self, backend: Backend) -> None:
        with backend.staging(slot_bytes=5000, depth=2), backend.stage() as a, backend.stage() as b:
            assert a.array.ctypes.data % 4096 == b.array.ctypes.data % 4096 == 0
            assert a.nbytes == 8192

    def test_a_ring_is_allocated_once(self, backend: Backend) -> None:
        with backend.staging(slot_bytes=4096, depth=1):
            addresses = set()
            for _ in range(50):
                with backend.stage() as slot:
                    addresses.add(slot.array.ctypes.data)
            assert len(addresses) == 1

    def test_staging_settings_end_with_their_scope(self, backend: Backend) -> None:
        before = backend.staging_settings
        with backend.staging(slot_bytes=4096, depth=1, timeout=0.05) as ring:
            assert backend.staging_settings.total_bytes == 4096
            with backend.stage(), pytest.raises(StagingBusyError, match=r"1 held by callers"):
                backend.stage()
            with pytest.raises(StagingError, match=r"slot_bytes=\.\.\."):
                backend.stage(4097)
        assert backend.staging_settings == before
        with pytest.raises(StagingError, match="closed"):
            ring.acquire()

    def test_a_scope_that_fails_ends_all_the_same(self, backend: Backend) -> None:
        before = backend.staging_settings
        rings = []

        def fail() -> None:
            with backend.staging(slot_bytes=4096) as ring:
                rings.append(ring)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert rings[0].closed
        assert backend.staging_settings == before

    @pytest.mark.parametrize("n_bytes", [0, 1, 255, 256, 10_000])
    def test_memory_is_aligned(self, backend: Backend, n_bytes: int) -> None:
        memory = backend.allocate(n_bytes)
        assert memory.pointer % 256 == 0
        assert memory.nbytes == n_bytes

    def test_views_stay_within_their_memory(self, backend: Backend) -> None:
        memory = backend.allocate(100)
        assert memory.view((5, 5), "f4").nbytes == 100
        for shape, offset in (((26,), 0), ((25,), 4), ((1,), -4)):
            with pytest.raises(LayoutError, match="allocation of 100 bytes"):
                memory.view(shape, "f4", offset)

    def test_freed_memory_cannot_be_used(self, backend: Backend) -> None:
        memory = backend.allocate(100)
        memory.free()
        memory.free()
        for use in (lambda: memory.pointer, lambda: memory.view((1,), "u1")):
            with pytest.raises(ReleasedMemoryError, match="freed"):
                use()

    def test_too_much_memory_is_an_error_that_leaves_the_backend_usable(
        self, backend: Backend
    ) -> None:
        held = backend.allocate(12345)
        asked = 1 << 55
        with pytest.raises(DeviceMemoryError, match=f"{asked:,} bytes were asked for") as caught:
            backend.allocate(asked)
        assert isinstance(caught.value, MemoryError)
        assert "are free, 12,345 are held by 1 allocations" in str(caught.value)
        del held
        host = some_bytes((64,), "u1")
        assert backend.download(backend.upload(host)).tobytes() == host.tobytes()
        assert backend.live_allocations == 0

    def test_negative_sizes_are_refused(self, backend: Backend) -> None:
        with pytest.raises(LayoutError, match="-1 bytes"):
            backend.allocate(-1)

    def test_resident_bytes_are_what_is_held(self, backend: Backend) -> None:
        assert backend.memory_state().resident == 0
        memory, array = backend.allocate(1000), backend.empty((5,), "f4")
        assert backend.memory_state().resident == 1020
        view = memory.view((2,), "f4")
        memory.free()
        assert backend.live_allocations == 2, "a view still needs the memory"
        del view, array
        assert backend.live_allocations == 0

    def test_patches_come_and_go_without_growth(self, backend: Backend, n_patches: int) -> None:
        layout = ArenaLayout(n_pixels=192, n_exp=2, n_bands=1, n_src=2, n_radii=3, n_psf=12)
        places = np.zeros((3, 2), np.int32)
        superpixels = backend.upload(some_bytes((3, 128), "f4"))
        free = []
        with backend.staging(slot_bytes=layout.meta_bytes, depth=2) as ring:
            for n in range(n_patches):
                with Arena(backend, layout) as arena:
                    arena.upload(backend.stage(layout.meta_bytes))
                    backend.unpack([StagedExposure(superpixels, 3)], places, arena.pixels)
                if n in (10, n_patches - 1):
                    backend.synchronize()
                    free.append(backend.memory_state().free)
            assert ring.n_free == 2
        assert backend.live_allocations == 1
        if backend.name == "cuda":  # on the host, others take memory all the time
            assert free[0] - free[1] < n_patches * layout.total_bytes // 10

    def test_threads_share_a_backend(self, backend: Backend) -> None:
        failures = []

        def work(seed: int) -> None:
            for n in range(10):
                host = some_bytes((2, 16, 8), "f4", 100 * seed + n)
                pair = backend.upload(host), backend.upload(host[::-1])
                back = backend.images_from_superpixels(backend.superpixelize(*pair))
                if backend.download(back[0]).tobytes() != host.tobytes():
                    failures.append((seed, n))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    def test_time_gives_one_figure_a_repetition(self, backend: Backend) -> None:
        calls = []
        seconds = backend.time(lambda: calls.append(backend.upload(np.zeros(10))), repeat=3)
        assert len(seconds) == 3
        assert all(second >= 0 for second in seconds)
        assert len(calls) == 4, "once to warm up"

    def test_what_the_warm_up_wrote_can_be_spoilt(self, backend: Backend) -> None:
        done: list[str] = []
        spoil = lambda: done.append("spoilt")  # noqa: E731
        backend.time(lambda: done.append("called"), repeat=2, spoil=spoil)
        assert done == ["called", "spoilt", "called", "called"]

    def test_every_copy_to_time_can_be_timed(self, backend: Backend) -> None:
        for call in backend.copies_to_time(1 << 16).values():
            assert min(backend.time(call, repeat=2)) >= 0

    def test_repr_names_the_device(self, backend: Backend) -> None:
        assert backend.description in repr(backend)
