"""What is refused of an ASDF file before the library that reads it gets to see it.

A few kilobytes can stand for more than any memory: YAML aliases of aliases of aliases, which a
reader walks one by one, and compressed blocks that expand a thousandfold. A gWCS needs neither.
"""

import bz2
import re
import struct
import zlib
from collections.abc import Callable

import yaml

from fpgpu.errors import UnusableExposureError

__all__ = ["BLOCK_MAGIC", "check_asdf", "tree_of"]

_MAX_NODES = 2_000_000
_MOST_PER_NODE = 10
_MAX_EXPANDED = 1 << 28

_TREE_END = re.compile(rb"\n\.\.\.\r?\n")
_ALIAS = re.compile(rb"[\s,\[:]\*[A-Za-z0-9]")
BLOCK_MAGIC = b"\xd3BLK"
_BLOCK_HEADER = struct.Struct(">I4sQQQ16s")

# Bytes that a compressed block gives, at most one more than asked for.
_EXPAND: dict[bytes, Callable[[bytes, int], bytes]] = {
    b"zlib": lambda data, limit: zlib.decompressobj().decompress(data, limit),
    b"bzp2": lambda data, limit: bz2.BZ2Decompressor().decompress(data, limit),
}


def tree_of(content: bytes) -> bytes:
    """Return what an ASDF file has before its blocks."""
    end = _TREE_END.search(content)
    return content if end is None else content[: end.end()]


def check_asdf(where: str, content: bytes) -> None:
    """Refuse an ASDF file that stands for far more than it holds."""
    tree = tree_of(content)
    if _ALIAS.search(tree):
        _check_aliases(where, tree)
    _check_blocks(where, content[len(tree) :])


def _check_aliases(where: str, tree: bytes) -> None:
    """Count the nodes of a tree as often as they are referred to."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = written = 0
    try:
        for event in yaml.parse(tree, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, total))
                total += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, start = open_nodes.pop()
                if anchor:
                    sizes[anchor] = total - start
            elif isinstance(event, yaml.AliasEvent):
                total += sizes.get(event.anchor, 1)
            elif isinstance(event, yaml.ScalarEvent):
                total += 1
            written += 1
            # A file of thousands of gWCS has as many nodes, but few that stand for others.
            if total > max(_MAX_NODES, _MOST_PER_NODE * written):
                raise UnusableExposureError(
                    f"{where} has aliases that stand for more than {total} nodes; no gWCS does; "
                    "use --wcs fits to take the WCS of the FITS header"
                )
    except yaml.YAMLError:
        # Malformed: its reader says so better.
        return


def _check_blocks(where: str, content: bytes) -> None:
    """Follow the blocks and expand those that are compressed, up to what they declare."""
    at = content.find(BLOCK_MAGIC)
    while 0 <= at <= len(content) - 6 - _BLOCK_HEADER.size and content.startswith(BLOCK_MAGIC, at):
        (header_size,) = struct.unpack_from(">H", content, at + 4)
        _, compression, allocated, used, size, _ = _BLOCK_HEADER.unpack_from(content, at + 6)
        start = at + 6 + header_size
        if compression != bytes(4):
            _check_block(where, compression, content[start : start + used], size)
        at = start + allocated


def _check_block(where: str, compression: bytes, payload: bytes, size: int) -> None:
    """Refuse a compressed block that is too large once expanded."""
    name = compression.decode("ascii", "replace").rstrip("\0")
    expand = _EXPAND.get(compression)
    actual = 0
    if size <= _MAX_EXPANDED and expand is not None:
        try:
            actual = len(expand(payload, size + 1))
        except (zlib.error, OSError, ValueError):
            return  # damaged: its reader says so better
    if size > _MAX_EXPANDED or actual > size:
        raise UnusableExposureError(
            f"{where} has a block compressed with {name} that declares {size} bytes"
            f"{' and holds more' if actual > size else ''}; no gWCS needs that; use --wcs fits to "
            "take the WCS of the FITS header"
        )
