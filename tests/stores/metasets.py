"""Exposures for the tests of meta stores: a header, and a gWCS where asked for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from astropy.io import fits

from fpgpu import MetaStore
from tests.sky.made_wcs import tan_header

CENTRE = (53.16, -27.79)


def meta_set(
    expID: str = "e1", band: str = "F200W", gwcs: Any = None, sip: Any = None, **traits: Any
) -> SimpleNamespace:
    """Make what `MetaStore.add_exposure` takes; `traits` go to `tan_header`."""
    header = tan_header(**traits)
    header["FILTER"] = band
    made = SimpleNamespace(hdr=header, band=band, expID=expID)
    if gwcs is not None:
        made.gwcs, made.sip = gwcs, sip
    return made


def write_store(path: Path, *sets: SimpleNamespace) -> Path:
    """Write a store of some exposures."""
    store = MetaStore()
    for imset in sets:
        store.add_exposure(imset)
    store.write_to_file(path)
    return path


def same_header(a: fits.Header, b: fits.Header) -> bool:
    """Whether two headers have the same cards."""
    return bool(a.tostring() == b.tostring())
