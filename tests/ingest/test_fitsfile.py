"""FITS files are measured before they are believed."""

import gzip
import os

import numpy as np
import pytest
from astropy.io import fits

from fpgpu.errors import FpgpuError, MissingFileError, UnusableExposureError
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.tiles import Box

SHAPE = (24, 16)


@pytest.fixture
def content(tmp_path) -> bytes:
    """Bytes of a small file with SCI, ERR and unsigned DQ of 24 x 16 pixels."""
    pixels = np.arange(24 * 16, dtype=np.float32).reshape(16, 24)
    long_text = " ".join(f"{n:09.5f}" for n in range(20))
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(header=fits.Header({"TELESCOP": "JWST", "FILTER": "F200W"})),
            fits.ImageHDU(pixels, fits.Header({"S_REGION": long_text, "FILTER": "F444W"}), "SCI"),
            fits.ImageHDU(pixels + 1, name="ERR"),
            fits.ImageHDU(np.full((16, 24), 2**31, np.uint32), name="DQ"),
        ]
    )
    hdus[0].header["COMMENT"] = "of the primary header only"
    path = tmp_path / "original.fits"
    hdus.writeto(path)
    return path.read_bytes()


@pytest.fixture
def put(tmp_path):
    """Write bytes into a file and give its path."""

    def write(data: bytes, name: str = "e.fits"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def test_images_are_transposed_views_in_the_byte_order_of_the_file(content, put):
    with FitsFile(put(content)) as file:
        assert file.names() == ["PRIMARY", "SCI", "ERR", "DQ"]
        image = file.layer("SCI").read()
    assert image.shape == SHAPE
    assert image.dtype == np.dtype(">f4")
    assert image[3, 2] == 2 * 24 + 3


def test_unsigned_flags_stay_unsigned(content, put):
    with FitsFile(put(content)) as file:
        assert file.layer("DQ").read().dtype == np.uint32
        assert (file.layer("DQ").read() == 2**31).all()


def test_a_compressed_file_is_the_same_whatever_its_name(content, put):
    with FitsFile(put(gzip.compress(content), "e.fits")) as file:
        np.testing.assert_array_equal(file.layer("ERR").read(), file.layer("SCI").read() + 1)


def test_an_image_that_is_not_there_is_none(content, put):
    with FitsFile(put(content)) as file:
        assert file.layer("AREA") is None
        assert file.table_bytes("ASDF") is None


def test_the_merged_header_keeps_the_image_cards_and_adds_the_primary_ones(content, put):
    with FitsFile(put(content)) as file:
        header = file.merged_header("SCI")
    assert header["FILTER"] == "F444W"
    assert header["TELESCOP"] == "JWST"
    assert (header["NAXIS1"], header["NAXIS2"]) == SHAPE
    assert "EXTEND" not in header
    assert "COMMENT" not in header
    again = fits.Header.fromstring(header.tostring())
    assert again == header
    assert len(again["S_REGION"].split()) == 20


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(MissingFileError, match=r"nowhere\.fits: no such file"):
        FitsFile(tmp_path / "nowhere.fits")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UnusableExposureError, match="cannot be opened"):
        FitsFile(tmp_path)


def test_what_is_no_fits_file_is_refused(put):
    for data in (b"", b"hello", os.urandom(10_000), b"\x89HDF\r\n\x1a\n" + bytes(5000)):
        with pytest.raises(UnusableExposureError, match=r"e\.fits.*cannot be read as FITS"):
            FitsFile(put(data))


def test_every_truncation_is_noticed_before_a_missing_extension_is_believed(content, put):
    # Cut at the border between two extensions the rest is a valid file; readers ask for ERR, DQ.
    with fits.open(put(content)) as hdus:
        borders = {hdu.fileinfo()["hdrLoc"] for hdu in hdus}
    for length in range(80, len(content) - 80, 720):
        if length in borders:
            continue
        with pytest.raises(UnusableExposureError, match=r"e\.fits"):
            FitsFile(put(content[:length]))


