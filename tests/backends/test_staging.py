"""Staging slots are lent to one user at a time, and again only when their transfer has ended."""

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fpgpu.backends.cpu import CpuBackend
from fpgpu.backends.hostpool import aligned_bytes
from fpgpu.backends.staging import PAGE, StagingRing, StagingSettings
from fpgpu.errors import LayoutError, ReleasedMemoryError, StagingBusyError, StagingError


class Switch:
    """An event that fires when it is told to."""

    def __init__(self) -> None:
        self.done = False


def make_ring(depth: int = 2, slot_bytes: int = PAGE, timeout: float = 0.05) -> StagingRing:
    settings = StagingSettings(slot_bytes, depth, timeout)
    return StagingRing(aligned_bytes(settings.total_bytes, PAGE), settings)


@pytest.fixture
def ring() -> StagingRing:
    return make_ring()


def test_slots_are_disjoint_and_have_the_bytes_asked_for(ring: StagingRing) -> None:
    with ring.acquire(100) as a, ring.acquire(PAGE) as b:
        assert (a.nbytes, b.nbytes) == (100, PAGE)
        assert a.array.shape == (100,)
        assert not np.shares_memory(a.array, b.array)


def test_views_see_the_slot(ring: StagingRing) -> None:
    with ring.acquire(100) as slot:
        slot.view((4, 2), np.float32, 8)[...] = 1
        np.testing.assert_array_equal(slot.array[8:40].view("f4"), np.ones(8, "f4"))
        for shape, offset in (((26,), 0), ((25,), 1), ((1,), -4)):
            with pytest.raises(LayoutError, match="asked for 100 bytes"):
                slot.view(shape, np.float32, offset)


def test_a_slot_comes_back_at_the_end_of_its_block(ring: StagingRing) -> None:
    with ring.acquire():
        assert ring.n_free == 1
    assert ring.n_free == 2


def test_a_slot_comes_back_when_its_block_fails(ring: StagingRing) -> None:
    with pytest.raises(ZeroDivisionError), ring.acquire():
        _ = 1 / 0
    assert ring.n_free == 2


def test_a_slot_that_is_dropped_comes_back(ring: StagingRing) -> None:
    ring.acquire()
    gc.collect()
    assert ring.n_free == 2


def test_a_slot_that_was_given_back_cannot_be_used(ring: StagingRing) -> None:
    slot = ring.acquire()
    slot.release()
    assert slot.released
    for use in (lambda: slot.array, lambda: slot.view(1, "u1"), slot.release):
        with pytest.raises(ReleasedMemoryError, match="given back"):
            use()


def test_waiting_ends_with_how_things_stand(ring: StagingRing) -> None:
    ring.acquire().release(after=Switch())
    with ring.acquire(), pytest.raises(StagingBusyError, match="1 of 2 in flight, 1 held") as busy:
        ring.acquire()
    assert isinstance(busy.value, TimeoutError)


def test_a_timeout_of_one_call_overrules_the_settings() -> None:
    ring = make_ring(depth=1, timeout=3600)
    with ring.acquire(), pytest.raises(StagingBusyError, match=r"within 0\.01 s"):
        ring.acquire(timeout=0.01)


def test_a_slot_in_flight_is_lent_when_its_event_has_fired(ring: StagingRing) -> None:
    switches = [Switch(), Switch()]
    slots = [ring.acquire() for _ in switches]
    addresses = [slot.array.ctypes.data for slot in slots]
    for slot, switch in zip(slots, switches, strict=True):
        slot.release(after=switch)
    assert ring.n_free == 0
    switches[1].done = True
    with ring.acquire() as slot:
        assert slot.array.ctypes.data == addresses[1]


def test_a_waiting_thread_gets_the_slot_that_comes_back() -> None:
    ring = make_ring(depth=1, timeout=30)
    slot, got = ring.acquire(), []
    thread = threading.Thread(target=lambda: got.append(ring.acquire()))
    thread.start()
    slot.release()
    thread.join()
    assert got[0].array.ctypes.data % PAGE == 0


def test_all_waiting_threads_go_on_when_one_event_after_the_other_fires() -> None:
    ring = make_ring(depth=3, timeout=30)
    switches, served = [Switch() for _ in range(3)], []
    slots = [ring.acquire() for _ in switches]

    def work() -> None:
        with ring.acquire():
            served.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for slot, switch in zip(slots, switches, strict=True):
        slot.release(after=switch)
        switch.done = True
    for thread in threads:
        thread.join()
    assert len(served) == 12
    assert ring.n_free == 3


