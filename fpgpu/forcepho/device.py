"""forcepho's interface to device memory, on a patch that lives in a backend's memory."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fpgpu.errors import PlanError
from fpgpu.layout import PATCH_ARRAYS, PATCH_DTYPE
from fpgpu.patch.device import Patch
from fpgpu.patch.pack import PatchMetadata

__all__ = ["DevicePatch"]


class DevicePatch:
    """What forcepho's models ask of a patch on a device, by forcepho's names.

    Attributes
    ----------
    device_patch : numpy.uintp or None
        Address of the ``Patch`` struct that kernels are given; None before it was sent.
    device_ptrs : mapping of str to int
        Address of each array, by the struct's names; a picture of the struct, not to be changed.
    patch_struct : ndarray of PATCH_DTYPE, shape ()
        The struct as it was sent last.
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

    _patch: Patch | None = None
    _metadata: PatchMetadata | None = None
    _holds_data = True  # whether the data are those of the store, and not residuals

    def send_to_device(self) -> np.uintp:
        """Send what is packed, and the pixels again if they were replaced by residuals.

        Returns
        -------
        numpy.uintp
            Address of the ``Patch`` struct.

        Raises
        ------
        PlanError
            When no patch was built, or no sources were packed.
        FpgpuError
            As `fpgpu.patch.build.build_patch`, when the pixels cannot be read again.
        """
        patch, metadata = self._require_patch(), self._require_metadata()
        if patch.freed or not self._holds_data:
            patch.send()
            self._holds_data = True
        patch.replace_metadata(metadata)
        return self.send_patchstruct_to_device()

    def replace_device_meta_ptrs(self) -> None:
        """Send the packed sources in place of those on the device; pixels are not touched.

        Raises
        ------
        PlanError
            When no patch was built, or no sources were packed.
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
        self.device_patch = np.uintp(patch.pointer)
        return self.device_patch

    def swap_on_device(self) -> np.uintp:
        """Send the packed sources, and make the residuals the data from now on.

        Returns
        -------
        numpy.uintp
            Address of the ``Patch`` struct.

        Raises
        ------
        PlanError
            When no patch was built, or no sources were packed.
        ReleasedMemoryError
            When the patch was freed.
        """
        patch = self._require_patch()
        patch.replace_metadata(self._require_metadata())
        patch.swap()
        self._holds_data = False
        return self.send_patchstruct_to_device()

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
        """Give the device memory back; `send_to_device` makes a new start."""
        if self._patch is not None:
            self._patch.free()
        self.device_ptrs = MappingProxyType({})
        self.device_patch = None

    def _require_patch(self) -> Patch:
        if self._patch is None:
            raise PlanError("no patch was built yet; call build_patch(region, ...) first")
        return self._patch

    def _require_metadata(self) -> PatchMetadata:
        if self._metadata is None:
            raise PlanError("no sources were packed yet; call pack_meta(scene) first")
        return self._metadata
