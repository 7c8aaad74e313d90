"""Region files say in DS9's own words what is where; another reader of them agrees."""

import re
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

import fpgpu
from fpgpu import CircularRegion, PolygonRegion, RectangularRegion
from fpgpu.plots import ds9_regions
from fpgpu.plots.ds9 import DIGITS, _told

NUMBER = r"[-+]?\d+\.\d+"


def shapes(text: str, kind: str) -> list[np.ndarray]:
    """Numbers of each shape of a kind."""
    found = re.findall(rf"^{kind}\(([^)]*)\)", text, re.MULTILINE)
    return [np.array([float(x) for x in re.findall(NUMBER, inner)]) for inner in found]


def test_footprints_are_polygons_with_names_and_tags(survey: fpgpu.Survey) -> None:
    text = ds9_regions(survey.meta, frame="icrs")
    assert text.startswith("# Region file format: DS9")
    assert "icrs" in text.splitlines()
    polygons = shapes(text, "polygon")
    assert len(polygons) == survey.meta.nexp == 6
    for numbers, (band, expID) in zip(polygons, survey.meta, strict=True):
        expected = survey.meta.footprint(band, expID)
        np.testing.assert_allclose(numbers.reshape(-1, 2), expected, rtol=0, atol=1e-8)
        assert f"text={{{band}/{expID}}}" in text
        assert f"tag={{{band}}}" in text
    # The first band is drawn in one piece, others dashed.
    lines = [line for line in text.splitlines() if line.startswith("polygon")]
    are_first = [f"tag={{{survey.meta.bands[0]}}}" in line for line in lines]
    assert [" dash=1" not in line for line in lines] == are_first


def test_fk5_is_converted_not_just_written(survey: fpgpu.Survey) -> None:
    there = shapes(ds9_regions(survey.meta), "polygon")[0].reshape(-1, 2)
    back = SkyCoord(*there.T, unit="deg", frame="fk5").icrs
    expected = survey.meta.footprint(*next(iter(survey.meta)))
    np.testing.assert_allclose(np.stack([back.ra.deg, back.dec.deg], 1), expected, atol=2e-8)
    assert np.abs(there - expected).max() > 1e-7


def test_regions_that_cross_ra_zero_stay_together() -> None:
    circle = CircularRegion(359.9999, 10.0, 1 / 3600)
    square = RectangularRegion(359.9, 0.1, -1.0, 1.0)
    text = ds9_regions(regions=[circle, square], frame="icrs")
    (numbers,) = shapes(text, "circle")
    np.testing.assert_allclose(numbers, [359.9999, 10.0, 1 / 3600], atol=1e-8)
    (polygon,) = shapes(text, "polygon")
    ra, dec = polygon.reshape(-1, 2).T
    assert ((ra >= 0) & (ra < 360)).all()
    assert ((ra <= 0.1 + 1e-6) | (ra >= 359.9 - 1e-6)).all()
    assert set(np.round(dec, 6)) == {-1.0, 1.0}
    just_below = PolygonRegion((359.9999999999, 0.1, 0.1), (0.0, 0.0, 0.1))
    assert shapes(ds9_regions(regions=[just_below], frame="icrs"), "polygon")[0][0] == 0.0


def test_sources_are_points_with_their_numbers() -> None:
    sources = Table({"ra": [10.0, 0.0], "dec": [-5.0, 5.0]})
    text = ds9_regions(catalog=sources, frame="icrs")
    np.testing.assert_allclose(shapes(text, "point"), [[10, -5], [0, 5]])
    assert "tag={source} text={1}" in text


def test_names_cannot_end_their_braces() -> None:
    assert _told(["a}b"], "a{b") == {"tag": ["a)b"], "text": "a(b"}


def test_all_positions_are_converted_at_once(
    survey: fpgpu.Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    from astropy import coordinates

    calls = []

    def counted(*args: object, **options: object) -> SkyCoord:
        calls.append(args)
        return SkyCoord(*args, **options)

    monkeypatch.setattr(coordinates, "SkyCoord", counted)
    circles = [CircularRegion(53.16, -27.79, k / 3600) for k in range(1, 9)]
    text = ds9_regions(survey.meta, regions=circles, catalog=Table({"ra": [1.0], "dec": [2.0]}))
    assert [len(shapes(text, kind)) for kind in ("polygon", "circle", "point")] == [6, 8, 1]
    assert len(calls) == 2
    assert ds9_regions() == ""


def test_another_reader_of_such_files_finds_the_same(survey: fpgpu.Survey, tmp_path: Path) -> None:
    from regions import Regions

    path = tmp_path / "survey.reg"
    sources = Table({"ra": [53.16], "dec": [-27.79]})
    text = ds9_regions(
        survey.meta, regions=[CircularRegion(53.16, -27.79, 1 / 3600)], catalog=sources
    )
    path.write_text(text)
    found = Regions.read(path, format="ds9")
    assert [type(shape).__name__ for shape in found] == [
        *["PolygonSkyRegion"] * 6, "CircleSkyRegion", "PointSkyRegion",
    ]  # fmt: skip
    band, expID = next(iter(survey.meta))
    corners = found[0].vertices.icrs
    expected = survey.meta.footprint(band, expID)
    np.testing.assert_allclose(corners.ra.deg, expected[:, 0], atol=2e-8)
    assert found[0].meta["text"] == f"{band}/{expID}"
    assert found[6].radius.to_value("arcsec") == pytest.approx(1.0, abs=3600 * 10**-DIGITS)
