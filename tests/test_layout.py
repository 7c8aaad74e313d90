"""The binary interface equals forcepho's, and its generated assertions say so of the C side."""

import json
from pathlib import Path

import numpy as np
import pytest

from fpgpu import layout

FORCEPHO_STRUCTS = {
    "patch_struct_dtype": layout.PATCH_DTYPE,
    "source_struct_dtype": layout.SOURCE_DTYPE,
    "response_struct_dtype": layout.RESPONSE_DTYPE,
    "PSF_DTYPE": layout.PSF_DTYPE,
}


@pytest.fixture(scope="module")
def forcepho(golden: Path) -> dict:
    return json.loads((golden / "struct_dtypes.json").read_text())


@pytest.mark.parametrize("name", FORCEPHO_STRUCTS)
def test_structs_have_forcephos_sizes_offsets_and_types(name, forcepho):
    ours, theirs = FORCEPHO_STRUCTS[name], forcepho[name]
    assert ours.itemsize == theirs["itemsize"]
    assert list(ours.names) == [field["name"] for field in theirs["fields"]]
    for field in theirs["fields"]:
        dtype, offset = ours.fields[field["name"]][:2]
        assert offset == field["offset"]
        assert (dtype.base.str, list(dtype.shape)) == (field["dtype"], field["shape"])


def test_sizes_are_those_of_the_compiled_structs():
    sizes = [dtype.itemsize for dtype in FORCEPHO_STRUCTS.values()]
    assert sizes == [152, 264, 840, 28]


def test_limits_are_forcephos(forcepho):
    limits = forcepho["kernel_limits"]
    assert limits == {name: getattr(layout, name) for name in limits}


def test_every_pointer_of_the_patch_has_a_known_target():
    pointers = [n for n in layout.PATCH_DTYPE.names if layout.PATCH_DTYPE[n] == np.uint64]
    assert pointers == list(layout.PATCH_ARRAYS)


def test_checks_cover_every_field_and_constant():
    checks = layout.layout_checks()
    for struct, dtype in layout.C_STRUCTS.items():
        assert f"sizeof({struct}) == {dtype.itemsize}" in checks
        for field in dtype.names:
            assert f'"offset of {struct}::{field}"' in checks
            assert f'"type of {struct}::{field}"' in checks or (struct, field) in UNTYPED
    for name in layout.C_CONSTANTS:
        assert f"static_assert({name} == " in checks


# Pointers of fpgpu's own tables and 64-bit integers: only their size is fixed.
UNTYPED = {
    (struct, field)
    for struct, dtype in layout.C_STRUCTS.items()
    for field in dtype.names
    if dtype[field] == np.uint64 and struct != "Patch"
}
