"""PSF images in the forms that stpsf, photutils and people write them, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits

from fpgpu.errors import MissingFileError, PSFError
from fpgpu.psf import PSFImages, read_psf_images
from tests.psf.conftest import SCALE

Float = npt.NDArray[np.float64]


def gaussian(sigma: float, x0: float = 0.0, y0: float = 0.0) -> Callable[[Float, Float], Float]:
    return lambda x, y: (
        np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    )


class TestForms:
    def test_cells_are_summed_over_pixels(self, sampled: Callable[..., Float]) -> None:
        whole = sampled(gaussian(1.2), oversample=4)
        n = len(whole)
        places = (np.arange(n) - (n - 1) / 2) / 4
        cells = gaussian(1.2)(places[None], places[:, None]) / 16
        images = PSFImages.from_arrays(
            "F200W", cells, pixel_scale=SCALE, oversample=4, integrated=False
        )
        inner = slice(20, -20)  # sums run out at the edge
        off = images.images[0] - whole * 16 / whole.sum()
        # The cells were taken by their middles: 1/24 of the second derivative is left.
        assert abs(off[inner, inner]).max() < 1e-2 * whole.max()

    def test_a_file_of_stpsf_gives_its_distorted_oversampled_image(
        self, tmp_path: Path, sampled: Callable[..., Float]
    ) -> None:
        image = sampled(gaussian(1.2), oversample=4)
        hdus = [fits.PrimaryHDU()]
        for name, samples in (("OVERSAMP", 4), ("DET_SAMP", 1), ("OVERDIST", 4)):
            hdu = fits.ImageHDU(image if name != "OVERSAMP" else image * 0 + 1, name=name)
            hdu.header["PIXELSCL"], hdu.header["OVERSAMP"] = SCALE / samples, 4
            hdu.header["FILTER"], hdu.header["DET_X"], hdu.header["DET_Y"] = "F200W", 1023, 511
            hdus.append(hdu)
        fits.HDUList(hdus).writeto(tmp_path / "psf.fits")
        (images,) = read_psf_images(tmp_path / "psf.fits")
        assert (images.band, images.oversample) == ("F200W", 4)
        assert images.pixel_scale == pytest.approx(SCALE)
        assert images.positions is not None
        assert images.positions.tolist() == [[1023, 511]]

    def test_a_grid_for_photutils_keeps_its_places(
        self, tmp_path: Path, sampled: Callable[..., Float]
    ) -> None:
        image = sampled(gaussian(1.2), oversample=4)
        hdu = fits.PrimaryHDU(np.stack([image] * 12))
        hdu.header["OVERSAMP"], hdu.header["FILTER"], hdu.header["NUM_PSFS"] = 4, "F200W", 12
        hdu.header["FOV"], hdu.header["FOVPIXEL"] = 41 * SCALE, 41
        for k in range(12):
            hdu.header[f"DET_YX{k}"] = str((100.0 * k, 7.0))
        hdu.writeto(tmp_path / "grid.fits")
        (images,) = read_psf_images([tmp_path / "grid.fits"])
        assert images.pixel_scale == pytest.approx(SCALE)
        np.testing.assert_array_equal(images.positions, [(7, 100.0 * k) for k in range(12)])
        np.testing.assert_allclose(images.images[0], image * 16 / image.sum())

    def test_files_of_one_band_are_its_places(
        self, tmp_path: Path, sampled: Callable[..., Float]
    ) -> None:
        for k in range(2):
            hdu = fits.PrimaryHDU(sampled(gaussian(1.2)))
            hdu.header["FILTER"], hdu.header["PIXELSCL"] = "F200W", SCALE
            hdu.header["DET_X"], hdu.header["DET_Y"] = 10 * k, 20 * k
            hdu.writeto(tmp_path / f"{k}.fits")
        (images,) = read_psf_images([tmp_path / "0.fits", tmp_path / "1.fits"])
        np.testing.assert_array_equal(images.positions, [(0, 0), (10, 20)])

    def test_light_beside_the_middle_is_moved_there_when_asked(
        self, sampled: Callable[..., Float]
    ) -> None:
        image = sampled(gaussian(1.5, 1.0, -0.5))
        images = PSFImages.from_arrays("F200W", image, pixel_scale=SCALE, recenter=True)
        places = np.arange(41) - 20
        light = images.images[0]
        assert abs(light.sum(0) @ places) < 0.01
        assert abs(light.sum(1) @ places) < 0.01


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"images": np.ones((9, 8))}, "square"),
            ({"images": np.full((9, 9), np.nan)}, "not finite"),
            ({"images": np.ma.array(np.ones((9, 9)), mask=np.eye(9))}, "masked"),
            ({"images": "star.fits"}, "read_psf_images"),
            ({"pixel_scale": None}, "pixel scale is None"),
            ({"oversample": (1, 2)}, "the same for both axes"),
            ({"images": -np.ones((9, 9))}, "sums to"),
            ({"images": np.ones((3, 9, 9))}, "without places"),
            ({"pixel_scale": 0.0}, "pixel scale"),
            ({"oversample": -1.0}, "oversampling"),
            ({"oversample": 4.0}, "pixels wide"),
            ({"positions": [[1, 2], [3, 4]]}, "positions"),
        ],
    )
    def test_arrays(self, change: dict[str, object], words: str) -> None:
        given = {"images": np.ones((9, 9)), "pixel_scale": SCALE, **change}
        with pytest.raises(PSFError, match=words):
            PSFImages.from_arrays("F200W", **given)  # type: ignore[arg-type]

    def test_off_centre_by_a_pixel(self, sampled: Callable[..., Float]) -> None:
        with pytest.raises(PSFError, match=r"\+1\.00.*recenter"):
            PSFImages.from_arrays("F200W", sampled(gaussian(1.2, 1.0)), pixel_scale=SCALE)

    def test_files(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFileError, match="no such file"):
            read_psf_images(tmp_path / "none.fits")
        (tmp_path / "junk.fits").write_bytes(b"junk")
        with pytest.raises(PSFError, match="cannot be read"):
            read_psf_images(tmp_path / "junk.fits")
        hdu = fits.PrimaryHDU(np.ones((9, 9)))
        hdu.writeto(tmp_path / "bare.fits")
        with pytest.raises(PSFError, match="--band"):
            read_psf_images(tmp_path / "bare.fits")
        with pytest.raises(PSFError, match="--pixel-scale"):
            read_psf_images(tmp_path / "bare.fits", band="F200W")
        hdu.header["FILTER"] = "F090W"
        hdu.writeto(tmp_path / "other.fits")
        with pytest.raises(PSFError, match="is of F090W, not F200W"):
            read_psf_images(tmp_path / "other.fits", band="f200w")
