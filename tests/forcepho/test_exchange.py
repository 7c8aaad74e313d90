"""Stores go back and forth between forcepho itself and fpgpu: whatever one writes, the other reads.

Nothing here looks at how fpgpu keeps a store, only at what forcepho's own classes find in it.
"""

import gc
import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

import tests.forcepho.needs_forcepho  # noqa: F401
from fpgpu import superpixels
from fpgpu.forcepho import CPUPatch
from fpgpu.forcepho.upstream import forcepho_module
from fpgpu.ingest.pipeline import ingest
from fpgpu.layout import PSF_DTYPE
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore
from fpgpu.stores.upkeep.verify import verify
from tests.forcepho.test_fit import ForcephoPatch
from tests.sky.made_wcs import sky_gwcs
from tests.stores.imagesets import bits, golden_set

theirs = forcepho_module("patches.storage")
CircularRegion = forcepho_module("region").CircularRegion

SIDE = 128


@pytest.fixture(autouse=True)
def in_silence(capsys: pytest.CaptureFixture[str]) -> Any:
    """forcepho prints when it makes a store."""
    yield
    capsys.readouterr()


@pytest.fixture
def files(golden: Path) -> list[Path]:
    """The golden field as images."""
    return sorted((golden / "tiny").glob("exp_*.fits.gz"))


def calibrated(pixels: Any, meta: Any, *imsets: Any) -> None:
    """Add exposures class by class, as scripts for forcepho do; either's classes."""
    for imset in imsets:
        pixels.add_exposure(imset, bitmask=1, do_fluxcal=True)
        meta.add_exposure(imset)


def by_forcepho(folder: Path, *imsets: Any) -> Path:
    """Make stores with forcepho's classes."""
    folder.mkdir(exist_ok=True)
    pixels, meta = theirs.PixelStore(str(folder / "pixels.h5"), nside_full=SIDE), theirs.MetaStore()
    calibrated(pixels, meta, *imsets)
    meta.write_to_file(str(folder / "meta.json"))
    return folder


def by_class(folder: Path, *imsets: Any) -> Path:
    """Make stores with fpgpu's classes."""
    folder.mkdir(exist_ok=True)
    meta = MetaStore()
    calibrated(PixelStore(folder / "pixels.h5", nside_full=SIDE), meta, *imsets)
    meta.write_to_file(folder / "meta.json")
    return folder


def by_ingest(folder: Path, *files: Path) -> Path:
    """Make stores with fpgpu's ingest."""
    report = ingest(files, folder, bitmask=1, executor="serial")
    assert [row.status for row in report.rows] == ["stored"] * len(files)
    return folder


def read_by_forcepho(folder: Path) -> dict[str, Any]:
    """All pixels, as forcepho's patches read them: by name, through its handle."""
    store = theirs.PixelStore(str(folder / "pixels.h5"))
    found = {}
    groups = [f"{band}" for band in store.data]  # every key of the root is a band
    while groups:
        group = groups.pop()
        if "data" in store.data[group]:
            found[group] = store.data[f"{group}/data"][:]
        else:
            groups += [f"{group}/{name}" for name in store.data[group]]
    store.close()
    return dict(sorted(found.items()))


def read_by_fpgpu(folder: Path) -> dict[str, Any]:
    """All pixels, read by fpgpu."""
    with PixelStore(folder / "pixels.h5", mode="r") as store:
        nsx, nsy = superpixels.grid_shape(store.shape, store.super_pixel_size)
        return {
            f"{band}/{expID}": np.array(store.read_window(band, expID, (0, nsx, 0, nsy)))
            for band, expID in store
        }


