"""Everything that a store folder holds, but for what differs between two equal runs."""

import json
from pathlib import Path
from typing import Any

from astropy.io import fits

from fpgpu import MetaStore, PixelStore
from fpgpu.stores.summary import disagreements

OF_THE_RUN = {"date", "input_files"}


def contents(folder: Path) -> dict[str, Any]:
    """Bytes of every exposure, its record, and its header; raises when a checksum is wrong."""
    found: dict[str, Any] = {}
    with PixelStore(folder / "pixels.h5", mode="r") as pixels:
        assert pixels.verify().unchecked == []
        for key in pixels:
            flux, ierr = pixels.read_exposure(*key)
            record = pixels.record(*key)
            provenance = {k: v for k, v in record.provenance.items() if k not in OF_THE_RUN}
            found["/".join(key)] = {
                "flux": flux.tobytes(),
                "ierr": ierr.tobytes(),
                "record": [record.counts_to_flux, record.flux_units, record.checksum, provenance],
            }
    with MetaStore(folder / "meta.json") as meta:
        for band, expID in meta:
            found[f"{band}/{expID}"]["outline"] = meta.footprint(band, expID).tobytes()
            found[f"{band}/{expID}"]["header"] = meta.headers[band][expID].tostring()
    # forcepho's view may lack exposures while a run goes on, and never has others' headers.
    view = folder / "meta.json"
    for band, exposures in json.loads(view.read_text()).items() if view.exists() else ():
        for expID, text in exposures.items():
            assert fits.Header.fromstring(text).tostring() == found[f"{band}/{expID}"]["header"]
    assert disagreements(folder) == {}
    return found


def keys_in(folder: Path) -> set[str]:
    """Names of the exposures of a store that may not be there yet."""
    if not (folder / "pixels.h5").exists():
        return set()
    return set(contents(folder))
