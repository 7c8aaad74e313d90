"""Patches of many regions in turn, the next ones built while one is in use.

One thread plans, reads and uploads, in the order of the regions: libraries that are not made for
several threads then see one, while reading and copying leave the interpreter to whoever uses the
patches. The consumer hands it a few regions at a time, so it never waits for the consumer, and
nothing hangs when that stops asking.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias

from fpgpu.backends.base import Backend
from fpgpu.errors import DeviceMemoryError, FpgpuError, PlanError
from fpgpu.patch.device import Patch
from fpgpu.patch.plan import PatchPlan
from fpgpu.patch.worker import Task, Worker
from fpgpu.sky.regions import RegionLike

__all__ = ["PatchStream", "StreamEntry", "StreamedPatch"]

_THREAD = "fpgpu-stream"

StreamEntry: TypeAlias = RegionLike | PatchPlan | tuple[RegionLike | PatchPlan, Any]
"""A region or a plan; or one of them and the catalogue of its sources."""


class StreamedPatch:
    """What became of one region of a stream: a patch or an error.

    Parameters
    ----------
    index : int
        Number of the region in the stream, from 0.
    region : CircularRegion, RectangularRegion, PolygonRegion or PatchPlan
        What was asked for.
    outcome : Patch or Exception
        What came of it.

    Attributes
    ----------
    index : int
        Number of the region in the stream, from 0.
    region : CircularRegion, RectangularRegion, PolygonRegion or PatchPlan
        What was asked for.
    """

    def __init__(
        self, index: int, region: RegionLike | PatchPlan, outcome: Patch | Exception
    ) -> None:
        self.index = index
        self.region = region
        self._outcome = outcome
        self._kept = False

    @property
    def error(self) -> Exception | None:
        """Why there is no patch; None when there is one."""
        return self._outcome if isinstance(self._outcome, Exception) else None

    @property
    def patch(self) -> Patch:
        """The patch. The stream frees it when it goes on, unless it was kept."""
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def keep(self) -> Patch:
        """Take the patch over from the stream."""
        patch = self.patch
        self._kept = True
        return patch

    def __repr__(self) -> str:
        return f"<StreamedPatch {self.index}: {self._outcome!r}>"

    def _let_go(self) -> None:
        """Free the patch, unless it was kept."""
        if isinstance(self._outcome, Patch) and not self._kept:
            self._outcome.free()


class PatchStream(Iterator[StreamedPatch]):
    """Patches of many regions, in their order.

    Usually made by `fpgpu.Survey.stream`. Each step gives the next patch and frees the one before,
    while a thread builds the next ones. Reading starts with the first step. Leaving its ``with``
    block, the end of the regions, or `close` ends the thread and frees whatever patch was not kept.
    A stream is used by one thread at a time.

    Parameters
    ----------
    regions : iterable of StreamEntry
        What to build; asked, in the consumer's thread, for no more than is to be built next.
    plan : callable
        ``plan(region)`` makes a plan.
    build : callable
        ``build(plan, catalog)`` makes a patch.
    backend : Backend
        Where patches live.
    catalog : astropy.table.Table or structured array, optional
        Sources of the regions that come without their own.
    depth : int, optional
        How many patches are built ahead of the one in use: the stream holds one more than these.

    Raises
    ------
    PlanError
        When the depth is not positive.

    Notes
    -----
    An error of a region is its `StreamedPatch.error`; the other regions are not touched by it. When
    memory runs out that other patches of the stream hold, they are given up, the patch is built
    alone and they are built again after it: so nothing fails for having been built ahead.
    What the caller's CUDA stream gets after a step comes after the patch's transfers and kernels.
    An error of `regions` itself is raised after the patches of the regions that came before it.
    """

    def __init__(
        self,
        regions: Iterable[StreamEntry],
        plan: Callable[[RegionLike], PatchPlan],
        build: Callable[[PatchPlan, Any], Patch],
        backend: Backend,
        *,
        catalog: Any = None,
        depth: int = 2,
    ) -> None:
        if depth < 1:
            raise PlanError(f"a stream of depth {depth} builds nothing ahead; it must be above 0")
        self.depth = depth
        self.backend = backend
        self._regions = enumerate(regions)
        self._plan = plan
        self._build = build
        self._catalog = catalog
        self._ahead: deque[_Job] = deque()
        self._current: StreamedPatch | None = None
        self._failure: Exception | None = None
        self._closed = False
        self._worker: Worker[Patch] = Worker(_THREAD)

    @property
    def closed(self) -> bool:
        """Whether the stream has ended."""
        return self._closed

    def __next__(self) -> StreamedPatch:
        self._let_go()
        if not self._closed:
            self._fill()
        if self._closed or not self._ahead:
            failure, self._failure = self._failure, None
            self.close()
            raise failure or StopIteration
        job = self._ahead[0]
        outcome = self._outcome(job)
        if isinstance(outcome, DeviceMemoryError) and not job.exclusive:
            outcome = self._built_exclusively(job)
        if not isinstance(outcome, Patch | Exception):
            self.close()
            raise outcome
        if isinstance(outcome, Patch):
            # The thread has started the patch's copies and kernels, which may be under way.
            self.backend.make_current_stream_wait()
            try:
                outcome.check()
            except FpgpuError as error:
                outcome = error
        self._current = StreamedPatch(job.index, job.region, outcome)
        self._ahead.popleft()
        return self._current

    def close(self) -> None:
        """End the stream: wait for the patch that is being built, and free all that were not kept.

        A second call does nothing; one that was interrupted is completed by the next.
        """
        self._closed = True
        self._let_go()
        self._end(wait=True)
        while self._ahead:
            self._withdraw(self._ahead[0])
            self._ahead.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Patches go with the last reference to them; this keeps more from being built.
        if hasattr(self, "_worker"):
            self._end(wait=False)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._ahead)} regions ahead"
        return f"<PatchStream of depth {self.depth} on {self.backend.description}: {state}>"

    def _let_go(self) -> None:
        """Free the patch that was in use, unless it was kept."""
        if self._current is not None:
            self._current._let_go()
            self._current = None

    def _end(self, *, wait: bool) -> None:
        """End the thread, after the patch that it is building."""
        for job in self._ahead:
            if job.task is not None and job.task.take():
                job.task = None
        self._worker.shutdown(wait)

    def _fill(self) -> None:
        """Hand over what is needed next, and what is to be built ahead of it."""
        while self._failure is None and len(self._ahead) <= self.depth:
            try:
                index, entry = next(self._regions)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised after the patches that came before
                self._failure = error
                break
            # What is no pair is refused as a region, in its turn.
            pair: Any = (entry, self._catalog)
            if isinstance(entry, tuple) and len(entry) == 2:
                pair = entry
            self._ahead.append(_Job(index, *pair))
        for job in self._ahead:
            if job.task is None:
                # Before the first of all nothing is built that could hold memory.
                self._submit(job, exclusive=job is self._ahead[0])

    def _submit(self, job: "_Job", *, exclusive: bool) -> Task[Patch]:
        """Let the thread build a patch."""
        build = partial(_built, self._plan, self._build, self.backend, job.region, job.catalog)
        job.task, job.exclusive = self._worker.submit(build), exclusive
        return job.task

    def _outcome(self, job: "_Job") -> Patch | BaseException:
        """Wait for a patch, or for the error that came instead."""
        return self._worker.outcome(job.task or self._submit(job, exclusive=False))

    def _built_exclusively(self, job: "_Job") -> Patch | BaseException:
        """Build a patch with all the memory that the stream can give."""
        for other in self._ahead:
            self._withdraw(other)
        self._submit(job, exclusive=True)
        outcome = self._outcome(job)
        self._fill()
        return outcome

    def _withdraw(self, job: "_Job") -> None:
        """Take a job back: it is not begun, or its patch is freed."""
        if job.task is not None and not job.task.take():
            outcome = self._outcome(job)
            if isinstance(outcome, Patch):
                outcome.free()
        job.task = None


@dataclass(eq=False)
class _Job:
    """One region on its way.

    Attributes
    ----------
    task : Task or None
        Of its patch; None when it is not submitted.
    exclusive : bool
        Whether no other patch of the stream holds memory while this one is built.
    """

    index: int
    region: RegionLike | PatchPlan
    catalog: Any
    task: Task[Patch] | None = None
    exclusive: bool = False


def _built(
    plan: Callable[[RegionLike], PatchPlan],
    build: Callable[[PatchPlan, Any], Patch],
    backend: Backend,
    region: RegionLike | PatchPlan,
    catalog: Any,
) -> Patch:
    """Plan, read and upload one patch: what the thread does."""
    planned = region if isinstance(region, PatchPlan) else plan(region)
    try:
        planned.require_memory(backend)
    except PlanError as error:
        raise DeviceMemoryError(str(error)) from error
    return build(planned, catalog)
