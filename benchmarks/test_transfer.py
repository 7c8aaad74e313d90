"""Moving the super-pixels of a patch to a backend's memory and back, beside its own such copies."""

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.devices import require_memory
from benchmarks.sizes import BATCHES, Measure, Size
from fpgpu.backends.base import Backend

TO_DEVICE, TO_HOST = "host to device, page-locked", "device to host, page-locked"

pytestmark = pytest.mark.parametrize("n_exp", BATCHES)


def superpixels_of_patch(n_exp: int, size: Size) -> npt.NDArray[np.uint8]:
    """Draw them as the bytes that a store holds."""
    n_bytes = n_exp * size.window**2 * 128 * 4
    return np.random.default_rng(1).integers(0, 256, n_bytes, np.uint8)


def test_upload_of_staging_memory(
    measure_on: Measure, backend: Backend, size: Size, n_exp: int
) -> None:
    values = superpixels_of_patch(n_exp, size)
    require_memory(backend, 3 * values.nbytes)
    with backend.staging(slot_bytes=values.nbytes, depth=1):
        slot = backend.stage(values.nbytes)
        slot.array[...] = values
        out = backend.upload(slot)
        # The only slot comes again as it was left: filling it is not part of a transfer.
        measure_on(
            "upload",
            lambda: backend.upload(backend.stage(values.nbytes), out=out),
            detail="staging memory",
            at={"window": size.window, "batch": n_exp},
            n_bytes=values.nbytes,
            copy=TO_DEVICE,
            outputs=[out],
        )
        np.testing.assert_array_equal(backend.download(out), values)


def test_upload_of_any_memory(
    measure_on: Measure, backend: Backend, size: Size, n_exp: int
) -> None:
    values = superpixels_of_patch(n_exp, size)
    require_memory(backend, 3 * values.nbytes)
    out = backend.empty(values.shape, values.dtype)
    measure_on(
        "upload",
        lambda: backend.upload(values, out=out),
        detail="pageable memory",
        at={"window": size.window, "batch": n_exp},
        n_bytes=values.nbytes,
        copy=TO_DEVICE,
        outputs=[out],
    )
    np.testing.assert_array_equal(backend.download(out), values)


def test_download_into_staging_memory(
    measure_on: Measure, backend: Backend, size: Size, n_exp: int
) -> None:
    values = superpixels_of_patch(n_exp, size)
    require_memory(backend, 3 * values.nbytes)
    there = backend.upload(values)
    with (
        backend.staging(slot_bytes=values.nbytes, depth=1),
        backend.stage(values.nbytes) as slot,
    ):
        measure_on(
            "download",
            lambda: backend.download(there, out=slot.array),
            detail="into staging memory",
            at={"window": size.window, "batch": n_exp},
            n_bytes=values.nbytes,
            copy=TO_HOST,
            outputs=[slot.array],
        )
        np.testing.assert_array_equal(slot.array, values)
