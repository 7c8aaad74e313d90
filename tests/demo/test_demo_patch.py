"""The demo's patch: its sources are the field's, and its checks can fail."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from fpgpu import get_backend
from fpgpu.demo.field import Field, make_field
from fpgpu.demo.patch import check_patch, gaussian_catalog, gaussian_mixture, pixel_psf
from fpgpu.demo.report import Check, DemoReport, Narrator
from fpgpu.ingest.pipeline import ingest
from fpgpu.sky.regions import CircularRegion
from fpgpu.stores.folder import StoreFolder

FULL_WIDTH_HALF_MAXIMUM = np.sqrt(8 * np.log(2))


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder = tmp_path_factory.mktemp("field")
    return make_field(folder, bands=("F200W", "F444W"), n_per_band=1)


@pytest.fixture(scope="module")
def stores(field: Field, tmp_path_factory: pytest.TempPathFactory) -> StoreFolder:
    folder = StoreFolder(tmp_path_factory.mktemp("stores"))
    ingest(field.files, folder.path)
    return folder


def checks_of(stores: StoreFolder, field: Field | None) -> list[Check]:
    tell = Narrator(lambda line: None)
    check_patch(tell, get_backend("cpu"), stores, field)
    assert isinstance(tell.report, DemoReport)
    return tell.report.checks


@pytest.mark.parametrize("sigma", [0.0201, 0.033, 0.0777, 0.1499])
def test_the_mixture_is_a_gaussian_of_the_source_s_size(sigma: float) -> None:
    mixture = gaussian_mixture()
    # Half of the light of a round Gaussian is within half its full width at half maximum.
    found = mixture.evaluate(0.5, sigma * FULL_WIDTH_HALF_MAXIMUM / 2)
    r, blur2 = np.linspace(0, 0.8, 100), 0.0335**2
    variances = mixture.radii**2 + blur2
    profile = (found.amplitudes[0] / variances) @ np.exp(-0.5 * r**2 / variances[:, None])
    variance = sigma**2 + blur2
    expected = np.exp(-0.5 * r**2 / variance) / variance
    np.testing.assert_allclose(profile, expected, rtol=0, atol=1e-3 * expected.max())
    assert found.amplitudes.sum() == pytest.approx(1, abs=1e-6)


def test_the_psf_is_that_of_a_gaussian_integrated_over_pixels() -> None:
    psf, blur = pixel_psf("F200W")[:4], (0.02 + 0.03 * 200 / 444) / 0.031
    x = np.arange(-8, 9)
    columns = psf["amp"] / np.sqrt(2 * np.pi * psf["Cxx"])
    offsets = x[:, None] - psf["xcen"]
    profile = np.sum(columns * np.exp(-0.5 * offsets**2 / psf["Cxx"]), axis=1)
    edges = (np.arange(-8, 10) - 0.5) / blur
    np.testing.assert_allclose(profile, np.diff(ndtr(edges)), rtol=0, atol=2e-4)


def test_only_sources_whose_light_reaches_the_region_are_taken(field: Field) -> None:
    region = CircularRegion(*field.center, 0.1 / 3600)
    catalog = gaussian_catalog(field.truth, region)
    cosine = np.cos(np.deg2rad(field.center[1]))
    east = (np.asarray(field.truth["ra"]) - field.center[0]) * cosine
    distance = 3600 * np.hypot(east, np.asarray(field.truth["dec"]) - field.center[1])
    assert len(catalog) == (distance < 1.7).sum()
    assert 0 < len(catalog) < 40
    assert {"F200W", "F444W", "sersic", "rhalf"} < set(catalog.colnames)


def test_the_true_sources_explain_the_pixels(stores: StoreFolder, field: Field) -> None:
    checks = checks_of(stores, field)
    assert [check.passed for check in checks] == [True, True], checks
    assert "different: none" in checks[0].detail
    assert "nothing but noise" in checks[1].what


@pytest.mark.parametrize(
    ("column", "change"),
    [("dec", 0.006 / 3600), ("flux_F200W", 300.0), ("sigma", 0.004)],
)
def test_other_sources_do_not(
    stores: StoreFolder, field: Field, column: str, change: float
) -> None:
    altered = field.truth.copy()
    altered[column] = np.asarray(altered[column]) + change
    altered[column].unit = field.truth[column].unit
    altered["sigma"] = np.clip(altered["sigma"], 0.02, 0.1499)
    truth = Field(field.files, altered, field.truth_file, field.center)
    verdict = checks_of(stores, truth)[1]
    assert not verdict.passed, verdict.detail


def test_exposures_without_known_sources_make_a_round_trip_only(
    stores: StoreFolder, tmp_path: Path
) -> None:
    checks = checks_of(stores, None)
    assert [check.what for check in checks] == ["every array of the patch comes back as it went"]
    assert checks[0].passed
