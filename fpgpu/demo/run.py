"""The main job from files to a patch on a device, with every value checked against the input."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fpgpu.survey
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.demo.check import TOLERANCE, count_wrong, read_truth
from fpgpu.demo.field import Field, make_field, write_psfs
from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.pipeline import IngestReport, ingest
from fpgpu.patch.device import Patch
from fpgpu.patch.images import exposure_images
from fpgpu.patch.pack import pack_metadata
from fpgpu.psf import fit_psf, read_psf_images
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
PIXELS = ("data", "ierr", "xpix", "ypix")


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
    backend: BackendName = "auto",
    show: Callable[[Step | Check], None] = lambda line: None,
    **options: Any,
) -> DemoReport:
    """Ingest exposures, read them back through regions of sky, and check every value.

    The options are those of `fpgpu.ingest.pipeline.ingest`.
    """
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
        ingested = ingest(files, folder.path, backend=engine, progress=False, **options)
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
        nx, ny = survey.pixels.shape
        wcs = survey.meta.sky_wcs(*next(iter(survey.pixels)))
        for place, x, y in (("in a corner", 0, 0), ("in the middle", nx / 2, ny / 2)):
            ra, dec = wcs.pixel_to_world(x, y)
            tell.region = CircularRegion(float(ra), float(dec), ARCSEC)
            _check_place(tell, survey, place, tell.region)
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


def _check_values(tell: DemoReport, ingested: IngestReport, pixels: PixelStore) -> None:
    """Compare every stored value with the input files read by astropy."""
    n_pixels = n_wrong = 0
    with tell.step("read everything back") as detail:
        for row in ingested.added:
            flux, ierr = pixels.read_exposure(row.band, row.expID)
            n_pixels += flux.size
            n_wrong += count_wrong(read_truth(row.file, row.bitmask), flux, ierr)
        detail.append(f"{n_pixels / 1e6:.2f} Mpix beside the input files")
    told = f"{n_pixels} pixels, {n_wrong} wrong by more than rounding allows, {TOLERANCE:.1e}"
    tell.check("every value equals the input", n_wrong == 0, told)


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
        counts = f"{plan.n_exp} exposures, {plan.n_pixels} pixels, {patch.n_sources} sources"
        detail.append(f"{counts}, {patch.nbytes / 1e6:.2f} MB")
    with patch:
        _check_round_trip(tell, survey, patch, catalog)
        if catalog is not None:
            _check_likelihood(tell, patch, catalog)


def _check_round_trip(tell: DemoReport, survey: Survey, patch: Patch, catalog: Any) -> None:
    """Compare what the backend holds with the stores, read in another way, bit for bit."""
    packed = pack_metadata(survey.meta, survey.psf, patch.plan, catalog, reference=patch.reference)
    with tell.step("fetched the patch") as detail:
        fetched = patch.host_arrays()
        detail.append(f"{patch.plan.n_pixels} pixels, and {len(packed.arrays)} arrays of metadata")
    different = {
        name for name, want in packed.arrays.items() if want.tobytes() != fetched[name].tobytes()
    }
    images = {name: exposure_images(patch.plan, fetched[name], crop=False) for name in PIXELS}
    for k, exposure in enumerate(patch.plan.exposures):
        stored = survey.pixels.read_exposure(exposure.band, exposure.expID)
        # The whole exposure, in which the patch has filled its super-pixels.
        taken = np.isfinite(images["xpix"][k].image)
        for name, want in zip(PIXELS, (*stored, *np.indices(exposure.shape)), strict=True):
            if not np.array_equal(images[name][k].image[taken], want[taken]):
                different.add(name)
    tell.check(
        "every array of the patch comes back as it went",
        not different,
        f"{len(packed.arrays) + len(PIXELS)} arrays, different: {', '.join(different) or 'none'}",
    )


def _check_likelihood(tell: DemoReport, patch: Patch, catalog: Any) -> None:
    """Subtract the true sources: noise is left, which has a chi2 of 1 a pixel."""
    with tell.step("compared with the truth") as detail:
        # Relative to no sources, and -1/2 for each of chi2.
        explained = 2 * patch.likelihood(catalog).value
        detail.append(f"{patch.n_sources} sources, {patch.plan.n_pixels} pixels")
    sigmas = patch.retrieve("data").astype(np.float64) * patch.retrieve("ierr")
    n_used = int(np.count_nonzero(patch.retrieve("ierr")))
    without = float(sigmas @ sigmas) / n_used
    remaining = without - explained / n_used
    # The variance of chi2 is twice the number of pixels; five standard deviations are allowed.
    allowed = 5 * float(np.sqrt(2 / n_used))
    tell.check(
        "the true sources leave nothing but noise",
        abs(remaining - 1) < allowed and without > 1 + 10 * allowed,
        f"chi2 a pixel {remaining:.3f} (1 +- {allowed:.3f} expected of {n_used} pixels); "
        f"{without:.1f} without them",
    )
