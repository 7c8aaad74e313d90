"""Proposals: the sources of a scene as kernels read them, made from a catalogue."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.catalog import UNITS, as_catalog, catalog_column, refuse_sources
from fpgpu.errors import CatalogError
from fpgpu.layout import MAXBANDS, SOURCE_DTYPE
from fpgpu.likelihood.mixture import SersicMixture

__all__ = ["proposal_from_catalog", "relative_longitude"]

Float = npt.NDArray[np.float64]


def proposal_from_catalog(
    catalog: Any,
    bandlist: Sequence[str],
    mixture: SersicMixture,
    reference: tuple[float, float] | Float,
) -> npt.NDArray[Any]:
    """Make the proposal that describes the sources of a catalogue.

    Parameters
    ----------
    catalog : astropy.table.Table, structured array or dict of lists, shape (n_sources,)
        As `fpgpu.catalog.catalog_column` takes it: ra, dec (degrees), q (square root of the
        axis ratio b/a), pa (radians), sersic, rhalf (arcsec), and fluxes (nJy) in each band.
    bandlist : sequence of str
        The bands of the patch, in its order.
    mixture : SersicMixture
        Gaussians of the profiles.
    reference : (float, float)
        Right ascension and declination, degrees, that positions are relative to.

    Returns
    -------
    ndarray of SOURCE_DTYPE, shape (n_sources,)
        Slots of bands and radii that are not used are 0.

    Raises
    ------
    CatalogError
        If a column is missing, a value is one that no source can have or that `mixture` does not
        cover, or there are more bands than kernels take.
    """
    catalog = as_catalog(catalog)
    columns = {name: catalog_column(catalog, name) for name in UNITS}
    fluxes = [
        catalog_column(catalog, band)
        for band in ([bandlist] if isinstance(bandlist, str) else bandlist)
    ]
    n_sources = len(columns["ra"])
    if len(fluxes) > MAXBANDS:
        raise CatalogError(f"{len(fluxes)} bands; a patch has at most {MAXBANDS}")
    _check_shapes(columns)
    amplitudes = mixture.evaluate(columns["sersic"], columns["rhalf"])

    proposal = np.zeros(n_sources, SOURCE_DTYPE)
    proposal["ra"] = relative_longitude(columns["ra"], float(reference[0]))
    proposal["dec"] = columns["dec"] - float(reference[1])
    for field, name in (("q", "q"), ("pa", "pa"), ("nsersic", "sersic"), ("rh", "rhalf")):
        proposal[field] = columns[name]
    for i, flux in enumerate(fluxes):
        proposal["fluxes"][:, i] = flux
    used = slice(mixture.n_radii)
    proposal["mixture_amplitudes"][:, used] = amplitudes.amplitudes
    proposal["damplitude_drh"][:, used] = amplitudes.d_rhalf
    proposal["damplitude_dnsersic"][:, used] = amplitudes.d_sersic
    return proposal


def relative_longitude(ra: Float, reference: float) -> Float:
    """Subtract right ascensions, the short way around the circle.

    Parameters
    ----------
    ra : ndarray of float64
        Degrees.
    reference : float
        Degrees.

    Returns
    -------
    ndarray of float64
        Within -180 to 180 degrees; to the last bit the plain difference where that is within.
    """
    difference = ra - reference
    return difference - 360 * np.round(difference / 360)


def _check_shapes(columns: dict[str, Float]) -> None:
    """Refuse places and shapes that no source has; the mixture judges sersic and rhalf."""
    dec, q, rhalf = columns["dec"], columns["q"], columns["rhalf"]
    refuse_sources(abs(dec) > 90, "dec", dec, "beyond a pole")
    refuse_sources(
        (q <= 0) | (q > 1), "q", q, "not in (0, 1]; it is the square root of the axis ratio b/a"
    )
    refuse_sources(rhalf < 0, "rhalf", rhalf, "negative")
