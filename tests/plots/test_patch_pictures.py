"""Quick-look pictures are made without a warning, with an axes for all they say they show."""

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fpgpu
from fpgpu import CircularRegion, PolygonRegion, RectangularRegion, plots
from fpgpu.errors import LayoutError, MissingExtraError, StoreWriteError
from fpgpu.patch.plan import PatchPlan
from fpgpu.sky.regions import Region
from tests.plots.seen import is_sky_map, nothing_overlaps, panels

RA, DEC, RADIUS = 53.16, -27.79, 0.8 / 3600
SIDE = RADIUS / np.cos(np.deg2rad(DEC))
CIRCLE = CircularRegion(RA, DEC, RADIUS)
REGIONS = [
    CIRCLE,
    RectangularRegion(RA - SIDE, RA + SIDE, DEC - RADIUS, DEC + RADIUS),
    PolygonRegion((RA - SIDE, RA + SIDE, RA), (DEC, DEC, DEC + RADIUS)),
]


@pytest.fixture(scope="module")
def plan(survey: fpgpu.Survey) -> PatchPlan:
    return survey.plan(CIRCLE)


@pytest.fixture(scope="module")
def small_plan(survey: fpgpu.Survey) -> PatchPlan:
    """Two exposures of one band, which are drawn quickly."""
    return survey.plan(CIRCLE, bands=["F200W"])


@pytest.fixture(scope="module")
def pixels(survey: fpgpu.Survey, plan: PatchPlan) -> dict[str, np.ndarray]:
    with survey.patch(plan) as patch:
        return {name: patch.retrieve(name) for name in ("data", "ierr")}


def saved(figure: Any, folder: Path) -> Path:
    path = plots.save(figure, folder / "picture.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    return path


def test_footprints_are_drawn_as_large_as_they_are(
    survey: fpgpu.Survey, plan: PatchPlan, tmp_path: Path
) -> None:
    figure = plots.plot_footprints(survey.meta, plan)
    whole, near = panels(figure)
    lines = [line for line in whole.lines if len(line.get_xdata())]
    assert len(lines) == 6 + 1
    for line in lines[:-1]:
        x, y = line.get_data()
        # Twice the area of a polygon: 128 pixels of 31 mas on a side.
        doubled = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
        assert np.sqrt(doubled / 2) == pytest.approx(128 * 0.031, rel=0.01)
    east, north = lines[-1].get_data()
    np.testing.assert_allclose(np.hypot(east, north), 0.8, rtol=1e-6)
    assert len(near.lines) == 6 + 1
    assert is_sky_map(whole)
    assert is_sky_map(near)
    assert nothing_overlaps(figure)
    saved(figure, tmp_path)


def test_the_legend_names_every_band_with_its_exposures(
    survey: fpgpu.Survey, plan: PatchPlan
) -> None:
    (legend,) = plots.plot_footprints(survey.meta, plan).legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == [*(f"{band}: 2 exposures" for band in plan.bandlist), "region"]


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: type(region).__name__)
def test_every_exposure_has_a_panel_of_its_super_pixels(
    survey: fpgpu.Survey, tmp_path: Path, region: Region
) -> None:
    plan = survey.plan(region, select="overlap")
    figure = plots.plot_superpixels(survey.meta, plan)
    assert len(panels(figure)) == plan.n_exp == 6
    for axes, exposure in zip(panels(figure), plan.exposures, strict=True):
        (squares,) = axes.collections
        assert len(squares.get_paths()) == exposure.n_superpixels
        assert exposure.expID in axes.get_title()
        # What overlaps the region covers it: its outline is within the super-pixels' window.
        x, y = axes.lines[0].get_data()
        x0, x1, y0, y1 = (8 * edge for edge in exposure.window)
        assert x0 - 0.51 <= x.min() < x.max() <= x1 - 0.49
        assert y0 - 0.51 <= y.min() < y.max() <= y1 - 0.49
    saved(figure, tmp_path)


def test_pixels_are_shown_where_they_are_and_those_without_weight_are_not(
    plan: PatchPlan, pixels: dict[str, np.ndarray], survey: fpgpu.Survey, tmp_path: Path
) -> None:
    figure = plots.plot_pixels(plan, pixels["data"], pixels["ierr"], flux_units="nJy")
    assert len(panels(figure)) == 2 * plan.n_exp
    assert all(len(axes.child_axes) == 1 for axes in panels(figure))  # a colour bar each
    for axes in panels(figure):
        assert np.ptp(axes.get_xlim()) == np.ptp(axes.get_ylim())  # all panels are of one size
    # In which order they are listed depends on the version of matplotlib.
    titles = sorted(part.get_suptitle() for part in figure.subfigs)
    assert titles == sorted(f"{e.band} {e.expID}" for e in plan.exposures)
    first = plan.exposures[0]
    flux, ierr = survey.pixels.read_exposure(first.band, first.expID)
    shown = panels(figure)[0].images[1].get_array().T
    x0, x1, y0, y1 = (8 * edge for edge in first.window)
    part = np.s_[x0:x1, y0:y1]
    used = ~np.ma.getmaskarray(shown)
    assert used.sum() == np.count_nonzero(pixels["ierr"][: plan.exposure_N[0]])
    masked = panels(figure)[0].images[0].get_array()
    assert masked.count() == plan.exposure_N[0] - used.sum()
    np.testing.assert_array_equal(shown[used], flux[part][used])
    assert (ierr[part][used] > 0).all()
    saved(figure, tmp_path)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_flat_images_and_images_without_weight_are_drawn(
    small_plan: PatchPlan, tmp_path: Path, value: float
) -> None:
    flat = np.full(small_plan.n_pixels, value, np.float32)
    saved(plots.plot_pixels(small_plan, flat, flat), tmp_path)


