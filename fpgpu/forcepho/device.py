"""forcepho's interface to device memory, on a patch that lives in a backend's memory."""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fpgpu.errors import LayoutError, PlanError
from fpgpu.layout import PATCH_ARRAYS, PATCH_DTYPE, SOURCE_DTYPE
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import PatchMetadata

__all__ = ["PIXELS", "DevicePatch"]

logger = logging.getLogger(__name__)

PIXELS = ("data", "ierr", "xpix", "ypix")
"""What a patch holds of every pixel, on the host, too."""

# These follow from the plan, on which all else is laid out.
_INDICES = ("exposure_start", "exposure_N", "band_start", "band_N")


class DevicePatch:
    """What forcepho's models ask of a patch on a device, by forcepho's names.

    What is sent is what the attributes of the host are at that moment, as with forcepho: arrays
    that were changed or replaced in between go as they are, or are refused if they do not fit.

    Attributes
    ----------
    device_patch : numpy.uintp or None
        Address of the ``Patch`` struct that kernels are given; None before it was sent.
    device_ptrs : mapping of str to int
        Address of each array, by the struct's names; a picture of the struct, not to be changed.
    patch_struct : ndarray of PATCH_DTYPE, shape ()
        The struct as it was sent last.
    patchstruct_ptr : int
        Its address.
    data, ierr, xpix, ypix : ndarray of float32, shape (n_pixels,)
        Fluxes and inverse uncertainties in the unit of the store, and zero-based pixel coordinates.
        They are on the host, fetched when first asked for; what is done to them counts when they
        are sent. ``data`` stay as they were when residuals take their place on the device.
    residual : ndarray of float32, shape (n_pixels,)
        A copy of what a kernel has written last; read-only.
    return_residual : bool
        Whether proposers fetch and return the residuals. There is always room for them.
    meta_names : list of str
        Fields of the struct that depend on the sources.
    patch_struct_dtype : dtype
        Of the struct.
    """

    ptr_dtype = np.uintp
    patch_struct_dtype = PATCH_DTYPE
    meta_names: ClassVar[list[str]] = [
        "n_sources", "n_radii", "rad2", "D", "crpix", "crval", "CW", "G",
        "n_psf_per_source", "psfgauss", "psfgauss_start",
    ]  # fmt: skip

    return_residual: bool = False
    device_patch: np.uintp | None = None
    device_ptrs: Mapping[str, int] = MappingProxyType({})
    patch_struct: npt.NDArray[Any]
    patchstruct_ptr: int
    n_sources: int
    n_radii: int
    psf_per_source: bool
    patch_reference_coordinates: npt.NDArray[np.float64]

    _patch: Patch | None = None
    _is_packed = False  # whether there are sources

    def send_to_device(self) -> np.uintp:
        """Send what is packed, and the pixels as they are on the host.

        Returns
        -------
        numpy.uintp
            Address of the ``Patch`` struct.

        Raises
        ------
        PlanError
            When no patch was built, or no sources were packed.
        LayoutError
            When an array was replaced by one that does not fit.
        FpgpuError
            As `fpgpu.patch.build.build_patch`, when the pixels must be read again and cannot.
        """
        patch, metadata = self._require_patch(), self._require_metadata()
        if patch.freed:
            patch.send()
        # What was never fetched is on the device as it was read.
        for name in vars(self).keys() & PIXELS:
            like = np.empty(patch.plan.n_pixels, PATCH_ARRAYS[name])
            patch.put(name, _checked(name, getattr(self, name), like))
        patch.replace_metadata(metadata)
        return self.send_patchstruct_to_device()

    def replace_device_meta_ptrs(self) -> None:
        """Send the packed sources in place of those on the device; pixels are not touched.

        Raises
        ------
        PlanError
            When no patch was built, or no sources were packed.
        LayoutError
            When an array was replaced by one that does not fit.
        ReleasedMemoryError
            When the patch was freed.
        """
        self._require_patch().replace_metadata(self._require_metadata())
        self.send_patchstruct_to_device()

    def send_patchstruct_to_device(self) -> np.uintp:
        """Look at the struct, which is sent with everything that changes it.

        Returns
        -------
        numpy.uintp
            Address of the ``Patch`` struct.

        Raises
        ------
        PlanError
            When no patch was built.
        ReleasedMemoryError
            When the patch was freed.
        """
        patch = self._require_patch()
        self.patch_struct = patch.struct
        addresses = {name: int(self.patch_struct[name]) for name in PATCH_ARRAYS}
        self.device_ptrs = MappingProxyType(addresses)
        self.patchstruct_ptr = patch.pointer
        self.device_patch = np.uintp(patch.pointer)
        return self.device_patch

    def swap_on_device(self) -> np.uintp:
        """Send the packed sources, and make the residuals the data on the device from now on.

        Returns
        -------
        numpy.uintp
            Address of the ``Patch`` struct.

        Raises
        ------
        PlanError
            When no patch was built, or no sources were packed.
        LayoutError
            When an array was replaced by one that does not fit.
        ReleasedMemoryError
            When the patch was freed.
        """
        patch = self._require_patch()
        patch.replace_metadata(self._require_metadata())
        getattr(self, "data")  # noqa: B009 - fetched now: the device forgets them
        patch.swap()
        return self.send_patchstruct_to_device()

    def evaluate_unchecked(
        self, proposal: npt.NDArray[Any], *, residual: bool = False
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Evaluate a scene on the device as it is, by fpgpu's likelihood.

        Parameters
        ----------
        proposal : ndarray of SOURCE_DTYPE, shape (n_sources,)
            The sources that were sent; what is NaN gives NaN. Of more sources the first are taken,
            as forcepho's kernels do: its linear optimisation leaves one source on the device.
        residual : bool, optional
            Whether to write the residuals.

        Returns
        -------
        chi2 : ndarray of float64, shape (n_bands,)
            As of `fpgpu.patch.device.Patch.evaluate`.
        derivatives : ndarray of float32, shape (n_bands, n_sources, 7)
            Of it.

        Raises
        ------
        PlanError
            When no patch was built.
        LayoutError
            When more sources were sent than the proposal has, or it is no proposal.
        ReleasedMemoryError
            When the patch was freed.
        """
        patch = self._require_patch()
        n_sources = patch.n_sources
        if proposal.dtype != SOURCE_DTYPE or proposal.ndim != 1 or len(proposal) < n_sources:
            raise LayoutError(
                f"the proposal is {proposal.dtype} of shape {proposal.shape}; expected SOURCE_DTYPE"
                f" of shape ({n_sources},), the sources that were sent"
            )
        if len(proposal) > n_sources:
            logger.warning(
                "a proposal of %d sources, but %d on the device: those are evaluated, as forcepho's"
                " kernels do; pack and send the scene for all",
                len(proposal), n_sources,
            )  # fmt: skip
        sums = patch.evaluate_unchecked(
            proposal[None, :n_sources], psf_per_source=self.psf_per_source, residual=residual
        )
        return sums.chi2[0], sums.derivatives[0]

    def retrieve_array(self, arrname: str = "residual") -> npt.NDArray[Any]:
        """Fetch an array from the device.

        Parameters
        ----------
        arrname : str, optional
            A pointer of the struct; ``"data"`` are the residuals of before after a swap.

        Returns
        -------
        ndarray
            A copy of its dtype and shape; pixel arrays are float32 of shape (n_pixels,).

        Raises
        ------
        PlanError
            When no patch was built.
        LayoutError
            When there is no such array.
        ReleasedMemoryError
            When the patch was freed.
        """
        return self._require_patch().retrieve(arrname)

    def free(self) -> None:
        """Give the device memory back; what is on the host stays, and can be sent again."""
        if self._patch is not None:
            self._patch.free()
        self.device_ptrs = MappingProxyType({})
        self.device_patch = None

    @property
    def residual(self) -> npt.NDArray[Any]:
        """Residuals that a kernel has written, float32 of shape (n_pixels,); read-only."""
        values = self.retrieve_array("residual")
        values.flags.writeable = False
        return values

    def __getattr__(self, name: str) -> Any:
        """Fetch a pixel array that is not on the host yet, or read it again after `free`."""
        if name not in PIXELS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        try:
            patch = self._require_patch()
        except PlanError as error:
            raise AttributeError(f"{name}: {error}") from error
        was_freed = patch.freed
        if was_freed:
            patch.send()
        for missing in PIXELS if was_freed else (name,):
            vars(self).setdefault(missing, patch.retrieve(missing))
        if was_freed:
            patch.free()
        return vars(self)[name]

    def _require_patch(self) -> Patch:
        if self._patch is None:
            raise PlanError("no patch was built yet; call build_patch(region, ...) first")
        return self._patch

    def _require_metadata(self) -> PatchMetadata:
        """Take what is packed from the attributes, which users and subclasses may have changed."""
        if not self._is_packed:
            raise PlanError("no sources were packed yet; call pack_meta(scene) first")
        plan = self._require_patch().plan
        layout = plan.arena_layout(self.n_sources, self.n_radii, len(self.psfgauss))
        arrays = {
            name: _checked(name, getattr(self, name), np.empty(section.shape, section.dtype))
            for name, section in layout.sections.items()
            if name not in {*PIXELS, "residual"}
        }
        for name in _INDICES:
            if not np.array_equal(arrays[name], getattr(plan, name)):
                raise LayoutError(
                    f"{name} is {arrays[name]}, but the pixels were laid out with"
                    f" {getattr(plan, name)}; to leave exposures out, override find_exposures"
                )
        n_gaussians = int(arrays["n_psf_per_source"].astype(np.int64) @ plan.band_N)
        if n_gaussians * self.n_sources != len(self.psfgauss):
            raise LayoutError(
                f"psfgauss has {len(self.psfgauss)} Gaussians; n_psf_per_source"
                f" {arrays['n_psf_per_source']} for {self.n_sources} sources in exposures"
                f" {plan.band_N} of each band needs {n_gaussians * self.n_sources}"
            )
        ra, dec = self.patch_reference_coordinates
        sources = np.arange(self.n_sources)
        return PatchMetadata(arrays, layout, (float(ra), float(dec)), sources)


def _checked(name: str, values: npt.ArrayLike, like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give values as an array like another one, or refuse them."""
    array = np.asarray(values)
    if array.shape != like.shape or not np.can_cast(array.dtype, like.dtype, "same_kind"):
        raise LayoutError(
            f"{name} is {array.dtype} of shape {array.shape}; expected {like.dtype} of shape"
            f" {like.shape}"
        )
    return np.ascontiguousarray(array, like.dtype)
