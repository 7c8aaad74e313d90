"""Files that were made to do harm are refused, at once and without much memory."""

import bz2
import gzip
import resource
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from astropy.io import fits

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest import fitsstream
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.readers import read_exposure
from fpgpu.stores.metadata.asdfguard import check_asdf
from tests.ingest.jwstfiles import write_cal

HEAD = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.5.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n"


def asdf_file(tree: str, *blocks: bytes) -> bytes:
    return HEAD + b"--- !core/asdf-1.1.0\n" + tree.encode() + b"\n...\n" + b"".join(blocks)


def block(payload: bytes, declared: int, compression: bytes) -> bytes:
    header = struct.pack(">I4sQQQ16s", 0, compression, len(payload), len(payload), declared, b"")
    return b"\xd3BLK" + struct.pack(">H", len(header)) + header + payload


ARRAY = "meta: {wcs: !core/ndarray-1.0.0 {source: 0, datatype: uint8, byteorder: big, shape: [9]}}"
STEPS = "!<tag:stsci.edu:gwcs/step-1.1.0> {{frame: a, transform: {}}}, {{frame: b}}"
LAUGHS = "\n".join(
    ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    + [
        f"{c}: &{c} [{', '.join([f'*{p}'] * 10)}]"
        for p, c in zip("abcdefg", "bcdefgh", strict=True)
    ]
    + ["meta: {wcs: *h}"]
)
BOMB = zlib.compress(bytes(1 << 24), 9)

ASDF_CASES = {
    "a tag that would run a program": asdf_file(
        "meta: {wcs: !!python/object/apply:os.system ['touch {}']}"
    ),
    "an unknown tag": asdf_file("meta: {wcs: !<tag:example.org:wcs-1.0.0> {a: 1}}"),
    "an unknown transform": asdf_file(
        "meta: {wcs: !<tag:stsci.edu:gwcs/wcs-1.2.0> {name: '', steps: ["
        + STEPS.format("!<tag:example.org:t-1.0.0> {x: 1}")
        + "]}}"
    ),
    "a reference to another file": asdf_file("meta: {wcs: {$ref: 'file:///etc/passwd'}}"),
    "an array in another file": asdf_file(ARRAY.replace("0,", "'file:///etc/passwd',", 1)),
    "aliases of aliases": asdf_file(LAUGHS),
    "a block that declares terabytes": asdf_file(ARRAY, block(BOMB, 1 << 44, b"zlib")),
    "a block that holds more than it says": asdf_file(ARRAY, block(BOMB, 1000, b"zlib")),
    "the same as bzip2": asdf_file(
        ARRAY, block(b"", 0, bytes(4)), block(bz2.compress(bytes(1 << 20)), 9, b"bzp2")
    ),
}


@pytest.mark.parametrize("case", ASDF_CASES)
def test_hostile_asdf_is_refused_with_the_file_and_the_way_on(tmp_path, case):
    path = write_cal(tmp_path / "jw_cal.fits")
    sentinel = tmp_path / "ran"
    content = ASDF_CASES[case].replace(b"touch {}", f"touch {sentinel}".encode())
    with fits.open(path) as hdus:
        data = np.frombuffer(content, np.uint8)
        column = fits.Column("ASDF_METADATA", f"{len(data)}B", array=data[None])
        hdus["ASDF"] = fits.BinTableHDU.from_columns([column], name="ASDF")
        hdus.writeto(tmp_path / "bad_cal.fits")
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(
        UnusableExposureError, match=r"bad_cal\.fits: extension ASDF.*use --wcs fits"
    ):
        read_exposure(tmp_path / "bad_cal.fits")
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 300_000  # KiB
    assert not sentinel.exists()
    assert read_exposure(tmp_path / "bad_cal.fits", ReadOptions(wcs="fits")).wcs_choice == "fits"


def test_sound_asdf_passes():
    check_asdf("f", asdf_file("a: &a [1, 2]\nb: *a\nmeta: {wcs: *a}"))
    payload = zlib.compress(bytes(1000))
    check_asdf("f", asdf_file(ARRAY, block(payload, 1000, b"zlib"), block(b"abc", 3, bytes(4))))
    check_asdf("f", b"#ASDF 1.0.0\n")
    check_asdf("f", asdf_file("a: *b : ["))
    check_asdf("f", asdf_file(ARRAY, b"\xd3BLK\0"))
    check_asdf("f", asdf_file(ARRAY, block(b"no zlib", 10, b"zlib")))


def header_of(**cards) -> bytes:
    header = fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2, **cards})
    return header.tostring().encode()


@pytest.mark.parametrize("axes", [(60_000, 60_000), (2**31, 2**31), (10**18, 10**18)])
def test_sizes_far_past_the_file_are_refused_before_anything_is_allocated(tmp_path, axes):
    path = tmp_path / "large.fits"
    path.write_bytes(header_of(NAXIS1=axes[0], NAXIS2=axes[1]) + bytes(2880))
    for content in (path.read_bytes(), gzip.compress(path.read_bytes())):
        path.write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(UnusableExposureError, match=r"large\.fits.*(truncated|damaged)"):
                FitsFile(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 20e6


def test_a_small_file_that_expands_hugely_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fitsstream, "_UNSUSPICIOUS", 1 << 22)
    path = tmp_path / "bomb.fits.gz"
    content = header_of(NAXIS1=4096, NAXIS2=4096) + bytes(4 * 4096 * 4096)
    path.write_bytes(gzip.compress(content + bytes(-len(content) % 2880), 9))
    assert path.stat().st_size < 100_000
    with pytest.raises(UnusableExposureError, match=r"bomb\.fits\.gz: expands to more than 4 MiB"):
        FitsFile(path)


def test_what_is_expanded_is_in_memory_only_while_it_is_small(tmp_path, monkeypatch):
    monkeypatch.setattr(fitsstream, "_IN_MEMORY", 1 << 16)
    path = tmp_path / "e.fits.gz"
    image = np.arange(256 * 256, dtype=np.float32).reshape(256, 256)
    fits.PrimaryHDU(image).writeto(path)
    with FitsFile(path) as file:
        np.testing.assert_array_equal(file.layer("PRIMARY").read(), image.T)
