"""The lease: a small file beside what is being changed, which other writers wait for."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from fpgpu.errors import StoreBusyError, StoreFormatError
from fpgpu.stores.disk import Signature, read_regular, signature_if_there, write_errors

__all__ = ["LEASE_SECONDS", "leased"]

LEASE_SECONDS = 30.0
"""After so long without a sign of life a writer counts as dead."""

_NAMELESS_SECONDS = 2.0
_NAME = {"pid", "host", "token", "duration"}


@contextmanager
def leased(
    path: Path, store: Path, *, timeout: float = 10.0, break_lease: bool = False
) -> Iterator[None]:
    """Keep other writers out; this thread may take the same lease again within the block.

    It is held until the block ends, unless this process sleeps for longer than `LEASE_SECONDS`.
    """
    lease = filelock.SoftFileLease(
        path, lease_duration=LEASE_SECONDS, poll_interval=0.02, is_singleton=True
    )
    with write_errors(path.parent, "nothing was changed; give a folder that can be written"):
        if break_lease and not lease.is_locked:
            path.unlink(missing_ok=True)
        nameless = _nameless(path)
        try:
            first = min(timeout, _NAMELESS_SECONDS)
            try:
                try:
                    lease.acquire(timeout=first)
                except RuntimeError:  # taken before, and lost to another while this process slept
                    lease.release(force=True)
                    lease.acquire(timeout=first)
            except filelock.Timeout:
                if nameless is not None and _nameless(path) == nameless:
                    # Its holder died before it had written its name, which takes no time.
                    path.unlink(missing_ok=True)
                lease.acquire(timeout=timeout)
        except filelock.Timeout as exc:
            holder = _holder(path) or "it does not say its name"
            raise StoreBusyError(
                f"{store}: another process is changing this store ({holder}); wait until it has "
                f"ended; if you know that it is dead, use --break-lock, which deletes {path}"
            ) from exc
    try:
        yield
    finally:
        with suppress(OSError):  # then it runs out
            lease.release()


def _nameless(path: Path) -> Signature | None:
    """Return the signature of a lease that does not name its holder, None of another or none."""
    found = signature_if_there(path)
    return found if found is not None and _holder(path) is None else None


def _holder(path: Path) -> str | None:
    """Say who holds a lease; None where its name is not there, or only in part."""
    try:
        text = read_regular(path)[0].decode()
    except (OSError, StoreFormatError, ValueError):
        return None
    fields = dict(line.partition("=")[::2] for line in text.splitlines())
    whole = text.endswith("\n") and fields.keys() >= _NAME
    return f"process {fields['pid']} on {fields['host']}" if whole else None
