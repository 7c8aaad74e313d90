"""The metadata of a patch: forcepho's arrays, but with the PSF of every source's own place."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable, Table

from fpgpu import PSF_DTYPE, CircularRegion, MetaStore, PSFStore
from fpgpu.errors import (
    CatalogError,
    LayoutError,
    MissingStoreError,
    NotInStoreError,
    StoreFormatError,
    UnusableExposureError,
    WCSError,
)
from fpgpu.layout import PATCH_ARRAYS
from fpgpu.patch.pack import FORCEPHO_RADII as RADII
from fpgpu.patch.pack import background_offsets, pack_metadata
from fpgpu.patch.plan import ExposurePlan, PatchPlan
from fpgpu.psf import default_profiles
from tests.patch.fields import meta_of
from tests.sky.made_wcs import tan_header

EXACT = [
    "exposure_start",
    "exposure_N",
    "band_start",
    "band_N",
    "n_psf_per_source",
    "psfgauss_start",
    "rad2",
    "G",
    "crval",
]


@pytest.fixture(scope="module")
def pack(stores, plan):
    """Pack sources with the golden stores."""
    return lambda sources, **options: pack_metadata(
        stores.meta, stores.psf, plan, sources, **options
    )


def assert_same(ours, theirs):
    for name, array in ours.arrays.items():
        np.testing.assert_array_equal(array, theirs.arrays[name], name)
    assert ours.reference == theirs.reference


# --- forcepho's answers ----------------------------------------------------------------------


@pytest.mark.parametrize("name", EXACT)
def test_indices_radii_and_positions_have_forcephos_bits(pack, sources, packed, name):
    found = pack(sources).arrays[name]
    assert found.dtype == packed[name].dtype
    np.testing.assert_array_equal(found, packed[name])


def test_one_psf_per_exposure_is_what_forcepho_packs(pack, sources, packed):
    found = pack(sources, psf_per_source=False).arrays["psfgauss"]
    np.testing.assert_array_equal(found, packed["psfgauss"])


def test_astrometry_is_forcephos_to_float32(pack, sources, packed):
    found = pack(sources).arrays
    np.testing.assert_allclose(found["crpix"], packed["crpix"], rtol=0, atol=1e-4)
    for name in ("D", "CW"):
        scale = np.abs(packed[name]).max(axis=(-1, -2), keepdims=True)
        assert (np.abs(found[name] - packed[name]) <= 1e-6 * scale).all()


def test_every_array_has_the_layout_of_the_arena(pack, sources):
    found = pack(sources)
    assert set(found.arrays) | {"data", "ierr", "xpix", "ypix", "residual"} == set(PATCH_ARRAYS)
    for name, array in found.arrays.items():
        section = found.layout.sections[name]
        assert (array.dtype, array.shape) == (section.dtype, section.shape)


def test_the_default_radii_are_those_of_forcephos_table(shared_data):
    import h5py

    with h5py.File(shared_data / "forcepho" / "sersic_splinedata.h5") as table:
        np.testing.assert_allclose(RADII, table["radii"][:], rtol=1e-14)


# --- PSFs ------------------------------------------------------------------------------------


def numbered_psf(path, bands, locations):
    """PSFs whose amplitude tells the number of their location."""
    mixtures = np.zeros((len(locations), 3), PSF_DTYPE)
    mixtures["amp"] = 1.0 + np.arange(len(locations))[:, None]
    mixtures["Cxx"] = mixtures["Cyy"] = 1.0
    store = PSFStore(path)
    for band in bands:
        store.add_psf(band, mixtures, locations)
    return store


def test_every_source_has_the_psf_of_its_own_place_on_every_exposure(
    stores, plan, sources, tmp_path
):
    locations = np.random.default_rng(2).uniform(0, 128, (64, 2))
    with numbered_psf(tmp_path / "psf.h5", plan.bandlist, locations) as psf:
        found = pack_metadata(stores.meta, psf, plan, sources, radii=[0.0])
    numbers = found.arrays["psfgauss"]["amp"].reshape(plan.n_exp, len(sources), 3) - 1
    expected = np.empty((plan.n_exp, len(sources)))
    for e, exposure in enumerate(plan.exposures):
        wcs = stores.meta.wcs[exposure.band][exposure.expID]
        x, y = wcs.all_world2pix(sources["ra"], sources["dec"], 0)
        for s in range(len(sources)):
            expected[e, s] = np.argmin(np.hypot(*(locations - (x[s], y[s])).T))
    np.testing.assert_array_equal(numbers, np.repeat(expected[..., None], 3, axis=2))
    # The sources lie apart and exposures are turned: row 0, or one row for all, would be wrong.
    assert len(np.unique(expected)) > 3


def test_bands_may_have_psfs_of_different_numbers_of_gaussians(stores, plan, sources, tmp_path):
    with PSFStore(tmp_path / "psf.h5") as psf:
        for n, band in enumerate(plan.bandlist, start=2):
            mixture = np.zeros((1, n), PSF_DTYPE)
            mixture["amp"], mixture["Cxx"], mixture["Cyy"] = 10.0 * n, 1.0, 1.0
            psf.add_psf(band, mixture)
        found = pack_metadata(stores.meta, psf, plan, sources, radii=[0.0]).arrays
    np.testing.assert_array_equal(found["n_psf_per_source"], [2, 3, 4])
    np.testing.assert_array_equal(found["psfgauss_start"], [0, 6, 12, 21, 30, 42])
    ends = [*found["psfgauss_start"][1:], found["psfgauss"].size]
    for e, (start, end) in enumerate(zip(found["psfgauss_start"], ends, strict=True)):
        assert (found["psfgauss"]["amp"][start:end] == 10.0 * (2 + e // 2)).all()


def test_a_band_without_psf_is_an_error_that_names_it(stores, plan, sources, tmp_path):
    with (
        numbered_psf(tmp_path / "psf.h5", ["F090W", "F444W"], np.ones((1, 2))) as psf,
        pytest.raises(NotInStoreError, match=r"psf\.h5: no band 'F200W'; bands: F090W, F444W"),
    ):
        pack_metadata(stores.meta, psf, plan, sources)


def test_sources_without_a_psf_store_are_an_error(stores, plan, sources):
    with pytest.raises(MissingStoreError, match="no PSF store"):
        pack_metadata(stores.meta, None, plan, sources)


@pytest.mark.parametrize("n_radii", [1, 5, 8, 10])
def test_psfs_for_other_radii_than_there_are_are_refused(pack, sources, n_radii):
    # Too few would lose the light of the radii that have none, too many that of their own.
    with pytest.raises(LayoutError, match=f"for 9 radii, but there are {n_radii} radii"):
        pack(sources, radii=np.linspace(0, 1, n_radii))


def test_a_psf_that_is_the_same_for_all_radii_is_packed_for_each(stores, plan, sources, tmp_path):
    mixture = np.zeros((1, 2), PSF_DTYPE)
    mixture["amp"], mixture["Cxx"], mixture["Cyy"] = [0.75, 0.25], [1.0, 3.0], 1.0
    with PSFStore(tmp_path / "psf.h5") as psf:
        for band in plan.bandlist:
            psf.add_psf(band, mixture)
        found = pack_metadata(stores.meta, psf, plan, sources).arrays
    n_radii = default_profiles().n_radii
    np.testing.assert_array_equal(found["rad2"], default_profiles().rad2)
    assert found["n_psf_per_source"].tolist() == [2 * n_radii] * plan.n_bands
    gauss = found["psfgauss"].reshape(plan.n_exp, len(sources), n_radii, 2)
    assert (gauss["sersic_bin"] == np.arange(n_radii)[:, None]).all()
    for name in ("amp", "Cxx", "Cyy", "xcen"):
        assert (gauss[name] == mixture[name]).all()


def test_psfs_with_a_radius_missing_are_refused(stores, plan, sources, tmp_path):
    mixture = np.zeros((2, 9), PSF_DTYPE)
    mixture["amp"] = mixture["Cxx"] = mixture["Cyy"] = 1
    mixture["sersic_bin"] = np.arange(9)
    mixture["sersic_bin"][1, 4] = 3
    with h5py.File(tmp_path / "psf.h5", "w") as file:
        for band in plan.bandlist:
            file[f"{band}/parameters"] = mixture
            file[f"{band}/detector_locations"] = np.zeros((2, 2))
    with (
        PSFStore(tmp_path / "psf.h5") as psf,
        pytest.raises(StoreFormatError, match="F090W: location 1 has no Gaussian of sersic_bin 4"),
    ):
        pack_metadata(stores.meta, psf, plan, sources)


# --- sources ---------------------------------------------------------------------------------


def test_packing_changes_no_catalogue_and_gives_the_same_twice(pack, sources):
    before = sources.copy()
    assert_same(pack(sources), pack(sources))
    np.testing.assert_array_equal(sources, before)


def test_tables_and_quantities_are_as_good_as_arrays(pack, sources):
    table = Table(sources)
    quantities = QTable({"ra": sources["ra"] * u.deg, "dec": (sources["dec"] * u.deg).to(u.arcsec)})
    assert_same(pack(table), pack(sources))
    found, expected = pack(quantities).arrays["crval"], pack(sources).arrays["crval"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_radii_are_forcepho_s_where_the_psfs_were_made_for_its_table(pack, sources):
    np.testing.assert_allclose(pack(sources).arrays["rad2"], RADII**2, rtol=1e-6)


def test_positions_are_relative_to_the_reference_given(pack, sources):
    found = pack(sources, reference=(53.0, -27.0))
    expected = np.stack([sources["ra"] - 53.0, sources["dec"] + 27.0], axis=-1).astype("f4")
    np.testing.assert_array_equal(found.arrays["crval"][0], expected)
    assert found.reference == (53.0, -27.0)


def test_a_patch_without_sources_is_about_the_centre_of_its_region_and_needs_no_psf(stores, plan):
    found = pack_metadata(stores.meta, None, plan)
    assert found.reference == pytest.approx((53.16, -27.79))
    assert found.layout.n_src == found.arrays["psfgauss"].size == 0


def test_sources_over_ra_0_are_packed_close_together():
    header = tan_header(ra=0.0, dec=10.0, shape=(64, 64))
    meta = meta_of([("F200W", "e1", header)])
    exposure = ExposurePlan("F200W", "e1", (64, 64), np.array([[3, 3]]))
    plan = PatchPlan(CircularRegion(0, 10, 1 / 3600), ("F200W",), (exposure,), 8, "corners")
    catalog = Table({"ra": [359.9999, 0.0001, 0.0002], "dec": [10.0, 10.0, 10.0]})
    psf = SimpleNamespace(
        bands=["F200W"],
        n_psf_per_source=lambda band: 1,
        n_radii=lambda band: len(RADII),
        lookup_many=lambda band, xy: np.zeros((len(xy), 1), PSF_DTYPE),
    )
    found = pack_metadata(meta, psf, plan, catalog)
    assert found.reference == pytest.approx((0.0001, 10.0))
    np.testing.assert_allclose(found.arrays["crval"][0, :, 0], [-2e-4, 0, 1e-4], atol=1e-9)
    assert np.ptp(found.arrays["crpix"][0, :, 0]) < 20


def test_any_number_of_sources_is_packed(pack, sources):
    found = pack(np.resize(sources, 200)).arrays
    assert found["crpix"].shape[1] == 200
    np.testing.assert_array_equal(found["crpix"][:, 3:6], found["crpix"][:, :3])


def test_a_source_beyond_all_exposures_is_packed(pack, sources):
    outside = sources.copy()
    outside["dec"][1] += 20 / 3600
    crpix = pack(outside).arrays["crpix"]
    assert (np.abs(crpix[:, 1] - 64).max(axis=-1) > 128).all()


def test_a_source_that_no_wcs_reaches_is_refused(pack, sources):
    far = sources.copy()
    far["ra"][2] += 180
    with pytest.raises(WCSError, match=r"source 2 .* F090W/exp_f090w_00"):
        pack(far)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.remove_column("dec"), "no column 'dec'"),
        (lambda t: t["ra"].__setitem__(1, np.nan), "source 1: ra nan"),
        (lambda t: t["dec"].__setitem__(0, 91.0), "source 0: dec 91.0 is beyond a pole"),
    ],
)
def test_catalogues_without_usable_positions_are_refused(pack, sources, change, message):
    table = Table(sources)
    change(table)
    with pytest.raises(CatalogError, match=message):
        pack(table)


# --- headers ---------------------------------------------------------------------------------


@pytest.fixture
def tweaked(golden):
    """A meta store with header keywords of one's own."""
    with MetaStore(golden / "tiny" / "meta.json") as meta:
        for k, (band, expID) in enumerate(meta):
            meta.headers[band][expID]["TWEAK"] = 1.0 + k / 8
        meta.headers["F200W"]["exp_f200w_01"]["OFFSET"] = -0.25
        yield meta


