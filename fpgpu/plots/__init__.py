"""Pictures: of a survey, of its exposures, and of patches of it; and region files for DS9.

Colours are those of Okabe and Ito and of cividis, which people with any colour vision can tell
apart; what is told by colour is told by line style or lightness, too. On maps of the sky, right
ascension grows to the left and both axes have the same scale. matplotlib is imported when a picture
is made, and no global state of it is used.
"""

from fpgpu.plots.canvas import MOST_EXPOSURES, pages, require_matplotlib, save, save_all
from fpgpu.plots.ds9 import ds9_regions
from fpgpu.plots.exposures import plot_layout, plot_superpixels
from fpgpu.plots.pixels import plot_pixels, plot_residuals
from fpgpu.plots.psfs import plot_psf
from fpgpu.plots.regions import plot_coverage, plot_footprints
from fpgpu.plots.surveys import plot_survey
from fpgpu.plots.times import plot_times

__all__ = [
    "MOST_EXPOSURES",
    "ds9_regions",
    "pages",
    "plot_coverage",
    "plot_footprints",
    "plot_layout",
    "plot_pixels",
    "plot_psf",
    "plot_residuals",
    "plot_superpixels",
    "plot_survey",
    "plot_times",
    "require_matplotlib",
    "save",
    "save_all",
]
