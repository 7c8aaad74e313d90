"""Windows: the part of an exposure that is looked at holds all that a region can reach."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from fpgpu import CircularRegion, MetaStore, PolygonRegion, RectangularRegion
from fpgpu.patch.select import select_superpixels
from fpgpu.patch.windows import Candidates
from fpgpu.sky.polygons import Polygons
from fpgpu.sky.regions import Region
from fpgpu.sky.sip import fit_sip
from fpgpu.sky.sphere import unit_vectors
from fpgpu.sky.wcs import SkyWCS
from fpgpu.superpixels import superpixel_corners
from tests.patch.fields import meta_of
from tests.sky.made_wcs import tan_header
from tests.stores.metasets import meta_set, write_store

SHAPE = (512, 384)
KEYS = [("F200W", "e1"), ("F200W", "e2")]


def strong_header(angle: float = 33.0, dec: float = -27.79) -> fits.Header:
    """Distorted as the Advanced Camera for Surveys: pixels a few per cent from square."""
    header = tan_header(53.16, dec, SHAPE, 0.05, angle, 1e-4)
    header["CD1_1"] *= 1.05
    header["CD2_1"] *= 1.05
    return header


def found_by(meta: MetaStore, region: Region, select: str, shape: tuple[int, int]) -> list:
    members = select_superpixels(Candidates(meta, list(meta), shape, 8), region, select)
    return [list(zip(*(c.tolist() for c in members), strict=True))]


def found_everywhere(sky: SkyWCS, region: Region, select: str, shape: tuple[int, int]) -> list:
    """The same by testing every super-pixel of the detector."""
    corners = superpixel_corners(shape).astype(np.float64)
    if select == "corners":
        kept = region.contains(corners[..., 0], corners[..., 1], sky)
    else:
        edges = corners + np.where(corners % 8 == 0, -0.5, 0.5)
        ra, dec = sky.pixel_to_world(edges[..., 0], edges[..., 1])
        outlines = Polygons.of(unit_vectors(ra, dec).reshape(-1, 4, 3))
        kept = np.nonzero(region.touches(outlines).reshape(corners.shape[:2]))
    return [[(0, int(ix), int(iy)) for ix, iy in zip(*kept, strict=True)]]


def region_at(sky: SkyWCS, kind: str, x: float, y: float, size: float) -> Region:
    """A region of a size in pixels of 0.05 arcsec at a pixel."""
    ra, dec = (float(v) for v in sky.pixel_to_world(x, y))
    r = size * 0.05 / 3600
    wide = r / np.cos(np.deg2rad(dec))
    if kind == "circle":
        return CircularRegion(ra, dec, r)
    if kind == "rectangle":
        return RectangularRegion(ra - wide, ra + 2 * wide, dec - 0.2 * r, dec + r)
    return PolygonRegion(
        (ra - wide, ra + wide, ra, ra - 0.2 * wide), (dec - r, dec - 0.9 * r, dec + r, dec)
    )


@pytest.mark.parametrize("select", ["corners", "overlap"])
@pytest.mark.parametrize("kind", ["circle", "rectangle", "polygon"])
@settings(max_examples=15, deadline=None)
@given(
    x=st.floats(-400, 900), y=st.floats(-400, 800), size=st.floats(5, 600), angle=st.floats(0, 360)
)
def test_nothing_outside_a_window_is_selected_by_strongly_distorted_wcs(
    select: str, kind: str, x: float, y: float, size: float, angle: float
) -> None:
    header = strong_header(angle)
    sky = SkyWCS.from_header(header)
    region = region_at(sky, kind, x, y, size)
    expected = found_everywhere(sky, region, select, SHAPE)
    if expected == [[]] and select == "corners":
        return  # the rule for a region between the corners, tested elsewhere
    assert found_by(meta_of([("F200W", "e1", header)]), region, select, SHAPE) == expected


@pytest.mark.parametrize(
    ("sip", "x", "y", "radius"),
    [(2e-4, 0, 500, 300), (2e-4, -300, 600, 500), (2e-4, -100, 600, 200), (1e-3, 570, 440, 290)],
)
def test_where_a_distortion_folds_back_the_answer_is_that_of_the_wcs_itself(
    sip: float, x: float, y: float, radius: float
) -> None:
    # The polynomials reach some positions beyond the detector twice; which pixel an inverse then
    # finds depends on how it searches.
    header = tan_header(53.16, -27.79, SHAPE, 0.05, 0.0, sip)
    undistorted = SkyWCS.from_header(tan_header(53.16, -27.79, SHAPE, 0.05, 0.0, 0.0))
    region = region_at(undistorted, "circle", x, y, radius)
    expected = found_everywhere(SkyWCS.from_header(header), region, "corners", SHAPE)
    assert expected != [[]]
    assert found_by(meta_of([("F200W", "e1", header)]), region, "corners", SHAPE) == expected


def test_windows_are_little_larger_than_the_region() -> None:
    header = strong_header()
    sky = SkyWCS.from_header(header)
    candidates = Candidates(meta_of([("F200W", "e1", header)]), [("F200W", "e1")], SHAPE, 8)
    region = region_at(sky, "circle", 250.0, 190.0, 60.0)
    ((x0, x1, y0, y1),) = candidates.windows(*region.bounding_cap).tolist()
    taken = np.array(found_by(meta_of([("F200W", "e1", header)]), region, "overlap", SHAPE)[0])
    assert (x1 - x0) * (y1 - y0) < 2.5 * len(taken)


def test_what_is_around_a_pixel_is_each_superpixel_within_reach_of_it() -> None:
    """To the outer edges of its pixels, and no other: in agreement with asking all of them."""
    meta = meta_of((band, expID, tan_header(shape=(64, 40))) for band, expID in KEYS)
    candidates = Candidates(meta, KEYS, (64, 40), 8)
    rng = np.random.default_rng(9)
    first = np.stack(np.meshgrid(np.arange(8), np.arange(5), indexing="ij")) * 8 - 0.5
    for _ in range(300):
        pixel, reach = rng.uniform(-30, 90, (2, 2)), rng.uniform(0, 25, 2)
        if rng.integers(2):  # from edge to edge
            pixel, reach = np.round(pixel) + 0.5, np.round(reach)
        found = candidates.around(pixel, reach)
        for number, (x0, x1, y0, y1) in enumerate(found.tolist()):
            low = pixel[:, number] - reach[number], pixel[:, number] + reach[number]
            near = [
                (first[axis] + 8 > low[0][axis]) & (first[axis] <= low[1][axis]) for axis in (0, 1)
            ]
            ix, iy = np.nonzero(near[0] & near[1])
            inside = [(i, j) for i in range(x0, x1) for j in range(y0, y1)]
            assert inside == list(zip(ix.tolist(), iy.tolist(), strict=True))


def test_members_are_listed_exposure_by_exposure_in_row_major_order() -> None:
    keys = [("F200W", "e1"), ("F200W", "e2"), ("F200W", "e3")]
    meta = meta_of((band, expID, tan_header(shape=(1024, 1024))) for band, expID in keys)
    candidates = Candidates(meta, keys, (1024, 1024), 8)
    windows = np.array([[0, 128, 0, 128], [5, 5, 0, 9], [3, 5, 7, 10]])
    pieces = list(candidates.members(windows))
    listed = np.concatenate([np.stack(piece, axis=-1) for piece in pieces])
    expected = [(0, ix, iy) for ix in range(128) for iy in range(128)]
    expected += [(2, ix, iy) for ix in range(3, 5) for iy in range(7, 10)]
    assert [tuple(row) for row in listed.tolist()] == expected
    assert len(pieces) > 1


# --- further WCS ---------------------------------------------------------------------------------


def other_projection(name: str) -> fits.Header:
    header = tan_header(sip=0.0)
    header["CTYPE1"], header["CTYPE2"] = f"RA---{name}", f"DEC--{name}"
    return header


@pytest.mark.parametrize("select", ["corners", "overlap"])
@pytest.mark.parametrize("kind", ["circle", "rectangle", "polygon"])
def test_projections_without_sip_coefficients_are_asked_themselves(select: str, kind: str) -> None:
    headers = [other_projection("ZEA"), tan_header(sip=0.0), other_projection("STG")]
    keys = [("F200W", f"e{k}") for k in range(3)]
    meta = meta_of((*key, header) for key, header in zip(keys, headers, strict=True))
    candidates = Candidates(meta, keys, (128, 96), 8)
    assert candidates.table.row.tolist() == [-1, 0, -1]
    sky = SkyWCS.from_header(headers[1])
    region = region_at(sky, kind, 70.0, 40.0, 23.0)
    members = select_superpixels(candidates, region, select)
    for number, header in enumerate(headers):
        own = members.take(members.exposure == number)
        (expected,) = found_everywhere(SkyWCS.from_header(header), region, select, (128, 96))
        assert [(0, *pair) for pair in zip(own.ix.tolist(), own.iy.tolist(), strict=True)] == (
            expected
        )


def test_a_circle_that_only_some_wcs_can_place_keeps_the_order_of_exposures() -> None:
    # A gnomonic projection shows less than half of the sky.
    headers = [other_projection("ZEA"), tan_header(sip=0.0), other_projection("ZEA")]
    keys = [("F200W", f"e{k}") for k in range(3)]
    meta = meta_of((*key, header) for key, header in zip(keys, headers, strict=True))
    candidates = Candidates(meta, keys, (128, 96), 8)
    region = CircularRegion(53.16, -27.79, 100.0)
    members = select_superpixels(candidates, region, "corners")
    assert members.exposure.tolist() == [0] * 192 + [1] * 192 + [2] * 192


@pytest.mark.parametrize("kind", ["circle", "polygon"])
def test_the_refit_of_a_real_gwcs_selects_what_the_gwcs_does(
    nircam_gwcs: Any, tmp_path: Path, kind: str
) -> None:
    shape = (2048, 2048)
    sky = SkyWCS.from_gwcs(nircam_gwcs, shape)
    imset = meta_set(gwcs=nircam_gwcs, sip=fit_sip(sky, shape), shape=shape)
    path = write_store(tmp_path / "meta.json", imset)
    for x, y in ((1000.0, 700.0), (2040.0, 30.0)):
        region = region_at(sky, kind, x, y, 70.0)
        with MetaStore(path, use_gwcs=True) as meta:
            (found,) = found_by(meta, region, "overlap", shape)
        near = np.abs(np.array(found)[:, 1:] - [x / 8, y / 8]).max()
        assert near < 40
        x0, y0 = (max(int(v) // 8 - 40, 0) for v in (x, y))
        ix, iy = np.meshgrid(
            np.arange(x0, min(x0 + 80, 256)), np.arange(y0, min(y0 + 80, 256)), indexing="ij"
        )
        xs = 8 * ix[..., None] + np.array([0, 8, 8, 0]) - 0.5
        ys = 8 * iy[..., None] + np.array([0, 0, 8, 8]) - 0.5
        outlines = unit_vectors(*sky.pixel_to_world(xs, ys)).reshape(-1, 4, 3)
        touched = region.touches(Polygons.of(outlines)).reshape(ix.shape)
        expected = zip(ix[touched].tolist(), iy[touched].tolist(), strict=True)
        assert [pair[1:] for pair in found] == list(expected)
