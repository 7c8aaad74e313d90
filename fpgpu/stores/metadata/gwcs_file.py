"""The gWCS objects of a meta store: an ASDF file with the tree ``{band: {expID: gwcs}}``."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from fpgpu.errors import NotInStoreError, StoreFormatError
from fpgpu.stores.metadata.gwcs_text import ASDF_KEYS, asdf_errors, checked_gwcs, read_piece
from fpgpu.stores.metadata.pieces import FileIndex, Key

__all__ = ["GwcsFile", "GwcsPieces", "GwcsSource"]


class GwcsSource(Protocol):
    """Where gWCS objects come from."""

    def keys_by_band(self) -> dict[str, list[str]]:
        """Return the expIDs of every band, in the file's order."""

    def get(self, band: str, expID: str) -> Any:
        """Make the gWCS of one exposure."""

    def close(self) -> None:
        """Forget the file's content; objects made from it stay whole."""


class GwcsPieces:
    """An ASDF file that fpgpu wrote, of which only the text of the gWCS asked for is read.

    Parameters
    ----------
    index : FileIndex
        Where the pieces are.
    read : callable
        ``read((band, expID))`` gives the piece of an exposure.
    path : pathlib.Path
        The file, for messages.
    """

    def __init__(self, index: FileIndex, read: Callable[[Key], bytes], path: Path) -> None:
        self._index = index
        self._read = read
        self._path = path

    def keys_by_band(self) -> dict[str, list[str]]:
        """Return the expIDs of every band, in the file's order."""
        return {band: list(expIDs) for band, expIDs in (self._index.names or {}).items()}

    def get(self, band: str, expID: str) -> Any:
        """Make the gWCS of one exposure.

        Raises
        ------
        NotInStoreError
            If the file has none.
        StoreFormatError
            If it is damaged.
        """
        if (band, expID) not in self._index.rows:
            raise NotInStoreError(f"{self._path}: no gWCS of exposure {band}/{expID}")
        piece = self._read((band, expID))
        return read_piece(self._index.head, piece, f"{self._path}: {band}/{expID}")

    def close(self) -> None:
        """Do nothing: the file belongs to somebody else."""


class GwcsFile:
    """An ASDF file read whole, whose objects are made one by one.

    Parameters
    ----------
    content : bytes
        The file. Its array blocks are loaded at once, so they cannot vanish with the file.
    path : pathlib.Path
        Where it came from, for messages.

    Raises
    ------
    StoreFormatError
        If it is no ASDF file or its tree is not ``{band: {expID: gwcs}}``.
    """

    def __init__(self, content: bytes, path: Path) -> None:
        import asdf

        self._path = path
        with asdf_errors(path, "cannot be read as ASDF"):
            self._file = asdf.open(
                io.BytesIO(content), mode="r", lazy_load=False, memmap=False, lazy_tree=True
            )
        self._keys = self._read_keys()

    def _read_keys(self) -> dict[str, dict[str, None]]:
        """Return the expIDs of every band, quick to look up."""
        keys: dict[str, dict[str, None]] = {}
        with asdf_errors(self._path, "holds a tree that cannot be read"):
            for band, exposures in self._file.tree.items():
                if band in ASDF_KEYS:
                    continue
                if not isinstance(band, str) or not hasattr(exposures, "keys"):
                    raise StoreFormatError(
                        f"{self._path}: entry {band!r}: expected a band with gWCS by expID, "
                        f"found {type(exposures).__name__}"
                    )
                keys[band] = dict.fromkeys(str(expID) for expID in exposures)
        return keys

    def keys_by_band(self) -> dict[str, list[str]]:
        """Return the expIDs of every band, in the file's order.

        Returns
        -------
        dict of str to list of str
            A copy.
        """
        return {band: list(expIDs) for band, expIDs in self._keys.items()}

    def get(self, band: str, expID: str) -> Any:
        """Make the gWCS of one exposure.

        Raises
        ------
        NotInStoreError
            If the file has none.
        StoreFormatError
            If what it has is no gWCS.
        """
        if expID not in self._keys.get(band, {}):
            raise NotInStoreError(f"{self._path}: no gWCS of exposure {band}/{expID}")
        with asdf_errors(self._path, f"the gWCS of {band}/{expID} cannot be made"):
            return checked_gwcs(self._file.tree[band][expID], f"{self._path}: {band}/{expID}")

    def close(self) -> None:
        """Forget the file's content; objects made from it stay whole."""
        self._file.close()
