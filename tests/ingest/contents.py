"""Everything that a store folder holds, but for what differs between two equal runs."""

import json
from pathlib import Path
from typing import Any

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
    headers = json.loads((folder / "meta.json").read_text())
    for band, exposures in headers.items():
        for expID, text in exposures.items():
            found[f"{band}/{expID}"]["header"] = text
    with MetaStore(folder / "meta.json") as meta:
        for band, expID in meta:
            found[f"{band}/{expID}"]["outline"] = meta.footprint(band, expID).tobytes()
    assert disagreements(folder) == {}
    return found


def keys_in(folder: Path) -> set[str]:
    """Names of the exposures of a store that may not be there yet."""
    if not (folder / "pixels.h5").exists():
        return set()
    return set(contents(folder))
