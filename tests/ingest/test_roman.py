"""Roman WFI images of level 2, written by `roman_datamodels`, against astropy, gwcs and algebra."""

import importlib.util
import struct

import asdf
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from roman_datamodels import datamodels, dqflags

from fpgpu import MetaStore, PixelStore
from fpgpu.cli.main import main
from fpgpu.demo.telescope import Pointing
from fpgpu.errors import FlagError, FpgpuError, MissingExtraError, UnusableExposureError
from fpgpu.ingest.flags import ROMAN
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.readers import read_exposure, read_exposures

NX, NY = 96, 64
CONVERSION = 0.7  # MJy/sr for 1 DN/s
PIXEL_AREA = (0.11 * u.arcsec) ** 2
STEPS = [
    "assign_wcs",
    "dark",
    "dark_decay",
    "dq_init",
    "flat_field",
    "flux",
    "linearity",
    "outlier_detection",
    "photom",
    "ramp_fit",
    "refpix",
    "saturation",
    "skymatch",
    "source_catalog",
    "tweakreg",
    "wfi18_transient",
]
NAME = "r0000101001001001001_0001_wfi07_f158_cal.asdf"


def make_gwcs(shape=(NX, NY)):
    """A gWCS with distortion, of pixels of 0.11 arcsec."""
    return Pointing(269.5, 66.2, 75.0, 0.11, shape).gwcs()


def write_image(path, *, shape=(NX, NY), compression="lz4", seed=3, **changes):
    """Write a level-2 file as Roman's pipeline does, and give what is in it."""
    random = np.random.default_rng(seed)
    model = datamodels.ImageModel.create_fake_data(shape=shape[::-1])
    model.data = random.normal(0.3, 0.1, shape[::-1]).astype(np.float32)
    model.err = random.uniform(0.05, 0.15, shape[::-1]).astype(np.float16)
    flags = [0, 0, 0, 0, dqflags.pixel.DO_NOT_USE, dqflags.pixel.JUMP_DET, dqflags.pixel.HOT | 1]
    model.dq = random.choice(np.array(flags, np.uint32), shape[::-1])
    model.meta.wcs = make_gwcs(shape)
    model.meta.instrument.detector = "WFI07"
    model.meta.instrument.optical_element = "F158"
    model.meta.exposure.type = "WFI_IMAGE"
    model.meta.photometry.conversion_megajanskys = CONVERSION
    model.meta.photometry.pixel_area = PIXEL_AREA.to_value(u.sr)
    for place, value in changes.items():
        node = model
        *groups, name = place.split("__")
        for group in groups:
            node = node[group]
        node[name] = value
    model.save(path, all_array_compression=compression, all_array_storage="internal")
    return model


def relative_areas(gwcs, shape=(NX, NY)):
    """Area of each pixel relative to the mean, [y, x], by the corners of pixels on the sphere."""
    x, y = np.meshgrid(np.arange(shape[0] + 1) - 0.5, np.arange(shape[1] + 1) - 0.5)
    sky = SkyCoord(*gwcs.pixel_to_world_values(x, y), unit="deg").cartesian.xyz.value
    corners = sky[:, :-1, :-1], sky[:, :-1, 1:], sky[:, 1:, 1:], sky[:, 1:, :-1]
    diagonals = corners[2] - corners[0], corners[3] - corners[1]
    area = np.linalg.norm(np.cross(*diagonals, axis=0), axis=0) / 2
    return area / area.mean()


def stored(path, tmp_path, **options):
    report = ingest(path, tmp_path / "s", **options)
    assert report.ok, report.rows[0].reason
    with PixelStore(tmp_path / "s" / "pixels.h5", mode="r") as store:
        return (*(plane.T for plane in store.read_exposure("F158", NAME[:-5])), report.rows[0])


@pytest.mark.parametrize("compression", ["lz4", "zlib", None])
def test_fluxes_are_an_independent_calculation(tmp_path, compression):
    model = write_image(tmp_path / NAME, compression=compression)
    flux, ierr, row = stored(tmp_path / NAME, tmp_path)
    unit = (CONVERSION * u.MJy / u.sr * PIXEL_AREA).to_value(u.nJy)
    areas = relative_areas(model.meta.wcs)
    assert np.ptp(areas) > 1e-4
    good = model.dq & 1 == 0
    np.testing.assert_array_equal(ierr > 0, good)
    np.testing.assert_allclose(flux[good], (model.data * unit * areas)[good], rtol=3e-5)
    np.testing.assert_allclose(
        ierr[good], (1 / (model.err.astype(np.float64) * unit * areas))[good], rtol=3e-5
    )
    assert (row.band, row.flux_units, row.wcs_kind) == ("F158", "nJy", "gwcs")
    assert row.flags == {
        flag.name: int(np.count_nonzero(model.dq & flag.value))
        for flag in (dqflags.pixel.DO_NOT_USE, dqflags.pixel.JUMP_DET, dqflags.pixel.HOT)
    }


