"""evaluate finds what the float64 reference finds, whatever the scene, and the same in a batch."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fpgpu.backends.launches import EVALUATE_WORKS, TILE_PIXELS
from fpgpu.layout import (
    EVALUATE_WORK_DTYPE,
    IMAGE_GAUSSIAN_DTYPE,
    NPARAMS,
    PATCH_ARRAYS,
    PATCH_DTYPE,
    SOURCE_DTYPE,
)
from fpgpu.likelihood import reference
from fpgpu.likelihood.reference import Evaluation
from tests.kernels import calls
from tests.kernels.host_kernels import POISON, Guarded, HostKernels, aligned, assert_same_bits
from tests.likelihood.random_scenes import Arrays, blank_patch, random_scene, random_sources

Sources = npt.NDArray[Any]


def as_packed(arrays: Arrays) -> Arrays:
    """A patch in the precision of a kernel, each array at an address of its own."""
    packed = {name: aligned(np.asarray(arrays[name], t)) for name, t in PATCH_ARRAYS.items()
              if name != "residual"}  # fmt: skip
    return packed | {name: int(arrays[name]) for name in ("n_sources", "n_radii")}


def as_sources(proposals: Sources | list[Sources]) -> Sources:
    """Proposals, one or a batch, in the precision of a kernel: (n_batch, n_sources)."""
    proposals = np.atleast_2d(np.stack(proposals) if isinstance(proposals, list) else proposals)
    sources = aligned(np.zeros(proposals.shape, SOURCE_DTYPE))
    for name in SOURCE_DTYPE.names or ():
        sources[name] = proposals[name]
    return sources


def cut(arrays: Arrays, tiles: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
    """The table of work of a patch, and the first work of each exposure."""
    rows, starts = [], [0]
    bands = np.repeat(np.arange(len(arrays["band_N"])), arrays["band_N"])
    for exposure, band in enumerate(bands):
        start, left = arrays["exposure_start"][exposure], arrays["exposure_N"][exposure]
        for first in range(0, left, tiles * TILE_PIXELS):
            count = min(tiles * TILE_PIXELS, left - first)
            rows.append((exposure, band, start + first, count))
        starts.append(len(rows))
    return aligned(np.array(rows, EVALUATE_WORK_DTYPE)), aligned(np.array(starts, np.int32))


def run(
    host: HostKernels, arrays: Arrays, sources: Sources, *, tiles: int = 1,
    per_source: bool = True, residual: bool = True, derivatives: bool = True,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:  # fmt: skip
    """Run the three kernels; returns chi2, derivatives and residual, poison where not written."""
    n_batch, n_sources = sources.shape
    n_bands, n_pixels = len(arrays["band_N"]), len(arrays["data"])
    bands = np.repeat(np.arange(n_bands, dtype=np.int32), arrays["band_N"])
    widths = arrays["n_psf_per_source"][bands] * n_sources
    gauss_start = aligned(np.cumsum([0, *widths]).astype(np.int32))
    work, work_start = cut(arrays, tiles)
    widest = int(widths.max(initial=0))
    scratch = [Guarded((n_batch, int(gauss_start[-1])), IMAGE_GAUSSIAN_DTYPE)]
    scratch += [Guarded((n_batch, len(work), widest, 6), np.float32)]
    scratch += [Guarded((n_batch, len(work)), np.float64)]
    found = [Guarded((n_batch, n_bands), np.float64)]
    found += [Guarded((n_batch, n_bands, n_sources, NPARAMS), np.float32)]
    found += [Guarded((n_pixels,), np.float32)]
    patch = np.zeros((), PATCH_DTYPE)
    for name in PATCH_ARRAYS:
        patch[name] = found[2].address if name == "residual" else arrays[name].ctypes.data
    patch["n_sources"], patch["n_radii"] = n_sources, arrays["n_radii"]
    buffers = [guarded.address for guarded in (*scratch, *found[:2])]
    if not derivatives:
        buffers[1] = buffers[4] = 0
    tables = (sources, gauss_start, aligned(bands), work, work_start)
    counts = (widest, n_bands, n_sources if derivatives else 0)
    for call in calls.evaluate(patch, tables, buffers, counts, (per_source, residual)):
        host.run(*call)
    for guarded in (*scratch, *found):
        guarded.check()
    return found[0].array, found[1].array, found[2].array


def check(
    host: HostKernels, arrays: Arrays, proposal: Sources, *, per_source: bool = True, **how: Any
) -> Evaluation:
    """Hold the kernels against the reference, which gets the very float32 that they get."""
    packed, sources = as_packed(arrays), as_sources(proposal)
    chi2, derivatives, residual = run(host, packed, sources, per_source=per_source, **how)
    judge = reference.evaluate(packed, sources[0], psf_per_source=per_source)
    data, ierr = (packed[name].astype(np.float64) for name in ("data", "ierr"))
    terms = abs(judge.residual**2 - data**2) * ierr**2
    for band, (first, count) in enumerate(zip(packed["band_start"], packed["band_N"], strict=True)):
        total = sum(
            terms[start : start + number].sum()
            for start, number in zip(
                packed["exposure_start"][first : first + count],
                packed["exposure_N"][first : first + count],
                strict=True,
            )
        )
        assert abs(chi2[0, band] - judge.chi2[band]) <= 1e-6 * total
        for found, expected in zip(derivatives[0, band].T, judge.derivatives[band].T, strict=True):
            bound = 1e-4 * abs(expected).max(initial=0)
            np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    peak = max(abs(data).max(initial=0), abs(judge.model).max(initial=0))
    np.testing.assert_allclose(residual, judge.residual, rtol=0, atol=1e-5 * peak)
    return judge


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("per_source", [True, False], ids=["PSF per source", "one PSF"])
def test_random_scenes(host: HostKernels, seed: int, per_source: bool) -> None:
    arrays, sources = random_scene(np.random.default_rng(seed))
    judge = check(host, arrays, sources, per_source=per_source, tiles=1 + seed % 3)
    assert abs(judge.chi2[0]) > 0


def test_forcephos_patch_and_its_answers(host: HostKernels, golden) -> None:
    with np.load(golden / "tiny" / "patch_1p2arcsec_3src.npz") as file:
        arrays = dict(file)
    check(host, arrays, arrays["proposal"], tiles=5)
    packed, sources = as_packed(arrays), as_sources(arrays["proposal"])
    chi2, derivatives, residual = run(host, packed, sources, tiles=5)
    np.testing.assert_allclose(chi2[0], arrays["chi2"], rtol=1e-5)
    for found, expected in zip(derivatives[0], arrays["chi2_derivs"], strict=True):
        bounds = 1e-4 * abs(expected).max(axis=0)
        assert (abs(found - expected) <= bounds).all()
    peak = abs(arrays["data"]).max()
    np.testing.assert_allclose(residual, arrays["residual"], rtol=0, atol=1e-5 * peak)


def many(rng: np.random.Generator, n_sources: int, n_psf: int, n_radii: int = 3) -> Arrays:
    """Stamps of 35 x 31 pixels, so that the last tile of an exposure is not full, in two bands."""
    arrays = blank_patch(35, 31, n_exp=(2, 1), n_sources=n_sources, n_radii=n_radii, n_psf=n_psf)
    arrays["data"] = rng.normal(0, 0.3, arrays["data"].shape)
    arrays["ierr"] = rng.uniform(0, 3, arrays["ierr"].shape)
    arrays["rad2"] = np.geomspace(0.01, 2, n_radii)
    for name, scale in (("D", 3.0), ("CW", 5000.0)):
        arrays[name] = scale * (np.eye(2) + rng.uniform(-0.3, 0.3, (3, n_sources, 2, 2)))
    arrays["crpix"] = rng.uniform(-8, 42, (3, n_sources, 2))
    psf = arrays["psfgauss"]
    psf["amp"] = rng.uniform(-0.2, 1, psf.shape) / n_psf
    psf["xcen"], psf["ycen"] = rng.normal(0, 0.3, (2, *psf.shape))
    psf["Cxx"], psf["Cyy"] = rng.uniform(0.6, 4, (2, *psf.shape))
    psf["Cxy"] = rng.uniform(-0.5, 0.5, psf.shape)
    psf["sersic_bin"] = rng.integers(0, n_radii, psf.shape)
    return arrays


@pytest.mark.parametrize(
    ("n_sources", "n_psf"), [(1, 1), (1, 99), (2, 16), (3, 11), (31, 4), (40, 1), (200, 3)]
)
def test_any_number_of_sources_and_gaussians(host: HostKernels, n_sources: int, n_psf: int) -> None:
    rng = np.random.default_rng(n_sources)
    check(host, many(rng, n_sources, n_psf), random_sources(rng, n_sources), tiles=4)


@pytest.mark.parametrize("size", [0.01, 0.1, 1, 10, 60], ids="radius {} px".format)
@pytest.mark.parametrize("q", [0.98, 0.5, 0.2])
@pytest.mark.parametrize("place", [(16, 14), (0, 30), (-30, 40), (1000, -1000)], ids=str)
def test_sources_of_any_size_and_shape_wherever_they_are(
    host: HostKernels, size: float, q: float, place: tuple[float, float]
) -> None:
    rng = np.random.default_rng(5)
    arrays = many(rng, 1, 4, 1)
    arrays["D"] = np.tile(np.eye(2), (3, 1, 1, 1))
    arrays["rad2"] = np.array([size**2])
    arrays["crpix"][:] = place
    sources = random_sources(rng, 1)
    sources["q"], sources["pa"] = q, rng.uniform(-20, 20)
    check(host, arrays, sources, tiles=3)


def test_a_round_source_does_not_change_when_it_turns(host: HostKernels) -> None:
    rng = np.random.default_rng(6)
    sources = random_sources(rng, 2)
    sources["q"] = 1
    arrays = many(rng, 2, 4)
    _, derivatives, _ = run(host, as_packed(arrays), as_sources(sources))
    q, pa = np.moveaxis(derivatives[0, ..., 3:5], -1, 0)
    assert (abs(q).max(axis=-1) > 0).all()
    assert (abs(pa) < 1e-6 * abs(q).max()).all()


def test_far_from_the_first_pixel_centres_keep_their_digits(host: HostKernels) -> None:
    rng = np.random.default_rng(7)
    arrays, sources = random_scene(rng)
    for name in ("xpix", "ypix"):
        arrays[name] += 16000
    arrays["crpix"] += 16000
    check(host, arrays, sources)


def test_a_sharp_psf_and_round_gaussians_along_the_axes(host: HostKernels) -> None:
    rng = np.random.default_rng(8)
    arrays = many(rng, 2, 6, 1)
    arrays["rad2"] = np.zeros(1)
    psf = arrays["psfgauss"]
    psf["Cxx"] = np.resize([0.05, 0.3, 4, 4, 1, 9], psf.shape)
    psf["Cyy"] = np.resize([0.05, 0.3, 4, 1, 9, 4], psf.shape)
    psf["Cxy"] = np.resize([0, 0, 0, 0, 2.9, -5.9], psf.shape)
    arrays["crpix"] = rng.uniform(5, 25, (3, 2, 2))
    check(host, arrays, random_sources(rng, 2))


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 129, 640])
def test_exposures_of_any_number_of_pixels(host: HostKernels, count: int) -> None:
    rng = np.random.default_rng(count)
    arrays = many(rng, 2, 3)
    arrays["exposure_N"] = np.array([count, 1085, 200])
    arrays["exposure_start"] = np.array([17, 1085, 2170])
    packed, sources = as_packed(arrays), as_sources(random_sources(rng, 2))
    residual = run(host, packed, sources, tiles=2)[2]
    assert (residual[:17].view(np.uint8) == POISON).all()
    assert (residual[17 + count : 1085].view(np.uint8) == POISON).all()
    judge = reference.evaluate(packed, sources[0])
    chi2, derivatives, _ = run(host, packed, sources, tiles=2, residual=False)
    np.testing.assert_allclose(chi2[0], judge.chi2, rtol=1e-5)
    for found, expected in zip(derivatives[0], judge.derivatives, strict=True):
        assert (abs(found - expected) <= 1e-4 * abs(expected).max(axis=0)).all()


def test_masked_pixels_and_whole_masked_tiles_count_for_nothing(host: HostKernels) -> None:
    rng = np.random.default_rng(11)
    arrays = many(rng, 2, 3)
    arrays["ierr"][rng.random(len(arrays["ierr"])) < 0.3] = 0
    arrays["ierr"][128:320] = 0
    judge = check(host, arrays, sources := random_sources(rng, 2))
    arrays["data"] = np.where(arrays["ierr"] > 0, arrays["data"], 1e6).astype(np.float32)
    chi2, derivatives, _ = run(host, as_packed(arrays), as_sources(sources))
    np.testing.assert_allclose(chi2[0], judge.chi2, rtol=1e-5)
    arrays["ierr"][:] = 0
    chi2, derivatives, _ = run(host, as_packed(arrays), as_sources(sources))
    assert not chi2.any()
    assert not derivatives.any()


def test_no_sources_leave_the_data(host: HostKernels) -> None:
    arrays = many(np.random.default_rng(1), 0, 3)
    chi2, derivatives, residual = run(host, packed := as_packed(arrays), as_sources([random_sources(
        np.random.default_rng(1), 0)]))  # fmt: skip
    assert not chi2.any()
    assert derivatives.shape == (1, 2, 0, NPARAMS)
    assert_same_bits(residual, packed["data"])


def test_a_batch_has_the_bits_of_single_calls_and_of_a_second_run(host: HostKernels) -> None:
    rng = np.random.default_rng(13)
    packed = as_packed(many(rng, 3, 5))
    proposals = [random_sources(rng, 3) for _ in range(5)]
    chi2, derivatives, _ = run(host, packed, as_sources(proposals), tiles=2, residual=False)
    again = run(host, packed, as_sources(proposals), tiles=2, residual=False)
    assert_same_bits(again[0], chi2)
    assert_same_bits(again[1], derivatives)
    for number, proposal in enumerate(proposals):
        single = run(host, packed, as_sources(proposal), tiles=2, residual=False)
        assert_same_bits(single[0][0], chi2[number])
        assert_same_bits(single[1][0], derivatives[number])


def test_what_is_not_asked_for_is_not_written(host: HostKernels) -> None:
    arrays, proposal = random_scene(np.random.default_rng(3))
    packed, sources = as_packed(arrays), as_sources(proposal)
    chi2, derivatives, residual = run(host, packed, sources, residual=False, derivatives=False)
    assert_same_bits(chi2, run(host, packed, sources)[0])
    assert (derivatives.view(np.uint8) == POISON).all()
    assert (residual.view(np.uint8) == POISON).all()


@pytest.mark.parametrize("name", ["ra", "q", "pa", "fluxes", "mixture_amplitudes"])
def test_a_parameter_that_is_no_number_gives_no_number(host: HostKernels, name: str) -> None:
    arrays, proposal = random_scene(np.random.default_rng(4))
    proposal[name][0] = np.nan
    chi2, derivatives, _ = run(host, as_packed(arrays), as_sources(proposal))
    assert np.isnan(chi2[0, 0])
    assert np.isnan(derivatives[0, 0, 0]).any()


def test_a_survey_sized_patch_is_cut_into_a_bounded_number_of_works() -> None:
    arrays = {"band_N": [36], "exposure_start": np.arange(36) * 32256,
              "exposure_N": np.full(36, 32256)}  # fmt: skip
    tiles = -(-36 * 32256 // (TILE_PIXELS * EVALUATE_WORKS))
    work, work_start = cut(arrays, tiles)
    assert EVALUATE_WORKS / 2 < len(work) < EVALUATE_WORKS + 36
    assert work["n_pixels"].sum() == 36 * 32256
    assert work_start[-1] == len(work)
