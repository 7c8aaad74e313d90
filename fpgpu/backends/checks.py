"""What is asked of every argument before a kernel may touch it; the same for every backend."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fpgpu.backends.memory import Array
from fpgpu.errors import KernelLaunchError, LayoutError

__all__ = ["Owner", "require_apart", "require_array", "require_count", "require_indices"]


class Owner(Protocol):
    """The part of a backend that checks need."""

    name: str

    def why_foreign(self, array: Any) -> str | None:
        """Say why an object is no array of this backend, or None."""
        ...

    def address(self, array: Array) -> int:
        """Address of an array's first element."""
        ...


def require_array(
    owner: Owner,
    name: str,
    array: Any,
    dtypes: np.dtype[Any] | Sequence[np.dtype[Any]],
    shape: Sequence[int | None],
    *,
    output: bool = False,
) -> None:
    """Refuse what a kernel would misread.

    Parameters
    ----------
    owner : Owner
        The backend that is going to run the kernel.
    name : str
        What messages call the array.
    array : array
        The argument.
    dtypes : dtype or sequence of dtype
        Those allowed.
    shape : sequence of int or None
        Expected shape; None where any length will do.
    output : bool, optional
        Whether the array is written.

    Raises
    ------
    KernelLaunchError
        When it is not in the memory of this backend's device.
    LayoutError
        When dtype, shape, contiguity or alignment is not what the kernel expects.
    """
    reason = owner.why_foreign(array)
    if reason is not None:
        raise KernelLaunchError(f"{name} cannot be used by the {owner.name} backend: {reason}")
    allowed = [dtypes] if isinstance(dtypes, np.dtype) else dtypes
    if array.dtype not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise LayoutError(f"{name} has dtype {array.dtype}; expected {wanted}")
    fits = len(array.shape) == len(shape) and all(
        want is None or have == want for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise LayoutError(f"{name} has shape {tuple(array.shape)}; expected ({wanted})")
    if not array.flags.c_contiguous:
        raise LayoutError(
            f"{name} is not C-contiguous (strides {array.strides} for shape {array.shape});"
            " pass a contiguous copy"
        )
    if array.size and owner.address(array) % array.dtype.itemsize:
        raise LayoutError(
            f"{name} begins at address {owner.address(array):#x}, which is no multiple of its"
            f" item size {array.dtype.itemsize}"
        )
    if output and not getattr(array.flags, "writeable", True):
        raise LayoutError(f"{name} is read-only and cannot be an output")


def require_apart(owner: Owner, outputs: dict[str, Array], inputs: dict[str, Array]) -> None:
    """Refuse outputs that lie over each other or over an input."""
    spans = [
        (owner.address(array), owner.address(array) + array.nbytes, name, name in outputs)
        for name, array in [*outputs.items(), *inputs.items()]
        if array.size
    ]
    spans.sort()
    reach = spans[:1]  # of every span so far, the one that ends last
    for span in spans[1:]:
        if span[0] < reach[0][1] and (span[3] or reach[0][3]):
            raise LayoutError(f"{span[2]} and {reach[0][2]} overlap in memory; one is an output")
        if span[1] > reach[0][1]:
            reach = [span]


def require_count(name: str, value: int, most: int, limit: str, least: int = 0) -> None:
    """Refuse a number that is out of the range a kernel or the patch struct can hold."""
    if not least <= value <= most:
        raise KernelLaunchError(f"{value} {name}: {limit} allows {least} to {most}")


def require_indices(
    name: str, indices: Any, shape: Sequence[int | None], below: npt.ArrayLike
) -> npt.NDArray[np.int32]:
    """Refuse indices that would lead a kernel outside its arrays.

    Parameters
    ----------
    name : str
        What messages call them.
    indices : ndarray of int32
        In host memory, where they can be looked at.
    shape : sequence of int or None
        Expected shape; None where any length will do.
    below : array_like of int
        Exclusive upper bounds, of a shape that broadcasts to that of the indices.

    Returns
    -------
    ndarray of int32
        The same, C-contiguous.

    Raises
    ------
    LayoutError
        When dtype or shape is not as expected, or they are not in host memory.
    KernelLaunchError
        When an index is negative or too large, with its place.
    """
    if not isinstance(indices, np.ndarray) or indices.dtype != np.int32:
        found = getattr(indices, "dtype", type(indices).__name__)
        raise LayoutError(f"{name} must be a NumPy array of int32 in host memory, not {found}")
    fits = indices.ndim == len(shape) and all(
        want is None or have == want for have, want in zip(indices.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise LayoutError(f"{name} has shape {indices.shape}; expected ({wanted})")
    bounds = np.asarray(below, np.int64)
    if _is_plainly_below(indices, bounds):
        return np.ascontiguousarray(indices)
    bad = (indices < 0) | (indices >= bounds)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise KernelLaunchError(
            f"{name}{list(where)} is {indices[where]}; it must be at least 0 and below"
            f" {int(np.broadcast_to(bounds, indices.shape)[where])}"
        )
    return np.ascontiguousarray(indices)


def _is_plainly_below(indices: npt.NDArray[np.int32], bounds: npt.NDArray[np.int64]) -> bool:
    """Whether the largest index settles that all are inside, as it usually does."""
    # As unsigned numbers, negative ones are the largest.
    unsigned = indices.view(np.uint32)
    if bounds.ndim == 1:
        columns = zip(unsigned.T, bounds.tolist(), strict=True)
        return all(column.max(initial=0) < bound for column, bound in columns)
    return bool(unsigned.max(initial=0) < bounds.min(initial=np.iinfo(np.int64).max))
