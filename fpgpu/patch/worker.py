"""A thread that can be interrupted, abandoned and killed without anybody waiting for ever.

An interrupt may come between any two steps of Python code, also while that holds a lock, as it does
within `concurrent.futures` and `queue.Queue`: whoever needs the lock next then waits for ever. Here
all that two threads share is handed on by `queue.SimpleQueue`, each of whose operations is one.
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from fpgpu.errors import StreamError

__all__ = ["Task", "Worker"]

T = TypeVar("T")

_LOOK = 0.5  # seconds between two looks whether the other thread is still there


class Task(Generic[T]):
    """A call that a worker is to make.

    Parameters
    ----------
    call : callable
        What to do.

    Attributes
    ----------
    outcome : object or BaseException or None
        What the call returned or raised; None until then.
    runner : threading.Thread or None
        Who makes the call.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self.outcome: T | BaseException | None = None
        self.runner: threading.Thread | None = None
        self._call = call
        self._ticket: SimpleQueue[None] = SimpleQueue()
        self._ticket.put(None)
        self._ended: SimpleQueue[None] = SimpleQueue()

    def take(self) -> bool:
        """Take the task, to do it or to see that nobody does."""
        try:
            self._ticket.get_nowait()
        except Empty:
            return False
        return True

    @property
    def taken(self) -> bool:
        """Whether the task was taken."""
        return self._ticket.empty()

    @property
    def is_abandoned(self) -> bool:
        """Whether whoever took the task to make the call died over it."""
        gone = self.runner is not None and not self.runner.is_alive()
        return gone and self.taken and self.outcome is None

    def run(self) -> None:
        """Make the call, unless the task was taken."""
        self.runner = threading.current_thread()
        if self.take():
            try:
                self.outcome = self._call()
            except BaseException as error:  # noqa: BLE001 - for whoever waits
                self.outcome = error
            self._ended.put(None)

    def wait(self, timeout: float) -> None:
        """Wait until the call has ended."""
        try:
            self._ended.get(timeout=timeout)
        except Empty:
            return


class Worker(Generic[T]):
    """One thread that does tasks in the order in which they are handed over.

    It is started when there is something to do, and again should it have died. It ends with the
    main thread, so that no process waits for it.

    Parameters
    ----------
    name : str
        Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._inbox: SimpleQueue[Task[T] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], T]) -> Task[T]:
        """Hand a call over."""
        task = Task(call)
        self._inbox.put(task)
        self._keep_alive()
        return task

    def outcome(self, task: Task[T]) -> T | BaseException:
        """Wait for a task."""
        while task.outcome is None:
            task.wait(_LOOK)
            if not task.taken:
                # A thread that died may have had it in its hands.
                self._inbox.put(task)
                self._keep_alive()
            elif task.is_abandoned:
                return StreamError(
                    "the thread that builds patches ahead died while it built this one; the others"
                    " are built by a new thread"
                )
        return task.outcome

    @property
    def is_alive(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None and self._thread.is_alive()

    def shutdown(self, wait: bool = True) -> None:
        """End the thread after the tasks that nobody took back."""
        self._inbox.put(None)
        while wait and self._thread is not None and self._thread.is_alive():
            self._thread.join(_LOOK)

    def _keep_alive(self) -> None:
        """Start the thread if it is not there."""
        if not self.is_alive:
            self._thread = threading.Thread(target=_work, args=(self._inbox,), name=self._name)
            self._thread.start()


def _work(inbox: "SimpleQueue[Task[T] | None]") -> None:
    """Do the tasks: what the thread does. It knows nothing that would keep a stream alive."""
    while threading.main_thread().is_alive():
        try:
            task = inbox.get(timeout=_LOOK)
        except Empty:
            continue
        if task is None:
            return
        task.run()
        del task  # and with it the outcome, before the next may take long to come
