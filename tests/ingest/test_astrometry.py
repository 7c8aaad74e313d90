"""gWCS and FITS WCS of one exposure: preferred, compared, chosen."""

import io

import asdf
import gwcs
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from fpgpu.errors import UnusableExposureError, WCSDisagreementError, WCSError
from fpgpu.ingest.inputs import ReadOptions
from fpgpu.ingest.readers import read_exposure

HEAD = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.5.0\n%YAML 1.1\n"
CORNERS = np.array([(0, 0), (63, 0), (63, 47), (0, 47), (31.5, 23.5)], float).T
AUTO, GWCS, FITS = (ReadOptions(wcs=choice) for choice in ("auto", "gwcs", "fits"))


def asdf_hdu(content: bytes) -> fits.BinTableHDU:
    data = np.frombuffer(content, np.uint8)
    column = fits.Column("ASDF_METADATA", format=f"{data.size}B", array=data[None, :])
    return fits.BinTableHDU.from_columns([column], name="ASDF")


def with_asdf(content):
    """Put other bytes into the ASDF extension; None removes it."""

    def change(hdus):
        hdus.pop(hdus.index_of("ASDF"))
        if content is not None:
            hdus.append(asdf_hdu(content))

    return change


def original_asdf(path) -> bytes:
    with fits.open(path) as hdus:
        return np.asarray(hdus["ASDF"].data).tobytes()


def tree_bytes(tree) -> bytes:
    stream = io.BytesIO()
    asdf.AsdfFile(tree).write_to(stream)
    return stream.getvalue()


def moved(pixels):
    """Shift the FITS WCS, as a cutout does that forgets the gWCS."""

    def change(hdus):
        hdus["SCI"].header["CRPIX1"] += pixels

    return change


def without_fits_wcs(hdus):
    for keyword in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2"):
        del hdus["SCI"].header[keyword]


def test_the_gwcs_is_preferred_and_refitted(cal_file):
    exposure = read_exposure(cal_file, AUTO)
    assert exposure.wcs_choice == "gwcs"
    assert isinstance(exposure.gwcs, gwcs.WCS)
    assert exposure.sip.residual < 1e-3
    with asdf.open(io.BytesIO(original_asdf(cal_file))) as tree:
        expected = tree["meta"]["wcs"](*CORNERS)
    np.testing.assert_allclose(exposure.gwcs(*CORNERS), expected, rtol=0, atol=1e-12)


def test_an_agreeing_fits_wcs_stays_as_it_is(cal_file):
    exposure = read_exposure(cal_file, AUTO)
    with fits.open(cal_file) as hdus:
        header = hdus["SCI"].header
        assert [exposure.hdr[k] for k in header] == list(header.values())
    assert exposure.notes == []


def test_the_fits_wcs_alone_can_be_chosen(changed):
    exposure = read_exposure(changed(with_asdf(b"damaged")), FITS)
    assert (exposure.wcs_choice, exposure.gwcs, exposure.sip) == ("fits", None, None)


def test_a_disagreement_is_refused_with_both_positions_and_the_ways_on(changed):
    path = changed(moved(7))
    with pytest.raises(WCSDisagreementError) as caught:
        read_exposure(path, AUTO)
    message = str(caught.value)
    assert "changed_cal.fits: gWCS and FITS WCS disagree by 7.0 px (tolerance 1)" in message
    assert message.count("53.1") >= 2
    assert message.count("-27.7") + message.count("-27.8") >= 2
    assert "--wcs gwcs" in message
    assert "--wcs fits" in message


@pytest.mark.parametrize("wider", [0, 512])
def test_what_is_known_of_the_image_is_said(changed, wider):
    def change(hdus):
        moved(1.2)(hdus)
        ny, nx = hdus["SCI"].shape
        sides = {"SUBSIZE1": nx + wider, "SUBSIZE2": ny}
        hdus[0].header.update(sides)

    with pytest.raises(WCSDisagreementError) as caught:
        read_exposure(changed(change), AUTO)
    message = str(caught.value)
    assert "disagree by 1.2 px (tolerance 1), by 1.2 px in the median: pixel (" in message
    if wider:
        assert "the image is a cutout" in message
        assert "(SUBSIZE1, SUBSIZE2)" in message
    else:
        assert "a whole exposure, whose positions the pipeline has from the gWCS" in message
        assert "cutout" not in message
    assert "choose with --wcs gwcs or --wcs fits" in message


@pytest.mark.parametrize(("shift", "tolerance", "refused"), [(0.5, 1, False), (0.5, 0.2, True)])
def test_the_tolerance_can_be_set(changed, shift, tolerance, refused):
    path = changed(moved(shift))
    options = ReadOptions(wcs_tolerance=tolerance)
    if refused:
        with pytest.raises(WCSDisagreementError, match=r"0\.5 px"):
            read_exposure(path, options)
    else:
        assert read_exposure(path, options).wcs_choice == "gwcs"


