"""A page that shows what a demo did and found: plain HTML beside its pictures."""

from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpgpu import __version__, plots
from fpgpu.errors import StoreWriteError
from fpgpu.html import html_table
from fpgpu.likelihood.scene import proposal_from_catalog
from fpgpu.patch.timing import time_patch
from fpgpu.plots.kinds import draw_residuals, pictures_of_patch
from fpgpu.psf import default_profiles
from fpgpu.sky.regions import CircularRegion
from fpgpu.survey import Survey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fpgpu.demo.run import DemoReport

__all__ = ["write_page"]

REGION_FILE = "survey.reg"
CAPTIONS = {
    "survey": "Footprints of all exposures, and how many there are at each place, band by band."
    " The circle is the region that the pictures below are of.",
    "exposure": "An exposure in super-pixels, which lie one after the other in the file. Left: how"
    " much of each has weight. Right: some in the frame, with their indices.",
    "footprints": "Whole exposures over the region, and the super-pixels that are read of them.",
    "coverage": "How many exposures of each band see each place with a pixel that has weight.",
    "superpixels": "What the patch takes of each exposure, on its own detector.",
    "pixels": "Flux and inverse uncertainty, as a kernel finds them in memory.",
    "residuals": "The true sources, drawn by the plain NumPy likelihood, leave nothing but noise:"
    " chi2 a pixel is 1 within its scatter.",
    "times": "Where the time of a patch goes, measured here while the page was made, without"
    " sources.",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }
img { max-width: 100%; height: auto; border: 1px solid #ccc; }
"""


def write_page(
    folder: Path, report: "DemoReport", survey: Survey, region: CircularRegion, catalog: Any
) -> Path:
    """Draw a survey and a region of it, and write a page that shows pictures and report.

    The name of the page is given: ``index.html`` in the folder, which is made when missing.
    """
    page = folder / "index.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figures = [
            _figure(kind, plots.save_all(str(folder / "demo"), {kind: draw()}))
            for kind, draw in _pictures(survey, region, catalog).items()
        ]
        (folder / REGION_FILE).write_text(plots.ds9_regions(survey.meta, regions=[region]))
        page.write_text(_html(report, repr(survey), figures))
    except OSError as error:
        raise StoreWriteError(f"{page}: the page cannot be written: {error}") from error
    return page


def _pictures(
    survey: Survey, region: CircularRegion, catalog: Any
) -> "dict[str, Callable[[], Iterable[Figure]]]":
    """How each picture is drawn, in the order of the page."""
    with survey.patch(region, catalog, margin=None) as patch:
        plan, arrays, reference = patch.plan, patch.host_arrays(), patch.reference

    def residuals() -> "Iterable[Figure]":
        proposal = proposal_from_catalog(catalog, plan.bandlist, default_profiles(), reference)
        return draw_residuals(plan, arrays, proposal)

    def times() -> "Iterable[Figure]":
        circles = [CircularRegion(region.ra, region.dec, k * region.radius) for k in (1, 2, 4)]
        yield plots.plot_times([time_patch(survey, c, backend=survey.backend) for c in circles])

    return {
        "survey": lambda: [plots.plot_survey(survey.meta, region=region)],
        "exposure": lambda: [plots.plot_layout(survey.pixels, *next(iter(survey.pixels)))],
        **pictures_of_patch(survey.meta, plan, arrays["data"], arrays["ierr"]),
        **({} if catalog is None else {"residuals": residuals}),
        "times": times,
    }


def _figure(kind: str, files: Iterable[Path]) -> str:
    """Part of the page for the pictures of a kind."""
    images = "\n".join(
        f'<a href="{name}"><img src="{name}" alt="{kind}"></a>'
        for name in (escape(path.name) for path in files)
    )
    return f"<h2>{kind}</h2>\n<p>{escape(CAPTIONS[kind])}</p>\n{images}"


def _html(report: "DemoReport", survey: str, figures: list[str]) -> str:
    """Put the page together."""
    verdict = "every check holds" if report.passed else "some checks FAILED"
    checks = [("holds" if c.passed else "FAILS", c.what, c.detail) for c in report.checks]
    steps = [(step.what, step.detail, f"{step.seconds:.3f} s") for step in report.steps]
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
{html_table("What was checked", ("", "check", "found"), checks)}
{html_table("What was done", ("step", "", "time"), steps)}
</body>
</html>
"""
