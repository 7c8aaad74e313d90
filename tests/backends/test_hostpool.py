"""Host memory that is kept: lent again when nobody sees it any more, and never before."""

import threading

import numpy as np
import pytest

from fpgpu.backends import hostpool
from fpgpu.backends.hostpool import HostPool

MIB = 1 << 20


def address(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def pool():
    return HostPool(alignment=256, most_kept=16 * MIB)


@pytest.mark.parametrize("n_bytes", [1, 255, 256, MIB, 3 * MIB + 17])
def test_memory_is_writable_aligned_and_of_the_size_asked_for(pool, n_bytes):
    memory = pool.take(n_bytes)
    memory[...] = 7
    assert memory.shape == (n_bytes,)
    assert memory.dtype == np.uint8
    assert address(memory) % 256 == 0


def test_what_was_freed_is_lent_again(pool):
    first = pool.take(4 * MIB)
    where = address(first)
    del first
    assert pool.kept_bytes == 4 * MIB
    assert address(pool.take(4 * MIB)) == where


def test_nothing_is_lent_again_while_an_array_shows_it(pool):
    first = pool.take(4 * MIB)
    view = np.ndarray((10,), np.float32, first, 256)[3:]
    del first
    view[...] = 5.0
    second = pool.take(4 * MIB)
    second[...] = 0
    assert (view == 5.0).all()
    assert pool.kept_bytes == 0
    del view
    assert pool.kept_bytes == 4 * MIB


def test_a_block_serves_what_is_up_to_a_fifth_smaller_and_no_less(pool):
    block = pool.take(5 * MIB)
    where = address(block)
    del block
    assert address(pool.take(4 * MIB)) == where
    small = pool.take(4 * MIB - 256)
    assert address(small) != where
    assert len(small) == 4 * MIB - 256


def test_the_smallest_block_that_is_large_enough_is_taken(pool):
    blocks = [pool.take(size * MIB) for size in (5, 4)]
    where = address(blocks[1])
    del blocks
    assert address(pool.take(4 * MIB)) == where


def test_no_more_is_kept_than_allowed_and_the_latest_is(pool):
    blocks = [pool.take(size * MIB) for size in (7, 6, 8)]
    while blocks:
        del blocks[0]
    assert pool.kept_bytes == 14 * MIB, "7 went when 8 came"
    del blocks
    huge = pool.take(17 * MIB)
    del huge
    assert pool.kept_bytes == 14 * MIB, "a block over the limit displaces nothing"
    pool.clear()
    assert pool.kept_bytes == 0


def test_small_blocks_are_left_to_the_allocator(pool):
    memory = pool.take(MIB - 1000)
    del memory
    assert pool.kept_bytes == 0


def test_when_memory_runs_out_what_is_kept_is_given_back_first(pool, monkeypatch):
    memory = pool.take(4 * MIB)
    del memory
    real = hostpool.aligned_bytes

    def scarce(n_bytes, alignment):
        if pool.kept_bytes:
            raise MemoryError
        return real(n_bytes, alignment)

    monkeypatch.setattr(hostpool, "aligned_bytes", scarce)
    assert pool.take(8 * MIB).nbytes == 8 * MIB


def test_threads_never_share_a_block(pool):
    failures = []

    def work(mark):
        for _ in range(200):
            memory = pool.take(MIB)
            memory[::4096] = mark
            if (memory[::4096] != mark).any():
                failures.append(mark)
            del memory

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert pool.kept_bytes <= 16 * MIB
