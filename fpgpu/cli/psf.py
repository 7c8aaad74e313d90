"""``fpgpu psf``: images of PSFs to the mixtures of ``psf.h5``, and tables of Sersic profiles."""

import argparse
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fpgpu.cli.arguments import JSON, add_options
from fpgpu.cli.circle import mixture_of
from fpgpu.cli.console import Progress, format_table, print_json
from fpgpu.errors import MissingFileError, UsageError

if TYPE_CHECKING:
    from fpgpu.likelihood.mixture import SersicMixture
    from fpgpu.psf.fit import BandFit

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "fit images of PSFs, or make a table of profiles"
DESCRIPTION = (
    "Fit mixtures of Gaussians to images of PSFs and add them to a PSF store. Images are FITS "
    "files of stpsf (WebbPSF), grids for photutils, or plain images and cubes; band, sampling, "
    "scale and place on the detector come from their headers, or from the options. The word "
    "'profiles' instead of files writes the table of Sersic profiles."
)
EXAMPLES = """examples:
  fpgpu psf nircam_*_fovp101_samp4_npsf25.fits --out stores/psf.h5
  fpgpu psf star.fits --out stores/psf.h5 --band F200W --pixel-scale 0.031 --plot look
  fpgpu psf psf.fits --out stores/psf.h5 --gaussians 6 --max-error 0.01
  fpgpu psf profiles --out sersic.h5
"""
OPTIONS = """
files FILE      images, folders of them, or the word 'profiles'
--out H5        the PSF store, or the table
--gaussians N   of the PSF itself (4)
--signed        amplitudes may be negative
--max-error SHARE
                refuse what misses more of the light in a circle of 0.1" or more
--band BAND     where the header has no FILTER
--oversample N  samples a pixel
--pixel-scale ARCSEC
                of the detector
--integrated    samples hold the light of whole pixels (by default by the kind of the file)
--recenter      move the light to the middle of each image
--profiles H5   table of Sersic profiles (fpgpu's own)
--plot PREFIX   pictures PREFIX_psf_BAND.png
"""
PROFILES = "profiles"
MOST_TRIED = 8
SMALLEST_ERROR = 1e-5
"""Of the light in a circle: more Gaussians are not tried then, whose fit would not converge."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_options(
        parser,
        OPTIONS,
        JSON,
        files={"nargs": "+", "type": str},
        out={"required": True},
        gaussians={"default": 4},
        max_error={"type": _share},
        oversample={"type": float},
        pixel_scale={"type": float},
        integrated={"action": argparse.BooleanOptionalAction},
    )


def _share(text: str) -> float:
    """Read a share of the light."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no share of the light, 0 or more")
    return share


def run(args: argparse.Namespace) -> int:
    """Fit PSFs, or make the table."""
    if args.files == [PROFILES]:
        return _make_table(args)
    if PROFILES in args.files:
        raise UsageError("'profiles' makes the table of Sersic profiles and takes no files")
    from fpgpu.psf import fit_psf, read_psf_images
    from fpgpu.stores.psf import PSFStore
    from fpgpu.stores.psfs.file import require_psf_file

    if args.plot:
        from fpgpu.plots.canvas import require_matplotlib

        require_matplotlib()
    table = mixture_of(args)
    bands = read_psf_images(
        args.files,
        band=args.band,
        oversample=args.oversample,
        pixel_scale=args.pixel_scale,
        integrated=args.integrated,
        recenter=args.recenter,
    )
    if not args.out.parent.is_dir():
        raise MissingFileError(f"{args.out.parent}: no such folder to write {args.out.name} in")
    require_psf_file(args.out)  # before the fits, which take their time
    total = sum(len(images.images) for images in bands)
    with Progress(total, "fit", enabled=not (args.quiet or args.json)) as progress:
        fits = [
            fit_psf(
                images,
                table.radii,
                n_gauss=args.gaussians,
                signed=args.signed,
                max_error=args.max_error,
                on_progress=partial(_step, progress, images.band),
                progress=False,
            )
            for images in bands
        ]
    # All bands or none: nothing is written before all are fitted.
    with PSFStore(args.out) as store:
        for fit in fits:
            store.add_psf(fit.images.band, fit.parameters, fit.images.positions)
    pictures = [_draw(args, fit, table) for fit in fits] if args.plot else []
    _report(args, fits, pictures)
    return 0


def _step(progress: Progress, band: str, done: int) -> None:
    progress.step(f"{band} {done}")


def _make_table(args: argparse.Namespace) -> int:
    """Write fpgpu's table of Sersic profiles."""
    from fpgpu.psf import make_profiles

    table = make_profiles()
    table.write(args.out)
    worst = float(table.error.max())
    if args.json:
        print_json({"out": str(args.out), "profiles": len(table.sersic), "error": worst})
    else:
        print(
            f"{args.out}: {len(table.sersic)} Sersic profiles of {len(table.radii)} Gaussians; flux"
            f" within 3 half-light radii off by at most {worst:.2%}"
        )
    return 0


def _draw(args: argparse.Namespace, fit: "BandFit", table: "SersicMixture") -> Path:
    """Draw a band; how the error falls with the number of Gaussians is tried at one place."""
    from dataclasses import replace

    from fpgpu.plots import plot_psf, save
    from fpgpu.psf import fit_psf

    one = replace(fit.images, images=fit.images.images[:1], positions=None)
    tried: dict[int, float] = {}
    for n in range(1, MOST_TRIED + 1):
        of_n = fit_psf(one, table.radii[:1], n_gauss=n, signed=args.signed, progress=False)
        tried[n] = of_n.worst.energy
        if tried[n] < SMALLEST_ERROR:
            break
    return save(plot_psf(fit, errors_by_number=tried), f"{args.plot}_psf_{fit.images.band}.png")


def _report(args: argparse.Namespace, fits: "list[BandFit]", pictures: list[Path]) -> None:
    """Tell what was fitted, and how well."""
    if args.json:
        told = [
            {
                "band": fit.images.band,
                "places": len(fit.mixtures),
                "gaussians": len(fit.mixtures[0].amp),
                "per_radius": list(fit.per_radius),
                **fit.worst._asdict(),
            }
            for fit in fits
        ]
        print_json({"out": str(args.out), "bands": told})
        return
    rows = [
        [
            fit.images.band,
            len(fit.mixtures),
            len(fit.mixtures[0].amp),
            sum(fit.per_radius),
            f"{fit.worst.energy:.2%}",
            f"{fit.worst.peak:.1%}",
            f"{fit.worst.centroid:.3f}",
        ]
        for fit in fits
    ]
    print(
        format_table(
            ["band", "places", "Gaussians", "a source", "circle", "pixel", "centre [pix]"], rows
        )
    )
    print(f"written to {args.out}")
    for picture in pictures:
        print(picture)
