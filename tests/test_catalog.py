"""Catalogues in the forms that users have them, against astropy's own conversions."""

import logging
import warnings
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Column, MaskedColumn, QTable, Table

import fpgpu
from fpgpu import CircularRegion, PolygonRegion, RectangularRegion
from fpgpu.catalog import as_catalog, catalog_column, position_rounding, sources_in
from fpgpu.errors import CatalogError

RA, DEC = np.array([53.16, 150.1, 359.9999]), np.array([-27.79, 2.2, 89.5])
REGION = CircularRegion(53.16, -27.79, 1.2 / 3600)


def positions(catalog: Any) -> np.ndarray:
    return np.stack([catalog_column(catalog, name) for name in ("ra", "dec")])


def read_back(table: Table, path: Any) -> Table:
    table.write(path)
    return Table.read(path)


SKY = SkyCoord(RA, DEC, unit="deg")

FORMS = {
    "table": Table({"ra": RA, "dec": DEC}),
    "capitals": Table({"RA": RA, "DEC": DEC}),
    "mixed case": Table({"Ra": RA, "Dec": DEC}),
    "lists": {"ra": RA.tolist(), "dec": DEC.tolist()},
    "quantities": {"ra": RA * u.deg, "dec": (DEC * u.deg).to(u.rad)},
    "structured": np.rec.fromarrays([RA, DEC], names="RA,DEC"),
    "big endian": np.rec.fromarrays([RA, DEC], dtype=[("ra", ">f8"), ("dec", ">f8")]),
    "radians": Table({"ra": Column(np.deg2rad(RA), unit="rad"), "dec": np.deg2rad(DEC) * u.rad}),
    "hours": QTable({"ra": RA / 15 * u.hourangle, "dec": DEC * 3600 * u.arcsec}),
    "masked": Table({"ra": MaskedColumn(RA, unit="deg"), "dec": MaskedColumn(DEC)}, masked=True),
    "SkyCoord": SKY,
    "one SkyCoord column": QTable({"id": [1, 2, 3], "coord": SKY}),
    "galactic": {"place": SKY.galactic},
    "FK5": Table({"sky": SKY.fk5}),
    "dicts": [{"ra": ra, "DEC": dec} for ra, dec in zip(RA, DEC, strict=True)],
}


@pytest.mark.parametrize("form", FORMS)
def test_positions_are_degrees_of_icrs_in_every_form(form: str) -> None:
    found = SkyCoord(*positions(FORMS[form]), unit="deg")
    assert found.separation(SKY).max() < 1e-9 * u.arcsec
    assert found.ra.deg.shape == RA.shape