def test_the_factor_of_each_exposure_comes_from_its_header(tweaked, stores, plan, sources):
    found = pack_metadata(tweaked, stores.psf, plan, sources, tweak_keyword="TWEAK").arrays["G"]
    np.testing.assert_array_equal(found, np.float32(1 + np.arange(6) / 8))


def test_background_offsets_come_from_headers_and_are_0_where_there_is_none(tweaked, plan):
    assert background_offsets(tweaked, plan, "OFFSET") == [0, 0, 0, -0.25, 0, 0]
    assert background_offsets(tweaked, plan, None) == [0] * 6


FOUND = {"1.0": "is '1.0'", True: "is True", None: "is missing", 1e39: r"is 1e\+39"}


@pytest.mark.parametrize("value", FOUND)
def test_a_factor_that_is_no_number_is_refused(tweaked, stores, plan, sources, value):
    header = tweaked.headers["F200W"]["exp_f200w_01"]
    if value is None:
        del header["TWEAK"]
    else:
        header["TWEAK"] = value
    message = f"F200W/exp_f200w_01: TWEAK {FOUND[value]} in its header; expected a finite number$"
    with pytest.raises(UnusableExposureError, match=message):
        pack_metadata(tweaked, stores.psf, plan, sources, tweak_keyword="TWEAK")
    if value is not None:
        with pytest.raises(UnusableExposureError, match=message):
            background_offsets(tweaked, plan, "TWEAK")
