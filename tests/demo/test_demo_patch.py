"""The demo's patch: its sources are the field's, and its checks can fail."""

from typing import Any

import numpy as np
import pytest
from astropy.table import Table

import fpgpu
from fpgpu.demo.field import Field, make_field, pixel_scale, psf_sigma
from fpgpu.demo.run import Check, DemoReport, check_patch, densest, store_psfs
from fpgpu.ingest.pipeline import ingest
from fpgpu.psf import default_profiles
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.psf import PSFStore


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("field")
    return make_field(folder, bands=("F200W", "F444W"), n_per_band=1)


@pytest.fixture(scope="module")
def stores(field: Field, tmp_path_factory: pytest.TempPathFactory) -> StoreFolder:
    folder = StoreFolder(tmp_path_factory.mktemp("demo") / "stores")
    ingest(field.files, folder.path)
    store_psfs(DemoReport(), folder, field)
    field.truth.write(folder.path.parent / "truth.ecsv")
    return folder


def checks_of(stores: StoreFolder, truth: Any) -> list[Check]:
    tell = DemoReport()
    region = densest(Table.read(stores.path.parent / "truth.ecsv"))
    with fpgpu.open(stores.path, backend="cpu") as survey:
        check_patch(tell, survey, region, truth)
    return tell.checks


def test_the_psfs_are_beside_the_stores_and_those_of_the_field(
    stores: StoreFolder, field: Field
) -> None:
    with PSFStore(stores.psf) as psf:
        assert psf.bands == field.bands == ["F200W", "F444W"]
        for band in psf.bands:
            found = psf.lookup(band)[0]
            sigma = psf_sigma(band) / pixel_scale(band)
            assert found["Cxx"] == pytest.approx(sigma**2, rel=0.03)
            assert found["amp"] == pytest.approx(1, abs=2e-3)
            assert psf.n_radii(band) == default_profiles().n_radii


def test_the_true_sources_explain_the_pixels(stores: StoreFolder, field: Field) -> None:
    checks = checks_of(stores, field.truth)
    assert [check.passed for check in checks] == [True, True], checks
    assert "different: none" in checks[0].detail
    assert "nothing but noise" in checks[1].what


@pytest.mark.parametrize(
    ("column", "change"),
    [("dec", 0.006 / 3600), ("F200W", 300.0), ("rhalf", 0.01)],
)
def test_other_sources_do_not(
    stores: StoreFolder, field: Field, column: str, change: float
) -> None:
    altered = field.truth.copy()
    altered[column] = np.asarray(altered[column]) + change
    altered[column].unit = field.truth[column].unit
    verdict = checks_of(stores, altered)[1]
    assert not verdict.passed, verdict.detail


def test_exposures_without_known_sources_make_a_round_trip_only(
    stores: StoreFolder,
) -> None:
    checks = checks_of(stores, None)
    assert [check.what for check in checks] == ["every array of the patch comes back as it went"]
    assert checks[0].passed
