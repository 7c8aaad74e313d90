"""Names of bands and exposures: what is refused, and that the rest is safe as a path."""

import string
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpgpu import EXP_FMT
from fpgpu.errors import ExposureNameError
from fpgpu.stores.names import NameTree, check_band, check_expID, check_no_collision

components = st.text(string.ascii_letters + string.digits + "._-+", min_size=1, max_size=12).filter(
    lambda c: c not in {".", "..", "data"}
)
exposure_names = st.lists(components, min_size=1, max_size=4).map("/".join)


def test_key_format_is_forcephos():
    assert EXP_FMT.format("F200W", "sub/e1") == "F200W/sub/e1"


@pytest.mark.parametrize("name", ["F200W", "CLEAR", "F444WA", "f200w", "F200W;N", "f-1.b", "λ"])
def test_usual_bands_are_accepted(name):
    assert check_band(name) == name


@pytest.mark.parametrize("name", ["e1", "visit1/e1", "a/b/c", "jw01180_nrca1.cal", "my exp", "é"])
def test_usual_exposures_are_accepted(name):
    assert check_expID(name) == name


def test_numpy_strings_become_plain_ones():
    assert type(check_expID(np.str_("e1"))) is str


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (None, "must be a string"),
        (b"e1", "must be a string"),
        (7, "must be a string"),
        (".", "leave its place"),
        ("..", "leave its place"),
        (" e1", "blanks"),
        ("e1\t", "blanks"),
        ("e\0b", "control"),
        ("e\nb", "control"),
        ("a\\b", "backslash"),
        ("\ud800", "UTF-8"),
        ("x" * 256, "256 bytes"),
        ("é" * 128, "256 bytes"),
    ],
)
def test_both_kinds_of_name_refuse(name, why):
    for check in (check_band, check_expID):
        with pytest.raises(ExposureNameError, match=why):
            check(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/abs", "absolute"),
        ("/", "absolute"),
        ("a//b", "empty component"),
        ("a/", "empty component"),
        ("a/../b", "leave its place"),
        ("../b", "leave its place"),
        ("a/./b", "leave its place"),
        ("a/ b", "blanks"),
        ("a/" + "x" * 256, "256 bytes"),
        ("data", "dataset"),
        ("sub/data", "dataset"),
    ],
)
def test_exposures_refuse(name, why):
    with pytest.raises(ExposureNameError, match=why):
        check_expID(name)


def test_a_band_may_not_hold_a_slash():
    with pytest.raises(ExposureNameError, match=r"'F200W/x' holds a slash.*F200W"):
        check_band("F200W/x")


def test_the_longest_component_is_accepted():
    assert check_expID("x" * 255 + "/" + "y" * 255)


@given(exposure_names)
def test_accepted_names_are_relative_paths_that_stay_inside(name):
    path = PurePosixPath(check_expID(name))
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert str(path) == name


@given(st.text())
def test_whatever_comes_is_accepted_as_it_is_or_refused(name):
    try:
        accepted = check_expID(name)
    except ExposureNameError:
        return
    assert accepted == name
    assert str(PurePosixPath("/store") / accepted) == "/store/" + name


@given(exposure_names, st.sets(exposure_names, max_size=6))
def test_collision_means_one_path_encloses_another(name, existing):
    path = PurePosixPath(name)
    collides = any(
        PurePosixPath(other) in path.parents or path in PurePosixPath(other).parents
        for other in existing
    )
    if collides:
        with pytest.raises(ExposureNameError, match="rename one"):
            check_no_collision(name, existing)
    else:
        check_no_collision(name, existing)


@given(exposure_names, components)
def test_enclosing_and_enclosed_exposures_collide_both_ways(name, inner):
    nested = f"{name}/{inner}"
    with pytest.raises(ExposureNameError, match="inside"):
        check_no_collision(nested, {name})
    with pytest.raises(ExposureNameError, match="enclose"):
        check_no_collision(name, {nested})


@given(exposure_names)
def test_replacing_an_exposure_is_no_collision(name):
    check_no_collision(name, {name, name + "x", "x" + name})


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)))
def test_a_tree_of_names_says_what_the_plain_check_says(names):
    tree, taken = NameTree([]), []
    for name in names:
        try:
            check_no_collision(name, taken)
        except ExposureNameError as exc:
            how = "enclose" if "enclose" in str(exc) else "inside"
            with pytest.raises(ExposureNameError, match=f"'{name}' would.*{how}"):
                tree.add(name)
        else:
            tree.add(name)
            taken.append(name)
