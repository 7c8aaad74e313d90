"""What runs beside what: uploads beside kernels, threads beside threads, PyTorch in the process."""

import threading
from typing import Any

import numpy as np

from benchmarks.devices import stack
from benchmarks.gpu.job import Job, NotHereError
from benchmarks.inputs.images import random_image
from fpgpu import Survey, get_backend
from fpgpu.backends.availability import import_cupy

__all__ = ["async_allocator", "overlap", "pytorch"]

_KERNELS, _UPLOADS, _UPLOAD_BYTES = 200, 8, 64 << 20
_THREADS, _ROUNDS = 4, 5


def overlap(job: Job) -> None:
    """Let both streams work at once, and see from events on them when each did."""
    cp, backend = import_cupy(), get_backend("cuda")
    streams, image = backend._streams, random_image(job.size.side, 1)
    n_bytes = _UPLOAD_BYTES if job.size.name == "survey" else 4096
    im = stack(backend, image, 4)
    out = backend.superpixelize(im, im)
    pinned, there = backend.page_locked(n_bytes), backend.empty((n_bytes,), np.uint8)
    streams.send(pinned, there.data.ptr)
    backend.synchronize()
    base = cp.cuda.Event()
    base.record(streams.kernels)
    streams.copies.wait_event(base)
    marks: dict[str, Any] = {}
    for name, stream, call, times in (
        # Those that are quick to be asked for first: both shall have work while Python asks.
        ("uploads", streams.copies, lambda: streams.send(pinned, there.data.ptr), _UPLOADS),
        ("kernels", streams.kernels, lambda: backend.superpixelize(im, im, out=out), _KERNELS),
    ):
        events = [cp.cuda.Event() for _ in range(times + 1)]
        events[0].record(stream)
        for event in events[1:]:
            call()
            event.record(stream)
        marks[name] = events
    backend.synchronize()
    trace = {
        name: [round(cp.cuda.get_elapsed_time(base, event), 4) for event in events]
        for name, events in marks.items()
    }
    ends = {name: (times[0], times[-1]) for name, times in trace.items()}
    together = min(end for _, end in ends.values()) - max(start for start, _ in ends.values())
    shorter = min(end - start for start, end in ends.values())
    job.note(milliseconds=ends, together=together, uploads=trace["uploads"])
    if not together > 0.5 * shorter:
        raise AssertionError(f"of {shorter:.3f} ms of the shorter, {together:.3f} ms were together")


def async_allocator(job: Job) -> None:
    """Build patches in threads that take memory from CUDA's asynchronous allocator."""
    cp = import_cupy()
    cp.cuda.set_allocator(cp.cuda.MemoryAsyncPool().malloc)
    backend, field = get_backend("cuda"), job.field()
    regions = [field.region(radius) for radius in field.size.radii]
    with field.open(get_backend("cpu")) as plain:
        expected = [_pixels(plain, region) for region in regions]
    wrong: list[str] = []
    with field.open(backend) as survey:

        def work(number: int) -> None:
            for turn in range(_ROUNDS):
                place = (number + turn) % len(regions)
                try:
                    same = _pixels(survey, regions[place]) == expected[place]
                except Exception as error:  # noqa: BLE001 - a thread's error would be lost
                    wrong.append(f"{type(error).__name__}: {error}")
                else:
                    wrong.extend([] if same else [f"thread {number}, {regions[place]!r}"])

        threads = [threading.Thread(target=work, args=(n,)) for n in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with survey.stream(regions) as stream:  # whose worker is a thread, too
            for place, item in enumerate(stream):
                if item.patch.retrieve("data").tobytes() != expected[place]:
                    wrong.append(f"stream, {regions[place]!r}")
    job.note(patches=_THREADS * _ROUNDS + len(regions), wrong=wrong)
    if wrong:
        raise AssertionError(f"{len(wrong)} patches are wrong, first {wrong[0]}")


def _pixels(survey: Survey, region: Any) -> bytes:
    with survey.patch(region) as patch:
        return bytes(patch.retrieve("data").tobytes())


def pytorch(job: Job) -> None:
    """Build patches while PyTorch computes, and let it read one without a copy."""
    try:
        import torch
    except ImportError as error:
        raise NotHereError("PyTorch is not installed") from error
    if not torch.cuda.is_available():
        raise NotHereError(f"PyTorch {torch.__version__} sees no device")
    matrix = torch.randn(2048, 2048, device="cuda")
    squares = matrix @ matrix
    field, side = job.field(), torch.cuda.Stream()
    region = field.region()
    with field.open(get_backend("cpu")) as plain:
        expected = _pixels(plain, region)
    with field.open(get_backend("cuda")) as survey:
        same = []
        for _ in range(_ROUNDS):
            with torch.cuda.stream(side):
                squares = matrix @ squares / 2048
            same.append(_pixels(survey, region) == expected)
        with survey.patch(region) as patch, torch.cuda.stream(side):
            tensor = torch.from_dlpack(patch.array("data"))
            shares = tensor.data_ptr() == patch.backend.address(patch.array("data"))
            total = tensor.double().sum().item()
    want = float(np.frombuffer(expected, np.float32).astype(np.float64).sum())
    finite = bool(torch.isfinite(squares).all())
    job.note(version=torch.__version__, same=same, shares_memory=shares, totals=[total, want])
    if not (all(same) and shares and finite and abs(total - want) <= 1e-9 * abs(want) + 1e-6):
        raise AssertionError("PyTorch and fpgpu disturb each other; see found")