def test_after_a_choice_for_the_gwcs_the_header_says_the_same(changed):
    exposure = read_exposure(changed(moved(7)), GWCS)
    assert exposure.wcs_choice == "gwcs"
    expected = exposure.gwcs(*CORNERS)
    header = fits.Header.fromstring(exposure.hdr.tostring())
    np.testing.assert_allclose(
        WCS(header, fix=False).all_pix2world(*CORNERS, 0), expected, rtol=0, atol=1e-9
    )
    assert any("overruled" in note for note in exposure.notes)


def test_a_choice_for_the_fits_wcs_leaves_the_header_alone(changed):
    path = changed(moved(7))
    exposure = read_exposure(path, FITS)
    with fits.open(path) as hdus:
        assert exposure.hdr["CRPIX1"] == hdus["SCI"].header["CRPIX1"]


def test_a_gwcs_gives_a_header_without_wcs_one(changed):
    exposure = read_exposure(changed(without_fits_wcs), AUTO)
    expected = exposure.gwcs(*CORNERS)
    np.testing.assert_allclose(
        WCS(exposure.hdr, fix=False).all_pix2world(*CORNERS, 0), expected, rtol=0, atol=1e-9
    )
    assert any("cannot be used" in note for note in exposure.notes)


def test_without_gwcs_the_fits_wcs_is_used_and_said(changed):
    path = changed(with_asdf(None))
    exposure = read_exposure(path, AUTO)
    assert (exposure.wcs_choice, exposure.gwcs) == ("fits", None)
    assert any("no ASDF extension" in note for note in exposure.notes)
    with pytest.raises(WCSError, match=r"changed_cal\.fits: has no ASDF extension"):
        read_exposure(path, GWCS)


def test_without_any_wcs_an_exposure_is_refused(changed):
    def change(hdus):
        without_fits_wcs(hdus)
        with_asdf(None)(hdus)

    path = changed(change)
    for options in (AUTO, GWCS, FITS):
        with pytest.raises(WCSError, match=r"changed_cal\.fits"):
            read_exposure(path, options)


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        HEAD + b"--- !!python/object/apply:os.system ['x']\n",
        HEAD + b"---\nmeta: {wcs: 3}\n...\n",
        HEAD + b"---\nmeta: {}\n...\n",
        tree_bytes({"other": 1}),
    ],
)
def test_a_damaged_asdf_extension_is_refused_with_the_way_on(changed, content):
    path = changed(with_asdf(content))
    with pytest.raises(
        UnusableExposureError, match=r"changed_cal\.fits: extension ASDF.*--wcs fits"
    ):
        read_exposure(path, AUTO)


def test_a_truncated_asdf_extension_is_refused(changed, cal_file):
    whole = original_asdf(cal_file)
    for length in (len(whole) // 3, len(whole) // 2, len(whole) - 400):
        path = changed(with_asdf(whole[:length]), f"{length}_cal.fits")
        with pytest.raises(UnusableExposureError, match="ASDF"):
            read_exposure(path, AUTO)


def test_a_gwcs_to_three_axes_is_refused(changed):
    from astropy import units as u
    from astropy.modeling import models
    from gwcs import coordinate_frames as frames

    cube = gwcs.WCS(
        models.Identity(3),
        frames.CoordinateFrame(3, ["SPATIAL"] * 3, (0, 1, 2), unit=[u.pix] * 3, name="detector"),
        frames.CoordinateFrame(3, ["SPATIAL"] * 3, (0, 1, 2), unit=[u.m] * 3, name="world"),
    )
    path = changed(with_asdf(tree_bytes({"meta": {"wcs": cube}})))
    with pytest.raises(WCSError, match=r"changed_cal\.fits: gWCS: .*--wcs fits"):
        read_exposure(path, AUTO)


def test_an_unknown_choice_is_refused(cal_file):
    with pytest.raises(ValueError, match="expected one of auto, gwcs, fits"):
        read_exposure(cal_file, ReadOptions(wcs="best"))


def test_the_real_cutout_is_refused_for_the_412_pixels_of_its_gwcs(shared_data):
    path = shared_data / "nircam" / "nrcalong_f444w_cal_cutout.fits"
    with pytest.raises(WCSDisagreementError, match=r"disagree by 412\.\d px.*14\.7.*-72\.1.*--pad"):
        read_exposure(path, AUTO)
    assert read_exposure(path, ReadOptions(wcs="fits", pad=True)).shape == (104, 104)
