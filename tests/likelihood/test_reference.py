"""The likelihood: forcepho's numbers, and what they mean."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erf

from fpgpu.errors import LayoutError
from fpgpu.layout import MAXBANDS, MAXRADII, SOURCE_DTYPE
from fpgpu.likelihood import reference
from fpgpu.likelihood.reference import DERIVATIVES, Evaluation, evaluate
from tests.likelihood.random_scenes import Arrays, blank_patch, plain_sources, random_scene

Float = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def forcepho_patch(golden: Path) -> Arrays:
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as file:
        return dict(file)


@pytest.fixture(scope="module", params=[True, False], ids=["PSF per source", "one PSF"])
def evaluation(forcepho_patch: Arrays, request: pytest.FixtureRequest) -> Evaluation:
    return evaluate(forcepho_patch, forcepho_patch["proposal"], psf_per_source=bool(request.param))


def test_chi2_is_that_of_forcephos_kernel(forcepho_patch: Arrays, evaluation: Evaluation) -> None:
    np.testing.assert_allclose(evaluation.chi2, forcepho_patch["chi2"], rtol=1e-5)


@pytest.mark.parametrize("parameter", DERIVATIVES)
def test_derivatives_are_those_of_forcephos_kernel(
    forcepho_patch: Arrays, evaluation: Evaluation, parameter: str
) -> None:
    number = DERIVATIVES.index(parameter)
    found = evaluation.derivatives[..., number]
    expected = forcepho_patch["chi2_derivs"][..., number]
    for band in range(len(expected)):
        limit = 1e-4 * abs(expected[band]).max()
        np.testing.assert_allclose(found[band], expected[band], rtol=0, atol=limit)


def test_residuals_are_those_of_forcephos_kernel(
    forcepho_patch: Arrays, evaluation: Evaluation
) -> None:
    peak = abs(forcepho_patch["data"]).max()
    np.testing.assert_allclose(
        evaluation.residual, forcepho_patch["residual"], rtol=0, atol=1e-5 * peak
    )


def test_a_point_source_is_integrated_over_each_pixel() -> None:
    arrays = blank_patch(32, 30)
    arrays["crpix"][:] = 15.3, 14.6
    model = evaluate(arrays, plain_sources()).model
    expected = between_edges(arrays["xpix"] - 15.3, 2.0) * between_edges(arrays["ypix"] - 14.6, 2.0)
    # The density at the centre of the pixel would be off by 1/48 of the peak, 8e-4.
    np.testing.assert_allclose(model, expected, rtol=0, atol=2e-5)


def between_edges(offset: Float, sigma: float) -> Float:
    """Integral of a normal distribution over pixels of unit width."""
    upper, lower = (offset + 0.5) / (sigma * 2**0.5), (offset - 0.5) / (sigma * 2**0.5)
    return np.asarray((erf(upper) - erf(lower)) / 2)


def test_a_source_has_its_flux_times_the_exposures_factor_in_all_pixels_together() -> None:
    arrays = blank_patch(60, 62, n_exp=(1, 2), n_radii=2, n_psf=4)
    arrays["rad2"] = np.array([1.0, 3.0])
    arrays["psfgauss"]["sersic_bin"] = np.tile([0, 0, 1, 1], 3)
    arrays["psfgauss"]["amp"] = np.tile([0.7, 0.3], 6)
    arrays["crpix"][:] = 30.0
    arrays["G"] = np.array([1.0, 2.0, 5.0])
    sources = plain_sources(q=0.9, pa=0.4)
    sources["mixture_amplitudes"][0, :2] = 0.25, 0.75
    sources["fluxes"][0, :2] = 3.0, 11.0
    totals = evaluate(arrays, sources).model.reshape(3, -1).sum(axis=1)
    np.testing.assert_allclose(totals, [3.0, 22.0, 55.0], rtol=1e-5)


def test_q_is_the_root_of_the_axis_ratio_and_pa_turns_the_long_axis_from_x_to_y() -> None:
    q, pa, rad2, variance = 0.8, 0.6, 9.0, 4.0
    arrays = blank_patch(90, 92)
    arrays["rad2"][0] = rad2
    arrays["crpix"][:] = 44.0, 46.0
    model = evaluate(arrays, plain_sources(q=q, pa=pa)).model
    offset = np.stack([arrays["xpix"] - 44.0, arrays["ypix"] - 46.0])
    moments = (offset * model) @ offset.T / model.sum() - np.eye(2) / 12  # of the pixel itself
    widths, axes = np.linalg.eigh(moments)
    expected = [rad2 * q**2 + variance, rad2 / q**2 + variance]
    np.testing.assert_allclose(widths, expected, rtol=1e-4)
    np.testing.assert_allclose(abs(axes[:, 1] @ [np.cos(pa), np.sin(pa)]), 1.0, rtol=1e-6)


def test_a_sources_size_is_in_arcsec_and_its_place_in_degrees() -> None:
    arrays = blank_patch(80, 80)
    arrays["rad2"][0] = 0.04
    arrays["D"][:] = [[10.0, 0.0], [0.0, 20.0]]
    arrays["CW"][:] = [[0.0, 1000.0], [2000.0, 0.0]]
    arrays["crpix"][:] = 36.0, 40.0
    arrays["crval"][:] = 0.001, 0.002
    model = evaluate(arrays, plain_sources(ra=0.003, dec=0.004)).model
    x, y = arrays["xpix"], arrays["ypix"]
    assert (model @ x) / model.sum() == pytest.approx(36 + 1000 * 0.002, abs=1e-3)
    assert (model @ y) / model.sum() == pytest.approx(40 + 2000 * 0.002, abs=1e-3)
    assert (model @ (x - 38) ** 2) / model.sum() == pytest.approx(4 + 4 + 1 / 12, rel=1e-3)
    assert (model @ (y - 44) ** 2) / model.sum() == pytest.approx(16 + 4 + 1 / 12, rel=1e-3)


def test_a_gaussian_ends_where_its_exponent_passes_the_limit() -> None:
    arrays = blank_patch(40, 1)  # sigma is 2: the limit of 36 is at 12 pixels
    model = evaluate(arrays, plain_sources()).model
    assert model[12] > 0
    assert (model[13:] == 0).all()


def test_chi2_counts_from_the_data_without_a_model() -> None:
    arrays, sources = random_scene(np.random.default_rng(5))
    result = evaluate(arrays, sources)
    first_band = slice(0, arrays["exposure_N"][: arrays["band_N"][0]].sum())
    data, ierr = arrays["data"], arrays["ierr"]
    expected = ((result.residual**2 - data**2) * ierr**2)[first_band].sum()
    assert result.chi2[0] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(result.residual, data - result.model)


def test_pixels_without_weight_have_a_residual_but_no_say() -> None:
    arrays, sources = random_scene(np.random.default_rng(6))
    arrays["ierr"][::3] = 0
    before = evaluate(arrays, sources)
    arrays["data"][::3] += 1e6
    after = evaluate(arrays, sources)
    np.testing.assert_array_equal(after.chi2, before.chi2)
    np.testing.assert_array_equal(after.derivatives, before.derivatives)
    np.testing.assert_allclose(after.residual[::3] - before.residual[::3], 1e6)


def test_each_source_has_its_own_psf() -> None:
    arrays = blank_patch(n_sources=2, n_psf=1)
    arrays["crpix"][:] = [[3.0, 4.0], [8.0, 5.0]]
    arrays["psfgauss"]["Cxx"] = 1.0, 6.0
    alone = []
    for number in range(2):
        one = {**arrays, "n_sources": 1, "psfgauss": arrays["psfgauss"][number : number + 1]}
        for name in ("D", "CW", "crpix", "crval"):
            one[name] = arrays[name][:, number : number + 1]
        alone.append(evaluate(one, plain_sources()).model)
    model = evaluate(arrays, plain_sources(2)).model
    np.testing.assert_allclose(model, alone[0] + alone[1], rtol=1e-13)


def test_one_psf_an_exposure_is_the_first_sources() -> None:
    arrays = blank_patch(n_exp=(2,), n_sources=2, n_psf=3)
    arrays["crpix"][:] = [[3.0, 4.0], [8.0, 5.0]]
    arrays["psfgauss"]["Cxx"] = np.arange(1, 13)
    shared = evaluate(arrays, plain_sources(2), psf_per_source=False)
    by_exposure = arrays["psfgauss"].reshape(2, 2, 3)
    by_exposure[:, 1] = by_exposure[:, 0]
    expected = evaluate(arrays, plain_sources(2))
    np.testing.assert_array_equal(shared.model, expected.model)
    np.testing.assert_array_equal(shared.derivatives, expected.derivatives)


def test_the_steps_that_bound_memory_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, sources = random_scene(np.random.default_rng(7))
    whole = evaluate(arrays, sources)
    monkeypatch.setattr(reference, "PIXELS_AT_ONCE", 7)
    for found, expected in zip(evaluate(arrays, sources), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_slots_that_are_not_used_may_hold_anything() -> None:
    arrays, sources = random_scene(np.random.default_rng(8))
    before = evaluate(arrays, sources)
    sources["fluxes"][:, len(arrays["band_N"]) :] = np.nan
    for name in ("mixture_amplitudes", "damplitude_drh", "damplitude_dnsersic"):
        sources[name][:, arrays["n_radii"] :] = np.nan
    sources["nsersic"] = sources["rh"] = np.nan
    np.testing.assert_array_equal(evaluate(arrays, sources).chi2, before.chi2)


def test_a_patch_without_sources_is_its_data() -> None:
    arrays = blank_patch(n_sources=0)
    arrays["data"] += 3.0
    result = evaluate(arrays, np.zeros(0, SOURCE_DTYPE))
    assert result.chi2.tolist() == [0.0]
    assert result.derivatives.shape == (1, 0, 7)
    assert (result.residual == 3.0).all()


def test_an_exposure_without_pixels_adds_nothing() -> None:
    arrays, sources = blank_patch(n_exp=(2,)), plain_sources(fluxes=4.0)
    arrays["crpix"][:] = 5.0
    arrays["exposure_N"][1] = 0
    alone = evaluate(arrays, sources)
    arrays["band_N"][0] = 1
    np.testing.assert_array_equal(evaluate(arrays, sources).chi2, alone.chi2)
    assert alone.chi2[0] > 0


REFUSED_PATCHES: list[tuple[str, Any, str]] = [
    ("D", None, "lacks D"),
    ("ierr", np.zeros(3), r"ierr has shape \(3,\); expected \(240,\)"),
    ("crpix", np.zeros((2, 1, 2)), r"crpix has shape \(2, 1, 2\); expected \(2, 2, 2\)"),
    ("band_N", np.array([3]), "exposures of band 0 are 3 from number 0 on, but the patch has 2"),
    ("exposure_start", np.array([0, 121]), "pixels of exposure 1 are 120 from number 121 on"),
    ("exposure_N", np.array([-1, 3]), "pixels of exposure 0 are -1"),
    ("psfgauss_start", np.array([0, 7]), "PSF Gaussians of exposure 1 are 6 from number 7 on"),
    ("psfgauss", np.zeros(12), "psfgauss is float64"),
    ("G", np.array([1.0, np.nan]), "G holds 1 values that are not finite"),
    ("rad2", np.zeros(0), r"rad2 has shape \(0,\); expected \(1,\)"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED_PATCHES)
def test_arrays_that_do_not_fit_together_are_refused(name: str, value: Any, message: str) -> None:
    arrays = blank_patch(n_exp=(2,), n_sources=2, n_psf=3)
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    with pytest.raises(LayoutError, match=message):
        evaluate(arrays, plain_sources(2))


def test_a_psf_for_a_radius_that_is_not_there_is_refused() -> None:
    arrays = blank_patch()
    arrays["psfgauss"]["sersic_bin"] = 1
    with pytest.raises(LayoutError, match="sersic_bin 1 to 1; the patch has 1 radii"):
        evaluate(arrays, plain_sources())


@pytest.mark.parametrize(("name", "value"), [("Cxx", -1.0), ("Cxy", 4.0), ("amp", np.nan)])
def test_a_psf_that_is_no_gaussian_is_refused(name: str, value: float) -> None:
    arrays = blank_patch(n_psf=3)
    arrays["psfgauss"][name][1] = value
    with pytest.raises(LayoutError, match=r"Gaussian 1 of psfgauss.*; 1 of 3 are like that"):
        evaluate(arrays, plain_sources())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("q", 0.0, "source 1: q 0.0 is not positive"),
        ("pa", np.nan, "source 1: pa nan is not finite"),
        ("ra", np.inf, "source 1: ra inf is not finite"),
        ("fluxes", np.nan, "source 1: fluxes nan is not finite"),
        ("damplitude_drh", np.nan, "source 1: damplitude_drh nan is not finite"),
    ],
)
def test_sources_that_cannot_be_are_refused(name: str, value: float, message: str) -> None:
    sources = plain_sources(2)
    sources[name][1] = value
    with pytest.raises(LayoutError, match=message):
        evaluate(blank_patch(n_sources=2), sources)


def test_a_proposal_of_another_patch_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"shape \(3,\); the patch has 2 sources"):
        evaluate(blank_patch(n_sources=2), plain_sources(3))
    with pytest.raises(LayoutError, match="lacks the fields ra, dec"):
        evaluate(blank_patch(), np.zeros(1))
    with pytest.raises(LayoutError, match=f"room for {MAXBANDS}, the patch has {MAXBANDS + 1}"):
        evaluate(blank_patch(n_exp=(1,) * (MAXBANDS + 1)), plain_sources())
    with pytest.raises(LayoutError, match=f"room for {MAXRADII}, the patch has {MAXRADII + 1}"):
        evaluate(blank_patch(n_radii=MAXRADII + 1), plain_sources())
