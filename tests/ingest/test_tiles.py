"""Mosaics go into a store as tiles and come out as they were."""

import tracemalloc

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from fpgpu import exposure_from_arrays
from fpgpu.calibration import calibrate_images
from fpgpu.demo.telescope import Pointing
from fpgpu.errors import LayoutError, NotInStoreError, StoreFormatError
from fpgpu.fluxes import flux_calibration
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.readers import read_exposures
from fpgpu.ingest.tiles import Box, split
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.mosaics import TilePlace, list_mosaics, read_mosaic
from fpgpu.stores.pixel import PixelStore

SHAPE = (150, 101)  # nx, ny
TILE, OVERLAP = (64, 48), 8


@pytest.fixture(scope="session")
def mosaic(tmp_path_factory):
    """A mosaic with empty parts, some of them as large as a tile."""
    random = np.random.default_rng(4)
    nx, ny = SHAPE
    sci = random.normal(3, 1, (ny, nx)).astype(np.float32)
    err = random.uniform(0.5, 2, (ny, nx)).astype(np.float32)
    sci[10:20, 70:75] = np.nan
    sci[40:, 100:], err[40:, 100:] = np.nan, np.nan
    header = fits.Header({"FILTER": "F200W", "BUNIT": "10.0*nanoJansky"})
    header.update(Pointing(150, 2, 30, 0.03, SHAPE).gwcs().to_fits_sip(degree=5))
    header["S_REGION"] = "POLYGON ICRS 0 0 0 1 1 1"
    path = tmp_path_factory.mktemp("mosaic") / "field.fits"
    images = (fits.ImageHDU(sci, header, "SCI"), fits.ImageHDU(err, name="ERR"))
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    return path


@pytest.fixture
def tiles(mosaic):
    return list(read_exposures(tiled(mosaic)))


def tiled(path, **options):
    return Input(path, options=ReadOptions(tile=TILE, tile_overlap=OVERLAP, **options))


def store(folder, exposures):
    with PixelStore(folder / "pixels.h5", TILE) as pixels:
        meta = MetaStore()
        for exposure in exposures:
            pixels.add_exposure(exposure, do_fluxcal=True)
            meta.add_exposure(exposure)
    meta.write_to_file(folder / "meta.json")


@given(
    st.tuples(st.integers(1, 99), st.integers(1, 99)),
    st.tuples(st.integers(2, 40), st.integers(2, 40)),
    st.integers(0, 39),
)
def test_tiles_cover_everything_and_overlap_as_asked(shape, tile, overlap):
    overlap = min(overlap, min(tile) - 1)
    covered = np.zeros(shape, int)
    boxes = dict(split(shape, tile, overlap))
    for (i, j), (x0, x1, y0, y1) in boxes.items():
        assert (x0, y0) == (i * (tile[0] - overlap), j * (tile[1] - overlap))
        assert 0 < x1 - x0 <= tile[0]
        assert 0 < y1 - y0 <= tile[1]
        covered[x0:x1, y0:y1] += 1
    assert covered.min() == 1
    # None is superfluous: without its overlap with the one before it, it would reach nothing new.
    assert all(box.x1 - box.x0 > overlap for (i, _), box in boxes.items() if i)
    assert all(box.y1 - box.y0 > overlap for (_, j), box in boxes.items() if j)


def test_a_box_knows_its_shape():
    assert Box.whole((3, 5)).shape == (3, 5)


@pytest.mark.parametrize(
    ("tile", "overlap", "match"),
    [((64, 50), 0, "multiples"), ((64,), 0, "multiples"), ((0, 8), 0, "multiples"), (64, 64, "63")],
)
def test_impossible_tiles_are_refused(tile, overlap, match):
    with pytest.raises(LayoutError, match=match):
        ReadOptions(tile=tile, tile_overlap=overlap)


def test_a_mosaic_becomes_tiles_without_the_empty_ones(tiles):
    names = [exposure.expID for exposure in tiles]
    assert names == ["field_x00y00", "field_x01y00", "field_x02y00"] + [
        f"field_x{i:02d}y{j:02d}" for j in (1, 2) for i in (0, 1)
    ]
    assert {exposure.shape for exposure in tiles} == {TILE}
    assert TilePlace.read(tiles[4].hdr) == TilePlace("field", 56, 40, *SHAPE)
    assert "S_REGION" not in tiles[4].hdr
    assert tiles[2].provenance["padded_from"] == "38x48"
    assert (tiles[2].ierr[38:] == 0).all()


def test_every_tile_has_the_sky_of_its_part(mosaic, tiles):
    with fits.open(mosaic) as hdus:
        whole = SkyWCS.from_header(hdus["SCI"].header)
    x, y = np.meshgrid([0.0, 20, 63], [0.0, 33, 47])
    for exposure in tiles:
        place = TilePlace.read(exposure.hdr)
        ours = SkyWCS.from_header(exposure.hdr).pixel_to_world(x, y)
        np.testing.assert_allclose(
            ours, whole.pixel_to_world(x + place.x0, y + place.y0), rtol=0, atol=1e-12
        )