def test_positions_are_those_of_the_gwcs(tmp_path):
    model = write_image(tmp_path / NAME)
    ingest(tmp_path / NAME, tmp_path / "s")
    x, y = np.meshgrid(np.linspace(-0.5, NX - 0.5, 9), np.linspace(-0.5, NY - 0.5, 9))
    truth = SkyCoord(*model.meta.wcs.pixel_to_world_values(x, y), unit="deg")
    for use_gwcs, tolerance in ((True, 1e-8), (False, 1e-3)):
        with MetaStore(tmp_path / "s" / "meta.json", use_gwcs=use_gwcs) as meta:
            ours = SkyCoord(*meta.sky_wcs("F158", NAME[:-5]).pixel_to_world(x, y), unit="deg")
        assert ours.separation(truth).to_value(u.arcsec).max() / 0.11 < tolerance


def test_what_the_flux_step_has_converted_is_not_converted_again(tmp_path):
    model = write_image(
        tmp_path / NAME, meta__cal_step={**dict.fromkeys(STEPS, "INCOMPLETE"), "flux": "COMPLETE"}
    )
    flux, _, _ = stored(tmp_path / NAME, tmp_path)
    unit = (1 * u.MJy / u.sr * PIXEL_AREA).to_value(u.nJy)
    good = model.dq & 1 == 0
    expected = model.data * unit * relative_areas(model.meta.wcs)
    np.testing.assert_allclose(flux[good], expected[good], rtol=3e-5)


def test_the_unit_of_the_file_can_be_kept(tmp_path):
    model = write_image(tmp_path / NAME, meta__photometry__pixel_area=None)
    flux, _, row = stored(tmp_path / NAME, tmp_path, do_fluxcal=False)
    good = model.dq & 1 == 0
    assert row.flux_units != "nJy"
    areas = relative_areas(model.meta.wcs)
    np.testing.assert_allclose(flux[good], (model.data * areas)[good], rtol=3e-5)


def test_an_area_that_contradicts_the_gwcs_is_told_or_refused(tmp_path):
    sr = PIXEL_AREA.to_value(u.sr)
    write_image(tmp_path / NAME, meta__photometry__pixel_area=1.1 * sr)
    exposure = read_exposure(tmp_path / NAME)
    assert any("PIXAR_SR" in note and "1.1" in note for note in exposure.notes)
    write_image(tmp_path / NAME, meta__photometry__pixel_area=4 * sr)
    with pytest.raises(UnusableExposureError, match=r"PIXAR_SR.*--pixel-area wcs"):
        read_exposure(tmp_path / NAME)
    by_wcs = read_exposure(tmp_path / NAME, ReadOptions(pixel_area="wcs"))
    expected = 8.9 - 2.5 * np.log10(CONVERSION * 1e6 * sr)
    # Distortion makes the mean pixel of this gWCS differ from the nominal one.
    assert by_wcs.hdr["ABMAG"] == pytest.approx(expected, abs=0.02)


def test_flags_are_those_of_roman_and_can_be_chosen(tmp_path):
    known = {flag.name: flag.value for flag in dqflags.pixel if flag.value}
    assert ROMAN.by_name == known
    model = write_image(tmp_path / NAME)
    _, ierr, _ = stored(tmp_path / NAME, tmp_path, bitmask="JUMP_DET,GW_AFFECTED_DATA")
    np.testing.assert_array_equal(ierr > 0, model.dq & (4 | 16) == 0)
    with pytest.raises(FlagError):
        ingest(tmp_path / NAME, tmp_path / "t", bitmask="NO_SUCH_FLAG")


def test_odd_sizes_are_padded_or_cut(tmp_path):
    shape = (90, 61)
    model = write_image(tmp_path / NAME, shape=shape)
    (padded,) = read_exposures(Input(tmp_path / NAME, options=ReadOptions(pad=True)))
    assert padded.shape == (96, 64)
    tiles = list(read_exposures(Input(tmp_path / NAME, options=ReadOptions(tile=48))))
    assert len(tiles) == 4
    assert [tile.expID[-6:] for tile in tiles] == ["x00y00", "x01y00", "x00y01", "x01y01"]
    np.testing.assert_array_equal(tiles[3].im[: 90 - 48, : 61 - 48].T, model.data[48:, 48:])
    sky = tiles[3].gwcs.pixel_to_world_values(1.0, 2.0)
    assert np.allclose(sky, model.meta.wcs.pixel_to_world_values(49.0, 50.0), rtol=0, atol=1e-12)
    with pytest.raises(UnusableExposureError, match="use --pad"):
        read_exposure(tmp_path / NAME)


