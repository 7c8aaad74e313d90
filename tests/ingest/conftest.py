"""A small JWST-like file, and copies of it with something changed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from astropy.io import fits

from fpgpu.demo.field import Field, make_field


@pytest.fixture(scope="session")
def field(tmp_path_factory) -> Field:
    """Two exposures of one band, 64 x 48 pixels: small, and not square."""
    folder = tmp_path_factory.mktemp("field")
    return make_field(folder, bands=("F200W",), n_per_band=2, size=(64, 48), n_sources=5)


@pytest.fixture(scope="session")
def cal_file(field) -> Path:
    """One exposure as the JWST pipeline writes it."""
    return field.files[0]


@pytest.fixture
def changed(cal_file, tmp_path) -> Callable[..., Path]:
    """Copy the file with a change made to its HDUs."""

    def copy(change: Callable[[fits.HDUList], object], name: str = "changed_cal.fits") -> Path:
        path = tmp_path / name
        with fits.open(cal_file) as hdus:
            change(hdus)
            hdus.writeto(path)
        return path

    return copy