def test_many_exposures_are_cut_and_the_picture_says_so(
    survey: fpgpu.Survey, plan: PatchPlan, pixels: dict[str, np.ndarray], monkeypatch: Any
) -> None:
    monkeypatch.setattr("fpgpu.plots.canvas.MOST_EXPOSURES", 4)
    figure = plots.plot_superpixels(survey.meta, plan)
    assert len(panels(figure)) == 4
    assert "exposures 1 to 4 of 6" in figure.get_suptitle()
    rest = plots.plot_superpixels(survey.meta, plan, first=4)
    assert len(panels(rest)) == 2
    assert "exposures 5 to 6 of 6" in rest.get_suptitle()
    assert len(panels(plots.plot_pixels(plan, pixels["data"], pixels["ierr"]))) == 8


def test_arrays_of_another_patch_are_refused(plan: PatchPlan) -> None:
    few = np.zeros(64, np.float32)
    with pytest.raises(LayoutError):
        plots.plot_pixels(plan, few, few)


@pytest.mark.parametrize("name", ["nowhere/picture.png", "picture.nonsense"])
def test_a_picture_that_cannot_be_written_is_reported(
    survey: fpgpu.Survey, small_plan: PatchPlan, tmp_path: Path, name: str
) -> None:
    with pytest.raises(StoreWriteError, match="picture"):
        plots.save(plots.plot_superpixels(survey.meta, small_plan), tmp_path / name)


def test_without_matplotlib_the_line_that_installs_it_is_given(
    survey: fpgpu.Survey, plan: PatchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r'pip install "fpgpu\[plot\]"'):
        plots.plot_footprints(survey.meta, plan)


def test_coverage_counts_the_exposures_whose_pixels_have_weight(
    survey: fpgpu.Survey, plan: PatchPlan, pixels: dict[str, np.ndarray], tmp_path: Path
) -> None:
    figure = plots.plot_coverage(survey.meta, plan, pixels["ierr"])
    assert len(panels(figure)) == plan.n_bands == 3
    for axes, band in zip(panels(figure), plan.bandlist, strict=True):
        assert is_sky_map(axes)
        # Somewhere both exposures of the band see the circle, in all places at least none.
        counts = axes.images[0].get_array()
        assert counts.max() == 2
        assert axes.get_title().startswith(f"{band}: ")
        assert axes.get_title().endswith("to 2 of 2 exposures in the region")
    none = plots.plot_coverage(survey.meta, plan, np.zeros_like(pixels["ierr"]))
    assert all(axes.images[0].get_array().count() == 0 for axes in panels(none))
    saved(figure, tmp_path)


def test_coverage_is_that_of_testing_each_place(survey: fpgpu.Survey, plan: PatchPlan) -> None:
    figure = plots.plot_coverage(survey.meta, plan)
    axes = panels(figure)[0]
    shown = np.ma.filled(axes.images[0].get_array(), 0).T
    west, east, south, north = axes.images[0].get_extent()
    n = len(shown)
    random = np.random.default_rng(3)
    for ix, iy in random.integers(0, n, (50, 2)):
        x = west + (ix + 0.5) * (east - west) / n
        y = south + (iy + 0.5) * (north - south) / n
        # A circle of 0.8 arcsec is flat.
        ra, dec = RA + x / 3600 / np.cos(np.deg2rad(DEC)), DEC + y / 3600
        expected = 0
        for exposure in plan.exposures[: plan.band_N[0]]:
            place = survey.meta.sky_wcs(exposure.band, exposure.expID).world_to_pixel(ra, dec)
            superpixel = np.rint(np.array(place).ravel()).astype(int) // 8
            expected += bool((exposure.superpixels == superpixel).all(axis=1).any())
        assert shown[ix, iy] == expected


