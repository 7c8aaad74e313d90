"""What is stored of one exposure, worked out and checked before any store is touched."""

from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from fpgpu.errors import ExposureNameError, WCSError
from fpgpu.stores.metadata.gwcs import ASDF_KEYS, gwcs_to_bytes
from fpgpu.stores.metadata.headers import header_text, parse_wcs, with_size
from fpgpu.stores.metadata.outlines import wcs_errors
from fpgpu.stores.metadata.skyrecords import UNKNOWN_SHAPE, Key, SkyRecord, text_digest
from fpgpu.stores.names import check_band, check_expID

__all__ = ["MetaEntry", "new_entry"]


class MetaEntry(NamedTuple):
    """What is stored of one exposure.

    Attributes
    ----------
    key : (str, str)
        Band and expID.
    text : str
        The header.
    gwcs : gwcs.WCS, bytes or None
        The gWCS, as an object or as ASDF.
    record : SkyRecord
        Where it is on the sky.
    """

    key: Key
    text: str
    gwcs: Any
    record: SkyRecord

    def gwcs_bytes(self) -> bytes | None:
        """Return the gWCS as ASDF: most of the work of storing it."""
        if self.gwcs is None or isinstance(self.gwcs, bytes):
            return self.gwcs
        return gwcs_to_bytes(self.gwcs, "exposure {}/{}".format(*self.key))


def new_entry(imset: Any) -> MetaEntry:
    """Check an exposure and work out all that a meta store keeps of it; needs no store."""
    band, expID = check_band(imset.band), check_expID(imset.expID)
    place = f"exposure {band}/{expID}"
    text = header_text(imset.hdr, place)
    gwcs = getattr(imset, "gwcs", None)
    if gwcs is not None and band in ASDF_KEYS:
        raise ExposureNameError(
            f"{place}: an ASDF file has an entry {band!r} of its own, so no band with gWCS can be "
            "called that"
        )
    im = getattr(imset, "im", None)
    shape = None if im is None else (int(im.shape[0]), int(im.shape[1]))
    record = _new_record(text, gwcs, getattr(imset, "sip", None), place, shape)
    return MetaEntry((band, expID), text, gwcs, record)


def _new_record(
    text: str, gwcs: Any, sip: Any, place: str, im_shape: tuple[int, int] | None
) -> SkyRecord:
    """Work out where an exposure that is to be added is on the sky."""
    from fpgpu.sky.cards import image_shape
    from fpgpu.sky.wcs import SkyWCS

    header = with_size(parse_wcs(text, place), im_shape)
    if "NAXIS1" not in header and "NAXIS2" not in header:
        with wcs_errors(place):
            if gwcs is None:
                SkyWCS.from_header(with_size(header, (1, 1)))
        return SkyRecord(text_digest(text), UNKNOWN_SHAPE, sip=sip, has_gwcs=gwcs is not None)
    with wcs_errors(place):
        shape = image_shape(header)
        record = SkyRecord(text_digest(text), shape, sip=sip, has_gwcs=gwcs is not None)
        if gwcs is None:
            return replace(record, fits_outline=SkyWCS.from_header(header).footprint())
        general = SkyWCS.from_native(gwcs, shape)
        if general.kind != "gwcs":
            raise WCSError(f"its gwcs is a {type(gwcs).__name__}; expected a gwcs.WCS")
        record = replace(record, gwcs_outline=general.footprint())
    # Where there is a gWCS, a header without a celestial WCS is no reason to refuse.
    with suppress(WCSError):
        record = replace(record, fits_outline=SkyWCS.from_header(header).footprint())
    return record
