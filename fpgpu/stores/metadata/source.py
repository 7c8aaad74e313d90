"""Where the content of a meta store comes from: a commit, or forcepho's two files."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

from fpgpu.errors import (
    MissingStoreError,
    NotInStoreError,
    StoreConflictError,
    StoreFormatError,
)
from fpgpu.stores.disk import StrPath, read_errors, read_regular, signature
from fpgpu.stores.legacy import sidecar_records
from fpgpu.stores.metadata.gwcs import GwcsFile, gwcs_from_bytes
from fpgpu.stores.metadata.headers import Texts, read_texts
from fpgpu.stores.metadata.skyrecords import Key, StoredRecords
from fpgpu.stores.state import State

__all__ = ["FileSource", "IndexSource", "MetaPaths", "Source"]


class MetaPaths(NamedTuple):
    """Where the files of a meta store are."""

    json: Path
    asdf: Path

    @classmethod
    def of(cls, path: StrPath) -> Self:
        """Name the file that belongs to a JSON file; symbolic links are followed first."""
        json = Path(path).resolve()
        return cls(json, json.with_name(f"{json.name.removesuffix('.json')}.asdf"))


class FileSource:
    """A JSON file of headers, with an ASDF file of gWCS beside it or not.

    Parameters
    ----------
    paths : MetaPaths
        The files. The JSON file is read now, the other when a gWCS is first asked for.
    asdf : bool, optional
        Whether to look at the other at all.

    Raises
    ------
    MissingStoreError
        If there is no JSON file.
    StoreFormatError
        If it is no meta store.
    """

    def __init__(self, paths: MetaPaths, *, asdf: bool = True) -> None:
        self.paths = paths
        self._asdf_seen = signature(paths.asdf) if paths.asdf.exists() else None
        self.has_asdf = asdf and self._asdf_seen is not None
        how = "check the path, or make one with 'fpgpu ingest' or MetaStore().write_to_file"
        with read_errors(paths.json, f"no such meta store; {how}"):
            content, self.seen = read_regular(paths.json)
        self.names: Texts = read_texts(content, paths.json)
        self.records = sidecar_records(paths.json, paths.asdf, self.names)

    @cached_property
    def _file(self) -> GwcsFile | None:
        try:
            with read_errors(self.paths.asdf):
                content, found = read_regular(self.paths.asdf)
        except MissingStoreError:
            found = None
        if found != self._asdf_seen:
            raise StoreConflictError(
                f"{self.paths.asdf}: was changed since {self.paths.json.name} was opened; open it "
                "again"
            )
        return None if found is None else GwcsFile(content, self.paths.asdf)

    @property
    def gwcs_keys(self) -> Mapping[Key, Any]:
        """The exposures that have a gWCS; the file is read for it."""
        return {} if self._file is None else self._file.keys

    def text(self, key: Key) -> str:
        """Return the header of an exposure."""
        return self.names[key[0]][key[1]]

    def gwcs(self, key: Key) -> Any:
        """Make the gWCS of an exposure."""
        return self._opened().get(key)

    def gwcs_bytes(self, key: Key) -> bytes:
        """Return the gWCS of an exposure as ASDF."""
        return self._opened().to_bytes(key)

    def _opened(self) -> GwcsFile:
        """Return the file of gWCS."""
        if self._file is None:
            raise NotInStoreError(f"{self.paths.asdf}: no such file")
        return self._file


class IndexSource:
    """The metadata of one state of a store.

    Parameters
    ----------
    state : State
        With an index.
    paths : MetaPaths
        Where forcepho's views are, for messages.
    """

    def __init__(self, state: State, paths: MetaPaths) -> None:
        self.state = state
        self.paths = paths
        index = state.index
        rows = {key: n for n, (key, row) in enumerate(index.rows.items()) if row.meta is not None}
        self.records = StoredRecords(rows, index.columns)
        self.names: dict[str, dict[str, None]] = {}
        for band, expID in rows:
            self.names.setdefault(band, {})[expID] = None
        flags = index.columns.has_gwcs.tolist()  # at once: there may be many thousand
        self.gwcs_keys = {key: None for key, row in rows.items() if flags[row]}
        self.has_asdf = bool(self.gwcs_keys)

    def text(self, key: Key) -> str:
        """Return the header of an exposure."""
        text = self.state.record(key).text
        if text is None:
            raise StoreFormatError(f"{self.state.place(key)}: its record holds no header")
        return text

    def gwcs(self, key: Key) -> Any:
        """Make the gWCS of an exposure."""
        return gwcs_from_bytes(self.gwcs_bytes(key), self.state.place(key))

    def gwcs_bytes(self, key: Key) -> bytes:
        """Return the gWCS of an exposure as ASDF."""
        content = self.state.record(key).gwcs
        if content is None:
            raise NotInStoreError(f"{self.state.place(key)}: has no gWCS")
        return content


Source = FileSource | IndexSource
"""What a meta store was opened from; it does not change."""
