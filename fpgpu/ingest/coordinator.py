"""The one process of a run that publishes: it hands out inputs and makes their shards a store.

Inputs are taken in the order given, whichever worker is faster, so that a run gives the same store
and the same report each time. A file is reported when what it gave is durable, never before.
"""

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path

from fpgpu.backends.base import Backend
from fpgpu.backends.choose import BackendName
from fpgpu.errors import ExecutorError, FpgpuError, StoreError, UnusableExposureError
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.report import IngestReport, IngestRow
from fpgpu.ingest.resume import Admission, Earlier, Present
from fpgpu.ingest.work import ShardResult, Task, discard, make_shards, refused
from fpgpu.ingest.workers import InProcess, Workers, is_gone, is_lost
from fpgpu.stores.commit import commit_shards
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.shard import Shard

__all__ = ["Coordinator"]

logger = logging.getLogger(__name__)

PUBLISH_INTERVAL = 2.0
"""Seconds between two publications, at least."""

PUBLISH_SHARE = 10
"""A publication rewrites what lists the exposures; this many times its time goes by before the
next one, so that a store of many exposures does not slow its own growth down."""

TASKS_PER_WORKER = 2
"""Tasks handed over a worker: one that runs, one that waits."""

# Inputs whose results wait for an earlier one; they are names and counts, not pixels.
_AHEAD = 16


@dataclass
class _Job:
    """An input on its way: as it was given, and with absolute paths."""

    given: Input
    item: Input
    future: "Future[list[ShardResult]]"


