"""The files of a meta store written anew, and put in the place of the old ones all at once."""

from pathlib import Path

from fpgpu.errors import MissingStoreError, StoreWriteError
from fpgpu.stores.files.publish import Signature, Together, publish, scratch_folder, signature
from fpgpu.stores.files.sync import StrPath, write_errors
from fpgpu.stores.metadata.contents import MetaContents
from fpgpu.stores.metadata.gwcs_text import asdf_frame, joined_heads
from fpgpu.stores.metadata.headers import as_json
from fpgpu.stores.metadata.pieces import JSON_FRAME, FileIndex, write_pieces
from fpgpu.stores.metadata.records import Key
from fpgpu.stores.metadata.sidecar import Sidecar
from fpgpu.stores.metadata.store_files import MetaPaths

__all__ = ["write_meta_files"]


def write_meta_files(
    contents: MetaContents,
    paths: MetaPaths,
    expected: Signature | None = None,
    together: Together | None = None,
) -> None:
    """Replace the files of a meta store, all at once.

    What is in the opened files already is copied from them byte by byte; only what is new is made.

    Parameters
    ----------
    contents : MetaContents
        What the files shall hold.
    paths : MetaPaths
        Where they go.
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
    UnusableExposureError
        If a header was given a value that FITS cannot hold.
    StoreFormatError
        If a gWCS cannot be written as ASDF.
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
        files = _write_all(contents, paths, scratch)
        publish(
            {**together.write(scratch), **files},
            still_right=lambda: (
                (expected is None or _is_still(paths.json, expected)) and together.still_right()
            ),
            discard=together.discard,
        )


def _write_all(
    contents: MetaContents, paths: MetaPaths, scratch: Path
) -> dict[StrPath, StrPath | None]:
    """Write all files in a scratch folder and return them as `publish` takes them."""
    new = MetaPaths(*(scratch / path.name for path in paths))
    texts = contents.new_texts()
    columns = contents.columns(texts)
    pieces = {key: as_json(text) for key, text in texts.items()}
    names = {band: list(exposures) for band, exposures in contents.headers.items()}
    old = None if contents.files is None else contents.files.json
    json_index = write_pieces(new.json, JSON_FRAME, names, pieces, old)
    asdf_index = _write_gwcs(contents, new.asdf)
    Sidecar(json_index, asdf_index, columns).write(new.sidecar)
    return {
        paths.json: new.json,
        paths.asdf: new.asdf if asdf_index else None,
        paths.sidecar: new.sidecar,
    }


def _write_gwcs(contents: MetaContents, path: Path) -> FileIndex | None:
    """Write the ASDF file; None when there is nothing for it."""
    files = contents.files
    if contents.gwcs_as_stored and files is not None:
        return files.copy_gwcs(path)
    names = {band: list(exposures) for band, exposures in contents.tree.items() if exposures}
    if not names:
        return None
    texts = contents.new_gwcs()
    pieces: dict[Key, bytes] = {key: text.piece(key) for key, text in texts.items()}
    old = None if files is None else files.asdf
    heads = [old.index.head] if old else []
    head = joined_heads([*heads, *(text.head for text in texts.values())])
    return write_pieces(path, asdf_frame(head), names, pieces, old)


def _is_still(path: Path, expected: Signature) -> bool:
    """Whether a file is there and unchanged."""
    try:
        return signature(path) == expected
    except MissingStoreError:
        return False
