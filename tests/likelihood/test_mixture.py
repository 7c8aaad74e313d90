"""Sersic mixtures: what stands in a table, and what a spline through it must give."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu.errors import CatalogError, LayoutError, MissingStoreError, StoreFormatError
from fpgpu.layout import MAXRADII
from fpgpu.likelihood.mixture import SersicMixture

Float = npt.NDArray[np.float64]

SERSIC = np.array([0.8, 1.0, 1.5, 2.0, 3.0, 4.5])
RHALF = np.array([0.0, 0.1, 0.15, 0.3, 0.5])
RADII = np.array([0.0, 0.1, 0.4])


def cubic(n: Any, r: Any) -> Any:
    """A bicubic polynomial for each radius, which a bicubic spline reproduces."""
    return np.stack([n**3 * r**3 - n * r + 1, n**2 + r**3, 0.5 - n**3 + n * r**2], axis=-1)


def cubic_d_sersic(n: Any, r: Any) -> Any:
    return np.stack([3 * n**2 * r**3 - r, 2 * n, -3 * n**2 + r**2], axis=-1)


def cubic_d_rhalf(n: Any, r: Any) -> Any:
    return np.stack([3 * n**3 * r**2 - n, 3 * r**2, 2 * n * r], axis=-1)


@pytest.fixture(scope="module")
def mixture() -> SersicMixture:
    return SersicMixture(SERSIC, RHALF, cubic(SERSIC[:, None], RHALF), RADII)


def write_table(path: Path, **changes: Any) -> Path:
    """Write a table as forcepho does: one row a model; None leaves a dataset out."""
    n, r = (grid.ravel() for grid in np.meshgrid(SERSIC, RHALF, indexing="ij"))
    values = {"nsersic": n, "rh": r, "amplitudes": cubic(n, r), "radii": RADII, **changes}
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if value is not None:
                file[name] = value
    return path


@settings(deadline=None)
@given(n=st.floats(0.8, 4.5), r=st.floats(0.0, 0.5))
def test_amplitudes_and_derivatives_are_those_of_a_bicubic_spline(n: float, r: float) -> None:
    mixture = SersicMixture(SERSIC, RHALF, cubic(SERSIC[:, None], RHALF), RADII)
    found = mixture.evaluate([n], [r])
    at = np.array([n]), np.array([r])
    np.testing.assert_allclose(found.amplitudes, cubic(*at), atol=1e-9)
    np.testing.assert_allclose(found.d_sersic, cubic_d_sersic(*at), atol=1e-8)
    np.testing.assert_allclose(found.d_rhalf, cubic_d_rhalf(*at), atol=1e-8)


def test_many_sources_are_interpolated_at_once(mixture: SersicMixture) -> None:
    n, r = np.linspace(0.8, 4.5, 50), np.linspace(0.5, 0.0, 50)
    found = mixture.evaluate(n, r)
    assert found.amplitudes.shape == found.d_sersic.shape == found.d_rhalf.shape == (50, 3)
    np.testing.assert_allclose(found.amplitudes, cubic(n, r), atol=1e-9)


def test_no_source_has_no_amplitudes(mixture: SersicMixture) -> None:
    assert mixture.evaluate([], []).amplitudes.shape == (0, 3)


@pytest.mark.parametrize(
    ("sersic", "rhalf", "message"),
    [
        (0.79, 0.1, "source 1: sersic 0.79 is outside the table of mixtures, 0.8 to 4.5"),
        (4.6, 0.1, "source 1: sersic 4.6"),
        (np.nan, 0.1, "source 1: sersic nan"),
        (1.0, -0.01, "source 1: rhalf -0.01 is outside the table of mixtures, 0 to 0.5"),
        (1.0, 0.51, "1 of 2 sources are"),
    ],
)
def test_nothing_is_extrapolated(
    mixture: SersicMixture, sersic: float, rhalf: float, message: str
) -> None:
    with pytest.raises(CatalogError, match=message):
        mixture.evaluate([1.0, sersic], [0.1, rhalf])


def test_tables_of_whole_numbers_are_interpolated_as_any_other() -> None:
    n, r = np.arange(1, 6), np.arange(5)
    whole = SersicMixture(n, r, cubic(n[:, None], r).round().astype(int), [0, 1, 2])
    floats = SersicMixture(n * 1.0, r * 1.0, cubic(n[:, None], r).round(), [0.0, 1.0, 2.0])
    for found, expected in zip(whole.evaluate(2, 3), floats.evaluate(2.0, 3.0), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert whole.rad2.tolist() == [0, 1, 4]
    with pytest.raises(LayoutError, match="rhalf must be at least 4 increasing values"):
        SersicMixture(n, r[::-1].astype(np.uint8), whole._table, whole.radii)


def test_a_mixture_may_be_of_one_radius_and_of_as_many_as_kernels_take() -> None:
    for n_radii in (1, MAXRADII):
        table = np.ones((len(SERSIC), len(RHALF), n_radii))
        found = SersicMixture(SERSIC, RHALF, table, np.arange(n_radii)).evaluate(1.0, 0.1)
        assert found.amplitudes.shape == (1, n_radii)
        np.testing.assert_allclose(found.amplitudes, 1.0, atol=1e-12)


def test_a_mixture_is_broadcast_over_sources_of_one_size(mixture: SersicMixture) -> None:
    one = mixture.evaluate([1.0, 2.0, 3.0], 0.2)
    np.testing.assert_array_equal(
        one.amplitudes, mixture.evaluate([1.0, 2.0, 3.0], [0.2] * 3).amplitudes
    )


def test_rad2_is_the_square_of_the_radii(mixture: SersicMixture) -> None:
    assert mixture.n_radii == 3
    assert mixture.rad2.dtype == np.float32
    np.testing.assert_array_equal(mixture.rad2, np.array([0, 0.01, 0.16], np.float32))


def test_a_table_is_read_in_any_order_of_its_rows(tmp_path: Path) -> None:
    n, r = (grid.ravel() for grid in np.meshgrid(SERSIC, RHALF, indexing="ij"))
    order = np.random.default_rng(1).permutation(len(n))
    path = write_table(
        tmp_path / "t.h5", nsersic=n[order], rh=r[order], amplitudes=cubic(n, r)[order]
    )
    read = SersicMixture.from_file(path)
    assert read.sersic_range == (0.8, 4.5)
    assert read.rhalf_range == (0.0, 0.5)
    np.testing.assert_allclose(read.evaluate(2.2, 0.2).amplitudes[0], cubic(2.2, 0.2), atol=1e-9)


REFUSED_TABLES: list[tuple[dict[str, Any], str]] = [
    ({"radii": None}, "no radii; expected forcepho's table"),
    ({"rh": np.zeros(30)}, "30 points are no full grid of 6 Sersic indices and 1 radii"),
    ({"rh": np.zeros(7)}, r"rh \(7,\).*expected nsersic \(n,\)"),
    ({"radii": np.zeros(2)}, r"amplitudes have shape \(6, 5, 3\); expected \(6, 5, 2\)"),
    ({"radii": np.array([0, 1, np.nan])}, "radii hold values that are not finite"),
    ({"radii": np.array([0, 1, -1.0])}, "radii hold -1.0"),
    ({"amplitudes": np.full((30, 3), np.inf)}, "amplitudes hold values that are not finite"),
    ({"amplitudes": "text"}, "amplitudes: expected a dataset of numbers$"),
    ({"radii": np.array([True, False, True])}, "radii: expected a dataset of numbers$"),
    ({"nsersic": None, "rh": None}, "no nsersic, rh; expected forcepho's table of Sersic mixtures"),
    ({"amplitudes": np.zeros((30, 11)), "radii": np.zeros(11)}, "mixture of 11 radii"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED_TABLES)
def test_a_file_that_is_no_table_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_table(tmp_path / "table.h5", **changes)
    with pytest.raises(StoreFormatError, match=rf"table\.h5.*{message}"):
        SersicMixture.from_file(path)


def test_rows_that_come_twice_are_no_grid(tmp_path: Path) -> None:
    n, r = (grid.ravel() for grid in np.meshgrid(SERSIC, RHALF, indexing="ij"))
    r[1] = r[0]
    with pytest.raises(StoreFormatError, match="not finite"):
        SersicMixture.from_file(write_table(tmp_path / "t.h5", rh=r, amplitudes=cubic(n, r)))


def test_a_group_in_place_of_a_dataset_is_no_table(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.h5", rh=None)
    with h5py.File(path, "a") as file:
        file.create_group("rh")
    with pytest.raises(StoreFormatError, match=r"table\.h5/rh: expected a dataset of numbers$"):
        SersicMixture.from_file(path)


def test_garbage_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "garbage.h5").write_bytes(b"not HDF5" * 100)
    with pytest.raises(StoreFormatError, match=r"garbage\.h5"):
        SersicMixture.from_file(tmp_path / "garbage.h5")
    with pytest.raises(MissingStoreError, match=r"missing\.h5: no such table .*; check the path$"):
        SersicMixture.from_file(tmp_path / "missing.h5")


@pytest.mark.parametrize("axis", ["sersic", "rhalf"])
def test_an_axis_must_increase_and_be_long_enough_for_a_cubic(axis: str) -> None:
    axes: dict[str, Float] = {"sersic": SERSIC, "rhalf": RHALF}
    for bad in (axes[axis][:3], axes[axis][::-1]):
        grid = {**axes, axis: bad}
        table = cubic(grid["sersic"][:, None], grid["rhalf"])
        with pytest.raises(LayoutError, match=f"{axis} must be at least 4 increasing values"):
            SersicMixture(**grid, amplitudes=table, radii=RADII)


def test_the_spline_goes_through_every_point_of_forcephos_table(shared_data: Path) -> None:
    path = shared_data / "forcepho" / "sersic_splinedata.h5"
    mixture = SersicMixture.from_file(path)
    with h5py.File(path, "r") as file:
        n, r, amplitudes = (file[name][()] for name in ("nsersic", "rh", "amplitudes"))
    np.testing.assert_allclose(mixture.evaluate(n, r).amplitudes, amplitudes, rtol=0, atol=1e-12)