@dataclass
class Coordinator:
    """Takes inputs to a published store.

    Attributes
    ----------
    folder : Path
        The store folder, whose lease this thread holds.
    workers : Workers
        Who does the work.
    present : Present
        What the folder holds.
    report : IngestReport
        Gets the rows.
    backend : str or Backend
        Where to calibrate.
    on_progress : callable
        Called with each row when it is durable.
    strict : bool
        Raise at the first exposure that cannot go in.
    earlier : Earlier or None
        What need not be done again.
    has_committed : bool
        Whether the store has changed.
    ended_early : bool
        Whether work was cut short, by the death of a worker or the end of the run, so that shards
        may be left that no commit names.
    run_id : str
        What the ids of the shards of this run begin with.
    """

    folder: Path
    workers: Workers
    present: Present
    report: IngestReport
    backend: BackendName | Backend
    on_progress: Callable[[IngestRow], None]
    strict: bool = False
    earlier: Earlier | None = None
    has_committed: bool = False
    ended_early: bool = False
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))
    _jobs: deque[_Job] = field(default_factory=deque)
    _accepted: list[ShardResult] = field(default_factory=list)
    _admission: Admission = field(init=False)
    _published_at: float = field(default_factory=time.monotonic)
    _interval: float = 0.0

    def __post_init__(self) -> None:
        self._admission = Admission(self.folder, self.present)

    def run(self, items: Iterable[Input]) -> None:
        """Take inputs in, each as soon as there is room for it."""
        source = iter(items)
        try:
            while self._fill(source) or self._jobs:
                self._wait()
                self._take()
                if self._accepted and time.monotonic() >= self._published_at + self._interval:
                    self.publish()
            self.publish()
        except BaseException as error:
            self._stop(error)
            raise

    # --- handing out -------------------------------------------------------------------------

    def _fill(self, source: Iterator[Input]) -> bool:
        """Hand out inputs up to the bound; whether one was taken from the source."""
        room = TASKS_PER_WORKER * self.workers.n
        taken = False
        while len(self._open()) < room and len(self._jobs) < _AHEAD * room:
            # What is done is taken in first: in this process that is the only moment for it.
            if self._jobs and self._jobs[0].future.done():
                break
            given = next(source, None)
            if given is None:
                break
            taken = True
            self._jobs.append(self._begin(given))
        return taken

    def _open(self) -> "list[Future[list[ShardResult]]]":
        """The tasks that were handed over and are not done."""
        return [job.future for job in self._jobs if not job.future.done()]

    def _begin(self, given: Input) -> _Job:
        """Start on an input, unless there is nothing to do."""
        item = self.present.settle(given)
        unchanged = self.earlier.rows(item) if self.earlier else []
        if not unchanged:
            return _Job(given, item, self._submit(item))
        done: Future[list[ShardResult]] = Future()
        done.set_result([ShardResult(row) for row in unchanged])
        return _Job(given, item, done)

    def _submit(self, item: Input) -> "Future[list[ShardResult]]":
        # The pixels of an exposure in memory would have to be sent.
        is_sent = self.workers.is_remote and item.exposure is None
        backend = self.backend
        if is_sent and not isinstance(backend, str):
            backend = "cuda" if backend.name == "cuda" else "cpu"
        task = Task(
            item,
            self.folder,
            self._admission.shape,
            backend,
            self.run_id,
        )
        return (self.workers if is_sent else InProcess()).submit(make_shards, task)

    # --- taking in ---------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait until a task is done or a publication is due."""
        open_ = self._open()  # before the first is looked at: it may be done any moment
        if not self._jobs or self._jobs[0].future.done():
            return
        timeout = None
        if self._accepted:
            timeout = max(0.0, self._published_at + self._interval - time.monotonic())
        wait(open_, timeout, FIRST_COMPLETED)

    def _take(self) -> None:
        """Take in what is done, in order, up to the first input that is not."""
        while self._jobs and self._jobs[0].future.done():
            job = self._jobs[0]
            made = self._result(job)
            self._jobs.popleft()
            self._accept_all(job, made)

    def _result(self, job: _Job) -> list[ShardResult]:
        """Return what an input gave; try once more, alone, when its worker has died."""
        error = _error_of(job.future)
        if error is not None and is_lost(error):
            self._try_again(error)
            error = _error_of(job.future)
        if is_lost(error):
            return _refused(
                job,
                f"its worker died, and died again when it was alone ({error}); perhaps there is "
                "too little memory for it: try --executor serial, or a machine with more",
            )
        if is_gone(error):
            raise ExecutorError(
                f"the executor was lost while it worked on {job.item.path} ({error!r}); run "
                "again with --resume"
            ) from error
        if error is not None and (self.strict or isinstance(error, FpgpuError)):
            raise error
        if error is not None:
            return _refused(
                job,
                f"failed with {type(error).__name__}: {error}; to see where, run it alone with "
                "--strict --debug",
            )
        return job.future.result()

    def _try_again(self, error: BaseException) -> None:
        """Do the inputs that were lost with a worker again, one by one.

        A pool that breaks takes all its tasks with it. Which one has killed its worker is seen
        when each is alone in a fresh pool.
        """
        self.ended_early = True
        logger.warning("a worker has died; the inputs that were lost with it are done again")
        self.workers.renew(error)
        # Asked when the broken pool is gone: it may not have told all of its tasks before.
        lost = [job for job in self._jobs if is_lost(_error_of(job.future))]
        for job in lost:
            job.future = self._submit(job.item)
            wait([job.future])
            again = _error_of(job.future)
            if again is not None and is_lost(again):
                self.workers.renew(again)

    def _accept_all(self, job: _Job, made: list[ShardResult]) -> None:
        """Take the exposures of one input in, under the name that it was given by."""
        for each in made:
            self._accept(replace(each, row=replace(each.row, file=job.given.path)))

    def _accept(self, made: ShardResult) -> None:
        """Take one exposure in, or refuse it for what the whole store knows."""
        shard = made.shard
        if shard is not None:
            try:
                self._admission.admit(shard.key, shard.shape, made.row.file)
            except FpgpuError as error:
                discard([made])
                row = made.row
                made = refused(row.file, error, row.band, row.expID, row.seconds)
            else:
                if shard.key in self.present.in_pixels:
                    made = replace(made, row=replace(made.row, status="replaced"))
        self._accepted.append(made)
        if made.error is not None and self.strict:
            raise made.error

    # --- publishing --------------------------------------------------------------------------

    def publish(self) -> None:
        """Make what was taken in durable, then report it."""
        start = time.monotonic()
        ready, self._accepted = self._accepted, []
        shards: list[Shard] = [made.shard for made in ready if made.shard is not None]
        if shards:
            commit_shards(StoreFolder(self.folder).pixels, shards)
            self.has_committed = True
        self._published_at = time.monotonic()
        cost = self._published_at - start
        self._interval = max(PUBLISH_INTERVAL, PUBLISH_SHARE * cost)
        for made in ready:
            self.report.rows.append(made.row)
            self.on_progress(made.row)

    def _stop(self, error: BaseException) -> None:
        """End the work at once; publish what is complete, as far as that is possible."""
        self.ended_early = True
        self.workers.give_up()
        for job in self._jobs:
            job.future.cancel()
        done = [job for job in self._jobs if job.future.done() and _error_of(job.future) is None]
        self._jobs.clear()
        # In a strict run nothing goes in behind what was refused, and a store that fails takes no
        # more; to lose who did the work is no fault of what is done.
        is_wanted = isinstance(error, ExecutorError) or not isinstance(error, FpgpuError)
        for job in done:
            made = job.future.result()
            if is_wanted:
                self._accept_all(job, made)
            else:
                discard(made)
        try:
            self.publish()
        except StoreError as second:
            # That one is told already; what was taken in and not published is made again.
            logger.warning("%s", second)


def _error_of(future: "Future[list[ShardResult]]") -> BaseException | None:
    """Return the error of a task that is done, also when somebody else has cancelled it."""
    if not future.done():
        return None
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _refused(job: _Job, reason: str) -> list[ShardResult]:
    """Say why nothing of an input goes in."""
    path = job.item.path
    return [refused(path, UnusableExposureError(f"{path}: {reason}"))]
