"""Many files into one store folder: what goes in, what is refused, and what is left behind."""

import gzip
import json

import h5py
import numpy as np
import pytest
from astropy.io import fits

from fpgpu import MetaStore, PixelStore
from fpgpu.errors import FlagError, LayoutError, StoreFormatError, UnusableExposureError
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.pipeline import ingest


@pytest.fixture(scope="module")
def tiny_files(golden, tmp_path_factory):
    """forcepho's own six exposures, as it had them: uncompressed."""
    folder = tmp_path_factory.mktemp("tiny")
    files = []
    for packed in sorted((golden / "tiny").glob("exp_*.fits.gz")):
        files.append(folder / packed.name.removesuffix(".gz"))
        files[-1].write_bytes(gzip.decompress(packed.read_bytes()))
    return files


def datasets(path) -> dict:
    """Everything that a pixel store says of its datasets, but for what fpgpu adds."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            attributes = {
                key: (type(value), value)
                for key, value in item.attrs.items()
                if not key.startswith("fpgpu_")
            }
            layout = item.dtype, item.shape, item.chunks, item.compression, item.maxshape
            found[name] = (item[:].tobytes(), layout, attributes)

    def walk(name, group):
        # Not `visititems`, which does not follow links to other files.
        for key in group:
            visit(f"{name}{key}", group[key])
            if isinstance(group[key], h5py.Group):
                walk(f"{name}{key}/", group[key])

    with h5py.File(path, swmr=True) as h5:
        walk("", h5)
    return found


def snapshot(folder) -> dict:
    """Bytes of all files of a store folder, but for the sidecar."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".npz"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_stores_are_bit_for_bit_those_of_forcepho(tiny_files, golden, tmp_path):
    report = ingest(tiny_files, tmp_path / "stores", bitmask=1)
    assert report.ok
    ours, theirs = tmp_path / "stores" / "pixels.h5", golden / "tiny" / "pixels.h5"
    # Beside its pixels a shard has its record, of which forcepho knows nothing.
    found = {k: v for k, v in datasets(ours).items() if not k.endswith("/fpgpu_record")}
    assert found == datasets(theirs)
    with h5py.File(ours) as a, h5py.File(theirs) as b:
        roots = [
            {k: v.dtype for k, v in h5.attrs.items() if not k.startswith("fpgpu_")} for h5 in (a, b)
        ]
        assert roots[0] == roots[1]
        assert a.attrs["super_pixel_size"] == b.attrs["super_pixel_size"]
        # One number for both sides and two are the same to forcepho; fpgpu always writes two.
        assert a.attrs["nside_full"].tolist() == [b.attrs["nside_full"]] * 2
    headers = [
        json.loads(path.read_text())
        for path in (tmp_path / "stores" / "meta.json", golden / "tiny" / "meta.json")
    ]
    assert headers[0] == headers[1]
    assert not (tmp_path / "stores" / "meta.asdf").exists()


def test_the_report_says_what_was_done(tiny_files, tmp_path):
    seen = []
    report = ingest(
        tiny_files[:2], tmp_path / "stores", bitmask="DO_NOT_USE", on_progress=seen.append
    )
    row = report.rows[0]
    assert seen == report.rows
    assert (row.file, row.status, row.reason) == (tiny_files[0], "stored", "")
    assert (row.band, row.expID) == ("F090W", "exp_f090w_00")
    assert row.n_pixels == 128 * 128
    assert row.bitmask == 1
    assert row.flux_factor == pytest.approx(1e9 * 10 ** (0.4 * (8.9 - 27.45)), rel=1e-15)
    assert (row.flux_units, row.wcs_kind, row.sip_residual) == ("nJy", "fits", None)
    with fits.open(tiny_files[0]) as hdus, np.errstate(divide="ignore"):
        quality, ierr = hdus["DQ"].data, 1 / hdus["ERR"].data
        bad_flux = ~np.isfinite(hdus["SCI"].data - hdus["BKG"].data)
        bad_err = ~(np.isfinite(ierr) & (ierr >= 0))
    flagged = (quality & 1) != 0
    assert row.masked == {
        "flux not finite": bad_flux.sum(),
        "uncertainty not finite or negative": bad_err.sum(),
        "flagged in DQ": flagged.sum(),
        "area not finite or positive": 0,
    }
    assert row.n_masked == (bad_flux | bad_err | flagged).sum()
    assert row.flags["JUMP_DET"] == np.count_nonzero(quality & 4)
    assert report.masked_by_cause()["flagged in DQ"] == sum(
        r.masked["flagged in DQ"] for r in report.rows
    )


