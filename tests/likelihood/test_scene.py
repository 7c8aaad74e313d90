"""Proposals: a catalogue's numbers where a kernel reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, QTable, Table
from hypothesis import given
from hypothesis import strategies as st

from fpgpu.catalog import catalog_column
from fpgpu.errors import CatalogError
from fpgpu.layout import MAXBANDS, SOURCE_DTYPE
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.likelihood.scene import proposal_from_catalog, relative_longitude

BANDS = ["F200W", "F444W"]
REFERENCE = (53.1, -27.8)


@pytest.fixture(scope="module")
def mixture() -> SersicMixture:
    """Two radii; the share of the first is sersic, of the second rhalf."""
    n, r = np.linspace(0, 8, 5), np.linspace(0, 2, 5)
    table = np.stack(np.meshgrid(n, r, indexing="ij"), axis=-1)
    return SersicMixture(n, r, table, [0.0, 0.2])


def table_of(n_sources: int = 3, **columns: Any) -> Table:
    """A catalogue of sources that can be, with some columns replaced."""
    rng = np.random.default_rng(3)
    values: dict[str, Any] = {
        "ra": rng.uniform(53.09, 53.11, n_sources),
        "dec": rng.uniform(-27.81, -27.79, n_sources),
        "q": rng.uniform(0.5, 1, n_sources),
        "pa": rng.uniform(-1, 1, n_sources),
        "sersic": rng.uniform(1, 5, n_sources),
        "rhalf": rng.uniform(0.05, 0.3, n_sources),
        "F444W": rng.uniform(1, 100, n_sources),
        "F200W": rng.uniform(1, 100, n_sources),
    }
    return Table({**values, **columns})


def plain(mixture: SersicMixture, **columns: Any) -> npt.NDArray[Any]:
    return proposal_from_catalog(table_of(**columns), BANDS, mixture, REFERENCE)


def test_each_number_stands_in_its_slot(mixture: SersicMixture) -> None:
    catalog = table_of()
    proposal = proposal_from_catalog(catalog, BANDS, mixture, REFERENCE)
    assert proposal.dtype == SOURCE_DTYPE
    expected = {
        "ra": catalog["ra"] - 53.1,
        "dec": catalog["dec"] + 27.8,
        "q": catalog["q"],
        "pa": catalog["pa"],
        "nsersic": catalog["sersic"],
        "rh": catalog["rhalf"],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(proposal[name], np.asarray(values, np.float32), name)
    for slot, band in enumerate(BANDS):
        np.testing.assert_array_equal(proposal["fluxes"][:, slot], np.float32(catalog[band]))
    shares = np.stack([catalog["sersic"], catalog["rhalf"]], axis=1)
    np.testing.assert_allclose(proposal["mixture_amplitudes"][:, :2], shares, rtol=1e-6)
    np.testing.assert_allclose(proposal["damplitude_dnsersic"][:, :2], [[1, 0]] * 3, atol=1e-6)
    np.testing.assert_allclose(proposal["damplitude_drh"][:, :2], [[0, 1]] * 3, atol=1e-6)


def test_slots_that_are_not_used_are_zero(mixture: SersicMixture) -> None:
    proposal = plain(mixture)
    assert (proposal["fluxes"][:, len(BANDS) :] == 0).all()
    for name in ("mixture_amplitudes", "damplitude_dnsersic", "damplitude_drh"):
        assert (proposal[name][:, mixture.n_radii :] == 0).all()


def test_a_proposal_is_that_of_forcepho(golden: Path, shared_data: Path) -> None:
    """Its mixtures came from a table with the same models in a wider range of them.

    Splines of the two tables differ a little towards the edges of the smaller one, which is here;
    source 1 is far from them.
    """
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as file:
        patch = dict(file)
    mixture = SersicMixture.from_file(shared_data / "forcepho" / "sersic_splinedata.h5")
    np.testing.assert_array_equal(mixture.rad2, patch["rad2"])
    bands, reference = patch["bandlist"].tolist(), patch["patch_reference_coordinates"]
    proposal = proposal_from_catalog(patch["sourcecat"], bands, mixture, reference)
    expected = patch["proposal"]
    for name in ("ra", "dec", "q", "pa", "nsersic", "rh"):
        np.testing.assert_array_equal(proposal[name], expected[name], name)
    np.testing.assert_array_equal(proposal["fluxes"][:, :3], expected["fluxes"][:, :3])
    for name, limit in (
        ("mixture_amplitudes", 2e-6),
        ("damplitude_dnsersic", 2e-5),
        ("damplitude_drh", 5e-4),
    ):
        found, wanted = (values[name][:, : mixture.n_radii] for values in (proposal, expected))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=limit)
        np.testing.assert_allclose(found[1], wanted[1], rtol=3e-7)


def test_tables_and_structured_arrays_are_the_same_catalogue(mixture: SersicMixture) -> None:
    table = table_of()
    from_table = proposal_from_catalog(table, BANDS, mixture, REFERENCE)
    big_endian = table.as_array().astype([(name, ">f8") for name in table.colnames])
    for catalog in (table.as_array(), big_endian, Table(table, masked=True), QTable(table)):
        found = proposal_from_catalog(catalog, BANDS, mixture, REFERENCE)
        np.testing.assert_array_equal(found, from_table)


def test_columns_that_say_their_unit_are_converted(mixture: SersicMixture) -> None:
    table = table_of()
    other = QTable(table)
    for name, unit, own in (
        ("ra", u.deg, u.rad),
        ("pa", u.rad, u.deg),
        ("rhalf", u.arcsec, u.deg),
        ("F444W", u.nJy, u.Jy),
        ("q", u.one, u.percent),
    ):
        other[name] = (np.asarray(table[name]) * unit).to(own)
    found = proposal_from_catalog(other, BANDS, mixture, REFERENCE)
    expected = proposal_from_catalog(table, BANDS, mixture, REFERENCE)
    for name in ("pa", "rh", "fluxes", "q"):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-7)
    np.testing.assert_allclose(found["ra"], expected["ra"], rtol=1e-6, atol=1e-9)


def test_a_unit_of_another_kind_is_refused(mixture: SersicMixture) -> None:
    for unit in (u.kpc, u.ABmag, u.Unit("furlong", parse_strict="silent")):
        table = table_of()
        table["rhalf"].unit = unit
        with pytest.raises(CatalogError, match=r"column 'rhalf' is in .*, which is no arcsec"):
            proposal_from_catalog(table, BANDS, mixture, REFERENCE)


def test_positions_go_the_short_way_around_the_circle(mixture: SersicMixture) -> None:
    table = table_of(ra=[359.999, 0.0, 0.002])
    proposal = proposal_from_catalog(table, BANDS, mixture, (0.001, -27.8))
    np.testing.assert_allclose(proposal["ra"], [-0.002, -0.001, 0.001], rtol=1e-6)


@given(ra=st.floats(0, 360), offset=st.floats(-10, 10))
def test_a_relative_longitude_is_the_plain_difference_where_that_is_short(
    ra: float, offset: float
) -> None:
    plain_difference = (ra + offset) - ra
    for turns in (0, 360, -360):
        found = relative_longitude(np.array([ra + offset + turns]), ra)[0]
        if turns == 0:
            assert found == plain_difference
        assert found == pytest.approx(offset, abs=1e-12)


def test_a_catalogue_of_no_sources_is_a_proposal_of_none(mixture: SersicMixture) -> None:
    catalog = table_of()[:0]
    assert proposal_from_catalog(catalog, BANDS, mixture, REFERENCE).shape == (0,)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("q", 0.0, r"source 1: q 0.0 is not in \(0, 1\]; it is the square root of the axis ratio"),
        ("q", 1.01, "source 1: q 1.01"),
        ("rhalf", -0.1, "source 1: rhalf -0.1 is negative; 1 of 3 sources are like that"),
        ("rhalf", 2.1, "source 1: rhalf 2.1 is outside the table of mixtures, 0 to 2"),
        ("sersic", 8.5, "source 1: sersic 8.5 is outside the table"),
        ("dec", -90.5, "source 1: dec -90.5 is beyond a pole"),
        ("ra", np.nan, "source 1: ra nan is masked or not finite"),
        ("F444W", np.inf, "source 1: F444W inf is masked or not finite"),
    ],
)
def test_sources_that_cannot_be_are_refused(
    mixture: SersicMixture, column: str, value: float, message: str
) -> None:
    table = table_of()
    table[column][1] = value
    with pytest.raises(CatalogError, match=message):
        proposal_from_catalog(table, BANDS, mixture, REFERENCE)


def test_a_source_may_be_a_point_and_round_and_at_a_pole(mixture: SersicMixture) -> None:
    """The limits of what sources can be are sources."""
    proposal = plain(mixture, rhalf=[0.0, 2.0, 0.1], q=[1.0, 1e-3, 0.5], dec=[90.0, -90.0, 0.0])
    assert proposal["rh"].tolist() == [0.0, 2.0, np.float32(0.1)]
    assert proposal["q"].tolist() == [1.0, np.float32(1e-3), 0.5]
    np.testing.assert_allclose(proposal["dec"], [117.8, -62.2, 27.8], rtol=1e-6)


@pytest.mark.parametrize("name", ["ra", "dec", "q", "pa", "sersic", "rhalf", "F200W"])
def test_a_missing_column_is_named(mixture: SersicMixture, name: str) -> None:
    table = table_of()
    table.remove_column(name)
    with pytest.raises(CatalogError, match=f"no column '{name}'; it has .*F444W"):
        proposal_from_catalog(table, BANDS, mixture, REFERENCE)


def test_masked_values_are_refused(mixture: SersicMixture) -> None:
    with pytest.raises(CatalogError, match=r"source 2: pa .* is masked"):
        plain(mixture, pa=MaskedColumn([0.1, 0.2, 0.3], mask=[False, False, True]))


@pytest.mark.parametrize(
    "column", [["a", "b", "c"], [True, False, True], np.ones((3, 2)), [None, 1, 2]]
)
def test_a_column_holds_one_number_a_source(column: Any) -> None:
    with pytest.raises(CatalogError, match=r"column 'q' is .*; expected one number a source"):
        catalog_column(table_of(q=column), "q")


def test_what_is_no_catalogue_is_refused() -> None:
    with pytest.raises(CatalogError, match="given as ndarray without named"):
        catalog_column(np.zeros(3), "ra")
    with pytest.raises(CatalogError, match="no such catalogue"):
        catalog_column("no catalogue", "ra")
    with pytest.raises(CatalogError, match="no column 'ra'; it has none"):
        catalog_column(None, "ra")
    with pytest.raises(CatalogError, match="do not make a table"):
        catalog_column({"ra": [1.0], "dec": [1.0, 2.0]}, "ra")


def test_more_than_a_kernel_takes_is_refused_with_the_number(mixture: SersicMixture) -> None:
    bands = [f"B{i}" for i in range(MAXBANDS + 1)]
    catalog = table_of(**{band: [1.0, 2.0, 3.0] for band in bands})
    with pytest.raises(CatalogError, match=f"{MAXBANDS + 1} bands; a patch has at most 30"):
        proposal_from_catalog(catalog, bands, mixture, REFERENCE)
