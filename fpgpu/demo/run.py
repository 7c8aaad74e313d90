"""The main job from files to a patch on a device, with every value checked against the input."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import fpgpu.survey
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.demo.check import TOLERANCE, compare, read_truth
from fpgpu.demo.field import Field, make_field, write_psfs
from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.pipeline import IngestReport, ingest
from fpgpu.likelihood.reference import evaluate
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import pack_metadata
from fpgpu.patch.plan import PatchPlan
from fpgpu.psf import default_profiles, fit_psf, read_psf_images
from fpgpu.sky.regions import CircularRegion
from fpgpu.sky.sphere import separation
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore
from fpgpu.survey import Survey

__all__ = [
    "CATALOG",
    "Check",
    "DemoReport",
    "Step",
    "check_patch",
    "densest",
    "run_demo",
    "store_psfs",
]

ARCSEC = 1 / 3600
CATALOG = "sources.fits"
# Where regions are centred, as fractions of the first exposure's sides.
PLACES = {"in the middle": (0.5, 0.5), "in a corner": (0.0, 0.0)}


class Step(NamedTuple):
    """Something that was done."""

    what: str
    detail: str
    seconds: float


class Check(NamedTuple):
    """Something that was verified."""

    what: str
    detail: str
    passed: bool


class DemoReport:
    """All that a demo did and found, each shown as soon as it is known."""

    region: CircularRegion

    def __init__(self, show: Callable[[Step | Check], None] = lambda line: None) -> None:
        self.steps: list[Step] = []
        self.checks: list[Check] = []
        self.has_sources = False
        self._show = show

    @property
    def passed(self) -> bool:
        """Whether there were checks and each holds."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def seconds(self) -> float:
        """Time of all steps."""
        return sum(step.seconds for step in self.steps)

    @contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """Time a step; the body appends its detail to the list."""
        detail: list[str] = []
        start = time.perf_counter()
        yield detail
        self.steps.append(Step(what, " ".join(detail), time.perf_counter() - start))
        self._show(self.steps[-1])

    def check(self, what: str, passed: bool, detail: str) -> None:
        """Record a verification."""
        self.checks.append(Check(what, detail, bool(passed)))
        self._show(self.checks[-1])


def run_demo(
    files: Sequence[Path],
    out: Path,
    *,
    bitmask: int | str | None = None,
    wcs: str = "auto",
    pad: bool = False,
    backend: BackendName = "auto",
    show: Callable[[Step | Check], None] = lambda line: None,
) -> DemoReport:
    """Ingest exposures, read them back through regions of sky, and check every value."""
    tell = DemoReport(show)
    with tell.step("chose a backend") as detail:
        engine = get_backend(backend)
        detail.append(f"{engine.name}: {engine.description}")
    field = None
    if not files:
        with tell.step("made a field") as detail:
            field = make_field(out / "exposures")
            files = field.files
            size = sum(path.stat().st_size for path in files)
            detail.append(f"{len(files)} synthetic JWST-like exposures, {size / 1e6:.1f} MB")
    folder = StoreFolder(out / "stores")
    with tell.step("ingested") as detail:
        ingested = ingest(
            files, folder.path, bitmask=bitmask, wcs=wcs, pad=pad, backend=engine, progress=False
        )
        refused = [row.reason for row in ingested.refused]
        if not ingested.added:
            listing = "\n  ".join(refused)
            raise UnusableExposureError(f"no exposure could be ingested\n  {listing}")
        detail.append(f"{len(ingested.added)} exposures, {ingested.n_pixels / 1e6:.2f} Mpix")
    all_of_them = f"{len(files)} of {len(files)}"
    tell.check("every exposure was ingested", not refused, "; ".join(refused) or all_of_them)
    if field is not None:
        store_psfs(tell, folder, field)
        field.truth.write(out / CATALOG, overwrite=True)
    with tell.step("opened the stores") as detail:
        survey = fpgpu.survey.open(folder.path, backend=engine)
        detail.append(f"{len(survey.pixels)} exposures in {len(survey.bands)} bands")
    with survey:
        _check_values(tell, ingested, survey.pixels)
        for place, (x, y) in PLACES.items():
            _check_place(tell, survey, place, _region_at(survey, x, y))
        tell.region = _region_at(survey, 0.5, 0.5)
        if field is not None:
            tell.region, tell.has_sources = densest(field.truth), True
            check_patch(tell, survey, tell.region, field.truth)
    return tell


def store_psfs(tell: DemoReport, folder: StoreFolder, field: Field) -> None:
    """Write the field's PSFs beside the stores, as images, and fit them, as a user does his own."""
    with tell.step("fitted PSFs") as detail:
        files = write_psfs(folder.path.parent / "psfs", field.bands)
        fits = [fit_psf(images, n_gauss=1) for images in read_psf_images(files)]
        with PSFStore(folder.psf) as store:
            for fit in fits:
                store.add_psf(fit.images.band, fit.parameters, fit.images.positions)
        error = max(fit.worst.energy for fit in fits)
        detail.append(f"{len(fits)} images, light in circles to {error:.1e}")


def densest(truth: Any) -> CircularRegion:
    """Circle around the source of a catalogue that has most others around it."""
    ra, dec, radius = np.asarray(truth["ra"]), np.asarray(truth["dec"]), 0.6 * ARCSEC
    neighbours = (separation(ra[:, None], dec[:, None], ra, dec) < radius).sum(axis=1)
    place = int(neighbours.argmax())
    return CircularRegion(float(ra[place]), float(dec[place]), radius)


