"""Putting an image and its inverse uncertainties in super-pixel order."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks.inputs.images import laid_out, random_image
from benchmarks.sizes import Measure, Size
from fpgpu.superpixels import images_from_superpixels, superpixelize

LAYOUTS = {
    "C order": "C order",
    "transposed": "transposed",
    "from a FITS image": "transposed, big-endian",
}


OPERATION = "superpixelize"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("new", [False, True], ids=["into an array", "new array"])
def test_fpgpu(measure: Measure, size: Size, layout: str, new: bool) -> None:
    images = [random_image(size.side, seed) for seed in (1, 2)]
    im, ierr = (laid_out(image, LAYOUTS[layout]) for image in images)
    out = None if new else superpixelize(im, ierr)
    superpixels = measure(
        OPERATION,
        "fpgpu cpu",
        lambda: superpixelize(im, ierr, out=out),
        detail=f"{layout}{', new array' if new else ''}",
        at={"side": size.side},
        n_bytes=8 * size.side**2,
    )
    for found, image in zip(images_from_superpixels(superpixels), images, strict=True):
        np.testing.assert_array_equal(found, image)


@pytest.mark.filterwarnings("ignore")
def test_forcepho(measure: Measure, size: Size, forcepho: ModuleType, tmp_path: Path) -> None:
    im, ierr = (laid_out(random_image(size.side, seed), "transposed") for seed in (1, 2))
    store = forcepho.PixelStore(str(tmp_path / "pixels.h5"), nside_full=size.side)
    superpixels = measure(
        OPERATION,
        "forcepho",
        lambda: store.superpixelize(im, ierr),
        at={"side": size.side},
        n_bytes=8 * size.side**2,
        rounds=2,
        warm_up=False,
    )
    np.testing.assert_array_equal(superpixels, superpixelize(im, ierr))
