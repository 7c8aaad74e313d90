"""The stores that a patch is built from."""

from typing import NamedTuple, Protocol

from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixel import PixelStore
from fpgpu.stores.psf import PSFStore

__all__ = ["StoreSet", "Stores"]


class StoreSet(Protocol):
    """The stores that belong together, as a survey has them."""

    @property
    def pixels(self) -> PixelStore:
        """Fluxes and inverse uncertainties."""

    @property
    def meta(self) -> MetaStore:
        """Headers and WCS."""

    @property
    def psf(self) -> PSFStore | None:
        """PSFs, None where there are none."""


class Stores(NamedTuple):
    """The stores that belong together.

    Attributes
    ----------
    pixels : PixelStore
        Fluxes and inverse uncertainties, opened with ``pix_dtype`` float32.
    meta : MetaStore
        Headers and WCS of the same exposures.
    psf : PSFStore, optional
        PSFs of their bands; a patch without sources needs none.
    """

    pixels: PixelStore
    meta: MetaStore
    psf: PSFStore | None = None