@pytest.mark.parametrize("unit", ["degrees", "DEGREE", "Deg", "degs", "deg"])
def test_words_for_degrees_in_files_are_understood(unit: str, tmp_path: Any) -> None:
    table = Table({"ra": Column(RA, unit=unit), "dec": Column(DEC, unit=unit)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        read = read_back(table, tmp_path / "c.fits")
    np.testing.assert_array_equal(positions(read), [RA, DEC])


def test_a_sky_column_survives_a_file(tmp_path: Any) -> None:
    read = read_back(QTable({"coord": SKY}), tmp_path / "c.ecsv")
    np.testing.assert_allclose(positions(read), [RA, DEC], rtol=1e-15)


class Frame:
    """As much of a pandas DataFrame as is used of one."""

    def to_records(self, *, index: bool) -> np.recarray:
        assert not index
        return np.rec.fromarrays([RA, DEC], names="RA,DEC")


def test_data_frames_are_catalogues() -> None:
    np.testing.assert_array_equal(positions(Frame()), [RA, DEC])


def test_records_of_fits_files_keep_their_units(tmp_path: Any) -> None:
    table = Table({"RA": RA, "DEC": DEC, "PA": [10.0, 20, 30], "F200W": [1.0, 2, 3]})
    for name, unit in {"RA": "deg", "DEC": "deg", "PA": "deg", "F200W": "uJy"}.items():
        table[name].unit = unit
    table["RA"] = table["RA"].to("rad")
    table.write(tmp_path / "c.fits")
    with fits.open(tmp_path / "c.fits") as file:
        for catalog in (file[1], file[1].data):
            np.testing.assert_allclose(positions(catalog), [RA, DEC], rtol=1e-14)
            np.testing.assert_allclose(catalog_column(catalog, "F200W"), [1000, 2000, 3000])
            np.testing.assert_allclose(catalog_column(catalog, "pa"), np.deg2rad([10, 20, 30]))


def test_fluxes_come_in_magnitudes_of_the_ab_system() -> None:
    bright = np.array([25.0, 31.4, 23.9])
    catalog = {"F200W": bright * u.ABmag, "F444W": bright * u.mag, "F090W": [3.0, 2.0, 1.0] * u.uJy}
    expected = (bright * u.ABmag).to_value("nJy")
    np.testing.assert_allclose(catalog_column(catalog, "F200W"), expected, rtol=1e-12)
    np.testing.assert_allclose(catalog_column(catalog, "F444W"), expected, rtol=1e-12)
    np.testing.assert_allclose(catalog_column(catalog, "F090W"), [3000, 2000, 1000])


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        (
            {"RA": [1.0], "Ra": [2.0], "dec": [1.0]},
            "'ra' is ambiguous: the catalogue has RA and Ra",
        ),
        ({"a": SKY, "b": SKY}, "no column 'ra'; it has a, b"),
        (
            {"ra": ["1h"], "dec": [1.0]},
            r"expected one number a source; give text such as 10:00:24 as .*SkyCoord",
        ),
        ({"ra": [1.0] * u.nJy, "dec": [1.0]}, "'ra' is in nJy, which is no deg"),
        ("sources.fits", r"sources\.fits: no such catalogue; check the path"),
        (np.ones((3, 2)), "given as ndarray without named columns"),
        ((RA, DEC), "given as tuple without named columns"),
        (Table({"ra": Column([1.0], unit="bogus"), "dec": [1.0]}), "is in bogus, which is no deg"),
    ],
)
def test_what_cannot_be_meant_is_refused(catalog: Any, message: str) -> None:
    with pytest.raises(CatalogError, match=message):
        catalog_column(catalog, "ra")


def test_positions_as_x_y_and_z_are_taken() -> None:
    sky = SkyCoord(x=1, y=1, z=0, representation_type="cartesian")
    table = as_catalog(sky)
    np.testing.assert_allclose(catalog_column(table, "ra"), [45.0])
    np.testing.assert_allclose(catalog_column(table, "dec"), [0.0], atol=1e-12)


# --- single precision ------------------------------------------------------------------------


def test_half_a_step_of_single_precision_is_told_in_degrees() -> None:
    assert position_rounding({"ra": RA, "dec": DEC}) is None
    short = {"ra": np.float32([150.1]), "dec": (np.float32([2.2]) * u.deg).to(u.rad)}
    steps = position_rounding(short)
    assert steps is not None
    # 150 is in 2**7..2**8, of 24 bits; 2.2 deg are 0.038 rad, in 2**-5..2**-4.
    np.testing.assert_allclose(steps[0], 2.0 ** (7 - 23) / 2)
    np.testing.assert_allclose(steps[1], np.rad2deg(2.0 ** (-5 - 23) / 2))


def test_what_single_precision_costs_on_the_detector_is_told(golden: Any, caplog: Any) -> None:
    with fpgpu.open(golden / "tiny", backend="cpu") as survey:
        for dtype, is_told in (("f8", False), ("f4", True)):
            catalog = {"ra": np.array([53.16], dtype), "dec": np.array([-27.79], dtype)}
            with survey.patch(REGION, catalog, margin=None) as patch:
                CW = patch.retrieve("CW").reshape(-1, 2, 2)
            assert ("single precision" in caplog.text) is is_told
    # Half a step: 2**-19 degrees of ra, 2**-20 of dec.
    largest = np.hypot(*(abs(CW) @ [2.0**-19, 2.0**-20]).T).max()
    assert f"off by {largest:.2g} px (source 0 on " in caplog.text


