"""gWCS objects as ASDF: one as bytes of its own, and the file that forcepho reads, of many."""

import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fpgpu.errors import FpgpuError, NotInStoreError, StoreFormatError, UnusableExposureError
from fpgpu.stores.metadata.asdfguard import BLOCK_MAGIC, check_asdf, tree_of
from fpgpu.stores.metadata.skyrecords import Key

__all__ = ["ASDF_KEYS", "GwcsFile", "gwcs_from_bytes", "gwcs_to_bytes", "joined"]

logger = logging.getLogger(__name__)

# What the ASDF library itself puts at the top of every tree.
ASDF_KEYS = {"asdf_library", "history"}
NAME = "gwcs"
_PREAMBLE = re.compile(rb"(#ASDF.*\n)*")


def gwcs_to_bytes(gwcs: Any, place: object) -> bytes:
    """Write a gWCS as an ASDF file with the tree ``{"gwcs": gwcs}``, arrays in its text."""
    import asdf

    stream = io.BytesIO()
    with asdf_errors(place, "the gWCS cannot be written as ASDF"):
        asdf.AsdfFile({NAME: gwcs}).write_to(stream, all_array_storage="inline")
    return stream.getvalue()


def gwcs_from_bytes(content: bytes, place: object) -> Any:
    """Make the gWCS that `gwcs_to_bytes` wrote."""
    import asdf

    with asdf_errors(place, "the gWCS cannot be made"):
        check_asdf(str(place), content)
        with asdf.open(io.BytesIO(content), mode="r", lazy_load=False, memmap=False) as file:
            found = file.tree[NAME]
            # Shards of fpgpu 0.1 have it one level further down.
            return checked_gwcs(found[NAME] if isinstance(found, dict) else found, place)


class GwcsFile:
    """A file of gWCS that another program wrote, read whole; its objects are made one by one.

    Parameters
    ----------
    content : bytes
        The file. Its array blocks are loaded at once, so they cannot vanish with the file.
    path : pathlib.Path
        Where it came from, for messages.

    Attributes
    ----------
    keys : dict of (band, expID)
        Which there are, in the file's order.

    Raises
    ------
    StoreFormatError
        If it is no ASDF file or its tree is not ``{band: {expID: gwcs}}``.
    """

    def __init__(self, content: bytes, path: Path) -> None:
        import asdf

        self._path = path
        self._file: Any = None  # where arrays are in blocks, which YAML knows nothing of
        with asdf_errors(path, "cannot be read as ASDF"):
            check_asdf(str(path), content)
            if BLOCK_MAGIC in content or not content.startswith(b"#ASDF"):
                self._file = asdf.open(
                    io.BytesIO(content), mode="r", lazy_load=False, memmap=False, lazy_tree=True
                )
            self._preamble, members = _members(tree_of(content))
        self._head = {name: members.pop(name) for name in ASDF_KEYS & members.keys()}
        self.keys: dict[Key, Any] = {}
        for band, (_, exposures) in members.items():
            if exposures.id != "mapping":
                raise StoreFormatError(
                    f"{path}: entry {band!r}: expected a band with gWCS by expID, "
                    f"found a {exposures.id}"
                )
            self.keys |= {(band, str(expID.value)): node for expID, node in exposures.value}

    def get(self, key: Key) -> Any:
        """Make the gWCS of one exposure."""
        band, expID = key
        if key not in self.keys:
            raise NotInStoreError(f"{self._path}: no gWCS of exposure {band}/{expID}")
        place = f"{self._path}: {band}/{expID}"
        if self._file is None:
            return gwcs_from_bytes(self.to_bytes(key), place)
        with asdf_errors(self._path, f"the gWCS of {band}/{expID} cannot be made"):
            return checked_gwcs(self._file.tree[band][expID], place)

    def to_bytes(self, key: Key) -> bytes:
        """Return the gWCS of one exposure as ASDF, its text as it is where that is all of it."""
        if self._file is not None:
            return gwcs_to_bytes(self.get(key), f"{self._path}: {'/'.join(key)}")
        return self._preamble + _document([*self._head.values(), (_string(NAME), self.keys[key])])


