"""Astrometry of a patch is that of astropy and gwcs at the same places, all at once."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fpgpu import MetaStore
from fpgpu.errors import WCSError
from fpgpu.patch.astrometry import WcsTable, local_astrometry, reference_position
from fpgpu.sky.sip import SipFit, fit_sip
from fpgpu.sky.wcs import SkyWCS
from fpgpu.stores.shard import write_shard
from tests.sky.made_wcs import sky_gwcs, tan_header
from tests.stores.metasets import meta_set, write_store
from tests.stores.shardsets import publish

SHAPE = (128, 96)


def header_wcs(**traits):
    return SkyWCS.from_header(tan_header(shape=SHAPE, **traits))


def table_of(*wcses):
    return WcsTable(wcses, [f"F200W/e{k}" for k in range(len(wcses))])


def pixel_steps(wcs, ra, dec):
    """CW and D at one place by astropy or gwcs alone: the sky at a pixel and at its neighbours."""
    pixel = np.array(wcs.world_to_pixel(ra, dec), float)
    native = wcs.native
    to_sky = native.all_pix2world if wcs.kind == "fits" else native
    there = [
        np.array(to_sky(*(pixel + step), *([0] if wcs.kind == "fits" else [])), float)
        for step in np.eye(2)
    ]
    sky_per_pixel = np.array([position - (ra, dec) for position in there]).T
    sky_per_pixel[0] = (sky_per_pixel[0] + 180) % 360 - 180
    CW = np.linalg.inv(sky_per_pixel)
    return pixel, CW, CW @ np.diag([1 / np.cos(np.deg2rad(dec)), 1]) / 3600


def assert_close(found, expected, tolerance=1e-6):
    scale = np.abs(expected).max(axis=(-1, -2), keepdims=True)
    assert (np.abs(found - expected) <= tolerance * scale).all()


def inner_places(wcs):
    """A few places on a detector, its corners among them."""
    x, y = np.array([[0, 0], [127, 95], [60.3, 41.7], [127.5, -0.5]]).T
    return wcs.pixel_to_world(x, y)


# --- forcepho's answers ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(golden):
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def golden_astrometry(golden, packed):
    sources = packed["sourcecat"]
    with MetaStore(golden / "tiny" / "meta.json") as meta:
        table = WcsTable.of_exposures(meta, [path.split("/", 1) for path in packed["epaths"]])
    reference = reference_position(sources["ra"], sources["dec"])
    return local_astrometry(table, sources["ra"], sources["dec"], reference)


def test_positions_relative_to_the_reference_have_forcephos_bits(golden_astrometry, packed):
    np.testing.assert_array_equal(golden_astrometry.crval.astype("f4"), packed["crval"])


def test_pixels_are_forcephos(golden_astrometry, packed):
    np.testing.assert_allclose(golden_astrometry.crpix, packed["crpix"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["D", "CW"])
def test_matrices_are_forcephos(golden_astrometry, packed, name):
    assert_close(getattr(golden_astrometry, name), packed[name])


def test_the_reference_is_forcephos(packed):
    sources = packed["sourcecat"]
    reference = reference_position(sources["ra"], sources["dec"])
    assert reference == tuple(packed["patch_reference_coordinates"])


# --- astropy and gwcs ------------------------------------------------------------------------

WCSES = {
    "sip": lambda **where: header_wcs(**where),
    "tan": lambda **where: header_wcs(sip=0, **where),
    "gwcs": lambda **where: SkyWCS.from_gwcs(sky_gwcs(shape=SHAPE, **where), SHAPE),
    "boxed gwcs": lambda **where: SkyWCS.from_gwcs(
        sky_gwcs(shape=SHAPE, bounding_box=((40, 80), (30, 60)), **where), SHAPE
    ),
}


@pytest.mark.parametrize("kind", ["sip", "tan", "gwcs"])
@pytest.mark.parametrize("place", [(53.16, -27.79), (0.0, 10.0), (210.0, 86.0), (3.0, -85.5)])
def test_pixels_and_matrices_are_those_of_the_native_wcs(kind, place):
    wcs = WCSES[kind](ra=place[0], dec=place[1])
    ra, dec = inner_places(wcs)
    found = local_astrometry(table_of(wcs), ra, dec, place)
    for k in range(len(ra)):
        pixel, CW, D = pixel_steps(wcs, ra[k], dec[k])
        np.testing.assert_allclose(found.crpix[0, k], pixel, rtol=0, atol=1e-4)
        assert_close(found.CW[0, k], CW)
        assert_close(found.D[0, k], D)


def test_a_bounding_box_makes_no_difference():
    place = 53.16, -27.79
    ra, dec = inner_places(WCSES["gwcs"]())
    boxed, unbounded = (
        local_astrometry(table_of(WCSES[kind]()), ra, dec, place) for kind in ("boxed gwcs", "gwcs")
    )
    for ours, theirs in zip(boxed, unbounded, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7)


@given(ra=st.floats(0, 360), dec=st.sampled_from([-90.0, -89.9999, -70.0, 12.0, 89.99, 90.0]))
@example(ra=0.0, dec=90.0)
def test_linear_maps_lead_from_pixel_to_pixel_everywhere_poles_too(ra, dec):
    wcs = header_wcs(ra=ra, dec=dec, sip=1e-7)
    here = wcs.pixel_to_world(np.array([60.0]), np.array([40.0]))
    found = local_astrometry(table_of(wcs), *here, (ra, dec))
    x, y = wcs.pixel_to_world(np.array([61.0, 60.0]), np.array([40.0, 41.0]))
    # Tangent plane at the source, by the cross product with the axis of the sphere.
    centre, *there = (
        np.array([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)])
        for a, d in np.deg2rad([[here[0][0], here[1][0]], [x[0], y[0]], [x[1], y[1]]])
    )
    a = np.deg2rad(here[0][0])
    east = np.array([-np.sin(a), np.cos(a), 0.0])
    north = np.cross(centre, east)
    step = np.array([[east @ v, north @ v] for v in there]).T / np.deg2rad(1 / 3600)
    np.testing.assert_allclose(found.D[0, 0] @ step, np.eye(2), atol=3e-4)


def test_at_a_pole_matrices_are_finite():
    wcs = header_wcs(dec=90.0)
    found = local_astrometry(table_of(wcs), np.array([120.0]), np.array([90.0]), (0.0, 90.0))
    assert np.isfinite(found.CW).all()
    # Pixels of 0.06 arcsec.
    assert np.abs(np.linalg.det(found.D)) == pytest.approx(1 / 0.06**2, rel=1e-3)


def test_pixels_follow_small_moves_of_a_source():
    wcs = header_wcs()
    place = np.array([53.16]), np.array([-27.79])
    found = local_astrometry(table_of(wcs), *place, (53.16, -27.79))
    move = np.array([2e-6, -3e-6])
    moved = wcs.native.all_world2pix([place[0][0] + move[0]], [place[1][0] + move[1]], 0)
    np.testing.assert_allclose(
        found.crpix[0, 0] + found.CW[0, 0] @ move, np.ravel(moved), rtol=0, atol=1e-4
    )


# --- many at once ----------------------------------------------------------------------------


def test_exposures_and_sources_together_are_as_one_by_one():
    arc = tan_header(shape=SHAPE, sip=0)
    arc["CTYPE1"], arc["CTYPE2"] = "RA---ARC", "DEC--ARC"
    wcses = [
        SipFit.from_wcs(header_wcs()),
        SkyWCS.from_header(arc),
        WCSES["gwcs"](),
        SipFit.from_wcs(header_wcs(angle=200.0, sip=0)),
    ]
    ra, dec = inner_places(wcses[0])
    together = local_astrometry(table_of(*wcses), ra, dec, (53.0, -27.0))
    for e, wcs in enumerate(wcses):
        for s in range(len(ra)):
            alone = local_astrometry(table_of(wcs), ra[s : s + 1], dec[s : s + 1], (53.0, -27.0))
            for many, one in zip(together, alone, strict=True):
                np.testing.assert_allclose(many[e, s], one[0, 0], rtol=1e-9, atol=1e-8)


def test_no_sources_and_no_exposures_give_empty_arrays():
    none = np.empty(0)
    assert local_astrometry(table_of(header_wcs()), none, none, (0, 0)).CW.shape == (1, 0, 2, 2)
    assert local_astrometry(table_of(), np.ones(3), np.ones(3), (0, 0)).D.shape == (0, 3, 2, 2)


# --- the reference ---------------------------------------------------------------------------


def test_a_scene_over_ra_0_has_its_reference_inside_and_small_offsets():
    ra, dec = np.array([359.9999, 0.0001, 0.0003]), np.zeros(3)
    reference = reference_position(ra, dec)
    assert reference == pytest.approx((0.0001, 0.0), abs=1e-12)
    wcs = header_wcs(ra=0.0, dec=0.0)
    crval = local_astrometry(table_of(wcs), ra, dec, reference).crval
    np.testing.assert_allclose(crval[0, :, 0], [-0.0002, 0, 0.0002], atol=1e-12)


@given(offsets=st.lists(st.floats(-0.01, 0.01), min_size=1, max_size=9), centre=st.floats(0, 360))
def test_the_reference_is_the_median_wherever_ra_begins(offsets, centre):
    ra = np.mod(centre + np.array(offsets), 360.0)
    found, _ = reference_position(ra, np.zeros(len(ra)))
    assert 0 <= found < 360
    difference = (found - centre - np.median(offsets) + 180) % 360 - 180
    assert abs(difference) < 1e-9


# --- from a store ----------------------------------------------------------------------------


def committed(folder, imset):
    """Make a store folder of one exposure, which keeps its refit; return where its headers are."""
    imset.im = imset.ierr = np.ones(SHAPE, "f4")
    imset.mask = imset.bkg = imset.names = None
    publish(folder, [write_shard(folder, imset, shape=SHAPE)])
    return folder / "meta.json"


@pytest.mark.parametrize("with_refit", [True, False])
def test_the_gwcs_is_used_when_asked_for_by_a_refit_stored_or_made(tmp_path, with_refit):
    gwcs = sky_gwcs(shape=SHAPE)
    exact = SkyWCS.from_gwcs(gwcs, SHAPE)
    refit = fit_sip(exact, SHAPE, tolerance=1e-6) if with_refit else None
    shifted = meta_set(gwcs=gwcs, sip=refit, shape=SHAPE, ra=53.1601)
    path = committed(tmp_path, shifted)
    ra, dec = inner_places(exact)
    with MetaStore(path, use_gwcs=True) as meta, MetaStore(path) as plain:
        by_gwcs, again = (WcsTable.of_exposures(meta, [("F200W", "e1")]) for _ in range(2))
        by_header = WcsTable.of_exposures(plain, [("F200W", "e1")])
    x, y = by_gwcs.world_to_pixel(ra, dec)
    np.testing.assert_allclose([x[0], y[0]], exact.world_to_pixel(ra, dec), rtol=0, atol=1e-5)
    assert np.abs(by_header.world_to_pixel(ra, dec)[0] - x).max() > 1
    assert isinstance(by_gwcs.solutions[0], SipFit)
    assert again is by_gwcs


def test_a_refit_that_is_too_coarse_is_not_used(tmp_path):
    exact = SkyWCS.from_gwcs(sky_gwcs(shape=SHAPE), SHAPE)
    refit = fit_sip(exact, SHAPE)
    object.__setattr__(refit, "residual", 5e-4)
    path = committed(tmp_path, meta_set(gwcs=exact.native, sip=refit, shape=SHAPE))
    with MetaStore(path, use_gwcs=True) as meta:
        assert isinstance(WcsTable.of_exposures(meta, [("F200W", "e1")]).solutions[0], SkyWCS)


def test_a_wcs_put_in_by_hand_is_used_instead_of_the_refit(tmp_path):
    exact = SkyWCS.from_gwcs(sky_gwcs(shape=SHAPE), SHAPE)
    imset = meta_set(gwcs=exact.native, sip=fit_sip(exact, SHAPE), shape=SHAPE)
    path = write_store(tmp_path / "meta.json", imset)
    moved = sky_gwcs(shape=SHAPE, ra=53.1601)
    with MetaStore(path, use_gwcs=True) as meta:
        meta.wcs["F200W"]["e1"] = moved
        table = WcsTable.of_exposures(meta, [("F200W", "e1")])
    ra, dec = SkyWCS.from_gwcs(moved, SHAPE).pixel_to_world(np.array([10.0]), np.array([20.0]))
    np.testing.assert_allclose(np.squeeze(table.world_to_pixel(ra, dec)), [10, 20], atol=1e-6)


def test_a_wcs_that_replaces_another_is_used_from_then_on(tmp_path):
    path = write_store(tmp_path / "meta.json", meta_set(shape=SHAPE))
    with MetaStore(path) as meta:
        WcsTable.of_exposures(meta, [("F200W", "e1")])
        meta.wcs["F200W"]["e1"] = header_wcs(ra=53.1601).native
        table = WcsTable.of_exposures(meta, [("F200W", "e1")])
    ra, dec = header_wcs(ra=53.1601).pixel_to_world(np.array([10.0]), np.array([20.0]))
    np.testing.assert_allclose(np.squeeze(table.world_to_pixel(ra, dec)), [10, 20], atol=1e-6)


def test_the_table_of_the_same_exposures_is_remembered(tmp_path):
    sets = [meta_set(expID, shape=SHAPE) for expID in ("e1", "e2")]
    with MetaStore(write_store(tmp_path / "meta.json", *sets)) as meta:
        both = [("F200W", "e1"), ("F200W", "e2")]
        table = WcsTable.of_exposures(meta, both)
        assert WcsTable.of_exposures(meta, both[::-1]) is not table
        assert WcsTable.of_exposures(meta, both[:1]) is not table
        assert WcsTable.of_exposures(meta, both) is table
        meta.wcs["F200W"]["e2"] = header_wcs(ra=53.1601).native
        assert WcsTable.of_exposures(meta, both) is not table


# --- sources without a pixel -----------------------------------------------------------------


def test_a_source_beyond_the_edge_is_no_error():
    wcs = header_wcs()
    ra, dec = wcs.pixel_to_world(np.array([-300.0]), np.array([500.0]))
    found = local_astrometry(table_of(wcs), ra, dec, (53.16, -27.79))
    np.testing.assert_allclose(found.crpix[0, 0], [-300, 500], atol=1e-6)


def test_a_source_on_the_other_side_of_the_sky_is_refused():
    table = table_of(header_wcs(), header_wcs())
    message = r"source 1 at ra 233\.160000, dec 27\.790000 has no pixel .* F200W/e0; take it out"
    with pytest.raises(WCSError, match=message):
        local_astrometry(table, np.array([53.16, 233.16]), np.array([-27.79, 27.79]), (0, 0))
