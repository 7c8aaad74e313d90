"""The main job from files to super-pixels, with every value checked against the input."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fpgpu.backends.base import Backend
from fpgpu.backends.choose import BackendName, get_backend
from fpgpu.demo.check import TOLERANCE, compare, read_truth
from fpgpu.demo.field import make_field
from fpgpu.demo.page import write_page
from fpgpu.demo.patch import check_patch, store_psfs
from fpgpu.demo.report import Check, DemoReport, Narrator, Step
from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.pipeline import IngestReport, ingest
from fpgpu.sky.regions import CircularRegion
from fpgpu.stores.folder import StoreFolder
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.superpixels import Window

__all__ = ["CATALOG", "run_demo"]

Image = npt.NDArray[np.float32]

ARCSEC = 1 / 3600
CATALOG = "sources.fits"
# Where regions are centred, as fractions of the first exposure's sides.
PLACES = {"in the middle": (0.5, 0.5), "in a corner": (0.0, 0.0)}


def run_demo(
    files: Sequence[Path],
    out: Path,
    *,
    bitmask: int | str | None = None,
    wcs: str = "auto",
    pad: bool = False,
    backend: BackendName = "auto",
    page: Path | None = None,
    show: Callable[[Step | Check], None] = lambda line: None,
) -> DemoReport:
    """Ingest exposures, read them back through a region of sky, and check every value.

    Parameters
    ----------
    files : sequence of Path
        Exposure files; with none, a synthetic field is made.
    out : Path
        Folder for the stores, and for what is made: exposures, PSFs, the catalogue of sources.
    bitmask : int or str, optional
        Bad bits of DQ by number or name; the reader's default when not given.
    wcs : {"auto", "gwcs", "fits"}, optional
        Which WCS to believe.
    pad : bool, optional
        Pad sizes that are no multiple of the super-pixel.
    backend : {"auto", "cpu", "cuda"}, optional
        Where pixels are calibrated and put in order.
    page : Path, optional
        Folder for a page with pictures; none when not given.
    show : callable, optional
        Called with each `Step` and `Check` as it happens.

    Returns
    -------
    DemoReport
        Steps with times, checks with figures.

    Raises
    ------
    UnusableExposureError
        If none of the exposures can go into a store.
    BackendUnavailableError
        If the backend that was asked for cannot be used.
    MissingExtraError
        If a page is asked for and matplotlib is missing.
    """
    tell = Narrator(show)
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
        _require_some(ingested)
        detail.append(f"{len(ingested.added)} exposures, {ingested.n_pixels / 1e6:.2f} Mpix")
    _check_ingest(tell, ingested)
    with tell.step("opened the stores") as detail:
        pixels = PixelStore(folder.pixels, mode="r")
        meta = MetaStore(folder.meta, use_gwcs=None)
        detail.append(f"{len(pixels)} exposures in {len(pixels.bands)} bands")
    with pixels, meta:
        _check_values(tell, ingested, pixels)
        for place, (x, y) in PLACES.items():
            _check_region(
                tell, engine, pixels, meta, place, (x * pixels.shape[0], y * pixels.shape[1])
            )
    if field is not None:
        store_psfs(tell, folder, field)
        field.truth.write(out / CATALOG, overwrite=True)
    check_patch(tell, engine, folder, field)
    if page is not None:
        with tell.step("drew a page") as detail:
            detail.append(str(write_page(page, tell.report, engine, folder, field)))
    return tell.report


def _require_some(ingested: IngestReport) -> None:
    """Refuse to go on when no exposure went in, with the reasons."""
    if not ingested.added:
        reasons = "\n  ".join(row.reason for row in ingested.refused)
        raise UnusableExposureError(f"no exposure could be ingested\n  {reasons}")


def _check_ingest(tell: Narrator, ingested: IngestReport) -> None:
    """Every file went in."""
    refused = [row.reason for row in ingested.refused]
    n_files = len(ingested.rows)
    detail = "; ".join(refused) if refused else f"{n_files} of {n_files}"
    tell.check("every exposure was ingested", not refused, detail)


def _check_values(tell: Narrator, ingested: IngestReport, pixels: PixelStore) -> None:
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


def _check_region(
    tell: Narrator,
    engine: Backend,
    pixels: PixelStore,
    meta: MetaStore,
    place: str,
    pixel: tuple[float, float],
) -> None:
    """Find the exposures of a region and read just its super-pixels."""
    ra, dec = map(float, meta.sky_wcs(*next(iter(pixels))).pixel_to_world(*pixel))
    region = CircularRegion(ra, dec, ARCSEC)
    with tell.step("found exposures") as detail:
        found = meta.exposures_touching(region)
        detail.append(f"{len(found)} of {len(pixels)} within 1 arcsec of {ra:.5f} {dec:+.5f}")
    expected = [key for key in pixels if _touches_by_pixels(meta, key, region, pixels)]
    tell.check(
        f"exposures found {place} have pixels there, no others do",
        sorted(found) == sorted(expected),
        f"{len(found)} found, {len(expected)} by testing every pixel",
    )
    n_read, equal = 0, True
    with tell.step("read super-pixels") as detail:
        for key in found:
            window = _window(meta, key, region, pixels)
            flux, ierr = _through_backend(engine, pixels, key, window)
            n_read += flux.size
            equal &= _equal_to_whole(pixels, key, window, flux, ierr)
        detail.append(f"{n_read} pixels in {len(found)} windows, staged and back")
    tell.check(f"windows {place} equal the same part of the whole", equal, f"{n_read} pixels")


def _through_backend(
    engine: Backend, pixels: PixelStore, key: tuple[str, str], window: Window
) -> tuple[Image, Image]:
    """Read a window into staging memory, send it, and bring it back as images."""
    size = pixels.super_pixel_size
    there = engine.empty((*window.shape, 2 * size**2), np.float32)
    with engine.stage(there.nbytes) as slot:
        pixels.read_window(*key, window, out=slot.view(there.shape, np.float32))
        engine.upload(slot, out=there)
    flux, ierr = engine.images_from_superpixels(there, size)
    return engine.download(flux), engine.download(ierr)


def _touches_by_pixels(
    meta: MetaStore, key: tuple[str, str], region: CircularRegion, pixels: PixelStore
) -> bool:
    """Whether any pixel centre of an exposure lies in the region, by looking at all of them."""
    x, y = np.indices(pixels.shape)
    return bool(region.contains_sky(*meta.sky_wcs(*key).pixel_to_world(x, y)).any())


def _window(
    meta: MetaStore, key: tuple[str, str], region: CircularRegion, pixels: PixelStore
) -> Window:
    """Super-pixels of an exposure around a region."""
    wcs = meta.sky_wcs(*key)
    angle = np.linspace(0, 2 * np.pi, 33)
    ra = region.ra + region.radius * np.cos(angle) / np.cos(np.deg2rad(region.dec))
    x, y = wcs.world_to_pixel(ra, region.dec + region.radius * np.sin(angle))
    size = pixels.super_pixel_size
    low = [
        int(np.clip(v.min() // size, 0, n // size - 1))
        for v, n in zip((x, y), pixels.shape, strict=True)
    ]
    high = [
        int(np.clip(v.max() // size + 1, 1, n // size))
        for v, n in zip((x, y), pixels.shape, strict=True)
    ]
    return Window(low[0], high[0], low[1], high[1])


def _equal_to_whole(
    pixels: PixelStore, key: tuple[str, str], window: Window, flux: Image, ierr: Image
) -> bool:
    """Whether a window's images are the same bits as the part of the whole exposure."""
    size = pixels.super_pixel_size
    part = np.s_[
        window.x0 * size : window.x1 * size,
        window.y0 * size : window.y1 * size,
    ]
    whole = pixels.read_exposure(*key)
    return all(
        np.array_equal(a.view(np.uint32), np.ascontiguousarray(b[part]).view(np.uint32))
        for a, b in zip((flux, ierr), whole, strict=True)
    )
