"""``fpgpu psf``: from files to a PSF store, its report and picture, and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from fpgpu.stores.psf import PSFStore
from tests.cli.conftest import Run


@pytest.fixture
def star(tmp_path: Path) -> Path:
    r2 = np.add.outer(np.arange(-15, 16) ** 2, np.arange(-15, 16) ** 2)
    hdu = fits.PrimaryHDU(np.exp(-r2 / (2 * 1.5**2)))
    hdu.header["FILTER"], hdu.header["PIXELSCL"] = "F200W", 0.031
    hdu.writeto(tmp_path / "star.fits")
    return tmp_path / "star.fits"


def test_a_store_a_report_and_a_picture(fpgpu_command: Run, star: Path, tmp_path: Path) -> None:
    out, look = tmp_path / "psf.h5", tmp_path / "look"
    told = fpgpu_command("psf", star, "--out", out, "--gaussians", 2, "--plot", look)
    assert told.code == 0, told.err
    assert "F200W" in told.out
    assert (tmp_path / "look_psf_F200W.png").stat().st_size > 10_000
    with PSFStore(out) as store:
        assert store.bands == ["F200W"]
        first = store.lookup("F200W")
    point = first[first["sersic_bin"] == 0]
    assert point["amp"].sum() == pytest.approx(1, abs=0.01)
    told = fpgpu_command("psf", star, "--out", out, "--gaussians", 1, "--json")
    assert json.loads(told.out)["bands"][0]["per_radius"] == [1] * 10


def test_profiles(fpgpu_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fpgpu.psf import profiles

    for name, values in (("RADII", [0, 0.1]), ("SERSIC", [1.0]), ("RHALF", [0.1, 0.2])):
        monkeypatch.setattr(profiles, name, np.array(values))
    told = fpgpu_command("psf", "profiles", "--out", tmp_path / "sersic.h5")
    assert told.code == 0, told.err
    assert "2 Sersic profiles of 2 Gaussians" in told.out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["psf", "STAR"], "is no PSF store: F090W holds no PSF mixtures"),
        (["psf", "profiles"], "exists and is no table of profiles"),
        (["ds9", "STORES"], "exists and is no region file"),
    ],
)
def test_no_other_file_is_ever_written_over(
    fpgpu_command: Run, star: Path, tiny_stores: Path, tmp_path: Path, words: list[str], why: str
) -> None:
    out = tmp_path / "pixels.h5"
    out.write_bytes((tiny_stores / "pixels.h5").read_bytes())
    places = {"STAR": star, "STORES": tiny_stores}
    told = fpgpu_command(*(places.get(word, word) for word in words), "--out", out)
    assert told.code == 2
    assert why in told.err
    assert out.read_bytes() == (tiny_stores / "pixels.h5").read_bytes()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--band", "F090W"], "is of F200W"),
        (["--max-error", "1e-9"], "were allowed"),
        (["--max-error", "nan"], "no share of the light"),
        (["--profiles", "none.h5"], "no such table"),
        (["profiles"], "takes no files"),
        (["--oversample", "9"], "pixels wide"),
    ],
)
def test_refusals_leave_no_store(
    fpgpu_command: Run, star: Path, tmp_path: Path, words: list[str], why: str
) -> None:
    told = fpgpu_command("psf", star, *words, "--out", tmp_path / "psf.h5", "-q")
    assert told.code == 2
    assert why in told.err
    assert not (tmp_path / "psf.h5").exists()
