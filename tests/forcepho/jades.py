"""forcepho's own `JadesPatch`, with a stand-in for PyCUDA's memory: the host's."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from fpgpu.forcepho.upstream import forcepho_module

__all__ = ["JadesPatch"]


class Allocation(int):
    """The address of a copy that is kept as long as the allocation."""

    array: Any

    def free(self) -> None:
        self.array = None


def to_device(array: Any) -> Allocation:
    kept = np.array(array)
    allocation = Allocation(kept.__array_interface__["data"][0])
    allocation.array = kept
    return allocation


forcepho_module("patches.device_patch").cuda = SimpleNamespace(
    to_device=to_device,
    mem_alloc=lambda nbytes: to_device(np.zeros(nbytes, np.uint8)),
    from_device=lambda pointer, shape, dtype: pointer.array.view(dtype).reshape(shape).copy(),
)


class JadesPatch(forcepho_module("patches").JadesPatch):  # type: ignore[misc]
    """With forcepho's kernel for the CPU, which takes the same struct."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.metastore.populate_wcs()  # else it finds no exposures

    def get_proposer(self) -> Any:
        return forcepho_module("proposal").CPUProposer()