def _region_at(survey: Survey, x: float, y: float) -> CircularRegion:
    """A circle around a place of the first exposure, given in parts of its sides."""
    nx, ny = survey.pixels.shape
    ra, dec = survey.meta.sky_wcs(*next(iter(survey.pixels))).pixel_to_world(x * nx, y * ny)
    return CircularRegion(float(ra), float(dec), ARCSEC)


def _check_values(tell: DemoReport, ingested: IngestReport, pixels: PixelStore) -> None:
    """Compare every stored value with the input files read by astropy."""
    n_pixels = n_wrong = n_masked = 0
    largest = 0.0
    with tell.step("read everything back") as detail:
        for row in ingested.added:
            truth = read_truth(row.file, row.bitmask)
            result = compare(truth, *pixels.read_exposure(row.band, row.expID))
            n_pixels += result.n_pixels
            n_wrong += result.n_wrong
            n_masked += int(truth.masked.sum())
            largest = max(largest, result.largest)
        detail.append(f"{n_pixels / 1e6:.2f} Mpix beside the input files")
    tell.check(
        "every value equals the input",
        n_wrong == 0,
        f"{n_pixels} pixels, {n_wrong} wrong, {n_masked} masked; largest relative difference "
        f"{largest:.1e} (rounding allows {TOLERANCE:.1e})",
    )


def _check_place(tell: DemoReport, survey: Survey, place: str, region: CircularRegion) -> None:
    """Find the exposures of a region, and read just its super-pixels into a patch."""
    pixels, meta = survey.pixels, survey.meta
    with tell.step("found exposures") as detail:
        found = meta.exposures_touching(region)
        where = f"{region.ra:.5f} {region.dec:+.5f}"
        detail.append(f"{len(found)} of {len(pixels)} within 1 arcsec of {where}")
    x, y = np.indices(pixels.shape)
    expected = [
        key for key in pixels if region.contains_sky(*meta.sky_wcs(*key).pixel_to_world(x, y)).any()
    ]
    tell.check(
        f"exposures found {place} have pixels there, no others do",
        sorted(found) == sorted(expected),
        f"{len(found)} found, {len(expected)} by testing every pixel",
    )
    check_patch(tell, survey, region)


def check_patch(
    tell: DemoReport, survey: Survey, region: CircularRegion, catalog: Any = None
) -> None:
    """Build a patch, compare all of it with the stores, and its pixels with the true sources."""
    with tell.step("built a patch") as detail:
        plan = survey.plan(region, select="overlap")
        patch = survey.patch(plan, catalog, margin=None)
        detail.append(
            f"{plan.n_exp} exposures, {plan.n_pixels} pixels, {patch.n_sources} sources,"
            f" {patch.nbytes / 1e6:.2f} MB"
        )
    with patch:
        _check_round_trip(tell, survey, patch, catalog)
        if catalog is not None:
            _check_likelihood(tell, patch, catalog)


def _check_round_trip(tell: DemoReport, survey: Survey, patch: Patch, catalog: Any) -> None:
    """Compare what the backend holds with the stores, read in another way, bit for bit."""
    packed = pack_metadata(survey.meta, survey.psf, patch.plan, catalog, reference=patch.reference)
    expected = {**packed.arrays, **_pixels_of(survey.pixels, patch.plan)}
    with tell.step("fetched the patch") as detail:
        fetched = patch.host_arrays()
        n_bytes = sum(array.nbytes for array in expected.values())
        detail.append(f"{len(expected)} arrays, {n_bytes / 1e6:.2f} MB")
    different = [
        name for name, array in expected.items() if array.tobytes() != fetched[name].tobytes()
    ]
    tell.check(
        "every array of the patch comes back as it went",
        not different,
        f"{len(expected)} arrays, {n_bytes} bytes, different: {', '.join(different) or 'none'}",
    )


def _pixels_of(pixels: PixelStore, plan: PatchPlan) -> dict[str, npt.NDArray[np.float32]]:
    """Cut the pixels of a plan from whole exposures."""
    size, pieces = pixels.super_pixel_size, []
    for exposure in plan.exposures:
        nx, ny = exposure.shape
        images = np.stack(
            [*pixels.read_exposure(exposure.band, exposure.expID), *np.indices((nx, ny))]
        )
        blocks = images.reshape(4, nx // size, size, ny // size, size)
        ix, iy = exposure.superpixels.T
        pieces.append(blocks.transpose(0, 1, 3, 2, 4)[:, ix, iy].reshape(4, -1))
    values = np.concatenate(pieces, axis=1).astype(np.float32)
    return dict(zip(("data", "ierr", "xpix", "ypix"), values, strict=True))


def _check_likelihood(tell: DemoReport, patch: Patch, catalog: Any) -> None:
    """Subtract the true sources: noise is left, which has a chi2 of 1 a pixel."""
    arrays = patch.host_arrays()
    with tell.step("compared with the truth") as detail:
        proposal = proposal_from_catalog(
            catalog, patch.bandlist, default_profiles(), patch.reference
        )
        fit = evaluate(arrays, proposal)
        detail.append(f"{patch.n_sources} sources, {patch.plan.n_pixels} pixels")
    n_used = int(np.count_nonzero(arrays["ierr"]))
    without = float(np.sum((arrays["data"] * arrays["ierr"]).astype(np.float64) ** 2)) / n_used
    remaining = without + float(fit.chi2.sum()) / n_used
    # The variance of chi2 is twice the number of pixels; five standard deviations are allowed.
    allowed = 5 * float(np.sqrt(2 / n_used))
    tell.check(
        "the true sources leave nothing but noise",
        abs(remaining - 1) < allowed and without > 1 + 10 * allowed,
        f"chi2 a pixel {remaining:.3f} (1 +- {allowed:.3f} expected of {n_used} pixels); "
        f"{without:.1f} without them",
    )
