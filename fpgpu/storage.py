"""The names of ``forcepho.patches.storage`` from one place.

Code written for forcepho changes one import line: ``from fpgpu.storage import PixelStore, ...``.
"""

from fpgpu.ingest.exposure import ImageNameSet, ImageSet
from fpgpu.ingest.naming import header_to_id
from fpgpu.layout import PSF_COLS, PSF_DTYPE
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.names import EXP_FMT
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore

__all__ = [
    "EXP_FMT",
    "PSF_COLS",
    "PSF_DTYPE",
    "ImageNameSet",
    "ImageSet",
    "MetaStore",
    "PSFStore",
    "PixelStore",
    "header_to_id",
]
