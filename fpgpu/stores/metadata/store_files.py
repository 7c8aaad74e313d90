"""The files of one meta store as they were opened: headers (JSON), gWCS (ASDF), the sidecar."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

from fpgpu.errors import MissingStoreError, StoreFormatError
from fpgpu.stores.files.publish import Signature, signature
from fpgpu.stores.files.sync import StrPath, fsync
from fpgpu.stores.metadata.gwcs_file import GwcsFile, GwcsPieces, GwcsSource
from fpgpu.stores.metadata.gwcs_text import asdf_frame
from fpgpu.stores.metadata.headers import Texts, read_texts
from fpgpu.stores.metadata.pieces import JSON_FRAME, FileIndex, Frame
from fpgpu.stores.metadata.records import Key, SkyColumns, StoredRecords, text_digest
from fpgpu.stores.metadata.sidecar import Sidecar
from fpgpu.stores.metadata.snapshot import Snapshot

__all__ = ["MetaFiles", "MetaPaths", "StoredFile"]


class MetaPaths(NamedTuple):
    """Where the files of a meta store are."""

    json: Path
    asdf: Path
    sidecar: Path

    @classmethod
    def of(cls, path: StrPath) -> Self:
        """Name the files that belong to a JSON file; symbolic links are followed first."""
        json = Path(path).resolve()
        stem = json.name.removesuffix(".json")
        return cls(json, json.with_name(f"{stem}.asdf"), json.with_name(f"{stem}.fpgpu.npz"))


class MetaFiles:
    """The files of a meta store as they were when it was opened.

    Parameters
    ----------
    paths : MetaPaths
        Where they are. Only the JSON file must exist.

    Attributes
    ----------
    names : mapping of str to list of str
        The expIDs of every band, in the file's order.
    records, outdated : StoredRecords
        What the sidecar remembers of headers that are still the same, and of those that changed.
    records_complete : bool
        Whether nothing was forgotten of the records.
    gwcs_keys : set of (band, expID) or None
        The exposures that have a gWCS; None when only the ASDF file itself can tell.

    Raises
    ------
    MissingStoreError
        If there is no JSON file.
    StoreFormatError
        If the JSON file had to be read and is no meta store.
    """

    def __init__(self, paths: MetaPaths) -> None:
        self.paths = paths
        self._snapshot = Snapshot(paths._asdict())
        self._gwcs: GwcsSource | None = None
        if "json" not in self._snapshot:
            raise MissingStoreError(
                f"{paths.json}: no such meta store; check the path, or make one with "
                "'fpgpu ingest' or MetaStore().write_to_file"
            )
        sidecar = self._read_sidecar()
        self._is_sidecar_sound = sidecar is not None
        self._json = self._index("json", sidecar and sidecar.json, JSON_FRAME)
        asdf = sidecar and sidecar.asdf
        self._asdf = self._index("asdf", asdf, asdf_frame(asdf.head if asdf else b""))
        self.records = self.outdated = StoredRecords({}, SkyColumns.of([]))
        if sidecar is not None and self._json is not None:
            self.names, self.records = sidecar.json.names or {}, sidecar.records
        else:
            self.names = {band: list(exposures) for band, exposures in self.texts.items()}
            if sidecar is not None:
                self._sort_records(sidecar.records)
        self.records_complete = self._asdf is not None or (not self.has_asdf and asdf is None)
        self.gwcs_keys = self._compare_gwcs()

    def _sort_records(self, records: StoredRecords) -> None:
        """Tell the records whose header is still the same from those whose header changed."""
        same: list[Key] = []
        changed: list[Key] = []
        for band, exposures in self.texts.items():
            for expID, text in exposures.items():
                if (key := (band, expID)) in records:
                    (same if records.digest(key) == text_digest(text) else changed).append(key)
        self.records, self.outdated = records.only(same), records.only(changed)

    def _compare_gwcs(self) -> set[Key] | None:
        """Find the exposures with a gWCS; forget what came from gWCS of another file."""
        if self._asdf is None:
            self.records = self.records.without_gwcs()
            self.outdated = self.outdated.only(())
            return None if self.has_asdf else set()
        if self._asdf.names is not None:
            return set(self._asdf.rows)
        if len(self.records) + len(self.outdated) < sum(map(len, self.names.values())):
            return None
        return self.records.with_gwcs() | self.outdated.with_gwcs()

    @property
    def json_signature(self) -> Signature:
        """The JSON file as it was when the store was opened."""
        return self._snapshot.signatures["json"]

    @property
    def has_asdf(self) -> bool:
        """Whether there is a file of gWCS objects."""
        return "asdf" in self._snapshot

    def sidecar_fault(self) -> str | None:
        """Tell why the sidecar could not be used; None when it could, or there was none."""
        if "sidecar" not in self._snapshot:
            return None
        if not self._is_sidecar_sound:
            return "is damaged, or was made by another version of fpgpu"
        if self._json is None:
            return f"was made with another {self.paths.json.name}"
        if self._asdf is None and self.has_asdf:
            return f"was made with another {self.paths.asdf.name}"
        return None

    @property
    def json(self) -> "StoredFile | None":
        """The headers, piece by piece; None when another program wrote the file."""
        return None if self._json is None else StoredFile(self._json, self._snapshot, "json")

    @property
    def asdf(self) -> "StoredFile | None":
        """The gWCS, piece by piece; None when another program wrote the file."""
        known = self._asdf is not None and self._asdf.names is not None
        return StoredFile(self._asdf, self._snapshot, "asdf") if known and self._asdf else None

    @cached_property
    def texts(self) -> Texts:
        """All header texts, of a file that another program wrote."""
        return read_texts(self._snapshot.read("json"), self.paths.json)

    def text(self, key: Key) -> str:
        """Return the header text of an exposure."""
        if self.json is None:
            return self.texts[key[0]][key[1]]
        text: str = json.loads(self.json.piece(key))
        return text

    def gwcs(self) -> GwcsSource:
        """Return the gWCS objects; a file that another program wrote is read at the first call."""
        if self._gwcs is None:
            path = self.paths.asdf
            if self.asdf is not None:
                self._gwcs = GwcsPieces(self.asdf.index, self.asdf.piece, path)
            else:
                self._gwcs = GwcsFile(self._snapshot.read("asdf"), path)
        return self._gwcs

    def copy_gwcs(self, target: Path) -> FileIndex:
        """Copy the ASDF file as it is."""
        index = self._asdf
        if index is None:
            content = self._snapshot.read("asdf")
            index = FileIndex.of_whole(content, self._snapshot.signatures["asdf"])
        with target.open("xb") as stream:
            self._snapshot.copy_range("asdf", 0, index.size, stream.fileno())
        fsync(target)
        return replace(index, mtime_ns=signature(target).mtime_ns)

    def close(self) -> None:
        """Close the files; what was not read cannot be read any more."""
        self._snapshot.close()
        if self._gwcs is not None:
            self._gwcs.close()

    def _read_sidecar(self) -> Sidecar | None:
        if "sidecar" not in self._snapshot:
            return None
        return Sidecar.read(self._snapshot.read("sidecar"), self.paths.sidecar)

    def _index(self, what: str, index: FileIndex | None, frame: Frame) -> FileIndex | None:
        """Return the index of a file if it is its own; content decides when the time differs."""
        if index is None or what not in self._snapshot:
            return None
        seen = self._snapshot.signatures[what]
        if index.matches(seen) or (
            index.size == seen.size and index.matches_content(self._snapshot.read(what), frame)
        ):
            return index
        return None


@dataclass(frozen=True)
class StoredFile:
    """A file of an opened store, of which pieces are read and copied."""

    index: FileIndex
    snapshot: Snapshot
    what: str

    def piece(self, key: Key) -> bytes:
        """Read the text of an exposure.

        Raises
        ------
        StoreFormatError
            If the file has other content than when it was written.
        """
        row = self.index.rows[key]
        piece = self.snapshot.read_range(self.what, *self.index.span(row))
        if not self.index.is_piece(row, piece):
            raise StoreFormatError(
                f"{self.snapshot.paths[self.what]}: {'/'.join(key)}: has size and time but not the "
                f"content that {self.snapshot.paths['sidecar'].name} was made with; remove that "
                "file and open again"
            )
        return piece

    def copy(self, start: int, stop: int, descriptor: int) -> None:
        """Append a range of bytes to an open file."""
        self.snapshot.copy_range(self.what, start, stop, descriptor)