def joined(texts: Iterable[tuple[Key, bytes]]) -> bytes:
    """Return one ASDF file with the tree ``{band: {expID: gwcs}}``.

    The parts are put together as YAML nodes: no gWCS is made, and aliases stay within each.
    """
    bands: dict[str, list[Any]] = {}
    head: dict[str, Any] = {}
    extensions: dict[bytes, Any] = {}
    preamble = b""
    for (band, expID), content in texts:
        preamble, members = _members(content)
        node = members.pop(NAME)[1]
        if node.tag.endswith(":map"):  # as shards of fpgpu 0.1 have it
            node = node.value[0][1]
        bands.setdefault(band, []).append((_string(expID), node))
        head |= members
        for values in _extensions(members):
            extensions |= {_written(item): item for item in values.value}
    for values in _extensions(head):
        values.value = list(extensions.values())
    tree = [*head.values(), *((_string(band), _mapping(found)) for band, found in bands.items())]
    return preamble + _document(tree)


def _members(content: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return the first lines of an ASDF file, and the top of its tree by name, as YAML nodes."""
    import yaml

    root = yaml.compose(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if not isinstance(root, yaml.MappingNode):
        raise StoreFormatError("its tree is no mapping")
    preamble = _PREAMBLE.match(content)
    return preamble[0] if preamble else b"", {key.value: (key, value) for key, value in root.value}


def _extensions(head: dict[str, Any]) -> list[Any]:
    """Return the list of extensions at the top of a tree, which is in a list if there is one."""
    history = head["history"][1].value if "history" in head else []
    return [values for part, values in history if part.value == "extensions"]


def _document(members: list[Any]) -> bytes:
    """Write a tree of YAML nodes as ASDF has it."""
    root = _mapping(members)
    root.tag = "tag:stsci.edu:asdf/core/asdf-1.1.0"
    return _written(root, version=(1, 1), tags={"!": "tag:stsci.edu:asdf/"}, explicit_start=True)


def _written(node: Any, **options: Any) -> bytes:
    """Write a YAML node."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: bytes = yaml.serialize(
        node, Dumper=dumper, explicit_end=True, encoding="utf-8", width=1 << 16, **options
    )
    return text


def _string(text: str) -> Any:
    """Return a name as a quoted YAML node."""
    import yaml

    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style='"')


def _mapping(members: list[Any]) -> Any:
    """Return a YAML node of keys and values."""
    import yaml

    return yaml.MappingNode("tag:yaml.org,2002:map", members, flow_style=False)


def checked_gwcs(value: Any, place: object) -> Any:
    """Return what an ASDF file holds for an exposure, if it is a gWCS that works."""
    if not hasattr(value, "pixel_to_world_values"):
        raise StoreFormatError(f"{place}: expected a gWCS, found {type(value).__name__}")
    # A damaged transform can be made and fails only when it is evaluated.
    value(*[0.0] * value.pixel_n_dim, with_bounding_box=False)
    return value


@contextmanager
def asdf_errors(place: object, what: str) -> Iterator[None]:
    """Turn whatever the ASDF and YAML libraries raise into one error; log what they warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except UnusableExposureError as exc:
            raise StoreFormatError(str(exc)) from exc
        except (FpgpuError, MemoryError):
            raise
        except OSError as exc:
            if exc.errno is not None:  # from the system, not about the format
                raise
            raise StoreFormatError(f"{place}: {what}: {exc}") from exc
        except Exception as exc:
            raise StoreFormatError(f"{place}: {what}: {type(exc).__name__}: {exc}") from exc
    for warning in caught:
        logger.warning("%s: %s", place, warning.message)
