"""The files of one store as they were at one instant.

The files are held open, so what is read later belongs together even when another process has
published new files under the same names in the meantime.
"""

import os
import weakref
from collections.abc import Mapping
from pathlib import Path

from fpgpu.errors import MissingStoreError, StoreBusyError, StoreError, StoreFormatError
from fpgpu.stores.files.intent import is_pending
from fpgpu.stores.files.publish import Signature, recover, signature
from fpgpu.stores.files.sync import copy_bytes

__all__ = ["Snapshot"]

# Each retry means that another process published in the microseconds of an opening.
RETRIES = 100
CHUNK = 1 << 30


class Snapshot:
    """Files of one folder opened together.

    Parameters
    ----------
    paths : mapping of str to pathlib.Path
        What each file is and where; they lie in one folder. A change of several files that a crash
        interrupted there is completed first.

    Attributes
    ----------
    signatures : dict of str to Signature
        Of the files that exist.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = dict(paths)
        self.signatures: dict[str, Signature] = {}
        self._descriptors: dict[str, int] = {}
        folder = next(iter(self.paths.values())).parent
        for _ in range(RETRIES):
            recover(folder)
            if self._open(folder):
                break
        else:
            raise StoreBusyError(f"{folder}: the files are being rewritten all the time; try later")
        # Descriptors are closed even where nobody closes the store.
        self._closer = weakref.finalize(self, _close_all, self._descriptors)

    def _open(self, folder: Path) -> bool:
        """Open all files; False when they changed while that was done."""
        before = _signatures(self.paths)
        self._descriptors = {}
        whole = False
        try:
            for what in before:
                self._descriptors[what] = _open_file(self.paths[what])
            self.signatures = {w: signature(d) for w, d in self._descriptors.items()}
            pending = is_pending(folder)
            whole = not pending and before == self.signatures == _signatures(self.paths)
        except FileNotFoundError:
            pass
        finally:
            if not whole:
                _close_all(self._descriptors)
        return whole

    def __contains__(self, what: str) -> bool:
        return what in self._descriptors

    def read(self, what: str) -> bytes:
        """Return the whole content of a file.

        Raises
        ------
        MissingStoreError
            If there was no such file when the snapshot was made.
        StoreError
            If it was changed in place since then, is closed, or cannot be read.
        """
        return self.read_range(what, 0, self._size(what))

    def read_range(self, what: str, start: int, stop: int) -> bytes:
        """Return the bytes of a file from `start` up to `stop`, or less where it ends before.

        Raises
        ------
        MissingStoreError, StoreError
            As `read`.
        """
        self._size(what)
        descriptor, pieces = self._descriptors[what], []
        try:
            while start < stop:
                pieces.append(os.pread(descriptor, min(CHUNK, stop - start), start))
                start += len(pieces[-1])
                if not pieces[-1]:
                    break
        except OSError as exc:
            raise StoreError(f"{self.paths[what]}: cannot be read: {exc}") from exc
        self._require_unchanged(what)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def copy_range(self, what: str, start: int, stop: int, target: int) -> None:
        """Append a range of bytes to a file open for writing, the quickest way the system has.

        Raises
        ------
        MissingStoreError, StoreError
            As `read`, or if the file is shorter.
        """
        self._size(what)
        copied = copy_bytes(self._descriptors[what], start, stop, target)
        self._require_unchanged(what)
        if copied != stop - start:
            raise StoreError(f"{self.paths[what]}: ends before byte {stop}; open the store again")

    def _size(self, what: str) -> int:
        """Return the size of a file that can be read."""
        path = self.paths[what]
        if what not in self._descriptors:
            if what in self.signatures:
                raise StoreError(f"{path}: the store is closed; open it again")
            raise MissingStoreError(f"{path}: there was no such file when the store was opened")
        return self.signatures[what].size

    def _require_unchanged(self, what: str) -> None:
        """Refuse what was read while, or after, somebody wrote to the file in place."""
        if signature(self._descriptors[what]) != self.signatures[what]:
            raise StoreError(
                f"{self.paths[what]}: was changed while it was open here; open the store again"
            )

    def close(self) -> None:
        """Close the files; what was not read cannot be read any more."""
        self._closer()
        self._descriptors.clear()


def _signatures(paths: Mapping[str, Path]) -> dict[str, Signature]:
    """Return the signatures of the files that exist."""
    found = {}
    for what, path in paths.items():
        try:
            found[what] = signature(path)
        except MissingStoreError:
            continue
        except OSError as exc:
            raise StoreError(f"{path}: cannot be looked at: {exc}") from exc
    return found


def _open_file(path: Path) -> int:
    """Open a file for reading; a pipe must not make us wait for its writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise StoreError(f"{path}: cannot be opened for reading: {exc}") from exc
    if not path.is_file():
        os.close(descriptor)
        raise StoreFormatError(f"{path}: is no regular file")
    return descriptor


def _close_all(descriptors: dict[str, int]) -> None:
    """Close the descriptors of a snapshot."""
    for descriptor in descriptors.values():
        os.close(descriptor)
    descriptors.clear()
