"""Files that are sound and packed: fpack and whole-file compression; and images without names."""

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from astropy.io import fits

from fpgpu import PixelStore
from fpgpu.cli.main import main
from fpgpu.errors import UnusableExposureError
from fpgpu.ingest import fitsstream
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.pipeline import ingest
from fpgpu.ingest.readers import read_exposure, read_exposures
from fpgpu.ingest.tiles import Box

NX, NY = 72, 48
CARDS = {
    "FILTER": "F200W", "BUNIT": "nJy", "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
    "CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 32.5, "CRPIX2": 32.5,
    "CD1_1": -1e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-5,
}  # fmt: skip
random = np.random.default_rng(11)
SCI = random.normal(10, 1, (NY, NX)).astype(np.float32)
ERR = random.uniform(0.5, 1.5, (NY, NX)).astype(np.float32)
DQ = random.choice(np.array([0, 0, 0, 4], np.int32), (NY, NX))


def zipped(content: bytes, n: int = 1) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(n):
            archive.writestr(f"folder/e{number}.fits", content)
    return packed.getvalue()


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zip": zipped}


def tarred(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("e.fits")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def written(path, *hdus):
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    return path


def images(name="SCI"):
    return [fits.ImageHDU(SCI, fits.Header(CARDS), name), fits.ImageHDU(ERR, name="ERR")]


# What astropy says is the truth: all of these but the quantised ones are lossless.
KINDS = {
    "rice, integers": {"compression_type": "RICE_1", "as": np.int32},
    "rice, unsigned": {"compression_type": "RICE_1", "as": np.uint16},
    "rice, quantised": {"compression_type": "RICE_1", "quantize_level": 16},
    "rice, dithered": {"compression_type": "RICE_1", "quantize_method": 1, "dither_seed": 7},
    "rice, dithered, zeros kept": {"compression_type": "RICE_1", "quantize_method": 2},
    "gzip": {"compression_type": "GZIP_1", "quantize_level": 0},
    "gzip, shuffled": {"compression_type": "GZIP_2", "quantize_level": 0},
    "hcompress": {"compression_type": "HCOMPRESS_1", "as": np.int32},
    "hcompress, lossy": {"compression_type": "HCOMPRESS_1", "hcomp_scale": 2, "as": np.int32},
    "tiles that do not fit": {"compression_type": "RICE_1", "tile_shape": (17, 23)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", [False, True], ids=["one file", "a pair"])
def test_what_fpack_has_packed_is_read_as_astropy_reads_it(tmp_path, kind, pair):
    options = dict(KINDS[kind])
    dtype = options.pop("as", np.float32)
    data = SCI.copy()
    if dtype is np.float32:
        data[5, 7], data[:, :3] = np.nan, 0
    science = fits.CompImageHDU(data.astype(dtype), fits.Header(CARDS), **options)
    noise = fits.CompImageHDU(ERR, compression_type="GZIP_1", quantize_level=0)
    path = tmp_path / "m_sci.fits.fz"
    if pair:
        # As fpack does it: what was the primary image is extension 1, without a name.
        written(path, science)
        written(tmp_path / "m_err.fits.fz", noise)
    else:
        science.name, noise.name = "SCI", "ERR"
        written(path, science, noise, fits.CompImageHDU(DQ, name="DQ", compression_type="PLIO_1"))
    with fits.open(path) as hdus:
        truth = hdus[1].data.astype(np.float64)
    report = ingest(str(path), tmp_path / "s")
    assert report.ok, report.rows[0].reason
    with PixelStore(tmp_path / "s" / "pixels.h5", mode="r") as store:
        flux, ierr = store.read_exposure("F200W", "m_sci")
    good = np.isfinite(truth) & ((DQ == 0) | pair)
    np.testing.assert_array_equal(ierr.T > 0, good)
    np.testing.assert_array_equal(flux.T[good], truth[good].astype(np.float32))
    np.testing.assert_array_equal(ierr.T[good], (1 / ERR)[good])


def test_a_part_of_a_packed_image_is_that_part(tmp_path):
    data = random.integers(0, 4000, (256, 320)).astype(np.int32)
    path = written(tmp_path / "e.fits.fz", fits.CompImageHDU(data, name="SCI"))
    with FitsFile(path) as file:
        part = file.layer("SCI").read(Box(31, 290, 100, 141))
    np.testing.assert_array_equal(part, data[100:141, 31:290].T)


def test_a_mask_of_one_value_is_no_damaged_header(tmp_path):
    # HCOMPRESS makes 4 million equal pixels a few dozen bytes, more than any ratio that is sane.
    flags = np.zeros((2048, 2048), np.int32)
    hdu = fits.CompImageHDU(
        flags, name="DQ", compression_type="HCOMPRESS_1", tile_shape=(2048, 2048)
    )
    with FitsFile(written(tmp_path / "e.fits", hdu)) as file:
        assert file.hdus[1].fileinfo()["datSpan"] < 6000
        assert not file.layer("DQ").read().any()


@pytest.mark.parametrize("ending", PACKERS)
def test_a_file_compressed_as_a_whole_is_the_same(tmp_path, ending):
    written(tmp_path / "e.fits", *images())
    plain = read_exposure(tmp_path / "e.fits")
    packed = tmp_path / f"e.fits.{ending}"
    packed.write_bytes(PACKERS[ending]((tmp_path / "e.fits").read_bytes()))
    exposure = read_exposure(packed)
    assert (exposure.band, exposure.expID) == (plain.band, plain.expID) == ("F200W", "e")
    np.testing.assert_array_equal(exposure.im, SCI.T)
    np.testing.assert_array_equal(exposure.ierr, plain.ierr)
    # What it is called does not matter, and folders are searched for its name.
    packed.rename(tmp_path / "sub.fits")
    np.testing.assert_array_equal(read_exposure(tmp_path / "sub.fits").im, SCI.T)


def test_companions_and_folders_know_the_names_of_packed_files(tmp_path):
    for ending, pack in PACKERS.items():
        for part, image in (("sci", SCI), ("err", ERR)):
            header = fits.Header(CARDS) if part == "sci" else None
            content = io.BytesIO()
            fits.PrimaryHDU(image, header).writeto(content)
            (tmp_path / f"{ending}_{part}.fits.{ending}").write_bytes(pack(content.getvalue()))
    report = ingest(tmp_path, tmp_path / "s")
    assert sorted(row.expID for row in report.added) == sorted(f"{e}_sci" for e in PACKERS)
    assert report.ok


@pytest.mark.parametrize("ending", PACKERS)
def test_what_expands_hugely_is_refused_within_bounds(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(fitsstream, "_UNSUSPICIOUS", 1 << 22)
    monkeypatch.setattr(fitsstream, "_IN_MEMORY", 1 << 16)
    path = tmp_path / "bomb.fits"
    path.write_bytes(PACKERS[ending](bytes(1 << 26)))
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(UnusableExposureError, match="expands to more than 4 MiB"):
            FitsFile(path)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_file_that_is_damaged_is_refused(tmp_path, ending):
    written(tmp_path / "e.fits", *images())
    packed = PACKERS[ending]((tmp_path / "e.fits").read_bytes())
    middle = len(packed) // 2
    for damaged in (packed[:middle], packed[:middle] + b"\xff" * 9 + packed[middle + 9 :]):
        path = tmp_path / "damaged.fits"
        path.write_bytes(damaged)
        with pytest.raises(UnusableExposureError, match=r"damaged\.fits: cannot be read"):
            FitsFile(path)


def test_what_is_another_kind_of_file_is_named(tmp_path):
    written(tmp_path / "e.fits", *images())
    content = (tmp_path / "e.fits").read_bytes()
    encrypted = bytearray(zipped(content))
    encrypted[6] |= 1
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    for data, what in (
        (b"\x89HDF\r\n\x1a\n" + content, "begins with .*HDF"),
        (b"#ASDF 1.0.0\n" + content, "begins with .*#ASDF"),
        (b"\x28\xb5\x2f\xfd" + content, "expand anything else first"),
        (b"\x1f\x9d\x90" + content, "expand anything else first"),
        (zipped(content, 2), "a zip archive of 2 files; expected one"),
        (zipped(content, 0), "a zip archive of 0 files; expected one"),
        (bytes(encrypted), "encrypted"),
        (
            gzip.compress(gzip.compress(content)),
            "with gzip, bzip2, xz or zip once; expand anything else first",
        ),
        (
            zipped(gzip.compress(content)),
            "with gzip, bzip2, xz or zip once; expand anything else first",
        ),
        (gzip.compress(tarred(content)), "expand anything else first"),
    ):
        path = tmp_path / "what.fits"
        path.write_bytes(data)
        with pytest.raises(UnusableExposureError, match=rf"what\.fits: cannot be read.*{what}"):
            FitsFile(path)


# --- extensions by name or number ----------------------------------------------------------------


@pytest.fixture
def unnamed(tmp_path):
    """forcepho's FITS form: the image in extension 1, its uncertainty in extension 2."""
    hdus = [fits.ImageHDU(SCI, fits.Header(CARDS)), fits.ImageHDU(ERR), fits.ImageHDU(DQ)]
    return written(tmp_path / "u.fits", *hdus)


@pytest.mark.parametrize(
    "extensions", [{"sci": 1, "err": 2}, {"sci": 1, "err": 2, "mask": 3}, {"sci": 2, "err": 1}]
)
def test_images_are_found_by_number(unnamed, extensions):
    if extensions["sci"] == 2:
        with fits.open(unnamed, mode="update") as hdus:
            hdus[2].header.update(CARDS)
    exposure = read_exposure(unnamed, ReadOptions(extensions=extensions))
    with fits.open(unnamed) as hdus:
        np.testing.assert_array_equal(exposure.im.T, hdus[extensions["sci"]].data)
        np.testing.assert_array_equal(exposure.ierr.T, 1 / hdus[extensions["err"]].data)
        assert (exposure.mask is None) == ("mask" not in extensions)
        if "mask" in extensions:
            np.testing.assert_array_equal(exposure.mask.T, hdus[3].data)


def test_images_are_found_by_name(tmp_path):
    hdus = [fits.ImageHDU(ERR * 2, name="ERR"), fits.ImageHDU(SCI, fits.Header(CARDS), "image")]
    path = written(tmp_path / "n.fits", *hdus, fits.ImageHDU(ERR, name="noise"))
    exposure = read_exposure(path, ReadOptions(extensions={"sci": "Image", "err": "noise"}))
    np.testing.assert_array_equal(exposure.im.T, SCI)
    np.testing.assert_array_equal(exposure.ierr.T, 1 / ERR)


@pytest.mark.parametrize("ways", [("--sci", "1", "--err", "2"), ("--config", "c.yaml")])
def test_the_command_line_and_the_configuration_take_them(unnamed, tmp_path, monkeypatch, ways):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("sci: 1\nerr: 2\n")
    assert main(["ingest", str(unnamed), "--out", "s", "-q", *ways]) == 0
    with PixelStore("s/pixels.h5", mode="r") as store:
        flux, ierr = store.read_exposure("F200W", "u")
    np.testing.assert_array_equal(flux.T, SCI)
    np.testing.assert_array_equal(ierr.T, 1 / ERR)


def test_what_is_not_there_is_refused_with_what_is(unnamed):
    with pytest.raises(
        UnusableExposureError, match=r"3 are images; say.*--sci N --err N.*1 unnamed, 2"
    ):
        read_exposure(unnamed)
    for extensions, match in (
        ({"sci": 4, "err": 2}, r"has no extension 4, to be used as sci; it has 0 PRIMARY, 1 unn"),
        ({"sci": 1, "err": "NOISE"}, "has no extension NOISE, to be used as err"),
        ({"sci": 0, "err": 2}, "is no 2-dimensional image"),
    ):
        with pytest.raises(UnusableExposureError, match=match):
            read_exposure(unnamed, ReadOptions(extensions=extensions))
    for extensions, match in (
        ({"science": 1}, "has the role 'science'; expected one of sci, err"),
        ({"sci": -1}, "is -1; expected its name, or its number"),
        ({"sci": True}, "is True; expected its name"),
        ({"sci": " "}, "is ' '; expected its name"),
        ({"sci": 1, "err": 1}, "cannot be several images"),
    ):
        with pytest.raises(UnusableExposureError, match=match):
            ReadOptions(extensions=extensions)


def test_one_image_and_the_other_in_a_file_beside_it_need_no_option(tmp_path):
    path = written(tmp_path / "x_sci.fits", fits.ImageHDU(SCI, fits.Header(CARDS)))
    written(tmp_path / "x_err.fits", fits.ImageHDU(ERR))
    (exposure,) = read_exposures(Input(path, {"err": tmp_path / "x_err.fits"}))
    np.testing.assert_array_equal(exposure.ierr.T, 1 / ERR)