def assert_same_pixels(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Whether two stores hold the same exposures, bit for bit."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(bits(found[name]), bits(values), err_msg=name)


def header_texts(folder: Path) -> dict[str, str]:
    """Headers as they stand in the file that forcepho reads."""
    tree = json.loads((folder / "meta.json").read_text())
    return {f"{band}/{expID}": text for band in tree for expID, text in tree[band].items()}


class TestForcephoReads:
    @pytest.mark.parametrize("make", [by_class, by_ingest])
    def test_pixels_are_those_it_stores_itself(self, make, files, golden, tmp_path) -> None:
        given = files if make is by_ingest else [golden_set(file) for file in files]
        folder = make(tmp_path / "ours", *given)
        expected = read_by_forcepho(golden / "tiny")
        assert len(expected) == 6
        assert_same_pixels(read_by_forcepho(folder), expected)
        assert_same_pixels(read_by_fpgpu(folder), expected)

    @pytest.mark.parametrize("make", [by_class, by_ingest])
    def test_records_are_those_it_stores_itself(self, make, files, golden, tmp_path) -> None:
        given = files if make is by_ingest else [golden_set(file) for file in files]
        folder = make(tmp_path / "ours", *given)
        store = theirs.PixelStore(str(folder / "pixels.h5"))
        expected = theirs.PixelStore(str(golden / "tiny" / "pixels.h5"))
        np.testing.assert_array_equal(np.zeros(2) + store.nside_full, [SIDE, SIDE])
        assert store.super_pixel_size == expected.super_pixel_size == 8
        np.testing.assert_array_equal(store.xpix, expected.xpix)
        for band in expected.data:
            for expID in expected.data[band]:
                ours, other = (s.data[band][expID]["data"].attrs for s in (store, expected))
                for name in ("counts_to_flux", "flux_units", "bitmask_applied"):
                    assert ours[name] == other[name], (expID, name)
                    assert type(ours[name]) is type(other[name])
        store.close()
        expected.close()

    def test_headers_are_what_was_added(self, files, golden, tmp_path) -> None:
        folder = by_class(tmp_path / "ours", *[golden_set(file) for file in files])
        assert header_texts(folder) == header_texts(golden / "tiny")

    def test_headers_of_an_ingest_give_the_same_positions(self, files, tmp_path) -> None:
        folder = by_ingest(tmp_path / "ours", *files)
        store = theirs.MetaStore(str(folder / "meta.json"))
        store.populate_wcs()
        assert store.nexp == len(files)
        pixels = np.meshgrid(np.linspace(0, SIDE - 1, 5), np.linspace(0, SIDE - 1, 5))
        for file in files:
            header = fits.getheader(file, "SCI")
            band, expID = theirs.header_to_id(header, file.name.removesuffix(".gz"))
            stored = store.headers[band][expID]
            assert (stored["NAXIS1"], stored["NAXIS2"]) == (SIDE, SIDE)
            np.testing.assert_array_equal(
                store.wcs[band][expID].pixel_to_world_values(*pixels),
                WCS(header).pixel_to_world_values(*pixels),
            )

    @pytest.mark.parametrize("make", [by_class, by_ingest])
    def test_its_patches_are_those_of_its_own_stores(
        self, make, files, answers, request_of, golden, splinedata, tmp_path
    ) -> None:
        given = files if make is by_ingest else [golden_set(file) for file in files]
        folder = make(tmp_path / "ours", *given)
        patch = ForcephoPatch(
            pixelstore=str(folder / "pixels.h5"),
            metastore=str(folder / "meta.json"),
            psfstore=str(golden / "tiny" / "psf.h5"),
            splinedata=splinedata,
            spline_smoothing=0,
        )
        patch.build_patch(CircularRegion(*answers["region"]), **request_of)
        assert patch.epaths == answers["epaths"].tolist()
        for name in ("data", "ierr", "xpix", "ypix", "D", "CW", "crpix", "crval", "exposure_N"):
            np.testing.assert_array_equal(getattr(patch, name), answers[name], err_msg=name)

    def test_gwcs(self, tmp_path) -> None:
        header = WCS(naxis=2)
        header.wcs.ctype, header.wcs.crval = ["RA---TAN", "DEC--TAN"], [53.16, -27.79]
        header.wcs.crpix, header.wcs.cdelt = [64.5, 48.5], [-1e-5, 1e-5]
        hdr = header.to_header()
        hdr["NAXIS1"], hdr["NAXIS2"], hdr["FILTER"] = 128, 96, "F200W"
        gwcs = sky_gwcs()
        meta = MetaStore()
        for expID in ("e1", "sub/e2"):
            meta.add_exposure(SimpleNamespace(hdr=hdr, band="F200W", expID=expID, gwcs=gwcs))
        meta.write_to_file(tmp_path / "meta.json")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # forcepho leaves the file open
            store = theirs.MetaStore(str(tmp_path / "meta.json"), use_gwcs=True, load_all=True)
            for expID in ("e1", "sub/e2"):
                np.testing.assert_allclose(
                    store.wcs["F200W"][expID](17.0, 41.0), gwcs(17.0, 41.0), rtol=0, atol=1e-12
                )
            del store
            gc.collect()

    def test_psfs(self, tmp_path) -> None:
        rng = np.random.default_rng(1)
        parameters = np.zeros((3, 18), PSF_DTYPE)
        for name in ("xcen", "ycen", "Cxy"):
            parameters[name] = rng.normal(0, 0.1, (3, 18))
        parameters["amp"], parameters["Cxx"], parameters["Cyy"] = 0.5, 2.0, 3.0
        parameters["sersic_bin"] = np.repeat(np.arange(9), 2)
        locations = [(10.0, 20.0), (100.0, 20.0), (60.0, 90.0)]
        ours = PSFStore(tmp_path / "psf.h5")
        ours.add_psf("F200W", parameters, locations)
        store = theirs.PSFStore(str(tmp_path / "psf.h5"))
        assert store.data["F200W"].attrs["n_psf_per_source"] == 18
        for xy in [None, (0.0, 0.0), (99.0, 99.0), (120.0, 5.0)]:
            np.testing.assert_array_equal(store.lookup("F200W", xy), ours.lookup("F200W", xy))

    def test_while_fpgpu_has_the_store_open(self, files, tmp_path) -> None:
        folder = by_ingest(tmp_path / "ours", *files[:2])
        with PixelStore(folder / "pixels.h5", mode="r") as ours, MetaStore(folder / "meta.json"):
            band, expID = next(iter(ours))
            flux, _ = ours.read_exposure(band, expID)
            assert len(read_by_forcepho(folder)) == 2
            np.testing.assert_array_equal(ours.read_exposure(band, expID)[0], flux)

    def test_a_store_that_grows_while_it_is_being_read(self, files, tmp_path) -> None:
        folder = by_ingest(tmp_path / "ours", *files[:2])
        before = read_by_forcepho(folder)
        reader = theirs.PixelStore(str(folder / "pixels.h5"))
        assert len(reader.data) > 0  # open from now on, as in a fit
        command = "import sys; from fpgpu.cli.main import main; sys.exit(main(sys.argv[1:]))"
        arguments = ["ingest", str(files[2]), "--out", str(folder), "--bitmask", "1", "-q"]
        done = subprocess.run(
            [sys.executable, "-c", command, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        for name, values in before.items():
            np.testing.assert_array_equal(bits(reader.data[f"{name}/data"][:]), bits(values))
        reader.close()
        after = read_by_forcepho(folder)
        assert len(after) == 3
        assert_same_pixels({name: after[name] for name in before}, before)


class TestForcephoWrites:
    """Its own `add_exposure` on stores of fpgpu, which changes files in place."""

    @pytest.fixture(params=[by_class, by_ingest])
    def folder(self, request, files, tmp_path) -> Path:
        given = files[:3] if request.param is by_ingest else [golden_set(f) for f in files[:3]]
        return request.param(tmp_path / "ours", *given)

    def test_an_exposure_more(self, folder, files, golden, tmp_path) -> None:
        imset = golden_set(files[3])
        pixels = theirs.PixelStore(str(folder / "pixels.h5"))
        meta = theirs.MetaStore(str(folder / "meta.json"))
        calibrated(pixels, meta, imset)
        meta.write_to_file(str(folder / "meta.json"))
        expected = read_by_forcepho(golden / "tiny")
        kept = {name: expected[name] for name in list(expected)[:4]}
        assert_same_pixels(read_by_fpgpu(folder), kept)
        with MetaStore(folder / "meta.json") as store:
            assert {f"{band}/{expID}" for band, expID in store} == set(kept)
            text = golden_set(files[3]).hdr.tostring()
            assert store.headers[imset.band][imset.expID].tostring() == text

    def test_an_exposure_in_place_of_ours(self, folder, files) -> None:
        old = read_by_fpgpu(folder)
        imset = golden_set(files[0])
        imset.im = imset.im + np.float32(7)
        calibrated(theirs.PixelStore(str(folder / "pixels.h5")), theirs.MetaStore(), imset)
        found = read_by_fpgpu(folder)
        assert found.keys() == old.keys()
        key = f"{imset.band}/{imset.expID}"
        # forcepho has put what it stored into the arrays it was given.
        stored = superpixels.superpixelize(imset.im, imset.ierr, 8)
        np.testing.assert_array_equal(bits(found[key]), bits(stored))
        assert not np.array_equal(found[key], old[key])
        del found[key], old[key]
        assert_same_pixels(found, old)

    def test_and_fpgpu_after_it(self, folder, files, golden) -> None:
        pixels = theirs.PixelStore(str(folder / "pixels.h5"))
        meta = theirs.MetaStore(str(folder / "meta.json"))
        calibrated(pixels, meta, golden_set(files[3]))
        meta.write_to_file(str(folder / "meta.json"))
        by_ingest(folder, files[4])
        ours = MetaStore(folder / "meta.json")
        calibrated(PixelStore(folder / "pixels.h5"), ours, golden_set(files[5]))
        ours.write_to_file(folder / "meta.json")
        expected = read_by_forcepho(golden / "tiny")
        assert_same_pixels(read_by_forcepho(folder), expected)
        assert_same_pixels(read_by_fpgpu(folder), expected)
        assert theirs.MetaStore(str(folder / "meta.json")).nexp == 6
        assert {problem.kind for problem in verify(folder).problems} == set()


class TestOnItsOwnStores:
    """fpgpu's `add_exposure`, and its patches, on stores that forcepho made."""

    @pytest.fixture
    def folder(self, files, tmp_path) -> Path:
        return by_forcepho(tmp_path / "theirs", *[golden_set(file) for file in files[:3]])

    def test_an_exposure_more_and_one_replaced(self, folder, files, golden) -> None:
        before = read_by_forcepho(folder)
        changed = golden_set(files[0])
        changed.im = changed.im + np.float32(7)
        kept = changed.im.copy()
        meta = MetaStore(folder / "meta.json")
        calibrated(PixelStore(folder / "pixels.h5"), meta, golden_set(files[3]), changed)
        meta.write_to_file(folder / "meta.json")
        np.testing.assert_array_equal(changed.im, kept)  # ours leaves them alone
        found = read_by_forcepho(folder)
        expected = read_by_forcepho(golden / "tiny")
        names = list(expected)[:4]
        assert sorted(found) == sorted(names)
        assert_same_pixels({n: found[n] for n in names[1:]}, {n: expected[n] for n in names[1:]})
        assert not np.array_equal(found[names[0]], before[names[0]])
        assert theirs.MetaStore(str(folder / "meta.json")).nexp == 4

    def test_ingest_adds_to_it(self, folder, files, golden) -> None:
        by_ingest(folder, *files[3:])
        assert_same_pixels(read_by_forcepho(folder), read_by_forcepho(golden / "tiny"))
        assert theirs.MetaStore(str(folder / "meta.json")).nexp == 6

    @pytest.mark.filterwarnings("ignore:The WCS transformation has more axes")  # in forcepho
    def test_its_scripts_give_the_same_stores_with_either_classes(self, files, tmp_path) -> None:
        """Primary headers without NAXIS, a name with a folder, as its preprocessing has them."""

        def imsets() -> list[Any]:
            made = []
            for file in files[:2]:
                imset = golden_set(file)
                hdr = fits.PrimaryHDU().header
                hdr.update(WCS(imset.hdr).to_header(relax=True), FILTER=imset.band, ABMAG=28.3)
                imset.hdr, imset.expID = hdr, f"visit/{imset.expID}"
                made.append(imset)
            return made

        first = by_forcepho(tmp_path / "first", *imsets())
        second = by_class(tmp_path / "second", *imsets())
        assert_same_pixels(read_by_forcepho(second), read_by_forcepho(first))
        assert header_texts(second) == header_texts(first)
        centre = WCS(golden_set(files[0]).hdr).pixel_to_world_values(63.5, 63.5)
        region = CircularRegion(float(centre[0]), float(centre[1]), 1e-4)
        for folder in (first, second):
            files_of = {"pixelstore": folder / "pixels.h5", "metastore": folder / "meta.json"}
            patches = [
                kind(**{name: str(path) for name, path in files_of.items()})
                for kind in (CPUPatch, ForcephoPatch)
            ]
            for patch in patches:
                patch.build_patch(region, None, allbands=["F090W"])
            for name in ("data", "ierr", "xpix", "ypix"):
                np.testing.assert_array_equal(*(getattr(patch, name) for patch in patches))


@pytest.mark.parametrize("shape", [(64, 64), (64, 96), (8, 8), (40, 16)])
def test_superpixels_are_ordered_as_forcepho_orders_them(shape, tmp_path) -> None:
    rng = np.random.default_rng(5)
    im, ierr = rng.normal(size=(2, *shape)).astype("f4")
    store = theirs.PixelStore(str(tmp_path / "p.h5"), nside_full=np.array(shape))
    np.testing.assert_array_equal(
        superpixels.superpixelize(im, ierr, 8), store.superpixelize(im, ierr)
    )
    with h5py.File(tmp_path / "p.h5") as file:
        np.testing.assert_array_equal(file.attrs["nside_full"], shape)
    ours = PixelStore(tmp_path / "p.h5")
    np.testing.assert_array_equal(ours.xpix, store.xpix)
    np.testing.assert_array_equal(ours.ypix, store.ypix)
    np.testing.assert_array_equal(ours.superpixel_corners(), store.superpixel_corners())


def test_its_tables_have_the_same_names(files, tmp_path) -> None:
    folder = by_class(tmp_path / "ours", *[golden_set(file) for file in files])
    theirs.MetaStore(str(folder / "meta.json")).to_table(str(tmp_path / "theirs.fits"))
    MetaStore(folder / "meta.json").to_table(tmp_path / "ours.fits")
    names = [set(fits.getdata(tmp_path / f"{n}.fits").names) for n in ("ours", "theirs")]
    assert names[1] <= names[0]
    assert {"observatn", "visit_grp"} <= names[0]
