"""A page that shows what a demo did and found: plain HTML beside its pictures."""

from collections.abc import Callable, Iterator
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fpgpu import __version__, plots
from fpgpu.backends.base import Backend
from fpgpu.demo.field import Field
from fpgpu.demo.patch import scene
from fpgpu.demo.report import DemoReport
from fpgpu.errors import StoreWriteError
from fpgpu.likelihood.reference import evaluate
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.timing import time_patch
from fpgpu.psf import default_profiles
from fpgpu.sky.regions import CircularRegion
from fpgpu.stores.folder import StoreFolder
from fpgpu.survey import Survey
from fpgpu.survey import open as open_survey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpgpu.patch.plan import PatchPlan

__all__ = ["write_page"]

REGION_FILE = "survey.reg"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
img { max-width: 100%; height: auto; border: 1px solid #ccc; }
figure { margin: 2em 0; }
figcaption { margin-bottom: .5em; }
table { border-collapse: collapse; }
td, th { padding: .2em .8em .2em 0; text-align: left; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
"""


class _Picture(NamedTuple):
    """One kind of picture on the page."""

    kind: str
    title: str
    caption: str
    draw: Callable[[], Iterator["Figure"]]


def write_page(
    folder: Path, report: DemoReport, engine: Backend, stores: StoreFolder, field: Field | None
) -> Path:
    """Draw the stores of a demo, and write a page that shows the pictures and the report.

    Parameters
    ----------
    folder : Path
        Where to; made if need be. Nothing on the page comes from elsewhere.
    report : DemoReport
        What was done and found so far.
    engine : Backend
        Where the patch is built.
    stores : StoreFolder
        The stores.
    field : Field or None
        The synthetic field in them; None for a user's exposures, which have no known model.

    Returns
    -------
    Path
        The page, ``index.html``.

    Raises
    ------
    MissingExtraError
        If matplotlib is missing.
    StoreWriteError
        If the page or a picture cannot be written.
    """
    plots.require_matplotlib()
    page = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open_survey(stores.path, backend=engine) as survey:
            figures = [_figure(folder, picture) for picture in _pictures(survey, field)]
            region = scene(survey, field).region
            text = plots.ds9_regions(survey.meta, regions=[region])
            (folder / REGION_FILE).write_text(text)
            what = repr(survey)
        page.write_text(_html(report, what, figures))
    except OSError as error:
        raise StoreWriteError(f"{page}: the page cannot be written: {error}") from error
    return page


def _pictures(survey: Survey, field: Field | None) -> Iterator[_Picture]:
    """All kinds of pictures, none drawn yet."""
    meta, (region, catalog) = survey.meta, scene(survey, field)
    with survey.patch(region, catalog, margin=None) as patch:
        plan, arrays, reference = patch.plan, patch.host_arrays(), patch.reference
    data, ierr = arrays["data"], arrays["ierr"]
    yield _Picture(
        "survey",
        "The survey",
        "Footprints of all exposures, and how many there are at each place, band by band. The"
        " circle is the region that the pictures below are of.",
        lambda: iter([plots.plot_survey(meta, region=region)]),
    )
    yield _Picture(
        "exposure",
        "An exposure in super-pixels",
        "Left: which part of each super-pixel has weight. Right: the super-pixels in the frame,"
        " which lie one after the other in the file, with their indices; masked pixels are"
        " crossed.",
        lambda: iter([plots.plot_layout(survey.pixels, *next(iter(survey.pixels)))]),
    )
    yield _Picture(
        "footprints",
        "Exposures over the region",
        "Whole exposures, and the super-pixels that are read of them.",
        lambda: iter([plots.plot_footprints(meta, plan)]),
    )
    yield _Picture(
        "coverage",
        "Coverage of the patch",
        "How many exposures of each band see each place with a pixel that has weight.",
        lambda: iter([plots.plot_coverage(meta, plan, ierr)]),
    )
    yield _Picture(
        "superpixels",
        "Super-pixels of the patch",
        "What is taken of each exposure, on its own detector.",
        partial(plots.pages, plan, partial(plots.plot_superpixels, meta, plan)),
    )
    yield _Picture(
        "pixels",
        "Pixels of the patch",
        "Flux and inverse uncertainty, as a kernel finds them in memory.",
        partial(plots.pages, plan, partial(plots.plot_pixels, plan, data, ierr)),
    )
    if catalog is not None:
        yield _Picture(
            "residuals",
            "Data, model, residual",
            "The true sources, drawn by the plain NumPy likelihood, leave nothing but noise:"
            " chi2 a pixel is 1 within its scatter.",
            partial(_residuals, plan, arrays, reference, catalog),
        )
    yield _Picture(
        "times",
        "Where the time of a patch goes",
        "Measured on this machine while the page was made, with no sources.",
        lambda: _times(survey, region),
    )


def _residuals(
    plan: "PatchPlan", arrays: dict[str, Any], reference: tuple[float, float], catalog: Any
) -> Iterator["Figure"]:
    """Data, model and residual of the true sources."""
    proposal = proposal_from_catalog(catalog, plan.bandlist, default_profiles(), reference)
    model = evaluate(arrays, proposal).model
    draw = partial(plots.plot_residuals, plan, arrays["data"], arrays["ierr"], model)
    return plots.pages(plan, draw)


def _times(survey: Survey, region: CircularRegion) -> Iterator["Figure"]:
    """Times of the region, and of larger ones around the same place."""
    regions = [CircularRegion(region.ra, region.dec, k * region.radius) for k in (1, 2, 4)]
    yield plots.plot_times([time_patch(survey, r, backend=survey.backend) for r in regions])


def _figure(folder: Path, picture: _Picture) -> str:
    """Draw a kind of picture, and give its part of the page."""
    files = plots.save_all(str(folder / "demo"), {picture.kind: picture.draw()})
    images = "\n".join(
        f'<a href="{name}"><img src="{name}" alt="{escape(picture.title)}"></a>'
        for name in (escape(path.name) for path in files)
    )
    return (
        f"<h2>{escape(picture.title)}</h2>\n<figure>\n"
        f"<figcaption>{escape(picture.caption)}</figcaption>\n{images}\n</figure>"
    )


def _html(report: DemoReport, survey: str, figures: list[str]) -> str:
    """Put the page together."""
    steps = "\n".join(
        f"<tr><td>{escape(step.what)}</td><td>{escape(step.detail)}</td>"
        f'<td class="number">{step.seconds:.3f} s</td></tr>'
        for step in report.steps
    )
    checks = "\n".join(
        f"<tr><td>{'holds' if check.passed else '<b>FAILS</b>'}</td><td>{escape(check.what)}</td>"
        f"<td>{escape(check.detail)}</td></tr>"
        for check in report.checks
    )
    verdict = "every check holds" if report.passed else "some checks FAILED"
    pictures = "\n".join(figures)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fpgpu demo</title>
<style>{STYLE}</style>
</head>
<body>
<h1>fpgpu demo: {verdict}</h1>
<p>fpgpu {escape(__version__)}: {escape(survey)}.
The footprints are in <a href="{REGION_FILE}">{REGION_FILE}</a>, for DS9.</p>
{pictures}
<h2>What was checked</h2>
<table>
{checks}
</table>
<h2>What was done</h2>
<table>
{steps}
</table>
</body>
</html>
"""
