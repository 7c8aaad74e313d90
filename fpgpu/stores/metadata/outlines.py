"""Footprints of stored exposures: remembered by a store, or worked out when asked for."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fpgpu.errors import WCSError
from fpgpu.stores.metadata.headers import parse_wcs, with_size
from fpgpu.stores.metadata.skyrecords import (
    UNKNOWN_SHAPE,
    Float,
    Key,
    SkyRecord,
    StoredRecords,
    text_digest,
)

__all__ = ["Outlines", "wcs_errors"]

logger = logging.getLogger(__name__)


class Outlines:
    """The sky records of one store's exposures.

    Parameters
    ----------
    place, text, gwcs : callable
        Name an exposure for messages, give its header as text as it is now, and its gWCS.
    stored : mapping of (band, expID) to SkyRecord
        What the store remembers.

    Attributes
    ----------
    image_shape : (int, int) or None
        Pixels along x and y of images whose headers do not say.
    sized : set of (band, expID)
        Exposures whose records came from it.
    """

    def __init__(
        self,
        place: Callable[[Key], str],
        text: Callable[[Key], str],
        gwcs: Callable[[Key], Any],
        stored: StoredRecords,
    ) -> None:
        self._place, self._text, self._gwcs = place, text, gwcs
        self.image_shape: tuple[int, int] | None = None
        self.sized: set[Key] = set()
        # Where there is an entry in `_records`, that counts.
        self._stored = stored
        self._records: dict[Key, SkyRecord | None] = {}
        # Records of exposures whose header changed: what their gWCS gave still holds.
        self._outdated: dict[Key, SkyRecord] = {}

    def put(self, key: Key, record: SkyRecord) -> None:
        """Replace the record of an exposure."""
        self._records[key] = None if record.shape == UNKNOWN_SHAPE else record
        self._outdated.pop(key, None)

    def forget_header(self, key: Key) -> None:
        """Drop what came from the header of an exposure."""
        record = self._find(key)
        if record is not None:
            self._outdated[key] = record
        self._records[key] = None

    def forget_gwcs(self, key: Key) -> None:
        """Drop what came from the gWCS of an exposure."""
        self._outdated.pop(key, None)
        record = self._find(key)
        self._records[key] = None if record is None else record.without_gwcs()

    def outline(self, key: Key, kind: str) -> Float:
        """Return the footprint of an exposure by its ``"fits"`` WCS or its ``"gwcs"``."""
        record = self.record(key)
        outline: Float | None = getattr(record, f"{kind}_outline")
        if outline is None:
            outline = self._trace(key, kind, record.shape)
            traced: dict[str, Any] = {f"{kind}_outline": outline}
            self._records[key] = replace(record, **traced)
        return outline

    def stacked(self, keys: Sequence[Key], kind: str) -> Float | None:
        """Return the footprints of many exposures as one array (n, n_vertices, 2), if it can."""
        if not all(key not in self._records and key in self._stored for key in keys):
            return None
        rows = [self._stored.rows[key] for key in keys]
        return self._stored.columns.ragged[f"{kind}_outline"].stacked(rows)

    def complete(self, key: Key, text: str, *, has_gwcs: bool) -> SkyRecord:
        """Return the record of an exposure whose header has this text, nothing left out.

        An exposure without a usable WCS, which another program's store may hold, has no outlines.
        """
        digest = text_digest(text)
        record = self._find(key)
        if record is not None and record.digest != digest:
            self.forget_header(key)
        for kind in ("fits", "gwcs") if has_gwcs else ("fits",):
            try:
                self.outline(key, kind)
            except WCSError as exc:
                logger.info("no %s footprint: %s", kind, exc)
        record = self._find(key) or SkyRecord(digest, UNKNOWN_SHAPE)
        return replace(record, has_gwcs=has_gwcs)

    def _find(self, key: Key) -> SkyRecord | None:
        """Return a record that is known."""
        if key in self._records:
            return self._records[key]
        record = self._stored.get(key)
        return None if record is None or record.shape == UNKNOWN_SHAPE else record

    def record(self, key: Key) -> SkyRecord:
        """Return what is known of an exposure: digest and shape at least."""
        record = self._find(key)
        if record is None:
            from fpgpu.sky.cards import image_shape

            place, text = self._place(key), self._text(key)
            stored = parse_wcs(text, place)
            header = with_size(stored, self.image_shape)
            if header is not stored:
                self.sized.add(key)
            elif "NAXIS1" not in header and "NAXIS2" not in header:
                raise WCSError(
                    f"{place}: the header does not tell the size of the image; the pixel store"
                    " does: set MetaStore.image_shape = PixelStore.shape"
                )
            with wcs_errors(place):
                shape = image_shape(header)
            record = SkyRecord(text_digest(text), shape)
            old = self._outdated.pop(key, None)
            if old is not None and old.shape == shape:
                record = replace(record, gwcs_outline=old.gwcs_outline, sip=old.sip)
            self._records[key] = record
        return record

    def _trace(self, key: Key, kind: str, shape: tuple[int, int]) -> Float:
        """Work out a footprint."""
        from fpgpu.sky.wcs import SkyWCS

        place = self._place(key)
        if kind == "fits":
            header = with_size(parse_wcs(self._text(key), place), shape)
            with wcs_errors(place):
                return SkyWCS.from_header(header).footprint()
        with wcs_errors(place):
            return SkyWCS.from_gwcs(self._gwcs(key), shape).footprint()


@contextmanager
def wcs_errors(place: str) -> Iterator[None]:
    """Say which exposure of which file a WCS problem is about."""
    try:
        yield
    except WCSError as exc:
        raise WCSError(f"{place}: {exc}") from exc
