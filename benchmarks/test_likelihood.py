"""Evaluating a scene with all derivatives, beside forcepho's kernel; and a whole fit with either.

The limit is the machine's own rate of multiply-adds, in registers alone. What forcepho uses is
one core; it takes its kernel as its users have it, compiled by their compiler.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.inputs.field import N_GAUSS, Field, write_psf
from benchmarks.limits import Limit, multiply_adds
from benchmarks.sizes import Measure, Size
from benchmarks.upstream import catalog, circle, fit, kernel, store_patch, write_splines
from fpgpu import get_backend
from fpgpu.layout import MAX_EXP_ARG
from fpgpu.likelihood import reference
from fpgpu.likelihood.cpu import n_threads, set_threads
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import FORCEPHO_RADII as RADII

OPERATION = "evaluate with derivatives"
N_SOURCES = 5
CORES = sorted({*(2**k for k in range(n_threads().bit_length())), n_threads()})
WORK = 38
"""Operations of one pixel and one Gaussian that reaches it, as the compiled loops have them: 17 for
the model and 11 for moments, and 10 that several pixels share. Each could be a multiply-add."""


class Case(NamedTuple):
    """What is evaluated."""

    radius: float
    sources: int
    n_gauss: int = N_GAUSS

    def __str__(self) -> str:
        return f"{self.radius:g}-{self.sources}-{self.n_gauss}"


def cases(size: Size) -> list[Case]:
    """The usual scene, and those that differ from it in one thing."""
    usual = Case(size.radius, N_SOURCES)
    found = [usual]
    found += [usual._replace(radius=part * size.radius) for part in (0.1, 0.5)]
    found += [usual._replace(sources=sources) for sources in size.sources]
    found += [usual._replace(n_gauss=n_gauss) for n_gauss in (1, 2, 8)]
    return list(dict.fromkeys(found))


class Scene(NamedTuple):
    """A patch, and what is asked of it."""

    patch: Patch
    proposal: npt.NDArray[Any]
    at: dict[str, float]

    def limit(self, cores: int) -> Limit:
        """As many multiply-adds as the super-pixels and the Gaussians that reach them need."""
        arrays = self.patch.host_arrays()
        exposures = [
            (band, first + k)
            for band, (first, number) in enumerate(
                zip(arrays["band_start"], arrays["band_N"], strict=True)
            )
            for k in range(number)
        ]
        n_near = 0
        for band, exposure in exposures:
            seen = reference._project(arrays, self.proposal, band, exposure, False).gaussians
            start, count = (arrays[f"exposure_{name}"][exposure] for name in ("start", "N"))
            corners = np.stack([arrays[n][start : start + count : 64] for n in ("xpix", "ypix")])
            reach = np.sqrt(MAX_EXP_ARG * seen.covariance[:, [0, 1], [0, 1]])[..., None]
            offsets = corners - seen.centre[..., None]
            n_near += int(((offsets <= reach) & (offsets + 7 >= -reach)).all(axis=1).sum())
        return multiply_adds(64 * WORK * n_near, cores)


@contextmanager
def scene(field: Field, case: Case, folder: Path) -> Iterator[Scene]:
    """Build the patch of a case."""
    psf = None
    if case.n_gauss != N_GAUSS:
        psf = folder / "psf.h5"
        write_psf(psf, field.size, np.random.default_rng(1), case.n_gauss)
    sources = catalog(field, case.sources, case.radius)
    mixture = SersicMixture.from_file(write_splines(folder / "splines.h5"))
    region, options = field.region(case.radius), {"psf_per_source": False, "margin": None}
    with (
        field.open(get_backend("cpu"), psf=psf) as survey,
        survey.patch(region, sources, field.bands(), **options) as patch,
    ):
        proposal = proposal_from_catalog(sources, patch.bandlist, mixture, patch.reference)
        at = {"pixels": patch.plan.n_pixels, "sources": case.sources}
        yield Scene(patch, proposal, at | {"Gaussians": case.n_gauss * len(RADII)})


@pytest.fixture
def forcepho_kernel(forcepho: ModuleType) -> None:
    """forcepho with its compiled kernel."""
    pytest.importorskip(
        "forcepho.src.compute_gaussians_kernel", reason="forcepho's kernel was not compiled"
    )


@pytest.fixture(autouse=True)
def usual_threads() -> Iterator[None]:
    yield
    set_threads(None)


@pytest.mark.parametrize("threads", [1, None], ids=["one core", "all cores"])
def test_fpgpu(
    measure: Measure, field: Field, case: Case, threads: int | None, tmp_path: Path
) -> None:
    set_threads(threads)
    with scene(field, case, tmp_path) as made:
        found = measure(
            OPERATION,
            "fpgpu cpu",
            lambda: made.patch.evaluate(made.proposal),
            detail="all cores" if threads is None else "one core",
            at=made.at,
            limit=made.limit(n_threads()),
        )
    assert np.isfinite(found.chi2).all()
    assert found.derivatives.shape == (len(field.bands()), case.sources, 7)


@pytest.mark.parametrize("cores", CORES)
def test_fpgpu_by_cores(
    measure: Measure, field: Field, size: Size, cores: int, tmp_path: Path
) -> None:
    set_threads(cores)
    with scene(field, cases(size)[0], tmp_path) as made:
        found = measure(
            "evaluate on some cores",
            "fpgpu cpu",
            lambda: made.patch.evaluate(made.proposal),
            at={"cores": cores},
            limit=made.limit(cores),
        )
    assert np.isfinite(found.chi2).all()


@pytest.mark.usefixtures("forcepho_kernel")
def test_forcepho(measure: Measure, field: Field, case: Case, tmp_path: Path) -> None:
    with scene(field, case, tmp_path) as made:
        patch, evaluate = made.patch, kernel(made.patch)
        chi2, slopes = measure(
            OPERATION,
            "forcepho",
            lambda: evaluate(made.proposal),
            detail="one core",
            at=made.at,
            limit=made.limit(1),
            rounds=2,
            warm_up=False,
        )
        ours = patch.evaluate(made.proposal)
        d, w = (patch.retrieve(name).astype(float) for name in ("data", "ierr"))
    assert (abs(ours.chi2 - chi2) <= 1e-6 * (d * w) @ (d * w)).all()
    largest = abs(slopes).max(axis=(0, 1))
    assert (abs(ours.derivatives - slopes) <= 1e-3 * largest).all()


# --- a whole fit ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("forcepho_kernel")
@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("column", ["fpgpu cpu", "forcepho"])
def test_fit(
    measure: Measure, field: Field, size: Size, part: float, column: str, tmp_path: Path
) -> None:
    radius = part * size.radius
    splines = write_splines(tmp_path / "splines.h5")
    files = field.pixels, field.meta(), field.psf, splines
    is_ours = column == "fpgpu cpu"
    ours = importlib.import_module("fpgpu.forcepho").CPUPatch
    patch = ours(*files, spline_smoothing=0) if is_ours else store_patch(*files, models=True)
    region, sources = circle(field.region(radius)), catalog(field, N_SOURCES, radius)
    with field.open(get_backend("cpu")) as survey:
        n_bytes = survey.plan(field.region(radius), field.bands()).pixel_bytes
    n_calls = measure(
        "build, optimise and write",
        column,
        lambda: fit(patch, region, sources, field.bands(), tmp_path),
        at={"radius": radius, "sources": N_SOURCES},
        n_bytes=n_bytes,
        rounds=3 if is_ours else 1,
        warm_up=is_ours,
    )
    assert n_calls > 3, "the fit must have gone somewhere"
    written = sorted(path.name for path in tmp_path.glob("patch_*"))
    assert written == ["patch_residuals.h5", "patch_samples.h5"]
    patch.pixelstore.close()
