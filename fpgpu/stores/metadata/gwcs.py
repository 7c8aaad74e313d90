"""gWCS objects as ASDF: one as bytes of its own, and the file that forcepho reads, of many."""

import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fpgpu.errors import FpgpuError, NotInStoreError, StoreFormatError, UnusableExposureError
from fpgpu.stores.metadata.asdfguard import check_asdf
from fpgpu.stores.metadata.skyrecords import Key

__all__ = ["ASDF_KEYS", "GwcsFile", "gwcs_from_bytes", "gwcs_to_bytes", "joined"]

logger = logging.getLogger(__name__)

# What the ASDF library itself puts at the top of every tree.
ASDF_KEYS = {"asdf_library", "history"}
NAME = "gwcs"


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
        with asdf_errors(path, "cannot be read as ASDF"):
            check_asdf(str(path), content)
            self._file = asdf.open(
                io.BytesIO(content), mode="r", lazy_load=False, memmap=False, lazy_tree=True
            )
        self.keys: dict[Key, None] = {}
        with asdf_errors(path, "holds a tree that cannot be read"):
            for band, exposures in self._file.tree.items():
                if band in ASDF_KEYS:
                    continue
                if not isinstance(band, str) or not hasattr(exposures, "keys"):
                    raise StoreFormatError(
                        f"{path}: entry {band!r}: expected a band with gWCS by expID, "
                        f"found {type(exposures).__name__}"
                    )
                self.keys |= dict.fromkeys((band, str(expID)) for expID in exposures)

    def get(self, key: Key) -> Any:
        """Make the gWCS of one exposure."""
        band, expID = key
        if key not in self.keys:
            raise NotInStoreError(f"{self._path}: no gWCS of exposure {band}/{expID}")
        with asdf_errors(self._path, f"the gWCS of {band}/{expID} cannot be made"):
            return checked_gwcs(self._file.tree[band][expID], f"{self._path}: {band}/{expID}")


def joined(texts: Iterable[tuple[Key, bytes]]) -> bytes:
    """Return one ASDF file with the tree ``{band: {expID: gwcs}}``.

    The parts are put together as YAML nodes: no gWCS is made, and aliases stay within each.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    bands: dict[str, list[Any]] = {}
    head: dict[str, Any] = {}
    extensions: dict[str, Any] = {}
    preamble = b""
    for (band, expID), content in texts:
        preamble, _, _ = content.partition(b"%YAML")
        root = yaml.compose(content, Loader=loader)
        members = {key.value: (key, value) for key, value in root.value}
        node = members.pop(NAME)[1]
        if node.tag.endswith(":map"):  # as shards of fpgpu 0.1 have it
            node = node.value[0][1]
        bands.setdefault(band, []).append((_string(expID), node))
        head |= members
        for part, values in members["history"][1].value:
            if part.value == "extensions":
                extensions |= {yaml.serialize(item): item for item in values.value}
    for part, values in head["history"][1].value:
        if part.value == "extensions":
            values.value = list(extensions.values())
    tree = [*head.values(), *((_string(band), _mapping(found)) for band, found in bands.items())]
    root = _mapping(tree)
    root.tag = "tag:stsci.edu:asdf/core/asdf-1.1.0"
    text: bytes = yaml.serialize(
        root,
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        explicit_start=True,
        explicit_end=True,
        version=(1, 1),
        tags={"!": "tag:stsci.edu:asdf/"},
        encoding="utf-8",
        width=1 << 16,
    )
    return preamble + text


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
