"""Exposures for the tests of pixel stores, whose content tells which one it is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from fpgpu.ingest.exposure import ImageNameSet
from fpgpu.stores.pixel import PixelStore

SIDE = 64


def image_set(
    band: str = "F200W", expID: str = "e1", *, side: int | tuple[int, int] = SIDE, seed: int = 0
) -> SimpleNamespace:
    """Make an image set of random positive values, without mask, background and calibration."""
    shape = (side, side) if isinstance(side, int) else side
    rng = np.random.default_rng([seed, *f"{band}/{expID}".encode()])
    return SimpleNamespace(
        im=rng.normal(size=shape).astype("f4"),
        ierr=rng.uniform(0.5, 2, size=shape).astype("f4"),
        mask=None,
        bkg=None,
        hdr={},
        band=band,
        expID=expID,
        names=None,
    )


def uniform_set(expID: str, value: float, side: int = SIDE) -> SimpleNamespace:
    """Make an image set whose every flux is `value`, to tell old content from new."""
    imset = image_set(expID=expID, side=side)
    imset.im = np.full((side, side), value, np.float32)
    imset.ierr = np.full((side, side), 1.0 + value, np.float32)
    return imset


def golden_set(path: Path) -> SimpleNamespace:
    """Read one exposure of the golden field as forcepho's reader did."""
    with fits.open(path) as hdus:
        hdr = hdus["SCI"].header
        sci, err, mask, bkg = (hdus[name].data.T for name in ("SCI", "ERR", "DQ", "BKG"))
    name = path.name.removesuffix(".gz")
    with np.errstate(divide="ignore"):
        ierr = 1 / err
    return SimpleNamespace(
        im=sci,
        ierr=ierr,
        mask=mask,
        bkg=bkg,
        hdr=hdr,
        band=hdr["FILTER"],
        expID=name.removesuffix(".fits"),
        names=ImageNameSet(name, name, name, name),
    )


def new_store(path: Path, *imsets: SimpleNamespace, **options: Any) -> PixelStore:
    """Create a store that holds some exposures."""
    store = PixelStore(path, imsets[0].im.shape if imsets else SIDE, **options)
    for imset in imsets:
        store.add_exposure(imset)
    return store


def assert_holds(store: PixelStore, *imsets: SimpleNamespace) -> None:
    """Check that exposures read back as they went in."""
    for imset in imsets:
        im, ierr = store.read_exposure(imset.band, imset.expID)
        np.testing.assert_array_equal(im, imset.im)
        np.testing.assert_array_equal(ierr, imset.ierr)


def bits(array: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """View float32 values as integers, so that NaN and signed zeros count too."""
    return np.ascontiguousarray(array, "<f4").view(np.uint32)


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
