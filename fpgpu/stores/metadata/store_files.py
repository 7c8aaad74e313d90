"""The files of one meta store: headers (JSON), gWCS (ASDF) and the sidecar, read and written."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

from fpgpu.errors import MissingStoreError, StoreFormatError, StoreWriteError
from fpgpu.stores.files.publish import (
    Signature,
    Together,
    publish,
    scratch_folder,
    signature,
)
from fpgpu.stores.files.sync import StrPath, fsync, write_errors
from fpgpu.stores.metadata.gwcs_file import GwcsFile
from fpgpu.stores.metadata.headers import Texts, read_texts, texts_to_json
from fpgpu.stores.metadata.sidecar import FileMark, Key, Sidecar, SkyRecord, text_digest
from fpgpu.stores.metadata.snapshot import Snapshot

__all__ = ["MetaFiles", "MetaPaths", "write_meta_files"]


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
    names : dict of str to list of str
        The expIDs of every band, in the file's order.
    records, outdated : dict of (band, expID) to SkyRecord
        What the sidecar remembers of headers that are still the same, and of those that changed.
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
        self._texts: Texts | None = None
        self._gwcs: GwcsFile | None = None
        if "json" not in self._snapshot:
            raise MissingStoreError(
                f"{paths.json}: no such meta store; check the path, or make one with "
                "'fpgpu ingest' or MetaStore().write_to_file"
            )
        sidecar = self._read_sidecar()
        self._expected: FileMark | None = None
        self.records: dict[Key, SkyRecord] = {}
        self.outdated: dict[Key, SkyRecord] = {}
        if sidecar is not None and self._belongs("json", sidecar.json_mark):
            self._expected = sidecar.json_mark
            self.names, self.records = sidecar.names, sidecar.records
        else:
            self.names = {band: list(exposures) for band, exposures in self.texts().items()}
            if sidecar is not None:
                self._sort_records(sidecar.records)
        self.gwcs_keys = self._compare_gwcs(sidecar)

    def _sort_records(self, records: Mapping[Key, SkyRecord]) -> None:
        """Tell the records whose header is still the same from those whose header changed."""
        for band, exposures in self.texts().items():
            for expID, text in exposures.items():
                record = records.get((band, expID))
                if record is not None:
                    same = record.digest == text_digest(text)
                    (self.records if same else self.outdated)[band, expID] = record

    def _compare_gwcs(self, sidecar: Sidecar | None) -> set[Key] | None:
        """Find the exposures with a gWCS; forget what came from gWCS of another file."""
        if sidecar is None or not self.has_asdf or not self._belongs("asdf", sidecar.asdf_mark):
            self.records = {key: record.without_gwcs() for key, record in self.records.items()}
            self.outdated = {}
            return None if self.has_asdf else set()
        known = {**self.records, **self.outdated}
        if len(known) < sum(map(len, self.names.values())):
            return None
        return {key for key, record in known.items() if record.has_gwcs}

    @property
    def json_signature(self) -> Signature:
        """The JSON file as it was when the store was opened."""
        return self._snapshot.signatures["json"]

    @property
    def has_asdf(self) -> bool:
        """Whether there is a file of gWCS objects."""
        return "asdf" in self._snapshot

    def texts(self) -> Texts:
        """Return the header texts, read at the first call."""
        if self._texts is None:
            content = self._snapshot.read("json")
            if self._expected is not None and not self._expected.matches_content(content):
                raise StoreFormatError(
                    f"{self.paths.json}: has size and time but not the content that "
                    f"{self.paths.sidecar.name} was made with; remove that file and open again"
                )
            self._texts = read_texts(content, self.paths.json)
        return self._texts

    def gwcs(self) -> GwcsFile:
        """Return the opened ASDF file, read at the first call."""
        if self._gwcs is None:
            self._gwcs = GwcsFile(self._snapshot.read("asdf"), self.paths.asdf)
        return self._gwcs

    def copy_gwcs(self, target: Path) -> None:
        """Copy the ASDF file as it is."""
        target.write_bytes(self._snapshot.read("asdf"))

    def close(self) -> None:
        """Close the files; what was not read cannot be read any more."""
        self._snapshot.close()
        if self._gwcs is not None:
            self._gwcs.close()

    def _read_sidecar(self) -> Sidecar | None:
        if "sidecar" not in self._snapshot:
            return None
        return Sidecar.read(self._snapshot.read("sidecar"), self.paths.sidecar)

    def _belongs(self, what: str, mark: FileMark | None) -> bool:
        """Whether the sidecar was made with this file; content decides when the time differs."""
        if mark is None:
            return False
        return mark.matches(self._snapshot.signatures[what]) or mark.matches_content(
            self._snapshot.read(what)
        )


def write_meta_files(
    paths: MetaPaths,
    texts: Mapping[str, Mapping[str, str]],
    records: Mapping[Key, SkyRecord],
    write_gwcs: Callable[[Path], None] | None,
    expected: Signature | None = None,
    together: Together | None = None,
) -> None:
    """Replace the files of a meta store, all at once.

    Parameters
    ----------
    paths : MetaPaths
        Where they go.
    texts : mapping of str to mapping of str to str
        Header texts by band and expID.
    records : mapping of (band, expID) to SkyRecord
        What the sidecar shall remember; one for each header.
    write_gwcs : callable or None
        Writes the ASDF file to the path it is given; None removes one that belonged to the old
        content.
    expected : Signature, optional
        What the JSON file must still be.
    together : Together, optional
        What else is replaced in the same instant.

    Raises
    ------
    StoreWriteError
        If the files cannot be written; the old ones are as they were.
    StoreConflictError
        If the JSON file is not what was expected.
    """
    if not paths.json.name.endswith(".json") or paths.json.name == ".json":
        raise StoreWriteError(
            f"{paths.json}: the name of a meta store must end in '.json'; the files beside it are "
            "named after it"
        )
    together = together or Together()
    with (
        scratch_folder(paths.json.parent, alone=together.alone) as scratch,
        write_errors(paths.json),
    ):
        new = MetaPaths(*(scratch / path.name for path in paths))
        new.json.write_bytes(texts_to_json(texts))
        if write_gwcs is not None:
            write_gwcs(new.asdf)
        names = {band: list(exposures) for band, exposures in texts.items()}
        Sidecar(_mark(new.json), _mark(new.asdf) if write_gwcs else None, names, records).write(
            new.sidecar
        )
        publish(
            {
                **together.write(scratch),
                paths.json: new.json,
                paths.asdf: new.asdf if write_gwcs else None,
                paths.sidecar: new.sidecar,
            },
            still_right=lambda: (
                (expected is None or _is_still(paths.json, expected)) and together.still_right()
            ),
            discard=together.discard,
        )


def _is_still(path: Path, expected: Signature) -> bool:
    """Whether a file is there and unchanged."""
    try:
        return signature(path) == expected
    except MissingStoreError:
        return False


def _mark(path: Path) -> FileMark:
    """Mark a file that was just written; on network disks its time settles with its content."""
    fsync(path)
    return FileMark.of(path.read_bytes(), signature(path))
