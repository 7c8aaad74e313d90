"""The demo's own look at input files: right, or clearly none."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from fpgpu.demo.check import count_wrong, read_truth
from fpgpu.demo.telescope import Pointing
from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.pipeline import ingest
from fpgpu.stores.pixel import PixelStore
from tests.ingest.hstfiles import write_drz, write_flc

SHAPE = (64, 48)


def write_plain(path: Path, cards: dict[str, object], **layers: np.ndarray) -> Path:
    """Write a file with SCI and ERR, whatever else is asked for, and a little noise."""
    random = np.random.default_rng(3)
    header = Pointing(150, 2, 30, 0.06, SHAPE).gwcs().to_fits_sip(degree=4)
    header.update(FILTER="F200W", **cards)
    images = {
        "SCI": random.normal(1, 1, SHAPE[::-1]).astype(np.float32),
        "ERR": random.uniform(0.5, 1.5, SHAPE[::-1]).astype(np.float32),
        **layers,
    }
    hdus = [fits.ImageHDU(image, header, name) for name, image in images.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


@pytest.mark.parametrize(
    "cards",
    [
        {"ABMAG": 28.0},
        {"BUNIT": "uJy"},
        {"BUNIT": "10.0*nanoJansky"},
        {"BUNIT": "MJy/sr", "PIXAR_SR": 8e-14},
        {"BUNIT": "DN"},
        {},
    ],
)
def test_the_truth_is_what_is_stored(tmp_path: Path, cards: dict[str, object]) -> None:
    wht = np.ones(SHAPE[::-1], np.float32)
    wht[:20] = 0
    path = write_plain(tmp_path / "a.fits", cards, WHT=wht)
    row = ingest([path], tmp_path / "stores").rows[0]
    truth = read_truth(path, row.bitmask)
    with PixelStore(tmp_path / "stores" / "pixels.h5", mode="r") as pixels:
        flux, ierr = pixels.read_exposure(row.band, row.expID)
    assert count_wrong(truth, flux, ierr) == 0
    assert (truth[1] == 0).sum() == 20 * SHAPE[0]
    for image, value in ((flux, flux[5, 40] * 1.000001), (flux, np.nan), (ierr, 0)):
        spoilt = [image.copy() if part is image else part for part in (flux, ierr)]
        spoilt[image is ierr][5, 40] = value
        assert count_wrong(truth, *spoilt) == 1


def test_padding_must_be_empty() -> None:
    truth = np.ones((2, 3)), np.ones((2, 3))
    flux, ierr = (np.pad(np.ones((2, 3), np.float32), ((0, 2), (0, 1))) for _ in range(2))
    assert count_wrong(truth, flux, ierr) == 0
    flux[3, 0] = ierr[0, 3] = 1
    assert count_wrong(truth, flux, ierr) == 2


def test_files_of_which_it_knows_no_truth_are_told(tmp_path: Path) -> None:
    with pytest.raises(UnusableExposureError, match=r"flc\.fits: has 2 extensions SCI and 2 ERR"):
        read_truth(write_flc(tmp_path / "a_flc.fits"), 0)
    with pytest.raises(UnusableExposureError, match="has 1 extensions SCI and 0 ERR"):
        read_truth(write_drz(tmp_path / "a_drz.fits"), 0)
    with pytest.raises(UnusableExposureError, match="BUNIT ELECTRONS without ABMAG"):
        read_truth(write_flc(tmp_path / "b_flc.fits", chips=(1,)), 0)
    with pytest.raises(UnusableExposureError, match="BUNIT MJy/sr without ABMAG or PIXAR_SR"):
        read_truth(write_plain(tmp_path / "b.fits", {"BUNIT": "MJy/sr"}), 0)
