"""Footprints of stored exposures: remembered from a sidecar, or worked out when asked for."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fpgpu.errors import NotInStoreError, WCSError
from fpgpu.stores.metadata.headers import parse_header
from fpgpu.stores.metadata.sidecar import Float, Key, SkyRecord, text_digest

if TYPE_CHECKING:
    from fpgpu.sky.sip import SipFit

__all__ = ["Outlines", "Sources", "wcs_errors"]

logger = logging.getLogger(__name__)

# Remembered of an exposure whose header has no usable WCS.
UNKNOWN_SHAPE = (0, 0)


@dataclass(frozen=True)
class Sources:
    """Where what describes an exposure comes from.

    Attributes
    ----------
    place : callable
        ``place(key)`` names file and exposure for messages.
    text : callable
        ``text(key)`` gives the header as it is now, as text.
    gwcs : callable
        ``gwcs(key)`` gives the gWCS, None where there is none.
    """

    place: Callable[[Key], str]
    text: Callable[[Key], str]
    gwcs: Callable[[Key], Any]


class Outlines:
    """The sky records of one store's exposures.

    Parameters
    ----------
    sources : Sources
        What a record is worked out from.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._records: dict[Key, SkyRecord] = {}
        # Records of exposures whose header changed: what their gWCS gave still holds.
        self._outdated: dict[Key, SkyRecord] = {}

    def adopt(self, records: Mapping[Key, SkyRecord], outdated: Mapping[Key, SkyRecord]) -> None:
        """Take over what a sidecar remembers, of these headers and of earlier ones."""
        self._records = {k: r for k, r in records.items() if r.shape != UNKNOWN_SHAPE}
        self._outdated = dict(outdated)

    def put(self, key: Key, record: SkyRecord) -> None:
        """Replace the record of an exposure."""
        self._records[key] = record
        self._outdated.pop(key, None)

    def forget_header(self, key: Key) -> None:
        """Drop what came from the header of an exposure."""
        if key in self._records:
            self._outdated[key] = self._records.pop(key)

    def forget_gwcs(self, key: Key) -> None:
        """Drop what came from the gWCS of an exposure."""
        self._outdated.pop(key, None)
        if key in self._records:
            self._records[key] = self._records[key].without_gwcs()

    def sip(self, key: Key) -> "SipFit | None":
        """Return the remembered refit of the gWCS of an exposure."""
        return self._record(key).sip

    def shape(self, key: Key) -> tuple[int, int]:
        """Return the number of pixels (nx, ny) of an exposure."""
        return self._record(key).shape

    def outline(self, key: Key, kind: str) -> Float:
        """Return the footprint of an exposure by its ``"fits"`` WCS or its ``"gwcs"``."""
        record = self._record(key)
        outline = record.gwcs_outline if kind == "gwcs" else record.fits_outline
        if outline is None:
            outline = self._trace(key, kind, record.shape)
            if kind == "gwcs":
                self._records[key] = replace(record, gwcs_outline=outline)
            else:
                self._records[key] = replace(record, fits_outline=outline)
        return outline

    def complete(self, key: Key, text: str, *, has_gwcs: bool) -> SkyRecord:
        """Return the record of an exposure whose header has this text, nothing left out.

        An exposure without a usable WCS, which another program's store may hold, has no outlines.
        """
        digest = text_digest(text)
        record = self._records.get(key)
        if record is not None and record.digest != digest:
            self.forget_header(key)
        for kind in ("fits", "gwcs") if has_gwcs else ("fits",):
            try:
                self.outline(key, kind)
            except WCSError as exc:
                logger.info("no %s footprint: %s", kind, exc)
        record = self._records.get(key) or SkyRecord(digest, UNKNOWN_SHAPE)
        return replace(record, has_gwcs=has_gwcs)

    def _record(self, key: Key) -> SkyRecord:
        """Return a record with digest and shape at least."""
        if key not in self._records:
            from fpgpu.sky.celestial import image_shape

            place, text = self._sources.place(key), self._sources.text(key)
            with wcs_errors(place):
                shape = image_shape(parse_header(text, place))
            record = SkyRecord(text_digest(text), shape)
            old = self._outdated.pop(key, None)
            if old is not None and old.shape == shape:
                record = replace(record, gwcs_outline=old.gwcs_outline, sip=old.sip)
            self._records[key] = record
        return self._records[key]

    def _trace(self, key: Key, kind: str, shape: tuple[int, int]) -> Float:
        """Work out a footprint."""
        from fpgpu.sky.wcs import SkyWCS

        place = self._sources.place(key)
        if kind == "fits":
            header = parse_header(self._sources.text(key), place)
            with wcs_errors(place):
                return SkyWCS.from_header(header).footprint()
        gwcs = self._sources.gwcs(key)
        if gwcs is None:
            raise NotInStoreError(
                f"{place}: has no gWCS; open the store without use_gwcs to take the FITS WCS"
            )
        with wcs_errors(place):
            return SkyWCS.from_gwcs(gwcs, shape).footprint()


@contextmanager
def wcs_errors(place: str) -> Iterator[None]:
    """Say which exposure of which file a WCS problem is about."""
    try:
        yield
    except WCSError as exc:
        raise WCSError(f"{place}: {exc}") from exc
