"""PSFs and profiles as mixtures of Gaussians: from images and formulas to what ``psf.h5`` holds."""

from fpgpu.psf.fit import BandFit, FitError, fit_psf
from fpgpu.psf.images import PSFImages, read_psf_images
from fpgpu.psf.mixtures import Mixture
from fpgpu.psf.profiles import ProfileTable, default_profiles, make_profiles

__all__ = [
    "BandFit",
    "FitError",
    "Mixture",
    "PSFImages",
    "ProfileTable",
    "default_profiles",
    "fit_psf",
    "make_profiles",
    "read_psf_images",
]