def test_a_truncated_or_damaged_gzip_file_is_refused(content, put):
    packed = gzip.compress(content)
    damaged = packed[:60] + b"\xff" * 8 + packed[68:]
    for data in (packed[:-9], packed[: len(packed) // 2], damaged):
        with pytest.raises(UnusableExposureError, match=r"e\.fits: cannot be read"):
            FitsFile(put(data))


@pytest.mark.parametrize("declared", [b"1000000000", b"        -5", b"       4.5", b"      'a' "])
def test_a_size_that_the_file_does_not_have_is_refused(content, put, declared):
    for keyword in (b"NAXIS1  = ", b"NAXIS2  = "):
        where = content.index(keyword) + 20
        data = content[:where] + declared + content[where + 10 :]
        with pytest.raises(UnusableExposureError, match=r"e\.fits"), FitsFile(put(data)) as file:
            file.layer("SCI", SHAPE).read()


def test_a_header_that_leads_back_to_itself_does_not_loop_for_ever(content, put):
    # -45 * 16 floats are -1 block: astropy would read the header of ERR again and again.
    where = content.index(b"NAXIS1  = ", content.index(b"'SCI ")) + 20
    data = content[:where] + b"       -45" + content[where + 10 :]
    with pytest.raises(UnusableExposureError, match=r"e\.fits: extension 2.* -2880 bytes"):
        FitsFile(put(data))


@pytest.mark.parametrize(
    ("card", "damaged"),
    [(b"S_REGION= ", b"S,REGION= "), (b"FILTER  = 'F4", b"FILTER  $ 'F4"), (b"FILTER", b"FIL\tER")],
)
def test_a_malformed_card_is_refused_and_shown(content, put, card, damaged):
    where = content.index(card, content.index(b"XTENSION"))
    data = content[:where] + damaged + content[where + len(card) :]
    with (
        pytest.raises(
            UnusableExposureError, match=r"e\.fits.*(malformed|has TAB, in what an exposure)"
        ),
        FitsFile(put(data)) as file,
    ):
        file.merged_header("SCI")


def test_a_value_that_is_not_fits_is_mended_to_a_string(content, put):
    where = content.index(b"FILTER  = 'F444W   '")
    data = content[:where] + b"FILTER  =        NaN" + content[where + 20 :]
    with FitsFile(put(data)) as file:
        assert file.merged_header("SCI")["FILTER"] == "NaN"


def test_bytes_after_the_last_extension_are_refused(content, put):
    with pytest.raises(UnusableExposureError, match=r"extension 4, at byte \d+"):
        FitsFile(put(content + b"x" * 2880))


def test_random_groups_and_tables_with_a_heap_are_measured_rightly(put, tmp_path):
    path = tmp_path / "heap.fits"
    heap = fits.Column("v", "PE()", array=np.array([np.arange(3), np.arange(900)], object))
    groups = fits.GroupsHDU(
        fits.GroupData(
            np.ones((3, 4), np.float32), bitpix=-32, parnames=["u"], pardata=[np.ones(3)]
        )
    )
    for first in (fits.PrimaryHDU(), groups):
        fits.HDUList([first, fits.BinTableHDU.from_columns([heap], name="HEAP")]).writeto(
            path, overwrite=True
        )
        with FitsFile(path) as file:
            assert file.names()[1] == "HEAP"


def test_a_compressed_image_that_declares_too_much_is_refused(put, tmp_path):
    path = tmp_path / "c.fits"
    image = fits.CompImageHDU(np.zeros((16, 24), np.int16), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)
    with FitsFile(path) as file:
        assert file.layer("SCI").read().shape == SHAPE
    data = path.read_bytes()
    where = data.index(b"ZNAXIS1 = ") + 20
    with pytest.raises(UnusableExposureError, match="damaged"):
        FitsFile(put(data[:where] + b"1000000000" + data[where + 10 :]))


def test_extensions_of_different_shapes_are_refused(content, put):
    with FitsFile(put(content)) as file, pytest.raises(UnusableExposureError) as caught:
        file.layer("ERR", (16, 24)).read()
    assert "extension ERR has 24 x 16 pixels, but the science image has 16 x 24" in str(
        caught.value
    )


def test_a_cube_and_a_table_are_no_images(put, tmp_path):
    path = tmp_path / "cube.fits"
    cube = fits.ImageHDU(np.zeros((2, 16, 24), np.float32), name="SCI")
    table = fits.BinTableHDU(np.zeros(3, [("a", "f4")]), name="ERR")
    fits.HDUList([fits.PrimaryHDU(), cube, table]).writeto(path)
    with FitsFile(path) as file:
        for name in ("SCI", "ERR", "PRIMARY"):
            with pytest.raises(UnusableExposureError, match=f"{name} is no 2-dimensional image"):
                file.layer(name).read()


def test_two_science_images_are_not_one_exposure(tmp_path):
    path = tmp_path / "two.fits"
    images = [fits.ImageHDU(np.zeros((8, 8), np.float32), name="SCI", ver=ver) for ver in (1, 2)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    with FitsFile(path) as file, pytest.raises(UnusableExposureError, match="2 extensions"):
        file.layer("SCI").read()


def test_random_damage_gives_an_error_or_an_image_never_anything_else(content, put, long_form):
    random = np.random.default_rng(5)
    n_read, messages = 0, []
    for _ in range(2000 if long_form else 40):
        data = bytearray(content)
        for place in random.integers(0, len(data), 4):
            data[place] = random.integers(0, 256)
        try:
            with FitsFile(put(bytes(data))) as file:
                for name in ("SCI", "ERR", "DQ"):
                    layer = file.layer(name)
                    assert layer is None or layer.read().ndim == 2
                if file.find("SCI") is not None:
                    file.merged_header("SCI")
            n_read += 1
        except FpgpuError as error:
            messages.append(str(error))
    assert n_read
    assert messages
    assert all("e.fits" in message for message in messages)


@pytest.mark.parametrize("form", ["plain", "unsigned", "gzip", "rice", "scaled"])
@pytest.mark.parametrize("box", [Box(3, 9, 2, 20), Box(0, 16, 5, 6), Box(15, 16, 0, 24)])
def test_a_part_of_an_image_is_that_part_of_the_whole(tmp_path, form, box):
    path = tmp_path / "e.fits"
    image = np.arange(16 * 24).reshape(24, 16)
    kind = {"unsigned": np.uint32, "rice": np.int32, "scaled": np.int16}.get(form, np.float32)
    hdu = fits.ImageHDU(image.astype(kind), name="SCI")
    if form == "rice":
        hdu = fits.CompImageHDU(image.astype(kind), name="SCI")
    if form == "scaled":
        hdu.scale("int16", bscale=0.5, bzero=3)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    if form == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    with FitsFile(path) as file:
        part = file.layer("SCI").read(box)
        whole = file.layer("SCI").read()
    np.testing.assert_array_equal(whole, image.T)
    np.testing.assert_array_equal(part, whole[box.x0 : box.x1, box.y0 : box.y1])
    assert part.dtype.newbyteorder("=") == whole.dtype.newbyteorder("=")


# --- cards that FITS does not allow --------------------------------------------------------------


def with_card(content: bytes, card: bytes) -> bytes:
    """The file with a card of its SCI header, which nothing depends on, replaced."""
    where = content.index(b"FILTER  = 'F444W", content.index(b"XTENSION"))
    return content[:where] + card.ljust(80) + content[where + 80 :]


# What astropy reads of a card, TAB and other control characters as blanks.
READ = {
    b"OBSERVER= 'M\xfcller'           / by night": ("OBSERVER", "M?ller"),
    "OBSERVER= 'M\u00fcller' / \u00b5".encode(): ("OBSERVER", "M??ller"),
    b"OBSERVER= 'abc     '           / M\xfcller": ("OBSERVER", "abc"),
    b"COMMENT of 20\xb0 C": ("COMMENT", "of 20? C"),
    b"HISTORY a\tb": ("HISTORY", "a b"),
    b"OBSERVER= 'a\tb     '           / c": ("OBSERVER", "a b"),
    b"OBSERVER= 'abc     ' / a\0\0\0\0": ("OBSERVER", "abc"),
    b"AIRMASS = \t  1.5 / high": ("AIRMASS", 1.5),
    b"AIRMASS =  1.5\t / high": ("AIRMASS", 1.5),
    b"CRVAL1  = \t 1.5 / degrees": ("CRVAL1", 1.5),
    b"CRVAL1  =   1.5 / \xb0": ("CRVAL1", 1.5),
    b"FILTER  = 'F200W' / M\xfcller": ("FILTER", "F200W"),
    b"TARGNAME= 'M\xfcller'": ("TARGNAME", "M?ller"),
    b"AIRMASS =1.5 / high": ("COMMENT", "AIRMASS =1.5 / high"),
    b"AIRMASS   high": ("COMMENT", "AIRMASS high"),
    b"THIS IS A SENTENCE": ("COMMENT", "THIS IS A SENTENCE"),
}


@pytest.mark.parametrize("card", READ)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_cards_that_fits_does_not_allow_are_read_and_told(content, put, tmp_path, card, packed):
    keyword, value = READ[card]
    path = put(with_card(content, card))
    if packed:
        # Whose header astropy makes of that of a table.
        header = fits.Header({"FILTER": "F444W"})
        image = fits.CompImageHDU(np.ones((16, 24), np.float32), header, name="SCI")
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "c.fits")
        path = put(with_card((tmp_path / "c.fits").read_bytes(), card))
    with FitsFile(path) as file:
        header = file.merged_header("SCI")
        np.testing.assert_array_equal(file.layer("SCI").read()[0, 0], 1 if packed else 0)
    found = header[keyword]
    assert (str(found) if keyword in ("COMMENT", "HISTORY") else found) == value
    assert fits.Header.fromstring(header.tostring()) == header
    assert all(" " <= character <= "~" for character in header.tostring())
    (note,) = file.notes
    assert note.startswith("header of SCI: ")
    assert ("read as shown" in note) or ("has no '= '" in note)


@pytest.mark.parametrize(
    ("card", "named"),
    [
        (b"FILTER  = 'F2\xfc0W'", r"F2\?0W'\" has byte 0xfc"),
        (b"FILTER  = 'F2\t0W'", "has TAB"),
        (b"BUNIT   = '\xb5Jy'", r"\?Jy'\" has byte 0xb5"),
        (b"CRVAL1  =   1\x015 / x", "has byte 0x01"),
        (b"CRVAL1  =   1.5\xb0", "has byte 0xb0"),
        (b"CRP\xcdX1  =  1.5", "has byte 0xcd"),
        (b"OBS\tRVER= 'x'", "has TAB"),
        (b"CRPIX1  =5.5", "malformed card.*CRPIX1  =5.5.*'= ' in columns 9 and 10"),
        (b"CTYPE1='RA---TAN'", "malformed card.*CTYPE1='RA---TAN'"),
        (b"BUNIT     MJy/sr", "malformed card.*BUNIT     MJy/sr"),
        (b"crpix1  $ 5", "malformed card.*crpix1"),
    ],
)
def test_a_card_that_an_exposure_depends_on_is_named_with_its_character(content, put, card, named):
    path = put(with_card(content, card))
    with (
        pytest.raises(UnusableExposureError, match=rf"e\.fits: header of SCI.*{named}"),
        FitsFile(path) as file,
    ):
        file.merged_header("SCI")


def test_many_such_cards_are_told_once(content, put):
    raw = with_card(content, b"COMMENT \xe9")
    blank = raw.index(b"END     ", raw.index(b"COMMENT \xe9"))
    cards = b"COMMENT \xe9".ljust(80) * 6
    raw = raw[:blank] + cards + b"END".ljust(80) + raw[blank + 7 * 80 :]
    with FitsFile(put(raw)) as file:
        (note,) = file.notes
        np.testing.assert_array_equal(file.layer("ERR").read(), file.layer("SCI").read() + 1)
    assert note.endswith("and 4 more")


def test_padding_at_the_end_of_a_tape_is_no_damage(content, put):
    with FitsFile(put(content + bytes(2880 * 3))) as file:
        assert file.names() == ["PRIMARY", "SCI", "ERR", "DQ"]
