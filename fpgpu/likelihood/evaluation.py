"""What evaluating scenes gives, on any backend, and what scenes must be for it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fpgpu.backends.memory import Array
from fpgpu.errors import LayoutError
from fpgpu.layout import SOURCE_DTYPE
from fpgpu.likelihood.checks import check_proposal

__all__ = ["Evaluation", "LogLikelihood", "Sums", "as_batch", "log_likelihood"]


class Evaluation(NamedTuple):
    """What `Patch.evaluate` finds; of a batch, arrays have one more axis in front.

    Attributes
    ----------
    chi2 : ndarray of float64, shape (n_bands,)
        Sum of (residual^2 - data^2) * ierr^2: chi square less its value without any source.
    derivatives : ndarray of float32, shape (n_bands, n_sources, 7)
        Of `chi2`, by flux (per nJy), ra, dec (per degree), q, pa (per radian), sersic and rhalf
        (per arcsec).
    residual : array of float32, shape (n_pixels,), or None
        Data minus model: the patch's own buffer in the backend's memory, until the next evaluation
        writes there. None where it was not asked for.
    """

    chi2: npt.NDArray[np.float64]
    derivatives: npt.NDArray[np.float32]
    residual: Array | None


class LogLikelihood(NamedTuple):
    """What `Patch.likelihood` finds.

    Attributes
    ----------
    value : float
        ln L, less its value without any source: minus half of chi square, of all bands together.
    gradient : structured array of float64, shape (n_sources,)
        Derivatives of `value` by each column of the catalogue: ra, dec (per degree), q, pa (per
        radian), sersic, rhalf (per arcsec), and the flux in each band (per nJy).
    """

    value: float
    gradient: npt.NDArray[Any]


class Sums(NamedTuple):
    """What an `Evaluator` gives.

    Attributes
    ----------
    chi2 : ndarray of float64, shape (n_batch, n_bands)
        As in `Evaluation`.
    derivatives : ndarray of float32, shape (n_batch, n_bands, n_sources, 7)
        As in `Evaluation`.
    """

    chi2: npt.NDArray[np.float64]
    derivatives: npt.NDArray[np.float32]


class Evaluator(Protocol):
    """Evaluates scenes on one patch, where it lives."""

    def evaluate(
        self, batch: npt.NDArray[Any], *, psf_per_source: bool, residual: bool = False
    ) -> Sums:
        """Evaluate scenes.

        Parameters
        ----------
        batch : ndarray of SOURCE_DTYPE, shape (n_batch, n_sources)
            Not checked: what is NaN, or no source, gives NaN.
        psf_per_source : bool
            Whether each source has its own PSF, or all the first one's.
        residual : bool, optional
            Whether to write the residual, of one scene.

        Returns
        -------
        Sums
            The same bits for a scene alone or in a batch.
        """
        ...


def as_batch(
    proposal: npt.NDArray[Any], n_sources: int, n_bands: int, n_radii: int
) -> npt.NDArray[Any]:
    """See one scene or several as a batch, and refuse what no patch of that kind can be asked.

    Parameters
    ----------
    proposal : ndarray of SOURCE_DTYPE, shape (n_sources,) or (n_batch, n_sources)
        The scenes.
    n_sources, n_bands, n_radii : int
        Of the patch.

    Returns
    -------
    ndarray of SOURCE_DTYPE, shape (n_batch, n_sources)
        A view.

    Raises
    ------
    LayoutError
        If it has another dtype or shape, or a source is one that cannot be.
    """
    found = np.asarray(proposal)
    if found.dtype != SOURCE_DTYPE:
        raise LayoutError(
            f"the proposal {_kind(found.dtype)}; expected fpgpu.layout.SOURCE_DTYPE, as"
            " fpgpu.likelihood.scene.proposal_from_catalog makes it of a catalogue"
        )
    if found.ndim not in (1, 2) or found.shape[-1] != n_sources:
        raise LayoutError(
            f"a proposal of shape {found.shape}; the patch has {n_sources} sources, so expected"
            f" ({n_sources},) for one scene or (n, {n_sources}) for n of them"
        )
    batch = found if found.ndim == 2 else found[None]
    for number, scene in enumerate(batch):
        try:
            check_proposal(scene, n_sources, n_bands, n_radii)
        except LayoutError as error:
            if found.ndim == 1:
                raise
            raise LayoutError(f"scene {number}: {error}") from None
    return batch


def _kind(dtype: np.dtype[Any]) -> str:
    """Say what a proposal is that has another dtype."""
    if dtype.names is None:
        return f"is {dtype}"
    if dtype.names != SOURCE_DTYPE.names:
        return f"has the fields {dtype.names}"
    other = [name for name in dtype.names if dtype[name] != SOURCE_DTYPE[name]]
    if not other:
        return "has its fields at other places"
    return f"has {other[0]} as {dtype[other[0]]} and not as {SOURCE_DTYPE[other[0]]}"


def log_likelihood(
    chi2: npt.NDArray[np.float64], derivatives: npt.NDArray[np.float32], bandlist: Sequence[str]
) -> LogLikelihood:
    """Turn chi square of one scene into ln L and its gradient by the columns of a catalogue.

    Parameters
    ----------
    chi2 : ndarray of float64, shape (n_bands,)
        Of each band.
    derivatives : ndarray of float32, shape (n_bands, n_sources, 7)
        Of it.
    bandlist : sequence of str
        Names of the bands.

    Returns
    -------
    LogLikelihood
        Of all bands.
    """
    slopes = -0.5 * derivatives.astype(np.float64)
    shapes = ("ra", "dec", "q", "pa", "sersic", "rhalf")
    names = (*shapes, *bandlist)
    gradient = np.zeros(slopes.shape[1], [(name, np.float64) for name in names])
    for k, name in enumerate(shapes):
        gradient[name] = slopes[:, :, k + 1].sum(axis=0)
    for band, name in enumerate(bandlist):
        gradient[name] = slopes[band, :, 0]
    return LogLikelihood(float(-0.5 * chi2.sum()), gradient)