@pytest.mark.parametrize("first", [0, 4])
def test_residuals_stand_beside_data_and_model(
    survey: fpgpu.Survey,
    plan: PatchPlan,
    pixels: dict[str, np.ndarray],
    tmp_path: Path,
    first: int,
    long_form: bool,
) -> None:
    data, ierr = pixels["data"], pixels["ierr"]
    model = 0.5 * data.astype(np.float64)
    figure = plots.plot_residuals(plan, data, ierr, model, first=first)
    assert len(panels(figure)) == 3 * (plan.n_exp - first)
    left, middle, right = (axes.images[1] for axes in panels(figure)[:3])
    used = ~np.ma.getmaskarray(left.get_array())
    np.testing.assert_allclose(
        middle.get_array()[used], 0.5 * left.get_array()[used], rtol=1e-6, atol=1e-9
    )
    assert left.get_clim() == middle.get_clim()
    assert right.get_clim() == (-5.0, 5.0)
    assert right.get_cmap().name == "PuOr"
    start = plan.exposure_start[first]
    part = np.s_[start : start + plan.exposure_N[first]]
    chi2 = np.mean((0.5 * data[part] * ierr[part])[ierr[part] > 0].astype(float) ** 2)
    assert f"chi2 a pixel {chi2:.2f}" in panels(figure)[2].get_title()
    assert nothing_overlaps(figure)
    if first or long_form:  # the larger one was drawn just now, and writing it takes long
        saved(figure, tmp_path)


def test_pages_hold_all_exposures_once(
    survey: fpgpu.Survey, plan: PatchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpgpu.plots.canvas.MOST_EXPOSURES", 4)
    drawn = list(
        plots.pages(plan, lambda first: plots.plot_superpixels(survey.meta, plan, first=first))
    )
    titles = [axes.get_title() for figure in drawn for axes in panels(figure)]
    assert len(drawn) == 2
    for title, exposure in zip(titles, plan.exposures, strict=True):
        assert exposure.expID in title


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("jw01234_nrcblong_f444w_cal", ["jw01234_nrcblong_", "f444w_cal"]),
        ("visit7/j8hqq1_flc-sci1.x", ["visit7/j8hqq1_flc-", "sci1.x"]),
        ("a" * 25 + "_b", ["a" * 25 + "_", "b"]),
        ("short", ["short"]),
    ],
)
def test_long_names_are_told_whole_and_broken_between_their_parts(
    name: str, lines: list[str]
) -> None:
    from fpgpu.plots.canvas import break_name

    assert break_name(name, 20).split("\n") == lines


# Machado, Oliveira & Fernandes (2009): what people without one kind of cones see, linear RGB.
COLOUR_VISIONS = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def cie_lab(rgb: Any, vision: Any) -> np.ndarray:
    """L*, a*, b* of sRGB colours as somebody sees them."""
    rgb = np.asarray(rgb, float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(vision), 0, 1)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = seen @ np.transpose(matrix) / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


@pytest.mark.parametrize("vision", COLOUR_VISIONS.values(), ids=COLOUR_VISIONS.keys())
def test_masked_pixels_have_a_colour_far_from_those_of_the_maps(vision: Any) -> None:
    import matplotlib
    from matplotlib.colors import to_rgb

    from fpgpu.plots.canvas import DIVERGING, MAP, MASKED

    masked = cie_lab(to_rgb(MASKED), vision)
    for name in (MAP, DIVERGING):
        shown = cie_lab(matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3], vision)
        # 2 is a difference that is just seen.
        assert np.linalg.norm(shown - masked, axis=-1).min() > 25
    # Too much and too little are told apart, and none is white.
    low, middle, high = cie_lab(matplotlib.colormaps[DIVERGING]([0.1, 0.5, 0.9])[:, :3], vision)
    assert np.linalg.norm(low - high) > 40
    assert middle[0] > 95


@pytest.mark.parametrize(
    ("low", "high", "spread"),
    [(-2.2, 313.0, 3.0), (-2.4, 96.0, 2.4), (-1e-4, 0.02, 1e-4), (-5e3, 4e4, 2e2), (-9.0, -1.0, 1)],
)
def test_ticks_of_fluxes_are_round_and_have_room(low: float, high: float, spread: float) -> None:
    from matplotlib.colors import AsinhNorm

    from fpgpu.plots.pixels import round_ticks

    norm = AsinhNorm(spread, vmin=low, vmax=high)
    ticks = round_ticks(norm)
    assert ticks is not None
    assert 3 <= len(ticks) <= 12
    assert all(f"{abs(tick):.0e}"[0] in "0125" and float(f"{tick:.0e}") == tick for tick in ticks)
    assert min(np.diff(norm(ticks))) >= 0.09
    assert low <= ticks[0] < ticks[-1] <= high


def test_a_narrow_scale_of_fluxes_keeps_the_ticks_of_matplotlib() -> None:
    from fpgpu.plots.pixels import flux_scale

    assert flux_scale(np.linspace(7.1, 7.3, 50))[1] is None


def test_twenty_eight_bands_look_different() -> None:
    from fpgpu.plots.canvas import band_looks

    looks = band_looks(map(str, range(28))).values()
    assert len({tuple(look.items()) for look in looks}) == 28
