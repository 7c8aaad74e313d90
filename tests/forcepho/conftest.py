"""The golden patch, and a table of Sersic profiles to fit with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fpgpu.patch.pack import FORCEPHO_RADII as RADII


@pytest.fixture(scope="session")
def answers(golden: Path) -> dict[str, Any]:
    """What forcepho made of the golden patch."""
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def stores(golden: Path) -> dict[str, str]:
    """Files of the golden stores, by the names of forcepho's parameters."""
    folder = golden / "tiny"
    names = {"pixelstore": "pixels.h5", "metastore": "meta.json", "psfstore": "psf.h5"}
    return {name: str(folder / file) for name, file in names.items()}


@pytest.fixture(scope="session")
def request_of(answers: Mapping[str, Any]) -> dict[str, Any]:
    """What the golden patch was built with, but for its region."""
    return {"allbands": answers["bandlist"].tolist(), "sourcecat": answers["sourcecat"]}


@pytest.fixture(scope="session")
def splinedata(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Mixtures that grow with the half-light radius and spread with the Sersic index."""
    path = tmp_path_factory.mktemp("splines") / "splines.h5"
    sersic, rhalf = (
        grid.ravel() for grid in np.meshgrid(np.linspace(0.8, 6, 14), np.geomspace(0.01, 1, 20))
    )
    order = np.lexsort((rhalf, sersic))
    sersic, rhalf = sersic[order], rhalf[order]
    distance = np.log(np.maximum(RADII, 0.005) / rhalf[:, None]) / (0.5 + 0.2 * sersic[:, None])
    weights = np.exp(-0.5 * distance**2)
    with h5py.File(path, "w") as file:
        file["nsersic"], file["rh"], file["radii"] = sersic, rhalf, RADII
        file["amplitudes"] = weights / weights.sum(axis=1, keepdims=True)
    return str(path)
