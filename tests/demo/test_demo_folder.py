"""What a demo leaves is all that the next commands, and Python, need."""

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

import fpgpu
from fpgpu.cli.main import main
from fpgpu.errors import LayoutError
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.patch.file import read_patch
from fpgpu.psf import make_profiles

CIRCLE = ("--ra", "53.16", "--dec", "-27.79", "--radius", "1", "--catalog", "sources.fits")
REGION = fpgpu.CircularRegion(53.16, -27.79, 1 / 3600)


@pytest.fixture(autouse=True)
def in_the_demo(demo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo_folder)


def test_commands_take_its_catalogue(tmp_path: Path) -> None:
    assert main(["patch", "stores", *CIRCLE, "--out", str(tmp_path / "patch.h5")]) == 0
    assert read_patch(tmp_path / "patch.h5").arrays["n_sources"] > 0
    prefix = str(tmp_path / "look")
    assert main(["plot", "stores", "residuals", *CIRCLE, "--out", prefix]) == 0
    assert (tmp_path / "look_residuals.png").stat().st_size > 1000


def test_the_likelihood_of_its_catalogue_is_near_its_largest() -> None:
    catalog = Table.read("sources.fits")
    with (
        fpgpu.open("stores", backend="cpu") as survey,
        survey.patch(REGION, catalog, margin=None) as patch,
    ):
        found = patch.likelihood(catalog)
        n_used = np.count_nonzero(patch.retrieve("ierr"))
        without = float(np.sum((patch.retrieve("data") * patch.retrieve("ierr")) ** 2))
        # ln L is relative to no sources; what is left has a chi2 of 1 a pixel.
        remaining = without - 2 * found.value
        assert remaining / n_used == pytest.approx(1, abs=5 * np.sqrt(2 / n_used))
        assert without / n_used > 2
        for column in ("F200W", "rhalf"):
            changed = catalog.copy()
            changed[column] *= 1.05
            assert patch.likelihood(changed).value < found.value - 10


def test_profiles_of_other_radii_are_refused(tmp_path: Path) -> None:
    grid = {"sersic": [0.5, 1, 1.5, 2], "rhalf": [0.02, 0.05, 0.1, 0.2]}
    path = make_profiles(np.geomspace(0.01, 3, 10), **grid).write(tmp_path / "other.h5")
    other = SersicMixture.from_file(path)
    catalog = Table.read("sources.fits")
    with fpgpu.open("stores", backend="cpu") as survey:
        with survey.patch(REGION, catalog, radii=other.radii) as patch:
            sources = catalog[patch.sources]
            assert np.isfinite(patch.likelihood(sources, other).value)
            with pytest.raises(LayoutError, match="give the mixture of those here"):
                patch.likelihood(sources)
        with pytest.raises(LayoutError, match="for 10 radii, but there are 3"):
            survey.patch(REGION, catalog, radii=[0, 0.1, 1])
