"""The text of a gWCS in an ASDF file: made alone, put beside others, read alone.

Arrays are written into the text, not as binary blocks, and the anchors of every gWCS have names of
their own, so pieces of text can stand in one file in any order.
"""

import hashlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

from fpgpu.errors import FpgpuError, StoreFormatError
from fpgpu.stores.metadata.pieces import Frame, Key

__all__ = [
    "ASDF_KEYS",
    "GwcsText",
    "asdf_errors",
    "asdf_frame",
    "checked_gwcs",
    "joined_heads",
    "read_piece",
]

logger = logging.getLogger(__name__)

# What the ASDF library itself puts at the top of every tree.
ASDF_KEYS = {"asdf_library", "history"}
NAME = "gwcs"
DIRECTIVES = b"\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n--- "
EXTENSIONS = b"\n  extensions:\n"
ITEM = re.compile(rb"^  - ", re.MULTILINE)
TAIL = b"...\n"
# YAML takes keys of up to 1024 characters on the line of their value.
LONG_KEY = 1000


@dataclass(frozen=True)
class GwcsText:
    """A gWCS as the text that stands for it in an ASDF file; it can be sent to other processes.

    Attributes
    ----------
    head : bytes
        What an ASDF file with this gWCS begins with: versions, and the extensions it needs.
    text : bytes
        The gWCS, indented for a file ``{band: {expID: gwcs}}``.
    """

    head: bytes
    text: bytes

    @classmethod
    def of(cls, gwcs: Any, place: object) -> Self:
        """Write a gWCS as text.

        Parameters
        ----------
        gwcs : gwcs.WCS
            The object.
        place : object
            File or exposure, for messages.

        Returns
        -------
        GwcsText

        Raises
        ------
        StoreFormatError
            If it cannot be written as ASDF.
        """
        import asdf

        stream = io.BytesIO()
        with asdf_errors(place, "the gWCS cannot be written as ASDF"):
            tree = {NAME: {NAME: gwcs}}
            asdf.AsdfFile(tree).write_to(stream, all_array_storage="inline")
        return cls._split(stream.getvalue(), b"\ngwcs:\n  gwcs: ", place)

    @classmethod
    def from_asdf(cls, content: bytes, place: object) -> Self:
        """Take back what `to_asdf` gave.

        Raises
        ------
        StoreFormatError
            If it is something else.
        """
        frame = asdf_frame(b"\n")
        return cls._split(content, frame.head + frame.band(NAME) + frame.exposure(NAME), place)

    @classmethod
    def _split(cls, content: bytes, marker: bytes, place: object) -> Self:
        """Cut an ASDF file with one gWCS in head and text."""
        head, found, rest = content.partition(marker)
        if not found or DIRECTIVES not in head or EXTENSIONS not in head or rest[-4:] != TAIL:
            raise StoreFormatError(
                f"{place}: the gWCS is not the ASDF text that was expected: YAML 1.1 with a list "
                "of extensions and without binary blocks"
            )
        return cls(head + b"\n", rest[: -len(TAIL)])

    def to_asdf(self) -> bytes:
        """Return an ASDF file of its own, with the tree ``{"gwcs": {"gwcs": ...}}``."""
        return _asdf_file(self.head, self.text)

    @classmethod
    def from_piece(cls, head: bytes, piece: bytes, key: Key) -> Self:
        """Take back what `piece` gave, from a file that begins with `head`."""
        prefix = _prefix(key)
        first, *rest = _cut_at_anchors(piece)
        return cls(head, "".join([first, *(part.removeprefix(prefix) for part in rest)]).encode())

    @cached_property
    def _parts(self) -> list[str]:
        return _cut_at_anchors(self.text)

    def piece(self, key: Key) -> bytes:
        """Return the text for a file with others, its anchors named after the exposure."""
        return _prefix(key).join(self._parts).encode()

    def make(self, place: object) -> Any:
        """Make the gWCS.

        Raises
        ------
        StoreFormatError
            If the text is damaged.
        """
        return read_piece(self.head, self.text, place)


def asdf_frame(head: bytes) -> Frame:
    """Return what stands around the pieces of an ASDF file that begins with `head`."""
    return Frame(
        head, TAIL, lambda name: _yaml_string(name) + b":\n", lambda name: _yaml_key(name) + b": "
    )


def joined_heads(heads: Iterable[bytes]) -> bytes:
    """Return one head for a file with gWCS of different heads; the last one says the versions."""
    items: set[bytes] = set()
    versions = b""
    for head in heads:
        versions, mark, extensions = head.partition(EXTENSIONS)
        starts = [match.start() for match in ITEM.finditer(extensions)]
        items |= {extensions[i:j] for i, j in zip(starts, [*starts[1:], None], strict=True)}
        versions += mark
    return versions + b"".join(sorted(items))


def read_piece(head: bytes, piece: bytes, place: object) -> Any:
    """Make the gWCS of a piece of an ASDF file that begins with `head`.

    Raises
    ------
    StoreFormatError
        If it cannot be made.
    """
    import asdf

    with asdf_errors(place, "the gWCS cannot be made"):
        stream = io.BytesIO(_asdf_file(head, piece))
        with asdf.open(stream, mode="r", lazy_load=False, memmap=False) as file:
            return checked_gwcs(file.tree[NAME][NAME], place)


def checked_gwcs(value: Any, place: object) -> Any:
    """Return what an ASDF file holds for an exposure, if it is a gWCS that works.

    Raises
    ------
    StoreFormatError
        If it is none.
    """
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


def _asdf_file(head: bytes, text: bytes) -> bytes:
    """Return an ASDF file with one gWCS."""
    frame = asdf_frame(head)
    return head + frame.band(NAME) + frame.exposure(NAME) + text + TAIL


def _prefix(key: Key) -> str:
    """Return what the names of anchors in the text of an exposure begin with."""
    return hashlib.sha256("/".join(key).encode()).hexdigest()[:16]


def _cut_at_anchors(content: bytes) -> list[str]:
    """Cut YAML before the name of each anchor and alias."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = content.decode()
    cuts = [
        token.start_mark.index + 1
        for token in yaml.scan(text, Loader=loader)
        if isinstance(token, yaml.AnchorToken | yaml.AliasToken)
    ]
    return [text[i:j] for i, j in pairwise([0, *cuts, len(text)])]


def _yaml_key(name: str) -> bytes:
    """Return an expID as the key of a line."""
    string = _yaml_string(name)
    return b"  ? " + string + b"\n  " if len(string) > LONG_KEY else b"  " + string


def _yaml_string(name: str) -> bytes:
    """Return a name as a quoted YAML string."""
    if name.isascii() and name.isprintable():
        return json.dumps(name).encode()
    plain = name.replace("\\", "\\\\").replace('"', '\\"')
    return '"{}"'.format(
        "".join(c if " " <= c <= "~" else f"\\U{ord(c):08x}" for c in plain)
    ).encode()
