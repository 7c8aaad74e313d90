"""Build the patch of a region of sky, and write it.

Find the exposures of a circle on the sky (--ra, --dec, --radius), read its super-pixels, build the
patch in the backend's memory, and write all its arrays to an HDF5 file.

options:
  folder
  --ra --dec --radius --bands
  --catalog FITS
              table with columns ra and dec in degrees: its sources in and near the circle are
              taken, which needs psf.h5 in DIR (default: pixels and geometry only)
  --margin --profiles
  --out FILE  the file to write; an older patch is replaced [default: patch.h5]
  --plot PREFIX
              write pictures PREFIX_footprints.png, PREFIX_superpixels.png, PREFIX_pixels.png; of
              many exposures, 12 in each (more pictures: see fpgpu plot)
  --select --units --backend --json

examples:
  fpgpu patch stores --ra 53.16 --dec -27.79 --radius 3
  fpgpu patch stores --ra 53.16 --dec -27.79 --radius 3 --bands F200W F444W --plot patch
  fpgpu patch stores --ra 53.16 --dec -27.79 --radius 3 --catalog sources.fits --json
"""

import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

import fpgpu.survey
from fpgpu import plots
from fpgpu.cli import circle
from fpgpu.cli.console import Result, format_bytes, format_table
from fpgpu.cli.plot import draw_patch
from fpgpu.patch.file import check_replaceable, write_patch


def run(args: Namespace) -> Result:
    """Build and write the patch."""
    circle.has_circle(args, "a patch is")
    region = circle.region_of(args)
    check_replaceable(args.out)
    if args.plot is not None:
        plots.require_matplotlib()
    seconds: dict[str, float] = {}
    with _timed(seconds, "open"):
        survey = fpgpu.survey.open(args.folder, backend=args.backend)
    with survey:
        catalog = circle.sources_of(survey, args, region)
        with _timed(seconds, "plan"):
            plan = circle.plan_of(survey, args, region)
        with _timed(seconds, "build"):
            patch = survey.patch(plan, catalog, radii=circle.radii_of(args), margin=None)
        with patch:
            units = circle.flux_units(survey, plan)
            with _timed(seconds, "write"):
                file_bytes = write_patch(args.out, patch, flux_units=units)
            pictures: list[str] = []
            if args.plot is not None:
                with _timed(seconds, "plot"):
                    for kind in ("footprints", "superpixels", "pixels"):
                        figures = draw_patch(kind, survey, patch)
                        pictures += map(str, plots.save_all(args.plot, {kind: figures}))
            n_sources, n_bytes = patch.n_sources, patch.nbytes
        backend = survey.backend.description
    rows = [
        [exposure.band, exposure.expID, exposure.n_superpixels, int(n_pixels)]
        for exposure, n_pixels in zip(plan.exposures, plan.exposure_N, strict=True)
    ]
    summary = {
        "ra": region.ra,
        "dec": region.dec,
        "select": plan.select,
        "bands": list(plan.bandlist),
        "exposures": [
            dict(zip(("band", "expID", "superpixels", "pixels"), row, strict=True)) for row in rows
        ],
        "n_pixels": plan.n_pixels,
        "n_sources": n_sources,
        "memory_bytes": n_bytes,
        "seconds": {what: round(value, 6) for what, value in seconds.items()},
        "backend": backend,
        "flux_units": units,
        "out": str(args.out),
        "file_bytes": file_bytes,
        "pictures": pictures,
    }
    lines = [
        f"{len(rows)} exposures, {plan.n_pixels} pixels, {n_sources or 'no'} sources:"
        f" {format_bytes(n_bytes)} on {backend}, flux units {units}",
        *(f"wrote {path}" for path in (args.out, *pictures)),
    ]
    if not args.quiet:
        steps = [[what, 1000 * value] for what, value in seconds.items()]
        exposures = format_table(["band", "exposure", "super-pixels", "pixels"], rows)
        lines = [exposures, "", format_table(["step", "ms"], steps), "", *lines]
    return Result("\n".join(lines), summary)


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Take the time of a step."""
    start = time.perf_counter()
    yield
    seconds[what] = time.perf_counter() - start
