"""Fit images of PSFs, or make a table of profiles.

Fit mixtures of Gaussians to images of PSFs and add them to a PSF store. Images are FITS files of
stpsf (WebbPSF), grids for photutils, or plain images and cubes; band, sampling, scale and place on
the detector come from their headers, or from the options. The word 'profiles' instead of files
writes the table of Sersic profiles.

options:
  files FILE+     images, folders of them, or the word 'profiles'
  --out H5        the PSF store, or the table (required)
  --gaussians N   of the PSF itself [default: 4]
  --signed        amplitudes may be negative
  --max-error SHARE
                  refuse what misses more of the light in a circle of 0.1" or more
  --band BAND     where the header has no FILTER
  --oversample SAMPLES
                  samples a pixel
  --pixel-scale SCALE
                  of the detector, arcsec
  --[no-]integrated
                  samples hold the light of whole pixels (by default by the kind of the file)
  --recenter      move the light to the middle of each image
  --profiles H5   table of Sersic profiles (fpgpu's own)
  --plot PREFIX   pictures PREFIX_psf_BAND.png
  --json

examples:
  fpgpu psf nircam_*_fovp101_samp4_npsf25.fits --out stores/psf.h5
  fpgpu psf star.fits --out stores/psf.h5 --band F200W --pixel-scale 0.031 --plot look
  fpgpu psf psf.fits --out stores/psf.h5 --gaussians 6 --max-error 0.01
  fpgpu psf profiles --out sersic.h5
"""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from fpgpu import plots
from fpgpu.cli.circle import mixture_of
from fpgpu.cli.console import Result, format_table, progress
from fpgpu.errors import MissingFileError, UsageError
from fpgpu.likelihood.mixture import SersicMixture
from fpgpu.psf import fit_psf, make_profiles, read_psf_images
from fpgpu.psf.fit import BandFit
from fpgpu.stores.psf import PSFStore
from fpgpu.stores.psfs.file import require_psf_file

PROFILES = Path("profiles")
MOST_TRIED = 8
SMALLEST_ERROR = 1e-5
"""Of the light in a circle: more Gaussians are not tried then, whose fit would not converge."""


def run(args: Namespace) -> Result:
    """Fit PSFs, or make the table."""
    if args.files == [PROFILES]:
        return _make_table(args.out)
    if PROFILES in args.files:
        raise UsageError("'profiles' makes the table of Sersic profiles and takes no files")
    if args.plot:
        plots.require_matplotlib()
    table = mixture_of(args)
    asked = ("band", "oversample", "pixel_scale", "integrated", "recenter")
    bands = read_psf_images(args.files, **{name: getattr(args, name) for name in asked})
    if not args.out.parent.is_dir():
        raise MissingFileError(f"{args.out.parent}: no such folder to write {args.out.name} in")
    require_psf_file(args.out)  # before the fits, which take their time
    fits = []
    with progress(args, sum(len(images.images) for images in bands), "fit") as step:
        for images in bands:

            def tell(done: int, band: str = images.band) -> None:
                step(f"{band} {done}")

            fit = fit_psf(
                images,
                table.radii,
                n_gauss=args.gaussians,
                signed=args.signed,
                max_error=args.max_error,
                on_progress=tell,
                progress=False,
            )
            fits.append(fit)
    # All bands or none: nothing is written before all are fitted.
    with PSFStore(args.out) as store:
        for fit in fits:
            store.add_psf(fit.images.band, fit.parameters, fit.images.positions)
    pictures = [_draw(args, fit, table) for fit in fits] if args.plot else []
    header = ["band", "places", "Gaussians", "a source", "circle", "pixel", "centre [pix]"]
    rows = [
        [
            *(fit.images.band, len(fit.mixtures), len(fit.mixtures[0].amp), sum(fit.per_radius)),
            f"{fit.worst.energy:.2%}",
            f"{fit.worst.peak:.1%}",
            f"{fit.worst.centroid:.3f}",
        ]
        for fit in fits
    ]
    told = [
        {
            **dict(zip(("band", "places", "gaussians"), row[:3], strict=True)),
            "per_radius": list(fit.per_radius),
            **fit.worst._asdict(),
        }
        for row, fit in zip(rows, fits, strict=True)
    ]
    lines = [format_table(header, rows), f"written to {args.out}", *map(str, pictures)]
    return Result("\n".join(lines), {"out": str(args.out), "bands": told})


def _make_table(out: Path) -> Result:
    """Write fpgpu's table of Sersic profiles."""
    table = make_profiles()
    table.write(out)
    worst, n_profiles = float(table.error.max()), len(table.sersic)
    text = (
        f"{out}: {n_profiles} Sersic profiles of {len(table.radii)} Gaussians; flux within 3"
        f" half-light radii off by at most {worst:.2%}"
    )
    return Result(text, {"out": str(out), "profiles": n_profiles, "error": worst})


def _draw(args: Namespace, fit: BandFit, table: SersicMixture) -> Path:
    """Draw a band; how the error falls with the number of Gaussians is tried at one place."""
    one = replace(fit.images, images=fit.images.images[:1], positions=None)
    tried: dict[int, float] = {}
    for n in range(1, MOST_TRIED + 1):
        of_n = fit_psf(one, table.radii[:1], n_gauss=n, signed=args.signed, progress=False)
        tried[n] = of_n.worst.energy
        if tried[n] < SMALLEST_ERROR:
            break
    figure = plots.plot_psf(fit, errors_by_number=tried)
    return plots.save(figure, f"{args.plot}_psf_{fit.images.band}.png")
