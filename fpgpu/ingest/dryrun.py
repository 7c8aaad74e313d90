"""What an ingest would do, found out by doing all of it but the writing."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fpgpu.errors import FpgpuError
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.inputs import Input
from fpgpu.ingest.record import record_of
from fpgpu.ingest.report import IngestRow, made_row
from fpgpu.ingest.resume import Admission, look
from fpgpu.ingest.work import ShardResult, each_exposure, refused
from fpgpu.stores.meta import MetaStore
from fpgpu.stores.pixels.geometry import Geometry
from fpgpu.stores.pixels.preparing import prepared

__all__ = ["plan_ingest"]


def plan_ingest(
    items: Input | Iterable[Input], out: str | Path, nside_full: int | tuple[int, int] | None = None
) -> Iterator[IngestRow]:
    """Give the rows of an ingest, with ``"new"`` and ``"replace"`` for stored and replaced."""
    folder = Path(out)
    present = look(folder, nside_full)
    known, admission = present.in_pixels | present.in_meta, Admission(folder, present)
    for given in [items] if isinstance(items, Input) else items:
        item = present.settle(given)

        def plan(exposure: Exposure, _: float, item: Input = item) -> ShardResult:
            MetaStore().prepare(exposure)
            key = exposure.band, exposure.expID
            admission.admit(key, exposure.shape, item.path)
            exposure.provenance |= record_of(item, exposure, [], complete=True)
            record, _pixels = prepared(
                exposure,
                Geometry.of_arguments(exposure.shape, present.super_pixel_size),
                exposure.bitmask,
                item.calibration.do_fluxcal,
                np.dtype(np.float32),
                None,
                str(folder),
            )
            status = "replace" if key in known else "new"
            return ShardResult(made_row(item.path, status, record, exposure))

        try:
            for made in each_exposure(item, plan):
                yield replace(made.row, file=given.path)
        except FpgpuError as error:
            yield replace(refused(item.path, error).row, file=given.path)
