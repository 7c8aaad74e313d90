"""WCSs that the tests of the sky share."""

import io
import json
import warnings
from pathlib import Path
from typing import Any

import asdf
import numpy as np
import pytest
from astropy.io import fits


@pytest.fixture(scope="session")
def golden_patch(golden: Path) -> dict[str, np.ndarray]:
    """forcepho's patch of the tiny field."""
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def golden_headers(golden: Path) -> dict[str, fits.Header]:
    """Headers of the tiny field by ``BAND/expID``: 128 x 128 pixels, SIP."""
    stored = json.loads((golden / "tiny" / "meta.json").read_text())
    return {
        f"{band}/{name}": fits.Header.fromstring(text)
        for band, exposures in stored.items()
        for name, text in exposures.items()
    }


@pytest.fixture(scope="session", params=["nrcb5-wcs", "nircamwcs"])
def nircam_gwcs(request: pytest.FixtureRequest, shared_data: Path) -> Any:
    """The gWCS of a real NIRCam exposure of 2048 x 2048 pixels, with its bounding box."""
    path = shared_data / "gwcs" / f"{request.param}.asdf"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # written by other versions of asdf
        with asdf.open(path, lazy_load=False, memmap=False) as tree:
            return tree["wcs"]


@pytest.fixture(scope="session")
def cutout(shared_data: Path) -> tuple[fits.Header, Any]:
    """SCI header and gWCS of a real cutout whose gWCS was not shifted."""
    with fits.open(shared_data / "nircam" / "nrcalong_f444w_cal_cutout.fits") as hdus:
        header, block = hdus["SCI"].header.copy(), hdus["ASDF"].data[0][0].tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # written by other versions of asdf and jwst
        # Only a lazy tree leaves its references to other extensions alone in every asdf.
        with asdf.open(io.BytesIO(block), lazy_load=False, lazy_tree=True, memmap=False) as tree:
            return header, tree["meta"]["wcs"]
