"""One way in: `fpgpu.open`, and what a survey makes."""

import inspect
import pickle
import shutil
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from regions import CircleSkyRegion, Regions

import fpgpu
import fpgpu.plots
from fpgpu import CircularRegion
from fpgpu.backends.cpu import CpuBackend
from fpgpu.errors import (
    BackendUnavailableError,
    CatalogError,
    ExposureNameError,
    LayoutError,
    MissingStoreError,
    NotInStoreError,
    PlanError,
    RegionError,
    StoreError,
    StoreFormatError,
)
from fpgpu.likelihood.mixture import radii_in_arcsec
from fpgpu.patch.timing import time_patch
from fpgpu.sky.wcs import SkyWCS
from tests.patch.fields import empty_pixels
from tests.sky.made_wcs import sky_gwcs
from tests.stores.metasets import meta_set, write_store

REGION = CircularRegion(53.16, -27.79, 1.2 / 3600)


@pytest.fixture
def tiny(golden: Path) -> Path:
    """A folder with forcepho's three stores."""
    return golden / "tiny"


@pytest.fixture(scope="module")
def golden_patch(golden: Path) -> dict[str, np.ndarray]:
    """forcepho's patch of REGION."""
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as arrays:
        return dict(arrays)


def test_a_folder_opens_as_a_survey_that_says_what_it_holds(tiny: Path) -> None:
    with fpgpu.open(tiny, backend="cpu") as survey:
        assert survey.bands == ["F090W", "F200W", "F444W"]
        assert survey.psf is not None
        assert survey.psf.bands == survey.bands
        assert repr(survey).startswith(
            "<Survey of 6 exposures of 128 x 128 pixels (F090W 2, F200W 2, F444W 2), FITS WCS,"
            " PSFs, on the host"
        )