def test_no_slot_is_ever_lent_twice(long_form: bool) -> None:
    ring, clashes = make_ring(depth=3, timeout=60), []

    def work(number: int) -> None:
        for n in range(2000 if long_form else 100):
            slot = ring.acquire(8)
            slot.array[:] = number
            switch = Switch()
            if n % 3 == 0:
                time.sleep(0)
            if (slot.array != number).any():
                clashes.append(number)
            slot.release(after=switch if n % 2 else None)
            switch.done = True

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []
    assert ring.n_free == 3


def test_requests_larger_than_a_slot_say_what_to_do(ring: StagingRing) -> None:
    with pytest.raises(StagingError, match=rf"{PAGE + 1} bytes .* a slot has {PAGE}.*slot_bytes="):
        ring.acquire(PAGE + 1)


def test_a_closed_ring_lends_nothing_and_its_slots_live_on(ring: StagingRing) -> None:
    slot = ring.acquire()
    ring.close()
    assert ring.closed
    slot.array[:] = 3
    with pytest.raises(StagingError, match="closed"):
        ring.acquire()


def test_closing_waits_for_transfers_and_no_longer_than_said() -> None:
    ring, switch = make_ring(), Switch()
    ring.acquire().release(after=switch)
    with pytest.raises(StagingBusyError, match="1 transfers did not end"):
        ring.close()
    switch.done = True
    ring.close()


def test_closing_wakes_whoever_waits() -> None:
    ring, errors = make_ring(depth=1, timeout=30), []
    slot = ring.acquire()

    def work() -> None:
        try:
            ring.acquire()
        except StagingError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    ring.close()
    thread.join()
    slot.release()
    assert len(errors) == 1
    assert "closed" in errors[0]


@pytest.mark.parametrize("setting", ["slot_bytes", "depth", "timeout"])
@pytest.mark.parametrize("value", [0, -1])
def test_settings_are_above_zero(setting: str, value: int) -> None:
    with pytest.raises(StagingError, match=f"staging {setting} is {value}"):
        StagingSettings(**{setting: value})


def test_slots_are_whole_pages() -> None:
    assert StagingSettings(slot_bytes=1).slot_bytes == PAGE
    assert StagingSettings(slot_bytes=PAGE + 1, depth=3).total_bytes == 6 * PAGE


@pytest.mark.parametrize("shift", [0, 1])
def test_a_buffer_must_fit_the_settings(shift: int) -> None:
    settings = StagingSettings(PAGE, 2)
    buffer = aligned_bytes(3 * PAGE, PAGE)[shift : shift + (2 + (not shift)) * PAGE]
    with pytest.raises(LayoutError, match=f"must have {2 * PAGE} bytes and begin at a multiple"):
        StagingRing(buffer, settings)


def stage_in_child(backend: CpuBackend, results: "multiprocessing.Queue[object]") -> None:
    """Fill all slots of the backend's ring, in another process."""
    slots = [backend.stage() for _ in range(backend.staging_settings.depth)]
    for slot in slots:
        slot.array[:] = 9
    results.put((os.getpid(), len(slots), int(slots[0].array[0])))


def share_with_a_child(method: str) -> None:
    """Hold a slot while another process stages."""
    backend = CpuBackend(staging=StagingSettings(PAGE, 2, 5.0))
    context = multiprocessing.get_context(method)
    results = context.Queue()
    with backend.stage() as held:
        held.array[:] = 1
        child = context.Process(target=stage_in_child, args=(backend, results))
        child.start()
        pid, n_slots, value = results.get(timeout=60)
        child.join()
        assert pid != os.getpid()
        assert (n_slots, value, child.exitcode) == (2, 9, 0)
        assert (held.array == 1).all()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_has_a_ring_of_its_own(method: str) -> None:
    # Not from here: a fork of a process with threads, as other tests start, may wait for ever.
    code = f"from tests.backends.test_staging import *; share_with_a_child({method!r})"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_a_pickled_backend_keeps_its_settings() -> None:
    backend = CpuBackend(staging=StagingSettings(PAGE, 7))
    copy = pickle.loads(pickle.dumps(backend))
    assert isinstance(copy, CpuBackend)
    assert copy.staging_settings == backend.staging_settings
