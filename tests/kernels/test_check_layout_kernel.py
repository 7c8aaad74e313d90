"""check_layout reads a patch through the C struct and sees what the NumPy side wrote."""

import numpy as np
import pytest

from fpgpu.backends import reference
from fpgpu.layout import PATCH_ARRAYS, PATCH_DTYPE, SEEN_DTYPE
from tests.kernels import calls
from tests.kernels.host_kernels import Guarded, HostKernels, aligned

# The others say where and how long these are.
PIXELS_AND_METADATA = ["data", "ierr", "xpix", "ypix", "residual", "rad2", "D", "crpix", "crval"]
PIXELS_AND_METADATA += ["CW", "G", "psfgauss"]


@pytest.fixture
def arrays(golden):
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as patch:
        return {name: aligned(patch[name].astype(t)) for name, t in PATCH_ARRAYS.items()}


def make_patch(arrays, n_sources=3, n_radii=9):
    patch = np.zeros((), PATCH_DTYPE)
    for name, array in arrays.items():
        patch[name] = 0 if array is None else array.ctypes.data
    patch["n_sources"], patch["n_radii"] = n_sources, n_radii
    return patch


def look_at(host, patch, n_bands):
    seen = Guarded((20,), SEEN_DTYPE)
    host.run(*calls.check_layout(patch, n_bands, seen.address))
    seen.check()
    return dict(zip(PATCH_DTYPE.names, seen.array, strict=True))


def test_sees_every_field_and_array_of_forcephos_patch(host: HostKernels, arrays):
    patch = make_patch(arrays)
    seen = look_at(host, patch, n_bands=3)
    expected = reference.check_layout(patch, arrays)
    for name, theirs in zip(PATCH_DTYPE.names, expected, strict=True):
        assert seen[name] == theirs, name
    assert seen["data"]["count"] == 34752
    assert seen["psfgauss"]["count"] == 648


def test_a_null_residual_is_seen_as_no_elements(host: HostKernels, arrays):
    arrays["residual"] = None
    patch = make_patch(arrays)
    seen = look_at(host, patch, n_bands=3)
    assert tuple(seen["residual"]) == (0, 0, 0, 0, 0)
    assert seen["ypix"] == reference.check_layout(patch, arrays)[3]


@pytest.mark.parametrize("name", PIXELS_AND_METADATA)
def test_one_changed_element_changes_the_checksum(host: HostKernels, arrays, name):
    before = look_at(host, make_patch(arrays), n_bands=3)[name]
    flat = arrays[name].reshape(-1)
    flat[-1] = 2 * flat[-1] if name == "G" else flat[np.flatnonzero(flat != flat[-1])[0]]
    after = look_at(host, make_patch(arrays), n_bands=3)[name]
    assert after["checksum"] != before["checksum"]
    assert after["count"] == before["count"]


def test_two_exchanged_elements_change_the_checksum(host: HostKernels, arrays):
    before = look_at(host, make_patch(arrays), n_bands=3)["data"]
    arrays["data"][[10, 20]] = arrays["data"][[20, 10]]
    after = look_at(host, make_patch(arrays), n_bands=3)["data"]
    assert after["checksum"] != before["checksum"]


def test_exchanged_pointers_are_noticed(host: HostKernels, arrays):
    patch = make_patch(arrays)
    patch["D"], patch["CW"] = arrays["CW"].ctypes.data, arrays["D"].ctypes.data
    seen = look_at(host, patch, n_bands=3)
    expected = reference.check_layout(make_patch(arrays), arrays)
    fields = list(PATCH_DTYPE.names)
    assert seen["D"]["checksum"] != expected[fields.index("D")]["checksum"]
    assert seen["D"]["checksum"] == expected[fields.index("CW")]["checksum"]