# --- who is in a region ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "region",
    [
        CircularRegion(0.001, 60.0, 0.01),
        RectangularRegion(359.98, 0.02, 59.99, 60.01),
        PolygonRegion([359.98, 0.02, 0.0], [59.99, 59.995, 60.01]),
    ],
    ids=["circle", "rectangle", "polygon"],
)
def test_a_margin_is_measured_on_the_sky(region: Any) -> None:
    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(-0.06, 0.06, 4000) % 360, rng.uniform(59.97, 60.03, 4000)
    inside = region.contains_sky(ra, dec)
    margin = 0.004
    near = region.near_sky(ra, dec, margin)
    assert (near | ~inside).all()
    assert np.array_equal(region.near_sky(ra, dec, 0.0), inside)
    # The distance to the region is that to the nearest of many points inside it.
    fine = rng.uniform(-0.03, 0.03, 200_000) % 360, rng.uniform(59.985, 60.015, 200_000)
    held = region.contains_sky(*fine)
    grid = SkyCoord(fine[0][held], fine[1][held], unit="deg")
    distance = SkyCoord(ra, dec, unit="deg").match_to_catalog_sky(grid)[1].deg
    coarse = 0.0003
    assert near[distance < margin - coarse].all()
    corner = np.sqrt(2) if isinstance(region, RectangularRegion) else 1.0
    assert not near[distance > corner * margin + coarse].any()


def test_a_rectangle_reaches_over_a_pole() -> None:
    region = RectangularRegion(10, 20, 89.0, 89.9999)
    assert region.near_sky([200.0, 200.0], [89.99995, 80.0], 0.001).tolist() == [True, False]


def test_sources_elsewhere_are_left_out_and_those_taken_are_told(golden: Any) -> None:
    ra, dec = [53.16, 54.16, 53.16, 53.16], [-27.79, -27.79, -27.79 + 1.5 / 3600, -27.795]
    with fpgpu.open(golden / "tiny", backend="cpu") as survey:
        for margin, expected in ((0.0, [0]), (0.5 / 3600, [0, 2]), (0.0051, [0, 2, 3])):
            with survey.patch(REGION, {"RA": ra, "DEC": dec}, margin=margin) as patch:
                assert patch.sources.tolist() == expected
                assert patch.n_sources == len(expected)
        many = {"ra": np.linspace(53, 53.5, 1000), "dec": np.full(1000, -27.79)}
        with survey.patch(REGION, many | {"ra": np.append(many["ra"][1:], 53.16)}) as patch:
            assert patch.sources[-1] == 999
            patch.replace_metadata({"ra": [10.0, 53.16], "dec": [0.0, -27.79]})
            assert patch.sources.tolist() == [1]
        with survey.patch(REGION) as patch:
            assert patch.sources.tolist() == []


@pytest.mark.parametrize(
    ("catalog", "message"),
    [
        ({"ra": [], "dec": []}, "the catalogue is empty: the patch of CircularRegion"),
        ({"ra": [54.16], "dec": [-27.79]}, "source 0 at ra 54.160000, dec -27.790000, 0.8847 deg"),
        ({"ra": np.deg2rad([53.16]), "dec": np.deg2rad([-27.79])}, "if these are radians, give"),
    ],
)
def test_a_catalogue_without_a_source_there_is_told(
    golden: Any, caplog: Any, catalog: Any, message: str
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        fpgpu.open(golden / "tiny", backend="cpu") as survey,
        survey.patch(REGION, catalog) as patch,
    ):
        assert patch.n_sources == 0
    assert message in caplog.text


@pytest.mark.parametrize("margin", [-1.0, float("nan"), 200.0, [1, 2]])
def test_a_margin_that_is_none_is_refused(margin: Any) -> None:
    with pytest.raises(CatalogError, match="expected one number, 0 to 180 degrees"):
        sources_in(REGION, RA, DEC, margin)
