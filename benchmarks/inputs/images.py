"""Images as they come from FITS files."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu import ImageNameSet, ImageSet

__all__ = ["image_set", "laid_out", "random_image"]


def random_image(side: int, seed: int) -> npt.NDArray[np.float32]:
    """Draw a positive image."""
    return np.random.default_rng(seed).uniform(1, 2, (side, side)).astype(np.float32)


def laid_out(image: npt.NDArray[Any], layout: str) -> npt.NDArray[Any]:
    """Return the image ``[x, y]`` in C order, as a transposed FITS image, or as one just read."""
    if layout == "C order":
        return image
    dtype = ">f4" if layout == "transposed, big-endian" else "<f4"
    return np.ascontiguousarray(image.T, dtype).T


def image_set(side: int, expID: str) -> ImageSet:
    """Make an exposure with everything: flags, background and a zero point."""
    im, ierr, bkg = (
        laid_out(random_image(side, seed), layout)
        for seed, layout in (
            (1, "transposed, big-endian"),
            (2, "transposed"),  # computed from ERR, so in the machine's byte order
            (3, "transposed, big-endian"),
        )
    )
    flags = (np.random.default_rng(4).random((side, side)) < 0.02).astype(">u4").T
    names = ImageNameSet("im.fits", "err.fits", "mask.fits", "bkg.fits")
    return ImageSet(im, ierr, flags, bkg, {"ABMAG": 28.0}, "F200W", expID, names)
