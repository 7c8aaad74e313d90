"""Where the arrays of a patch lie, computed another way; and what the struct points at."""

import ctypes
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpgpu.backends.arena import Arena, ArenaLayout
from fpgpu.backends.cpu import CpuBackend
from fpgpu.errors import LayoutError
from fpgpu.layout import PATCH_ARRAYS, PATCH_DTYPE

COUNTS = {
    "n_pixels": st.integers(0, 2**31 - 1),
    "n_exp": st.integers(0, 2**15 - 1),
    "n_bands": st.integers(0, 30),
    "n_src": st.integers(0, 300),
    "n_radii": st.integers(0, 10),
    "n_psf": st.integers(0, 2**31 - 1),
}
LAYOUTS = st.builds(ArenaLayout, **COUNTS, residual=st.booleans())


def c_bytes(layout: ArenaLayout) -> dict[str, int]:
    """Bytes of every array, from the comments of forcepho's struct and C's own sizes."""
    pairs, real = layout.n_exp * layout.n_src, ctypes.sizeof(ctypes.c_float)
    whole, short = ctypes.sizeof(ctypes.c_int), ctypes.sizeof(ctypes.c_int16)
    pixels = dict.fromkeys(("data", "ierr", "xpix", "ypix"), real * layout.n_pixels)
    return {
        **pixels,
        "residual": real * layout.n_pixels * layout.residual,
        "exposure_start": whole * layout.n_exp,
        "exposure_N": whole * layout.n_exp,
        "band_start": short * layout.n_bands,
        "band_N": short * layout.n_bands,
        "rad2": real * layout.n_radii,
        "D": 4 * real * pairs,
        "crpix": 2 * real * pairs,
        "crval": 2 * real * pairs,
        "CW": 4 * real * pairs,
        "G": real * layout.n_exp,
        "n_psf_per_source": whole * layout.n_bands,
        "psfgauss": 28 * layout.n_psf,
        "psfgauss_start": whole * layout.n_exp,
    }


@given(LAYOUTS)
def test_sections_have_the_bytes_of_their_arrays(layout: ArenaLayout) -> None:
    assert {name: section.nbytes for name, section in layout.sections.items()} == c_bytes(layout)


@given(LAYOUTS)
def test_sections_are_aligned_and_follow_each_other(layout: ArenaLayout) -> None:
    end = 152
    for section in layout.sections.values():
        assert section.offset % 256 == 0
        assert 0 <= section.offset - end < 256
        end = section.offset + section.nbytes
    assert 0 <= layout.total_bytes - end < 256


@given(LAYOUTS)
def test_what_is_uploaded_is_a_prefix(layout: ArenaLayout) -> None:
    last = [name for name, s in layout.sections.items() if s.offset >= layout.meta_bytes]
    assert set(last) >= {"data", "ierr", "xpix", "ypix", "residual"}
    assert layout.meta_bytes <= layout.upload_bytes <= layout.total_bytes
    assert layout.sections["residual"].offset == layout.upload_bytes


def test_every_pointer_of_the_struct_has_a_section(golden: Path) -> None:
    struct = json.loads((golden / "struct_dtypes.json").read_text())["patch_struct_dtype"]
    pointers = {field["name"] for field in struct["fields"] if field["dtype"] == "<u8"}
    assert set(ArenaLayout(1, 1, 1, 1, 1, 1).sections) == pointers


@pytest.mark.parametrize(
    ("count", "most", "limit"),
    [
        ("n_pixels", 2**31 - 1, "int32 of exposure_start"),
        ("n_exp", 32767, "int16 of band_start"),
        ("n_bands", 30, "MAXBANDS"),
        ("n_src", 2**31 - 1, "the int32 of n_sources"),
        ("n_radii", 10, "MAXRADII"),
        ("n_psf", 2**31 - 1, "int32 of psfgauss_start"),
    ],
)
def test_limits_are_named(count: str, most: int, limit: str) -> None:
    counts = dict.fromkeys(COUNTS, 1)
    ArenaLayout(**counts | {count: most})
    for wrong in (most + 1, -1):
        with pytest.raises(LayoutError, match=rf"{count} = {wrong} .*{limit} allows 0 to {most}"):
            ArenaLayout(**counts | {count: wrong})


@pytest.mark.parametrize("residual", [True, False])
def test_the_struct_points_at_the_arrays(golden: Path, residual: bool) -> None:
    """Read as forcepho's CPU kernel does: from the address alone, at forcepho's own offsets."""
    fields = json.loads((golden / "struct_dtypes.json").read_text())["patch_struct_dtype"]["fields"]
    layout = ArenaLayout(128, 3, 2, 2, 5, 12, residual=residual)
    with Arena(CpuBackend(), layout) as arena:
        staging = np.zeros(layout.upload_bytes, np.uint8)
        views = layout.views(staging)
        for k, view in enumerate(views.values()):
            view.view(np.uint8)[...] = k + 1
        arena.upload(staging)
        for field in fields:
            name, address = field["name"], arena.pointer + field["offset"]
            if field["dtype"] != "<u8":
                number = ctypes.c_int32.from_address(address).value
                assert number == {"n_sources": 2, "n_radii": 5}[name]
                continue
            pointer = ctypes.c_uint64.from_address(address).value
            if name == "residual":
                assert (pointer != 0) == residual
                continue
            n_bytes = layout.sections[name].nbytes
            assert ctypes.string_at(pointer, n_bytes) == views[name].tobytes()
            section = arena.section(name)
            assert section.ctypes.data == pointer
            assert section.nbytes == n_bytes


def test_staging_views_have_the_shapes_of_the_struct() -> None:
    layout = ArenaLayout(128, 3, 2, 4, 5, 12)
    views = layout.views(np.zeros(layout.upload_bytes, np.uint8))
    assert {name: view.dtype for name, view in views.items()} == {
        name: dtype for name, dtype in PATCH_ARRAYS.items() if name != "residual"
    }
    assert views["D"].shape == views["CW"].shape == (3, 4, 2, 2)
    assert views["crpix"].shape == views["crval"].shape == (3, 4, 2)
    assert views["psfgauss"].shape == (12,)


@pytest.mark.parametrize(
    "buffer", [np.zeros(10, np.uint8), np.zeros(10**6, np.int8)], ids=["short", "dtype"]
)
def test_unfit_staging_buffers_are_refused(buffer: np.ndarray) -> None:
    with pytest.raises(LayoutError, match="cannot hold the metadata"):
        ArenaLayout(128, 3, 2, 4, 5, 12).views(buffer)


def test_the_struct_has_the_dtype_of_the_layout() -> None:
    with Arena(CpuBackend(), ArenaLayout(64, 1, 1, 1, 1, 1)) as arena:
        assert arena.struct.dtype == PATCH_DTYPE
        assert arena.struct.shape == ()
