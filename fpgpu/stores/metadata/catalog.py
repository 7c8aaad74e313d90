"""The exposures of a meta store: which there are, where they are, which cover a place."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fpgpu.errors import RegionError
from fpgpu.stores.metadata.contents import MetaContents
from fpgpu.stores.metadata.lazy import LazyTable
from fpgpu.stores.metadata.records import Float, Key
from fpgpu.stores.names import each_band

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from astropy.io.fits import Header

    from fpgpu.sky.footprints import FootprintIndex
    from fpgpu.sky.regionbase import Region
    from fpgpu.sky.sip import SipFit
    from fpgpu.sky.wcs import SkyWCS

__all__ = ["ExposureCatalog"]


class ExposureCatalog:
    """Questions that the contents of a meta store answer.

    Parameters
    ----------
    contents : MetaContents
        What is asked.
    """

    def __init__(self, contents: MetaContents) -> None:
        self._contents = contents

    @property
    def headers(self) -> "LazyTable[Header]":
        """``headers[band][expID]``, in the store's order; entries may be changed and replaced."""
        return self._contents.headers

    @property
    def bands(self) -> list[str]:
        """Bands in the store's order."""
        return list(self.headers)

    def exposures(self, band: str) -> list[str]:
        """List the exposures of a band.

        Parameters
        ----------
        band : str
            The band.

        Returns
        -------
        list of str
            Their expIDs in the store's order.

        Raises
        ------
        NotInStoreError
            If the store has no such band.
        """
        return list(self.headers[band])

    @property
    def nexp(self) -> int:
        """Number of exposures."""
        return sum(len(exposures) for exposures in self.headers.values())

    def __len__(self) -> int:
        return self.nexp

    def __iter__(self) -> Iterator[Key]:
        """Iterate over (band, expID)."""
        for band, exposures in self.headers.items():
            for expID in exposures:
                yield band, expID

    def __contains__(self, key: object) -> bool:
        """Tell whether (band, expID) is in the store."""
        match key:
            case (str(band), str(expID)):
                return band in self.headers and expID in self.headers[band]
        return False

    @property
    def wcs(self) -> LazyTable[Any]:
        """``wcs[band][expID]``: celestial WCS of the kind asked for; entries may be replaced."""
        return self._contents.wcs

    @property
    def tree(self) -> LazyTable[Any]:
        """``tree[band][expID]``: the gWCS objects, whether they are used or not."""
        return self._contents.tree

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Pixels along x and y of exposures whose headers do not say, as primary headers of FITS
        files with extensions: those of the pixel store, to be set by who knows it."""
        return self._contents.image_shape

    @image_shape.setter
    def image_shape(self, shape: tuple[int, int] | None) -> None:
        self._contents.image_shape = shape

    @property
    def use_gwcs(self) -> bool | None:
        """Whether positions come from the gWCS; None: where an exposure has one."""
        return self._contents.use_gwcs

    @property
    def wcs_kinds(self) -> str:
        """Where positions come from, in words."""
        n_gwcs = self.use_gwcs is not False and self.nexp - len(self.without_gwcs())
        if self.use_gwcs or (n_gwcs and n_gwcs == self.nexp):
            return "gWCS"
        return f"gWCS of {n_gwcs}, FITS WCS of the others" if n_gwcs else "FITS WCS"

    @property
    def has_gwcs(self) -> bool:
        """Whether there may be gWCS beside the FITS WCS of the headers."""
        return self._contents.has_asdf

    def without_gwcs(self) -> list[Key]:
        """List the exposures that have no gWCS.

        Returns
        -------
        list of (band, expID)
            In the store's order.
        """
        return [key for key in self if not self._contents.has_gwcs(key)]

    def wcs_kind(self, band: str, expID: str) -> str:
        """Tell the best kind of WCS that is stored of an exposure.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        str
            ``"gwcs"``, or ``"fits"`` where there is only the header's.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        """
        self._contents.require((band, expID))
        return "gwcs" if self._contents.has_gwcs((band, expID)) else "fits"

    def sky_wcs(self, band: str, expID: str) -> "SkyWCS":
        """Give the WCS of an exposure, of the kind asked for.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        SkyWCS
            Around the object in `wcs`.

        Raises
        ------
        NotInStoreError
            If there is no such exposure, or it has no gWCS and that was asked for.
        WCSError
            If the WCS cannot be used.
        """
        self._contents.require((band, expID))
        return self._contents.sky_wcs((band, expID))

    def shape(self, band: str, expID: str) -> tuple[int, int]:
        """Give the size of an exposure by its header, or `image_shape`.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        (int, int)
            Pixels along x and y.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        WCSError
            If neither its header nor `image_shape` says.
        """
        self._contents.require((band, expID))
        return self._contents.shape((band, expID))

    def sip_fit(self, band: str, expID: str) -> "SipFit | None":
        """Give the SIP refit of the gWCS that was stored with an exposure.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        SipFit or None
            None where none is remembered; `fpgpu.sky.sip.fit_sip` makes one.

        Raises
        ------
        NotInStoreError
            If there is no such exposure.
        """
        self._contents.require((band, expID))
        return self._contents.sip((band, expID))

    def footprint(self, band: str, expID: str) -> Float:
        """Give the outline of an exposure on the sky.

        Parameters
        ----------
        band, expID : str
            The exposure.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            Right ascension and declination in degrees, along the outer edges of the pixels.

        Raises
        ------
        NotInStoreError
            If there is no such exposure, or it has no gWCS and that was asked for.
        WCSError
            If its header has no usable WCS.
        """
        self._contents.require((band, expID))
        return self._contents.outline((band, expID))

    # --- queries -----------------------------------------------------------------------------

    def find_exposures(
        self, sky: Sequence[float], bandlist: Iterable[str]
    ) -> tuple[list[str], list[str]]:
        """Find the exposures that cover a position.

        Parameters
        ----------
        sky : sequence of two floats
            Right ascension and declination, degrees.
        bandlist : iterable of str
            The bands to look in, or one.

        Returns
        -------
        expIDs, bands : list of str
            Name and band of each exposure found, in the order of `bandlist` and then of the store.

        Raises
        ------
        RegionError
            If `sky` is no position.
        NotInStoreError
            If the store does not have a band.
        WCSError
            If an exposure of these bands has no usable WCS.
        """
        from fpgpu.sky.footprints import find_containing

        try:
            ra, dec = (float(value) for value in sky)
        except (TypeError, ValueError) as exc:
            raise RegionError(f"sky is {sky!r}; expected ra and dec in degrees") from exc
        found = self._search(lambda indexes: find_containing(indexes, ra, dec), bandlist)
        return [expID for _, expID in found], [band for band, _ in found]

    def exposures_touching(
        self, region: "Region", bandlist: Iterable[str] | None = None
    ) -> list[Key]:
        """Find the exposures that have any point in common with a region.

        Parameters
        ----------
        region : CircularRegion, RectangularRegion or PolygonRegion
            The region of sky.
        bandlist : iterable of str, optional
            The bands to look in, or one; by default all.

        Returns
        -------
        list of (band, expID)
            In the order of `bandlist` and then of the store.

        Raises
        ------
        RegionError
            If `region` is none.
        NotInStoreError
            If the store does not have a band.
        WCSError
            If an exposure of these bands has no usable WCS.
        """
        from fpgpu.sky.footprints import find_touching
        from fpgpu.sky.regionbase import Region

        if not isinstance(region, Region):
            raise RegionError(
                f"region is {region!r}; expected a CircularRegion, RectangularRegion or "
                "PolygonRegion (find_exposures takes a position)"
            )
        return self._search(lambda indexes: find_touching(indexes, region), bandlist)

    def _search(
        self,
        ask: "Callable[[Sequence[FootprintIndex]], list[npt.NDArray[np.intp]]]",
        bandlist: Iterable[str] | None,
    ) -> list[Key]:
        """Ask the indexes of the bands."""
        bands = self.bands if bandlist is None else each_band(bandlist, self.headers)
        indexed = [(band, *self._contents.index(band)) for band in bands]
        found: list[Key] = []
        answers = ask([index for _, index, _ in indexed])
        for (band, _, expIDs), numbers in zip(indexed, answers, strict=True):
            found += [(band, expIDs[number]) for number in numbers.tolist()]
        return found