def test_a_mosaic_is_put_together_again_exactly(mosaic, tiles, tmp_path):
    store(tmp_path, tiles)
    with fits.open(mosaic) as hdus:
        sci, err, header = hdus["SCI"].data.T, hdus["ERR"].data.T, hdus["SCI"].header
    factor, _ = flux_calibration(tiles[0].hdr)
    assert factor == pytest.approx(10, rel=1e-12)
    flux, ierr, _ = calibrate_images(sci, np.float32(1) / err, factor=factor)
    with PixelStore(tmp_path / "pixels.h5") as pixels, MetaStore(tmp_path / "meta.json") as meta:
        assert list(list_mosaics(meta, "F200W")) == ["field"]
        again = read_mosaic(pixels, meta, "F200W", "field")
        with pytest.raises(NotInStoreError, match="mosaics there: field"):
            read_mosaic(pixels, meta, "F200W", "fields")
    assert header["NAXIS1"] == again[0].shape[0]
    np.testing.assert_array_equal(again[0], flux)
    np.testing.assert_array_equal(again[1], ierr)


def test_tiles_of_two_mosaics_of_one_name_are_not_mixed(tiles, tmp_path):
    tiles[1].hdr["MOSNX"] = 9000
    store(tmp_path, tiles)
    with (
        PixelStore(tmp_path / "pixels.h5") as pixels,
        MetaStore(tmp_path / "meta.json") as meta,
        pytest.raises(StoreFormatError, match="of the sizes"),
    ):
        read_mosaic(pixels, meta, "F200W", "field")


def test_a_damaged_tile_record_is_told():
    with pytest.raises(StoreFormatError, match="expected integers"):
        TilePlace.read({"MOSAIC": "a", "MOSX0": "1", "MOSY0": 0, "MOSNX": 1, "MOSNY": 1})


def test_an_image_in_memory_is_cut_as_that_of_a_file(mosaic, tiles):
    with fits.open(mosaic) as hdus:
        whole = exposure_from_arrays(
            hdus["SCI"].data, hdus["ERR"].data, expID="field", header=hdus["SCI"].header
        )
    item = Input("field", options=tiled("").options, exposure=whole)
    ours = list(read_exposures(item))
    assert [exposure.expID for exposure in ours] == [exposure.expID for exposure in tiles]
    for a, b in zip(ours, tiles, strict=True):
        np.testing.assert_array_equal(a.im, b.im)
        np.testing.assert_array_equal(a.ierr, b.ierr)
        for key in ("CRPIX1", "CRPIX2", "MOSX0", "MOSY0", "NAXIS1", "NAXIS2", "ABMAG"):
            assert a.hdr[key] == b.hdr[key]
    assert whole.expID == "field"
    assert whole.shape == SHAPE
    options = ReadOptions(pad=True, band_names={"F200W": "X"}, abmag=25.0, err_scale=2)
    (padded,) = read_exposures(Input("field", options=options, exposure=whole))
    assert padded.shape == (152, 104)
    assert (padded.band, padded.hdr["ABMAG"]) == ("X", 25.0)
    np.testing.assert_array_equal(padded.ierr[:20, :20], whole.ierr[:20, :20] / 2)


def test_an_image_that_fits_is_not_cut_and_is_padded_when_asked(cal_file):
    options = ReadOptions(wcs="fits", tile=(128, 64), pad=True)
    (exposure,) = read_exposures(Input(cal_file, options=options))
    assert exposure.expID == cal_file.stem
    assert exposure.shape == (128, 64)
    assert TilePlace.read(exposure.hdr) is None


def test_the_gwcs_is_cut_with_the_image(cal_file):
    whole = next(read_exposures(Input(cal_file, options=ReadOptions(wcs="gwcs"))))
    options = ReadOptions(wcs="gwcs", tile=(40, 24), tile_overlap=4)
    truth = SkyWCS.from_gwcs(whole.gwcs, whole.shape)
    x, y = np.meshgrid([0.0, 20, 39], [0.0, 10, 23])
    for exposure in read_exposures(Input(cal_file, options=options)):
        place = TilePlace.read(exposure.hdr)
        expected = truth.pixel_to_world(x + place.x0, y + place.y0)
        ours = SkyWCS.from_gwcs(exposure.gwcs, exposure.shape)
        np.testing.assert_allclose(ours.pixel_to_world(x, y), expected, rtol=0, atol=1e-12)
        # The inverse that comes with the gWCS is an approximation, and stays the same one.
        back = truth.native_world_to_pixel(*expected)
        np.testing.assert_allclose(
            ours.native_world_to_pixel(*expected),
            (back[0] - place.x0, back[1] - place.y0),
            atol=1e-9,
        )
        np.testing.assert_allclose(exposure.sip.pixel_to_world(x, y), expected, atol=1e-10)
        assert exposure.area.shape == exposure.shape


@pytest.mark.parametrize("suffix", [".fits", ".fits.gz"])
def test_the_memory_of_a_mosaic_is_that_of_a_tile(tmp_path, suffix):
    """Not that of the mosaic, which is forty times as large."""
    path = tmp_path / f"large{suffix}"
    header = fits.Header({"FILTER": "F200W", "ABMAG": 28.0})
    header.update(Pointing(150, 2, 30, 0.03, (4096, 2560)).gwcs().to_fits_sip(degree=3))
    image = np.ones((2560, 4096), np.float32)
    images = (fits.ImageHDU(image, header, "SCI"), fits.ImageHDU(image, name="ERR"))
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    del image, images
    item = Input(path, options=ReadOptions(tile=512))
    tracemalloc.start()
    try:
        n_tiles = sum(1 for _ in read_exposures(item))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    tile_bytes = 2 * 512 * 512 * 4
    expanded = 0 if suffix == ".fits" else 2 * 2560 * 4096 * 4
    assert n_tiles == 40
    assert peak < expanded * 1.2 + 6 * tile_bytes