def test_a_file_of_plain_types_is_read_alike(tmp_path):
    # As it looks to those who have not installed Roman's own package.
    model = write_image(tmp_path / NAME)
    photometry = {"conversion_megajanskys": CONVERSION * u.MJy / u.sr, "pixel_area": PIXEL_AREA}
    meta = {
        "wcs": model.meta.wcs,
        "instrument": {"optical_element": "F158", "detector": "WFI07"},
        "photometry": photometry,
    }
    images = {"data": model.data * u.Unit("DN/s"), "err": model.err * u.Unit("DN/s")}
    plain = asdf.AsdfFile({"roman": {"meta": meta, "dq": model.dq, **images}})
    plain.write_to(tmp_path / "plain.asdf")
    ours, truth = read_exposure(tmp_path / "plain.asdf"), read_exposure(tmp_path / NAME)
    assert ours.hdr["ABMAG"] == pytest.approx(truth.hdr["ABMAG"], abs=1e-6)
    for name in ("im", "ierr", "mask", "area"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(truth, name))


def test_the_command_line_finds_them_in_folders(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / NAME)
    assert main(["ingest", str(tmp_path / "data"), "--out", str(tmp_path / "s"), "--dry-run"]) == 0
    assert "roman" in capsys.readouterr().out


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"meta__instrument__optical_element": "GRISM"}, "optical element is GRISM: no image"),
        ({"meta__instrument__optical_element": "DARK"}, "optical element is DARK: no image"),
        ({"meta__photometry__conversion_megajanskys": None}, "conversion_megajanskys is None"),
        ({"meta__photometry__pixel_area": None}, None),
        ({"meta__wcs": None}, r"level 2.* and a gWCS \(meta.wcs\)"),
    ],
)
def test_what_is_no_image_of_level_2_is_named(tmp_path, changes, match):
    write_image(tmp_path / NAME, **changes)
    if match is None:  # the gWCS has it
        assert any("by the WCS" in note for note in read_exposure(tmp_path / NAME).notes)
        return
    with pytest.raises(UnusableExposureError, match=rf"cal\.asdf: .*{match}"):
        read_exposure(tmp_path / NAME)


def test_other_asdf_files_are_named(tmp_path):
    path = tmp_path / "x.asdf"
    for tree, match in (
        ({"model": 1, "more": 2}, "ASDF file with model, more at the top.*Roman WFI images"),
        ({}, "ASDF file with nothing at the top"),
        (
            {"roman": {"meta": {}, "data": np.zeros((8, 8))}},
            r"whose tree has data, meta .* expected an image of level 2 .* err, dq and a gWCS",
        ),
        (
            {"roman": {"meta": {}, "data": np.zeros((2, 8, 8)), "err": 1, "dq": 1}},
            "data of 2 x 8 x 8 pixels",
        ),
    ):
        asdf.AsdfFile(tree).write_to(path)
        with pytest.raises(UnusableExposureError, match=rf"x\.asdf: is an? .*{match}"):
            read_exposure(path)
    write_image(tmp_path / NAME)
    for options in (ReadOptions(wcs="fits"), ReadOptions(extensions={"sci": 1, "err": 2})):
        with pytest.raises(UnusableExposureError, match="ASDF file"):
            read_exposure(tmp_path / NAME, options)


def test_damage_is_an_error_and_never_a_wrong_pixel(tmp_path, long_form):
    path = tmp_path / NAME
    write_image(path)
    content = path.read_bytes()
    truth = read_exposure(path)
    random = np.random.default_rng(8)
    places = [*random.integers(0, len(content), 400 if long_form else 40)]
    n_refused = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        path.write_bytes(bytes(damaged))
        try:
            found = read_exposure(path)
        except FpgpuError:
            n_refused += 1
            continue
        for name in ("im", "ierr", "mask"):
            np.testing.assert_array_equal(getattr(found, name), getattr(truth, name))
    assert n_refused > len(places) // 4
    for length in (100, 5000, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(UnusableExposureError, match=r"truncated|cannot be read as ASDF"):
            read_exposure(path)


def test_what_declares_too_much_is_refused(tmp_path):
    path = tmp_path / NAME
    write_image(path)
    content = bytearray(path.read_bytes())
    first = content.index(b"\xd3BLK")
    struct.pack_into(">Q", content, first + 6 + 4 + 4 + 16, 1 << 44)
    path.write_bytes(bytes(content))
    with pytest.raises(UnusableExposureError, match=r"declares .* bytes in blocks"):
        read_exposure(path)
    laughs = "\n".join(
        ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
        + [
            f"{c}: &{c} [{', '.join([f'*{p}'] * 10)}]"
            for p, c in zip("abcdefg", "bcdefgh", strict=True)
        ]
    )
    path.write_text(f"#ASDF 1.0.0\n%YAML 1.1\n---\n{laughs}\nroman: *h\n...\n")
    with pytest.raises(UnusableExposureError, match="aliases that stand for more than"):
        read_exposure(path)


def test_compression_that_cannot_be_read_says_what_to_do(tmp_path, monkeypatch):
    write_image(tmp_path / NAME, compression="bzp2")
    with pytest.raises(UnusableExposureError, match=r"compressed with bzp2.*all_array_compression"):
        read_exposure(tmp_path / NAME)
    write_image(tmp_path / NAME)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "lz4" else real(name, *a)
    )
    with pytest.raises(MissingExtraError, match=r"LZ4; to read it: pip install 'fpgpu\[roman\]'"):
        read_exposure(tmp_path / NAME)
