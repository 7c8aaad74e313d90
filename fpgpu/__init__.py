"""GPU storage backend for forcepho: from survey exposures to device-resident patches of sky.

The names below are the public interface; each loads its module when it is first used, so that
``import fpgpu`` costs next to nothing.

.. include:: ../README.md
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from fpgpu.backends.choose import get_backend as get_backend
    from fpgpu.errors import FpgpuError as FpgpuError
    from fpgpu.ingest.exposure import Exposure as Exposure
    from fpgpu.ingest.exposure import ImageNameSet as ImageNameSet
    from fpgpu.ingest.exposure import ImageSet as ImageSet
    from fpgpu.ingest.inputs import Input as Input
    from fpgpu.ingest.memory import exposure_from_arrays as exposure_from_arrays
    from fpgpu.ingest.memory import exposure_from_ccddata as exposure_from_ccddata
    from fpgpu.ingest.naming import header_to_id as header_to_id
    from fpgpu.ingest.pipeline import ingest as ingest
    from fpgpu.layout import PSF_COLS as PSF_COLS
    from fpgpu.layout import PSF_DTYPE as PSF_DTYPE
    from fpgpu.patch.device import Patch as Patch
    from fpgpu.patch.plan import PatchPlan as PatchPlan
    from fpgpu.sky.footprints import FootprintIndex as FootprintIndex
    from fpgpu.sky.regions import CircularRegion as CircularRegion
    from fpgpu.sky.regions import PolygonRegion as PolygonRegion
    from fpgpu.sky.regions import RectangularRegion as RectangularRegion
    from fpgpu.sky.wcs import SkyWCS as SkyWCS
    from fpgpu.stores.meta import MetaStore as MetaStore
    from fpgpu.stores.names import EXP_FMT as EXP_FMT
    from fpgpu.stores.pixel import PixelStore as PixelStore
    from fpgpu.stores.psf import PSFStore as PSFStore
    from fpgpu.survey import Survey as Survey
    from fpgpu.survey import open as open  # noqa: A004

_HOME = {
    "CircularRegion": "fpgpu.sky.regions",
    "EXP_FMT": "fpgpu.stores.names",
    "Exposure": "fpgpu.ingest.exposure",
    "FootprintIndex": "fpgpu.sky.footprints",
    "FpgpuError": "fpgpu.errors",
    "ImageNameSet": "fpgpu.ingest.exposure",
    "ImageSet": "fpgpu.ingest.exposure",
    "Input": "fpgpu.ingest.inputs",
    "MetaStore": "fpgpu.stores.meta",
    "PSFStore": "fpgpu.stores.psf",
    "PSF_COLS": "fpgpu.layout",
    "PSF_DTYPE": "fpgpu.layout",
    "Patch": "fpgpu.patch.device",
    "PatchPlan": "fpgpu.patch.plan",
    "PixelStore": "fpgpu.stores.pixel",
    "PolygonRegion": "fpgpu.sky.regions",
    "RectangularRegion": "fpgpu.sky.regions",
    "SkyWCS": "fpgpu.sky.wcs",
    "Survey": "fpgpu.survey",
    "exposure_from_arrays": "fpgpu.ingest.memory",
    "exposure_from_ccddata": "fpgpu.ingest.memory",
    "get_backend": "fpgpu.backends.choose",
    "header_to_id": "fpgpu.ingest.naming",
    "open": "fpgpu.survey",
}

__all__ = ["__version__", "ingest", *_HOME]


def __getattr__(name: str) -> Any:
    """Load the module that defines `name` and return the object."""
    if name == "ingest":
        return import_module("fpgpu.ingest")  # the package, which can be called
    if name not in _HOME:
        raise AttributeError(f"module 'fpgpu' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
