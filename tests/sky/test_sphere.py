"""Directions on the sphere: exact at any distance and everywhere."""

import lsst.sphgeom as sphgeom
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpgpu.sky.sphere import (
    angle_between,
    chord,
    positions,
    separation,
    tangent_basis,
    tangent_coordinates,
    unit_vectors,
)

RA = st.floats(0, 360, exclude_max=True)
DEC = st.floats(-90, 90)


@given(ra=RA, dec=DEC)
def test_unit_vectors_are_those_of_sphgeom(ra: float, dec: float) -> None:
    truth = sphgeom.UnitVector3d(sphgeom.LonLat.fromDegrees(ra, dec))
    assert unit_vectors(ra, dec) == pytest.approx([truth.x(), truth.y(), truth.z()], abs=4e-16)


@given(ra=RA, dec=st.floats(-89.9, 89.9))
def test_positions_undo_unit_vectors(ra: float, dec: float) -> None:
    back = positions(unit_vectors(ra, dec))
    assert back[1] == pytest.approx(dec, abs=1e-12)
    assert (back[0] - ra + 180) % 360 - 180 == pytest.approx(0, abs=1e-10)
    assert 0 <= back[0] < 360


def test_right_ascension_just_below_zero_is_not_360() -> None:
    ra, _ = positions([1.0, -1e-300, 0.0])
    assert ra == 0.0


@pytest.mark.parametrize("tiny", [1e-13, 1e-9, 1e-4])
@pytest.mark.parametrize("dec", [0.0, 45.0, -89.999999])
def test_separation_along_a_meridian_is_exact_at_any_size(dec: float, tiny: float) -> None:
    step = np.float64(dec + tiny) - dec  # what float64 makes of it
    assert separation(10.0, dec, 10.0, dec + tiny) == pytest.approx(step, rel=1e-12)


def test_separation_along_the_equator_across_ra_zero() -> None:
    # To the rounding of a right ascension near 360.
    assert separation(360.0 - 1e-9, 0.0, 1e-9, 0.0) == pytest.approx(2e-9, abs=6e-14)


def test_separation_of_antipodes_and_of_poles() -> None:
    assert separation(12.0, 34.0, 192.0, -34.0) == pytest.approx(180.0, abs=1e-13)
    assert separation(0.0, 90.0, 77.0, -90.0) == pytest.approx(180.0, abs=1e-13)
    assert separation(0.0, 90.0, 77.0, 90.0) == pytest.approx(0.0, abs=1e-13)


@given(ra1=RA, dec1=DEC, ra2=RA, dec2=DEC)
def test_separation_agrees_with_sphgeom_and_with_the_angle_of_vectors(
    ra1: float, dec1: float, ra2: float, dec2: float
) -> None:
    ours = separation(ra1, dec1, ra2, dec2)
    first, second = (sphgeom.LonLat.fromDegrees(*p) for p in ((ra1, dec1), (ra2, dec2)))
    vectors = sphgeom.UnitVector3d(first), sphgeom.UnitVector3d(second)
    dot, cross = vectors[0].dot(vectors[1]), vectors[0].cross(vectors[1]).getNorm()
    assert ours == pytest.approx(np.rad2deg(np.arctan2(cross, dot)), abs=1e-10)
    angle = angle_between(unit_vectors(ra1, dec1), unit_vectors(ra2, dec2))
    assert ours == pytest.approx(np.rad2deg(angle), abs=1e-10)


@given(ra=RA, dec=DEC)
def test_tangent_basis_is_orthonormal_and_right_handed(ra: float, dec: float) -> None:
    centre = unit_vectors(ra, dec)
    axes = np.stack([*tangent_basis(centre), centre])
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-15)
    assert np.linalg.det(axes) == pytest.approx(1.0, abs=1e-14)


def test_at_a_pole_north_and_east_are_those_of_the_meridian_of_ra_zero() -> None:
    east, north = tangent_basis(np.array([0.0, 0.0, 1.0]))
    assert east.tolist() == [0, 1, 0]
    assert north.tolist() == [-1, 0, 0]


def test_tangent_coordinates_are_tangents_of_angles_towards_east_and_north() -> None:
    centre = unit_vectors(30.0, 0.0)
    xi, eta = tangent_coordinates(unit_vectors([30.0, 75.0], [60.0, 0.0]), centre)
    assert xi == pytest.approx([0.0, 1.0])
    assert eta == pytest.approx([np.sqrt(3.0), 0.0])


def test_chords_end_at_the_antipode() -> None:
    angles = [0.0, 1e-9, np.pi / 3, np.pi, 4.0, 1e9]
    assert chord(angles) == pytest.approx([0.0, 1e-9, 1.0, 2.0, 2.0, 2.0], rel=1e-12)


def test_the_far_hemisphere_has_no_tangent_coordinates() -> None:
    xi, eta = tangent_coordinates(unit_vectors([121.0], [0.0]), unit_vectors(30.0, 0.0))
    assert np.isnan(xi).all()
    assert np.isnan(eta).all()