@pytest.mark.parametrize(("bitmask", "bits"), [(None, 2**32 - 1), (0, 0), ("JUMP_DET", 4), (5, 5)])
def test_bad_bits_can_be_any_none_or_some(tiny_files, tmp_path, bitmask, bits):
    row = ingest(tiny_files[:1], tmp_path / "stores", bitmask=bitmask).rows[0]
    with fits.open(tiny_files[0]) as hdus:
        flagged = np.count_nonzero(hdus["DQ"].data & np.uint32(bits))
    assert row.masked["flagged in DQ"] == flagged
    assert row.bitmask == bits


def test_a_bad_file_is_refused_with_its_reason_and_the_others_go_in(tiny_files, tmp_path):
    garbage = tmp_path / "garbage.fits"
    garbage.write_bytes(b"not FITS")
    files = [tiny_files[0], garbage, tmp_path / "nowhere.fits", tiny_files[1]]
    report = ingest(files, tmp_path / "stores")
    assert [row.status for row in report.rows] == ["stored", "refused", "refused", "stored"]
    assert not report.ok
    assert [row.file for row in report.refused] == files[1:3]
    assert "garbage.fits" in report.refused[0].reason
    assert "nowhere.fits: no such file" in report.refused[1].reason
    with PixelStore(tmp_path / "stores" / "pixels.h5", mode="r") as pixels:
        assert pixels.exposures("F090W") == ["exp_f090w_00", "exp_f090w_01"]
    with MetaStore(tmp_path / "stores" / "meta.json") as meta:
        assert meta.exposures("F090W") == ["exp_f090w_00", "exp_f090w_01"]


def test_when_nothing_can_go_in_no_store_is_made(tmp_path):
    report = ingest([tmp_path / "nowhere.fits"], tmp_path / "stores")
    assert not report.ok
    assert not (tmp_path / "stores").exists()


def test_a_refused_file_leaves_an_existing_store_as_it_was(tiny_files, tmp_path):
    ingest(tiny_files[:1], tmp_path / "stores")
    before = snapshot(tmp_path / "stores")
    small = tmp_path / "small.fits"
    with fits.open(tiny_files[1]) as hdus:
        for name in ("SCI", "ERR", "DQ", "BKG"):
            hdus[name] = fits.ImageHDU(hdus[name].data[:64, :64], hdus[name].header, name)
        hdus.writeto(small)
    truncated = tmp_path / "truncated.fits"
    truncated.write_bytes(tiny_files[1].read_bytes()[:100_000])
    report = ingest([small, truncated], tmp_path / "stores")
    assert [row.status for row in report.rows] == ["refused", "refused"]
    assert "small.fits" in report.rows[0].reason
    assert "64" in report.rows[0].reason
    assert "128" in report.rows[0].reason
    assert snapshot(tmp_path / "stores") == before


def test_strict_raises_the_first_reason_and_keeps_what_went_in(tiny_files, tmp_path):
    with pytest.raises(UnusableExposureError, match="no such file"):
        ingest([tiny_files[0], tmp_path / "no.fits", tiny_files[1]], tmp_path / "s", strict=True)
    with MetaStore(tmp_path / "s" / "meta.json") as meta:
        assert list(meta) == [("F090W", "exp_f090w_00")]