def test_closing_closes_the_stores_so_that_others_may_write(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    survey = fpgpu.open(tmp_path / "copy", backend="cpu")
    pixels, psf = survey.pixels.data, survey.psf
    assert psf is not None
    table = psf.data
    with survey:
        survey.plan(REGION)
    assert not pixels
    assert not table


def test_plans_come_with_bands_and_selection(
    tiny: Path, golden_patch: dict[str, np.ndarray]
) -> None:
    with fpgpu.open(tiny, backend="cpu") as survey:
        plan = survey.plan(REGION)
        assert plan.exposure_N.tolist() == golden_patch["exposure_N"].tolist()
        assert survey.plan(REGION, ["F444W"]).bandlist == ("F444W",)
        assert survey.plan(REGION, select="overlap").n_pixels > plan.n_pixels


def test_patches_come_from_regions_and_from_plans(
    tiny: Path, golden_patch: dict[str, np.ndarray]
) -> None:
    catalog = golden_patch["sourcecat"]
    with fpgpu.open(tiny, backend="cpu") as survey:
        plan = survey.plan(REGION)
        with survey.patch(REGION, catalog) as one, survey.patch(plan, catalog) as other:
            assert one.plan == other.plan == plan
            for name in ("data", "ierr", "xpix", "ypix"):
                assert np.array_equal(one.retrieve(name), golden_patch[name])
                assert np.array_equal(other.retrieve(name), golden_patch[name])
        with survey.patch(REGION, catalog, ["F200W"], max_snr=1.0) as capped:
            flux, ierr = capped.retrieve("data"), capped.retrieve("ierr")
            assert (flux * ierr).max() <= 1.0 + 1e-6
            assert capped.plan.bandlist == ("F200W",)
        assert survey.backend.live_allocations == 0


def test_a_plan_has_its_own_bands(tiny: Path) -> None:
    with fpgpu.open(tiny, backend="cpu") as survey:
        plan = survey.plan(REGION)
        with pytest.raises(PlanError, match="planned with its own bands"):
            survey.patch(plan, bands=["F200W"])


def test_the_backend_is_the_one_that_was_given(tiny: Path) -> None:
    backend = CpuBackend()
    with fpgpu.open(tiny, backend=backend) as survey:
        assert survey.backend is backend
    with fpgpu.open(tiny, backend="cpu") as survey:
        assert survey.backend.name == "cpu"
    with pytest.raises(BackendUnavailableError, match="there is no backend 'tpu'"):
        fpgpu.open(tiny, backend="tpu")  # type: ignore[arg-type]


def test_files_may_be_named_one_by_one(tiny: Path, tmp_path: Path) -> None:
    files = {"pixels": tiny / "pixels.h5", "meta": tiny / "meta.json"}
    with fpgpu.open(**files, backend="cpu") as survey:
        assert survey.psf is None
        assert survey.plan(REGION).n_exp == 6
        assert "no PSFs" in repr(survey)
    with fpgpu.open(**files, psf=tiny / "psf.h5", backend="cpu") as survey:
        assert survey.psf is not None
    shutil.copy(tiny / "psf.h5", tmp_path / "other.h5")
    with fpgpu.open(tiny, psf=tmp_path / "other.h5", backend="cpu") as survey:
        assert survey.psf is not None
        assert Path(survey.psf.h5file) == tmp_path / "other.h5"


def test_what_is_missing_is_named(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingStoreError, match=r"give the folder .* or pixels= and meta="):
        fpgpu.open()
    with pytest.raises(MissingStoreError, match=r"give the folder .* or pixels= and meta="):
        fpgpu.open(pixels=tiny / "pixels.h5")
    with pytest.raises(MissingStoreError, match="is not a folder"):
        fpgpu.open(tmp_path / "nowhere")
    with pytest.raises(MissingStoreError, match=r"holds no pixels\.h5 and no meta\.json"):
        fpgpu.open(tmp_path)
    with pytest.raises(MissingStoreError, match=r"lost\.h5: no such PSF store"):
        fpgpu.open(tiny, psf=tmp_path / "lost.h5")
    with pytest.raises(MissingStoreError, match=r"lost\.json"):
        fpgpu.open(tiny, meta=tmp_path / "lost.json", backend="cpu")
    (tmp_path / "bad.json").write_text("no JSON")
    with pytest.raises(StoreFormatError, match=r"bad\.json"):
        fpgpu.open(tiny, meta=tmp_path / "bad.json", backend="cpu").meta.exposures("F200W")
    assert not (tmp_path / "nowhere").exists()


SHAPE = (128, 96)


def gwcs_folder(folder: Path, *, complete: bool) -> Path:
    """A store folder whose exposures have a gWCS, all or all but one."""
    # The headers have another roll angle.
    first = meta_set("e1", gwcs=sky_gwcs(), angle=120.0)
    second = meta_set("e2", gwcs=sky_gwcs() if complete else None, angle=120.0)
    write_store(folder / "meta.json", first, second)
    with fpgpu.MetaStore(folder / "meta.json") as meta:
        empty_pixels(folder / "pixels.h5", meta, SHAPE)
    return folder


@pytest.mark.parametrize(
    ("complete", "asked", "used"),
    [
        (True, None, "gWCS"),
        (True, False, "FITS WCS"),
        (True, True, "gWCS"),
        (False, None, "gWCS of 1, FITS WCS of the others"),
    ],
)
def test_the_gwcs_is_used_where_an_exposure_has_one(
    tmp_path: Path, complete: bool, asked: bool | None, used: str
) -> None:
    folder = gwcs_folder(tmp_path, complete=complete)
    ra, dec = (float(v) for v in SkyWCS.from_gwcs(sky_gwcs()).pixel_to_world(100.0, 20.0))
    with fpgpu.open(folder, use_gwcs=asked, backend="cpu") as survey:
        assert f"{used}, no PSFs" in repr(survey)
        (first, *_) = survey.plan(CircularRegion(ra, dec, 0.2 / 3600)).exposures
        assert ([100 // 8, 20 // 8] in first.superpixels.tolist()) == used.startswith("gWCS")


def test_gwcs_that_are_asked_for_but_not_there_are_an_error(tiny: Path) -> None:
    with pytest.raises(MissingStoreError, match=r"meta\.asdf"):
        fpgpu.open(tiny, use_gwcs=True, backend="cpu")


def test_one_region_and_one_band_are_lists_of_one(tiny: Path) -> None:
    with fpgpu.open(tiny, backend="cpu") as survey:
        plan = survey.plan(REGION, "F200W")
        assert plan.bandlist == ("F200W",)
        for single in (REGION, plan):
            with survey.stream(single) as stream:
                (n_pixels,) = [item.patch.plan.n_pixels for item in stream]
            assert n_pixels == (survey.plan(REGION) if single is REGION else plan).n_pixels
        with survey.stream([REGION], bands="F200W") as stream:
            assert next(stream).patch.plan.bandlist == ("F200W",)
        assert "circle" in fpgpu.plots.ds9_regions(survey.meta, regions=REGION)


def test_no_band_that_is_asked_for_is_dropped_silently(tiny: Path) -> None:
    with fpgpu.open(tiny, backend="cpu") as survey:
        asked = (
            lambda bands: survey.plan(REGION, bands),
            lambda bands: survey.patch(REGION, bands=bands),
            lambda bands: survey.stream([REGION], bands=bands),
            lambda bands: time_patch(survey, REGION, bands=bands, backend=survey.backend),
            lambda bands: fpgpu.plots.plot_survey(survey.meta, bands),
        )
        for ask in asked:
            for bands in ("F444X", ["F200W", "F444X"], ("f444w",)):
                with pytest.raises(NotInStoreError, match=r"did you mean F444W\?"):
                    ask(bands)


def test_what_astropy_has_is_taken_as_region_margin_and_catalogue(
    tiny: Path, golden_patch: dict[str, np.ndarray], tmp_path: Path
) -> None:
    center = SkyCoord(53.16, -27.79, unit="deg")
    circle = CircleSkyRegion(center, 1.2 * u.arcsec)
    Table(golden_patch["sourcecat"]).write(tmp_path / "sources.fits")
    with fpgpu.open(tiny, backend="cpu") as survey:
        plan = survey.plan(REGION)
        assert survey.plan(circle) == plan
        assert survey.plan(CircularRegion(center, 1.2 * u.arcsec)).n_pixels == plan.n_pixels
        assert survey.find_exposures(circle) == [(e.band, e.expID) for e in plan.exposures]
        assert survey.find_exposures(circle, "F444W") == survey.find_exposures(REGION)[4:]
        with survey.patch(circle, str(tmp_path / "sources.fits"), margin=0 * u.deg) as patch:
            assert patch.sources.tolist() == [0, 1]
        with survey.patch(circle, reference=center) as patch:
            assert patch.reference == pytest.approx((53.16, -27.79))
        with survey.stream(circle) as stream:
            assert [item.patch.plan.n_pixels for item in stream] == [plan.n_pixels]
        with survey.stream([circle, (circle, golden_patch["sourcecat"])]) as stream:
            assert [item.patch.n_sources for item in stream] == [0, 3]
        with pytest.raises(RegionError, match=r"is no region;.*CircularRegion\(position, radius\)"):
            survey.plan(center)
        with pytest.raises(NotInStoreError, match="F444"):
            survey.find_exposures(circle, ["F444"])


def test_sources_are_those_that_a_patch_takes(
    tiny: Path, golden_patch: dict[str, np.ndarray], tmp_path: Path
) -> None:
    catalog = Table(golden_patch["sourcecat"])
    catalog.write(tmp_path / "sources.fits")
    with fpgpu.open(tiny, backend="cpu") as survey:
        assert len(survey.sources(REGION, catalog)) == 3
        inside = survey.sources(REGION, tmp_path / "sources.fits", margin="0.001 arcsec")
        assert inside["ra"].tolist() == catalog["ra"][:2].tolist()
        with pytest.raises(RegionError, match=r"margin is <Quantity 1\. s>, which is no angle"):
            survey.sources(REGION, catalog, margin=1 * u.s)
        with pytest.raises(CatalogError, match=r"nowhere\.fits: no such catalogue"):
            survey.sources(REGION, "nowhere.fits")
        Table({"x": [1.0]}).write(tmp_path / "other.fits")
        with pytest.raises(CatalogError, match=r"other\.fits: the catalogue has no column 'ra'"):
            survey.sources(REGION, tmp_path / "other.fits")


def test_a_closed_survey_refuses(tiny: Path) -> None:
    with fpgpu.open(tiny, backend="cpu") as survey:
        plan = survey.plan(REGION)
        patch = survey.patch(plan)
    assert survey.closed
    with patch:
        assert patch.retrieve("data").size == plan.n_pixels
    for ask in (survey.plan, survey.patch, survey.stream, survey.find_exposures):
        with pytest.raises(StoreError, match=r"survey was closed.*open it again with fpgpu\.open"):
            ask(REGION)
    with pytest.raises(StoreError, match="survey was closed"):
        survey.patch(plan)


def test_the_home_folder_is_known_by_its_sign(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "stores").symlink_to(tiny)
    with fpgpu.open("~/stores", backend="cpu") as survey:
        assert survey.pixels.h5file == tmp_path / "stores" / "pixels.h5"


def test_ingest_is_a_function_and_a_package(tiny: Path, tmp_path: Path) -> None:
    import fpgpu.ingest.inputs as module
    from fpgpu.ingest.pipeline import ingest

    assert module.Input is fpgpu.Input
    assert inspect.signature(fpgpu.ingest) == inspect.signature(ingest)
    report = fpgpu.ingest(tiny.parent / "tiny" / "exp_f200w_00.fits.gz", tmp_path / "stores")
    assert len(report.added) == 1
    with fpgpu.open(tmp_path / "stores", backend="cpu") as survey:
        assert isinstance(survey.patch(REGION), fpgpu.Patch)


def test_catalogues_of_regions_in_a_mapping_are_theirs(
    tiny: Path, golden_patch: dict[str, np.ndarray]
) -> None:
    circle = CircleSkyRegion(SkyCoord(53.16, -27.79, unit="deg"), 1.2 * u.arcsec)
    with fpgpu.open(tiny, backend="cpu") as survey:
        with survey.stream({REGION: golden_patch["sourcecat"]}) as stream:
            assert [item.patch.n_sources for item in stream] == [3]
        with survey.stream(Regions([circle])) as stream:
            assert [item.error for item in stream] == [None]
        with survey.stream([(REGION, None, None), [REGION, None]]) as stream:
            assert ["(region, catalog)" in str(item.error) for item in stream] == [True, True]


def test_bands_that_are_none_are_refused(tiny: Path) -> None:
    with fpgpu.open(tiny, backend="cpu") as survey:
        assert survey.plan(REGION, b"F200W").bandlist == ("F200W",)
        with pytest.raises(PlanError, match="no band was named"):
            survey.plan(REGION, [])
        with pytest.raises(ExposureNameError, match="expected a name"):
            survey.plan(REGION, 1)


def test_a_patch_says_how_to_pickle_it_and_what_sources_it_wants(tiny: Path) -> None:
    with fpgpu.open(tiny, backend="cpu") as survey, survey.patch(REGION) as patch:
        with pytest.raises(TypeError, match=r"pickle patch\.plan"):
            pickle.dumps(patch)
        with pytest.raises(CatalogError, match="no catalogue was given"):
            patch.likelihood(None)


def test_pixels_are_no_psfs(tiny: Path) -> None:
    with pytest.raises(StoreFormatError, match="holds the pixels"):
        fpgpu.open(tiny, psf=tiny / "pixels.h5", backend="cpu")


@pytest.mark.parametrize("radii", [[], [-1.0], [np.nan], 0.1])
def test_radii_that_are_none_are_refused(tiny: Path, radii: object) -> None:
    with (
        fpgpu.open(tiny, backend="cpu") as survey,
        pytest.raises(LayoutError, match="radii of the mixture"),
    ):
        survey.patch(REGION, radii=radii)


def test_radii_may_have_a_unit() -> None:
    assert radii_in_arcsec([30] * u.mas) == pytest.approx([0.03])
