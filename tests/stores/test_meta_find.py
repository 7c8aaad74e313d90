"""Which exposures cover a place: compared with the pixel that each WCS gives."""

import json

import numpy as np
import pytest
from astropy.wcs import WCS

from fpgpu import CircularRegion, MetaStore, PolygonRegion
from fpgpu.errors import NotInStoreError, RegionError
from tests.stores.metasets import CENTRE, meta_set

SHAPE = (128, 48)  # long, so that x and y cannot be mistaken for each other
SCALE = 1.0 / 3600


def covers(header, positions):
    """Which positions fall on a pixel, by astropy's own inversion."""
    x, y = WCS(header).all_world2pix(*np.transpose(positions), 0, quiet=True)
    nx, ny = header["NAXIS1"], header["NAXIS2"]
    return (x >= -0.5) & (x <= nx - 0.5) & (y >= -0.5) & (y <= ny - 0.5)


def about_golden(n, seed):
    return np.array([53.16, -27.79]) + np.random.default_rng(seed).uniform(-1e-3, 1e-3, (n, 2))


def store_of(*sets):
    store = MetaStore()
    for imset in sets:
        store.add_exposure(imset)
    return store


PLACES = {
    "ordinary": CENTRE,
    "RA wrap": (0.0, 12.0),
    "just below RA wrap": (359.99, -60.0),
    "north pole": (77.0, 90.0),
    "beside the north pole": (180.0, 89.995),
    "south pole": (200.0, -89.99),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", [SHAPE, SHAPE[::-1]])
def test_answers_equal_the_pixel_test_everywhere_on_the_sky(place, shape):
    ra, dec = PLACES[place]
    sets = [
        meta_set(f"e{i}", ra=ra, dec=dec, shape=shape, scale=1.0, sip=0, angle=angle)
        for i, angle in enumerate((0, 35, 160))
    ]
    store = store_of(*sets)
    rng = np.random.default_rng(len(place))
    # Positions about the exposures, made by a WCS so that they lie round the poles too.
    wcs = WCS(meta_set(ra=ra, dec=dec, shape=(256, 256), scale=1.0, sip=0).hdr)
    positions = np.transpose(wcs.all_pix2world(*rng.uniform(30, 226, (2, 150)), 0))
    covered = np.transpose([covers(s.hdr, positions) for s in sets])
    assert 50 < covered.sum() < 400
    for position, here in zip(positions, covered, strict=True):
        expected = [s.expID for s, inside in zip(sets, here, strict=True) if inside]
        assert store.find_exposures(position, ["F200W"]) == (expected, ["F200W"] * len(expected))


def test_order_is_that_of_the_asked_bands_and_then_of_the_store():
    store = store_of(
        meta_set("b", "F1"),
        meta_set("a", "F1"),
        meta_set("c", "F2"),
        meta_set("far", "F2", dec=0.0),
    )
    assert store.find_exposures(CENTRE, ["F2", "F1", "F2"]) == (
        ["c", "b", "a"],
        ["F2", "F1", "F1"],
    )
    assert store.find_exposures(CENTRE, []) == ([], [])
    assert store.find_exposures(CENTRE, "F2") == (["c"], ["F2"])


def test_a_band_that_is_not_there_is_an_error_with_what_is_near():
    store = store_of(meta_set("b", "F200W"), meta_set("a", "F444W"))
    region = CircularRegion(*CENTRE, 0.001)
    for bands in ("F444X", ["F200W", "F444X"]):
        with pytest.raises(NotInStoreError, match=r"'F444X'.*F200W, F444W; did you mean F444W\?"):
            store.find_exposures(CENTRE, bands)
        with pytest.raises(NotInStoreError, match="did you mean F444W"):
            store.exposures_touching(region, bands)
    with pytest.raises(NotInStoreError, match=r"'F200W' in the store; it has none"):
        store_of().find_exposures(CENTRE, "F200W")


@pytest.mark.parametrize(
    "text",
    [
        "POLYGON ICRS 1 1 1 2 2 2 2 1",
        "POLYGON 1 1 1 2 2 2 2 1",
        "POLYGON ICRS 1 1 1 2 2 2 2 1 1.5 1.5",
        "CIRCLE ICRS 53.16 -27.79 0.1",
        "POLYGON ICRS 1 1 1 2 2 2 POLYGON ICRS 3 3 3 4 4 4",
        "",
    ],
)
def test_s_region_is_not_believed(text):
    imset = meta_set("e1")
    imset.hdr["S_REGION"] = text
    assert store_of(imset).find_exposures(CENTRE, ["F200W"]) == (["e1"], ["F200W"])


@pytest.mark.parametrize("sky", [(np.nan, 0.0), (0.0, 91.0), (1.0,), (1.0, 2.0, 3.0), "ab", None])
def test_what_is_no_position_is_refused(sky):
    with pytest.raises(RegionError):
        store_of(meta_set("e1")).find_exposures(sky, ["F200W"])


def test_a_region_larger_than_the_image_touches_it():
    store = store_of(meta_set("e1"), meta_set("far", dec=0.0))
    assert store.exposures_touching(CircularRegion(*CENTRE, 1.0)) == [("F200W", "e1")]


def test_a_region_that_only_overlaps_a_corner_touches():
    imset = meta_set("e1", sip=0)
    store = store_of(imset)
    wcs = WCS(imset.hdr)
    corner, inside = np.transpose(wcs.all_pix2world([127.5, 124], [95.5, 92], 0))
    beyond = 2 * corner - inside
    offset = (corner - beyond) * (np.cos(np.radians(CENTRE[1])), 1)
    radius = float(np.hypot(*offset))
    assert store.exposures_touching(CircularRegion(*beyond, radius * 1.01)) == [("F200W", "e1")]
    assert store.exposures_touching(CircularRegion(*beyond, radius * 0.99)) == []


def test_regions_can_be_asked_by_band():
    store = store_of(meta_set("a", "F1"), meta_set("b", "F2"))
    ra, dec = CENTRE
    region = PolygonRegion([ra, ra + 1e-3, ra], [dec, dec, dec + 1e-3])
    assert store.exposures_touching(region) == [("F1", "a"), ("F2", "b")]
    assert store.exposures_touching(region, ["F2", "F1"]) == [("F2", "b"), ("F1", "a")]


def test_golden_exposures_are_found_as_their_pixels_say(golden):
    path = golden / "tiny" / "meta.json"
    stored = json.loads(path.read_text())
    with MetaStore(path) as store:
        positions = about_golden(60, seed=4)
        keys = list(store)
        covered = np.transpose([covers(store.headers[b][e], positions) for b, e in keys])
        assert 0 < covered.sum() < covered.size
        for sky, here in zip(positions, covered, strict=True):
            expIDs, bands = store.find_exposures(sky, list(stored))
            expected = [key for key, inside in zip(keys, here, strict=True) if inside]
            assert list(zip(bands, expIDs, strict=True)) == expected


def test_a_store_may_be_changed_while_it_is_asked():
    meta = store_of(meta_set(expID="e1"), meta_set(expID="e2"))
    region = CircularRegion(*CENTRE, 1 / 3600)
    expected = meta.exposures_touching(region, ("F200W",))
    asked = []

    class Bands(tuple):
        """Looked up for a second time, they find that another thread was quicker."""

        __slots__ = ()

        def __hash__(self):
            asked.append(self)
            if len(asked) == 2:
                meta.headers["F200W"]["e2"] = meta.headers["F200W"]["e2"]
            return super().__hash__()

    assert meta.exposures_touching(region, Bands(["F200W"])) == expected != []