def test_an_interrupted_run_publishes_the_headers_of_what_went_in(
    tiny_files, tmp_path, monkeypatch
):
    def interrupt(row):
        if row.file == tiny_files[1]:
            raise KeyboardInterrupt

    monkeypatch.setattr("fpgpu.ingest.coordinator.PUBLISH_INTERVAL", 0.0)
    monkeypatch.setattr("fpgpu.ingest.coordinator.PUBLISH_SHARE", 0.0)
    with pytest.raises(KeyboardInterrupt):
        ingest(tiny_files, tmp_path / "stores", on_progress=interrupt)
    with (
        PixelStore(tmp_path / "stores" / "pixels.h5", mode="r") as pixels,
        MetaStore(tmp_path / "stores" / "meta.json") as meta,
    ):
        assert sorted(pixels) == sorted(meta)
        assert len(meta) == 2


def test_headers_are_published_during_a_long_run(tiny_files, tmp_path, monkeypatch):
    monkeypatch.setattr("fpgpu.ingest.coordinator.PUBLISH_INTERVAL", 0.0)
    monkeypatch.setattr("fpgpu.ingest.coordinator.PUBLISH_SHARE", 0.0)
    published = []

    def look(row):
        with MetaStore(tmp_path / "stores" / "meta.json") as meta:
            published.append(len(meta))

    ingest(tiny_files[:3], tmp_path / "stores", on_progress=look)
    assert published == [1, 2, 3]


def test_ingesting_again_replaces(tiny_files, tmp_path):
    ingest(tiny_files[:2], tmp_path / "stores", bitmask=1)
    report = ingest(tiny_files[:1], tmp_path / "stores", bitmask=4)
    assert [row.status for row in report.rows] == ["replaced"]
    with PixelStore(tmp_path / "stores" / "pixels.h5", mode="r") as pixels:
        assert len(pixels) == 2
        assert pixels.record("F090W", "exp_f090w_00").bitmask_applied == 4
        assert pixels.record("F090W", "exp_f090w_01").bitmask_applied == 1
    with MetaStore(tmp_path / "stores" / "meta.json") as meta:
        assert len(meta) == 2


def test_two_files_of_one_name_in_a_run_are_not_one_exposure(tiny_files, tmp_path):
    twin = tmp_path / "visit2" / tiny_files[0].name
    twin.parent.mkdir()
    twin.write_bytes(tiny_files[0].read_bytes())
    report = ingest([tiny_files[0], twin], tmp_path / "stores")
    assert [row.status for row in report.rows] == ["stored", "refused"]
    assert str(tiny_files[0]) in report.rows[1].reason
    assert "--framedir" in report.rows[1].reason


def test_framedir_and_split_bands_name_the_exposures(tiny_files, tmp_path):
    path = tmp_path / "frames" / "v1" / "e.fits"
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny_files[0].read_bytes())
    report = ingest(
        [path], tmp_path / "stores", framedir=f"{tmp_path}/frames/", split_by_detector=["F090W"]
    )
    assert (report.rows[0].band, report.rows[0].expID) == ("F090WA", "v1/e")
    with MetaStore(tmp_path / "stores" / "meta.json") as meta:
        assert list(meta) == [("F090WA", "v1/e")]


def test_without_flux_calibration_the_units_of_the_file_stay(tiny_files, tmp_path):
    row = ingest(tiny_files[:1], tmp_path / "stores", do_fluxcal=False).rows[0]
    assert (row.flux_factor, row.flux_units) == (1.0, "image")


def test_a_size_may_be_asked_for(tiny_files, tmp_path):
    report = ingest(tiny_files[:1], tmp_path / "stores", nside_full=256)
    assert "256" in report.rows[0].reason
    assert not (tmp_path / "stores" / "pixels.h5").exists()


@pytest.mark.parametrize("size", [np.int64(128), [128, 128], np.array([128, 128])])
def test_a_size_may_be_any_integers(tiny_files, tmp_path, size):
    assert ingest(tiny_files[:1], tmp_path / "stores", nside_full=size).ok


def test_a_size_of_no_whole_super_pixels_is_told_at_once(tiny_files, tmp_path):
    with pytest.raises(LayoutError, match="100 x 100 pixels is no whole number"):
        ingest(tiny_files[:1], tmp_path / "stores", nside_full=100)


