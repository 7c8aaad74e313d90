"""A page that shows what a demo did and found: plain HTML beside pictures of all kinds."""

from html import escape
from pathlib import Path

from fpgpu import __version__
from fpgpu.cli import ds9, plot
from fpgpu.cli.parser import build_parser
from fpgpu.demo.run import CATALOG, DemoReport
from fpgpu.errors import StoreWriteError
from fpgpu.html import html_table

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
    "times": "Where the time of a patch goes, measured here while the page was made.",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fpgpu demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; }}
img {{ max-width: 100%; height: auto; border: 1px solid #ccc; }}
</style>
</head>
<body>
<h1>fpgpu demo: {verdict}</h1>
<p>Made with fpgpu {version}. The footprints are in <a href="{regions}">{regions}</a>, for DS9.</p>
{pictures}
{checks}
{steps}
</body>
</html>
"""


def write_page(folder: Path, out: Path, report: DemoReport, backend: str) -> Path:
    """Draw the stores of a demo and a region of it, as its user may, and show pictures and report.

    The name of the page is given: ``index.html`` in the folder, which is made when missing.
    """
    page, stores = folder / "index.html", str(out / "stores")
    ra, dec, radius = report.region.ra, report.region.dec, 3600 * report.region.radius
    circle = [f"--ra={ra}", f"--dec={dec}", "--radius", str(radius)]
    kinds = list(CAPTIONS)
    sources = [f"--catalog={out / CATALOG}"]
    if not report.has_sources:
        kinds.remove("residuals")
        sources = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        words = ["plot", stores, *kinds, *circle, str(2 * radius), str(4 * radius), *sources]
        words += [f"--out={folder / 'demo'}", f"--backend={backend}", "-q"]
        drawn = plot.run(build_parser().parse_args(words)).json["pictures"]
        words = ["ds9", stores, *circle, f"--out={folder / REGION_FILE}"]
        ds9.run(build_parser().parse_args(words))
        page.write_text(_html(report, kinds, [Path(name).name for name in drawn]))
    except OSError as error:
        raise StoreWriteError(f"{page}: the page cannot be written: {error}") from error
    return page


def _html(report: DemoReport, kinds: list[str], names: list[str]) -> str:
    """Put the page together."""
    parts = []
    for kind in kinds:
        images = [
            f'<a href="{escape(name)}"><img src="{escape(name)}" alt="{kind}"></a>'
            for name in names
            if name.startswith(f"demo_{kind}")
        ]
        parts += [f"<h2>{kind}</h2>", f"<p>{escape(CAPTIONS[kind])}</p>", *images]
    checks = [("holds" if c.passed else "FAILS", c.what, c.detail) for c in report.checks]
    steps = [(step.what, step.detail, f"{step.seconds:.3f} s") for step in report.steps]
    return PAGE.format(
        verdict="every check holds" if report.passed else "some checks FAILED",
        version=escape(__version__),
        regions=REGION_FILE,
        pictures="\n".join(parts),
        checks=html_table("What was checked", ("", "check", "found"), checks),
        steps=html_table("What was done", ("step", "", "time"), steps),
    )
