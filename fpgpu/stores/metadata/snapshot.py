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
        path = self.paths[what]
        if what not in self._descriptors:
            if what in self.signatures:
                raise StoreError(f"{path}: the store is closed; open it again")
            raise MissingStoreError(f"{path}: there was no such file when the store was opened")
        descriptor, size = self._descriptors[what], self.signatures[what].size
        try:
            pieces = [os.pread(descriptor, min(CHUNK, size), 0)]
            while pieces[-1] and sum(map(len, pieces)) < size:
                position = sum(map(len, pieces))
                pieces.append(os.pread(descriptor, min(CHUNK, size - position), position))
        except OSError as exc:
            raise StoreError(f"{path}: cannot be read: {exc}") from exc
        if signature(descriptor) != self.signatures[what]:
            raise StoreError(f"{path}: was changed while it was open here; open the store again")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

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
