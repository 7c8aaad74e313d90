"""The gWCS objects of a meta store: an ASDF file with the tree ``{band: {expID: gwcs}}``."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fpgpu.errors import FpgpuError, NotInStoreError, StoreFormatError

__all__ = ["GwcsFile", "write_gwcs"]

logger = logging.getLogger(__name__)

# What the ASDF library itself puts at the top of every tree.
ASDF_KEYS = {"asdf_library", "history"}


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
        with _asdf_errors(path, "cannot be read as ASDF"):
            self._file = asdf.open(
                io.BytesIO(content), mode="r", lazy_load=False, memmap=False, lazy_tree=True
            )
        self._keys = self._read_keys()

    def _read_keys(self) -> dict[str, dict[str, None]]:
        """Return the expIDs of every band, quick to look up."""
        keys: dict[str, dict[str, None]] = {}
        with _asdf_errors(self._path, "holds a tree that cannot be read"):
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
        with _asdf_errors(self._path, f"the gWCS of {band}/{expID} cannot be made"):
            value = self._file.tree[band][expID]
            if not hasattr(value, "pixel_to_world_values"):
                raise StoreFormatError(
                    f"{self._path}: {band}/{expID}: expected a gWCS, found {type(value).__name__}"
                )
            # A damaged transform can be made and fails only when it is evaluated.
            value(*[0.0] * value.pixel_n_dim, with_bounding_box=False)
        return value

    def close(self) -> None:
        """Forget the file's content; objects made from it stay whole."""
        self._file.close()


def write_gwcs(tree: Mapping[str, Mapping[str, Any]], target: Path | BinaryIO) -> None:
    """Write gWCS objects as a new ASDF file, as forcepho reads it.

    Parameters
    ----------
    tree : mapping of band to mapping of expID to gwcs.WCS
        The objects.
    target : pathlib.Path or file object
        The file to write.

    Raises
    ------
    StoreFormatError
        If an object cannot be written as ASDF.
    """
    import asdf

    plain = {band: dict(exposures) for band, exposures in tree.items()}
    place = target if isinstance(target, Path) else Path("an exposure")
    with ExitStack() as stack:
        stack.enter_context(_asdf_errors(place, "the gWCS cannot be written as ASDF"))
        stream = stack.enter_context(target.open("xb")) if isinstance(target, Path) else target
        asdf.AsdfFile(plain).write_to(stream)


@contextmanager
def _asdf_errors(path: Path, what: str) -> Iterator[None]:
    """Turn whatever the ASDF and YAML libraries raise into one error; log what they warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (FpgpuError, MemoryError):
            raise
        except OSError as exc:
            if exc.errno is not None:  # from the system, not about the format
                raise
            raise StoreFormatError(f"{path}: {what}: {exc}") from exc
        except Exception as exc:
            raise StoreFormatError(f"{path}: {what}: {type(exc).__name__}: {exc}") from exc
    for warning in caught:
        logger.warning("%s: %s", path, warning.message)
