"""What is in flight is bounded and small; what nobody foresaw takes one file with it."""

import errno
import pickle
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from fpgpu import PixelStore
from fpgpu.errors import ExecutorError, StoreWriteError
from fpgpu.ingest import coordinator, machine, pipeline, readers, work
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.workers import InProcess
from fpgpu.stores.shard import find_orphans
from tests.ingest.smallfiles import make_small_files


@pytest.fixture
def files(tmp_path):
    (tmp_path / "files").mkdir()
    return make_small_files(tmp_path / "files", 12)


class Counting(Executor):
    """Counts the tasks that were handed over and are not done, and their bytes."""

    def __init__(self, n):
        self.pool = ThreadPoolExecutor(n)
        self.futures, self.most, self.sizes = [], 0, []

    def submit(self, fn, /, *args, **kwargs):
        future = self.pool.submit(self.measured, fn, *args)
        self.sizes.append(len(pickle.dumps((fn, args))))
        self.futures.append(future)
        self.most = max(self.most, sum(not each.done() for each in self.futures))
        return future

    def measured(self, fn, *args):
        result = fn(*args)
        self.sizes.append(len(pickle.dumps(result)))
        return result


@pytest.mark.parametrize("n", [1, 3])
def test_few_tasks_are_in_flight_and_none_is_large(files, tmp_path, n):
    executor = Counting(n)
    assert ingest(files, tmp_path / "s", executor=executor, workers=n).ok
    executor.pool.shutdown()
    assert executor.most <= 2 * n
    assert len(executor.sizes) == 2 * len(files)
    assert max(executor.sizes) < 8192  # the pixels alone are as many


class Breaking(InProcess):
    """As a pool that breaks with two tasks, and tells so of one before the other."""

    is_remote = True

    def __init__(self):
        super().__init__()
        self._n = 2
        self.broken = [Future(), Future()]
        self.n_submitted = self.n_renewed = 0

    def submit(self, work, *args):
        self.n_submitted += 1
        if self.n_renewed:
            return super().submit(work, *args)
        if self.n_submitted == 2:
            self.broken[0].set_exception(BrokenExecutor("a worker is gone"))
        return self.broken[self.n_submitted - 1]

    def renew(self, error):
        self.n_renewed += 1
        self.broken[1].set_exception(error)


def test_a_pool_that_breaks_is_replaced_once(files, tmp_path, monkeypatch):
    workers = Breaking()
    monkeypatch.setattr(pipeline, "open_workers", lambda *args: workers)
    assert ingest(files[:2], tmp_path / "s").ok
    assert workers.n_renewed == 1
    assert workers.n_submitted == 4


class Leaving(InProcess):
    """As a cluster that is lost while it works on its first task and has done the second."""

    is_remote = True

    def __init__(self):
        super().__init__()
        self._n = 2
        self.first = Future()
        self.n_submitted = 0

    def submit(self, work, *args):
        self.n_submitted += 1
        if self.n_submitted == 1:
            return self.first
        if self.n_submitted == 3:
            self.first.cancel()
        return super().submit(work, *args)


def test_what_was_done_goes_in_when_the_executor_is_lost(files, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "open_workers", lambda *args: Leaving())
    seen = []
    with pytest.raises(ExecutorError, match="--resume"):
        ingest(files, tmp_path / "s", on_progress=seen.append)
    assert [row.file for row in seen] == files[1:3]
    assert len(PixelStore(tmp_path / "s" / "pixels.h5", mode="r")) == 2
    assert find_orphans(tmp_path / "s") == []


def test_an_error_that_nobody_foresaw_refuses_one_file(files, tmp_path, monkeypatch):
    real = readers.read_exposures

    def failing(item: Input):
        if item.path == files[1]:
            raise ZeroDivisionError("no reason")
        yield from real(item)

    monkeypatch.setattr(work, "read_all", failing)
    report = ingest(files[:3], tmp_path / "s")
    assert [row.status for row in report.rows] == ["stored", "refused", "stored"]
    assert "failed with ZeroDivisionError: no reason" in report.rows[1].reason
    with pytest.raises(ZeroDivisionError):
        ingest(files[:3], tmp_path / "s", strict=True)


def test_an_executor_that_is_shut_down_is_told(files, tmp_path):
    from fpgpu.errors import ExecutorError

    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(ExecutorError, match="takes no more work"):
        ingest(files, tmp_path / "s", executor=pool)


@pytest.mark.parametrize(
    ("cores", "memory", "sizes", "expected"),
    [
        (16, 64 << 30, [100 << 20] * 40, 16),  # cores
        (16, 64 << 30, [100 << 20] * 3, 3),  # files
        (16, 2 << 30, [100 << 20] * 40, 3),  # memory
        (16, 1 << 20, [100 << 20] * 40, 1),
        (16, None, [100 << 20] * 40, 16),
        (16, 64 << 30, [1 << 20] * 40, 2),  # little to do
        (16, 64 << 30, [], 1),
    ],
)
def test_as_many_workers_as_cores_memory_and_work_suggest(
    cores, memory, sizes, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(machine, "available_cores", lambda: cores)
    monkeypatch.setattr(machine, "available_memory", lambda: memory)
    files = [tmp_path / f"{n}.fits" for n in range(len(sizes))]
    for path, size in zip(files, sizes, strict=True):
        with path.open("wb") as stream:
            stream.truncate(size)
    assert machine.suggested_workers([*files, Path("missing.fits")]) == expected


def test_what_was_stored_can_be_read_in_between(files, tmp_path, monkeypatch):
    monkeypatch.setattr("fpgpu.ingest.coordinator.PUBLISH_INTERVAL", 0.0)
    monkeypatch.setattr("fpgpu.ingest.coordinator.PUBLISH_SHARE", 0.0)
    seen = []

    def look(row):
        with PixelStore(tmp_path / "s" / "pixels.h5", mode="r") as pixels:
            seen.append((row.band, row.expID) in pixels)

    ingest(files[:4], tmp_path / "s", on_progress=look)
    assert seen == [True] * 4


def test_what_ends_a_run_is_told_although_its_shards_cannot_be_removed(
    files, tmp_path, monkeypatch
):
    executor = Counting(3)

    def cannot_commit(*args, **kwargs):
        wait(executor.futures)  # so that there are shards which nobody has taken in
        raise StoreWriteError("the disk is full")

    real = Path.unlink

    def cannot_remove(path, missing_ok=False):
        if path.suffix == ".h5":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        real(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(coordinator, "commit_shards", cannot_commit)
        patched.setattr(Path, "unlink", cannot_remove)
        with pytest.raises(StoreWriteError, match="the disk is full"):
            ingest(files, tmp_path / "s", executor=executor)
    executor.pool.shutdown()
    assert find_orphans(tmp_path / "s")
    assert ingest(files, tmp_path / "s", resume=True).ok
    assert not find_orphans(tmp_path / "s")
