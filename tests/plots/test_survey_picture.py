"""The picture of a whole survey: footprints, depth, fields, RA = 0 and the pole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fpgpu
from fpgpu import CircularRegion, plots
from fpgpu.demo.field import make_field
from fpgpu.errors import LayoutError, NotInStoreError, PlanError
from fpgpu.ingest.pipeline import ingest
from tests.plots.seen import is_sky_map, nothing_overlaps, panels


def stores_at(folder: Path, *centers: tuple[float, float], n_per_band: int = 2) -> Path:
    """A store folder of small fields."""
    files = []
    for number, center in enumerate(centers):
        field = make_field(
            folder / str(number), bands=["F200W"], n_per_band=n_per_band, size=64,
            center=center, n_sources=1,
        )  # fmt: skip
        for path in field.files:
            files.append(path.rename(path.with_name(f"{number}_{path.name}")))
    assert not ingest(files, folder / "stores").refused
    return folder / "stores"


def test_each_band_has_a_map_of_its_depth(survey: fpgpu.Survey) -> None:
    figure = plots.plot_survey(survey.meta)
    overview, *depths = panels(figure)
    assert [axes.get_title() for axes in depths] == [f"{b}: up to 2 deep" for b in survey.bands]
    assert all(is_sky_map(axes) for axes in (overview, *depths))
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [
        f"{band}: 2 exposures" for band in survey.bands
    ]
    assert nothing_overlaps(figure)


def test_a_band_that_is_named_alone_or_twice_is_drawn_once(survey: fpgpu.Survey) -> None:
    for bands in ("F090W", ["F090W", "F090W"]):
        axes = panels(plots.plot_survey(survey.meta, bands))
        assert [a.get_title() for a in axes] == ["footprints", "F090W: up to 2 deep"]


def test_the_depth_adds_up_to_the_area_of_the_exposures(survey: fpgpu.Survey) -> None:
    axes = panels(plots.plot_survey(survey.meta, ["F090W"]))[1]
    counts = axes.images[0].get_array().filled(0)
    west, east, south, north = axes.images[0].get_extent()
    cell = (east - west) * (north - south) / counts.size
    assert counts.sum() * cell == pytest.approx(2 * (128 * 0.031) ** 2, rel=0.02)


def test_a_limiting_magnitude_is_that_of_the_weights(survey: fpgpu.Survey) -> None:
    axes = panels(plots.plot_survey(survey.meta, ["F200W"], pixels=survey.pixels))[1]
    deepest = float(axes.images[0].get_array().max())
    ierr = [survey.pixels.read_exposure("F200W", e)[1] for e in survey.meta.exposures("F200W")]
    # A sample of every second super-pixel; sources are few, so the mean is nearly that of all.
    ivar = sum(float(np.mean(image.astype(float) ** 2)) for image in ierr)
    noise = np.sqrt(np.pi * 0.15**2 / 0.031**2 / ivar)
    assert deepest == pytest.approx(31.4 - 2.5 * np.log10(5 * noise), abs=0.05)


@pytest.mark.parametrize("center", [(0.0, 10.0), (359.9999, -60.0), (120.0, 89.9995)])
def test_ra_zero_and_the_pole_are_places_like_any_other(
    tmp_path: Path, center: tuple[float, float]
) -> None:
    with fpgpu.open(stores_at(tmp_path, center), backend="cpu") as survey:
        region = CircularRegion(*center, 0.5 / 3600)
        figure = plots.plot_survey(survey.meta, region=region)
    overview = panels(figure)[0]
    # 64 pixels of 31 mas are 2 arcsec; turned, with dither and margin it is below 4.
    assert abs(np.diff(overview.get_xlim())[0]) < 4.0
    x, y = overview.lines[-1].get_data()
    assert abs(np.ptp(x) - 1.0) < 0.01
    assert abs(np.ptp(y) - 1.0) < 0.01


def test_fields_far_apart_are_drawn_one_by_one(tmp_path: Path) -> None:
    places = ((150.1, 2.2), (150.1, 2.2001), (53.1, -27.8))
    with fpgpu.open(stores_at(tmp_path, *places, n_per_band=1), backend="cpu") as survey:
        first = plots.plot_survey(survey.meta).get_suptitle()
        second = plots.plot_survey(survey.meta, field=2).get_suptitle()
        assert "2 exposures (field 1 of 2) around ra 150.1" in first
        assert "1 exposure (field 2 of 2) around ra 53.1" in second
        with pytest.raises(PlanError, match="no field 3; the survey has 2"):
            plots.plot_survey(survey.meta, field=3)


def test_what_cannot_be_drawn_is_refused(survey: fpgpu.Survey) -> None:
    with pytest.raises(NotInStoreError, match="F999W"):
        plots.plot_survey(survey.meta, ["F999W"])
    with pytest.raises(PlanError, match="no exposures"):
        plots.plot_survey(fpgpu.MetaStore())
    band, expID = next(iter(survey.pixels))
    with pytest.raises(LayoutError, match="128 x 128"):
        plots.plot_layout(survey.pixels, band, expID, place=(128, 0))


@pytest.mark.parametrize("place", [None, (0, 0), (127, 64)])
def test_the_layout_of_an_exposure_shows_its_mask(survey: fpgpu.Survey, place: Any) -> None:
    band, expID = next(iter(survey.pixels))
    flux, ierr = survey.pixels.read_exposure(band, expID)
    figure = plots.plot_layout(survey.pixels, band, expID, place=place)
    whole, near = panels(figure)
    share = whole.images[0].get_array().T
    assert share.shape == (16, 16)
    assert share[3, 5] == np.mean(ierr[24:32, 40:48] > 0)
    (x0, x1), (y0, y1) = near.get_xlim(), near.get_ylim()
    part = np.s_[round(x0 + 0.5) : round(x1 + 0.5), round(y0 + 0.5) : round(y1 + 0.5)]
    assert flux[part].shape == (48, 48)
    crosses = near.collections[0].get_offsets()
    assert len(crosses) == np.count_nonzero(ierr[part] == 0)
    assert f"{len(crosses)} masked pixels" in near.get_title()
    names = [text.get_text() for text in near.texts]
    assert len(names) == 36
    assert names[0] == f"{round(x0 + 0.5) // 8}, {round(y0 + 0.5) // 8}"
    assert nothing_overlaps(figure)