def test_nonsense_arguments_are_told_before_any_file_is_read(tmp_path):
    with pytest.raises(FlagError, match="DO_NOT_USE"):
        ingest(["nowhere.fits"], tmp_path / "s", bitmask="DO_NOT_USES")
    with pytest.raises(ValueError, match="expected one of auto"):
        ingest(["nowhere.fits"], tmp_path / "s", wcs="best")
    assert ingest(["nowhere.fits"], tmp_path / "s", bitmask="HOTPIX").rows[0].status == "refused"


def test_a_damaged_store_stops_the_run(tiny_files, tmp_path):
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "pixels.h5").write_bytes(b"garbage" * 100)
    with pytest.raises(StoreFormatError, match=r"pixels\.h5"):
        ingest(tiny_files[:1], tmp_path / "stores")
    assert (tmp_path / "stores" / "pixels.h5").read_bytes() == b"garbage" * 100


def test_gwcs_of_earlier_runs_stay_and_follow_a_replacement(field, tmp_path):
    first, second = field.files
    ingest([first], tmp_path / "stores")
    ingest([second], tmp_path / "stores")
    with MetaStore(tmp_path / "stores" / "meta.json", use_gwcs=True) as meta:
        keys = list(meta)
        assert len(keys) == 2
        assert {meta.sky_wcs(*key).kind for key in keys} == {"gwcs"}
    ingest([first], tmp_path / "stores", wcs="fits")
    with MetaStore(tmp_path / "stores" / "meta.json") as meta:
        in_tree = {(band, expID) for band, tree in meta.tree.items() for expID in tree}
    assert in_tree == {("F200W", second.name.removesuffix(".fits"))}


def test_what_the_reader_found_is_stored_beside_the_pixels(field, tmp_path):
    row = ingest(field.files[:1], tmp_path / "stores").rows[0]
    with PixelStore(tmp_path / "stores" / "pixels.h5", mode="r") as pixels:
        provenance = pixels.record(row.band, row.expID).provenance
    assert provenance["reader"] == "jwst"
    assert provenance["wcs"] == "gwcs"
    assert provenance["sip_residual_px"] == row.sip_residual < 1e-3


def test_the_flags_of_hst_have_their_own_names(tiny_files, tmp_path):
    path = tmp_path / "hst.fits"
    with fits.open(tiny_files[0]) as hdus:
        hdus["SCI"].header["TELESCOP"] = "HST"
        hdus.writeto(path)
    report = ingest([path, tiny_files[1]], tmp_path / "stores", bitmask="DETECTORPROB")
    assert [row.status for row in report.rows] == ["stored", "refused"]
    assert report.rows[0].bitmask == 4
    assert "DETECTORPROB" in report.refused[0].reason


def test_a_pattern_or_a_path_is_one_input(tiny_files, tmp_path):
    pattern = str(tiny_files[0].parent / "*f200w*.fits")
    assert [row.band for row in ingest(pattern, tmp_path / "a").added] == ["F200W"] * 2
    assert len(ingest(tiny_files[0], tmp_path / "b").added) == 1


def test_a_band_that_no_input_holds_is_told_with_what_is_near(tiny_files, tmp_path):
    items = [Input(path, options=ReadOptions(bands=["f200w", "F444X"])) for path in tiny_files]
    report = ingest(items, tmp_path / "a")
    assert [row.status for row in report.rows] == [
        "stored" if "f200w" in path.name else "left out" for path in tiny_files
    ]
    assert {row.band for row in report.left_out} == {"F090W", "F444W"}
    assert not report.ok
    (text,) = report.unknown_bands
    assert "no band 'F444X'" in text
    assert text.endswith("did you mean F444W?")
    assert [row.status for row in ingest(items, tmp_path / "a", resume=True).added] == []
    good = [Input(path, options=ReadOptions(bands="F200W")) for path in tiny_files]
    assert ingest(good, tmp_path / "b").ok
