"""Operations on exposures of full size, and on more elements than 32 bits count."""

import numpy as np

from benchmarks.devices import stack
from benchmarks.gpu.job import Job, NotHereError
from benchmarks.inputs.images import image_set, random_image
from fpgpu import get_backend
from fpgpu.backends.arguments import ExposurePlanes
from fpgpu.backends.base import Backend
from fpgpu.calibration import calibrated_superpixels
from fpgpu.fluxes import flux_calibration
from fpgpu.layout import ImageFlag

__all__ = ["calibrate", "round_trip"]

_MOST = 2**31
_AT_ONCE = 16


def calibrate(job: Job) -> None:
    """Calibrate exposures in both orders and byte orders, and compare with NumPy's bits."""
    backend, exposure = get_backend("cuda"), image_set(job.size.side, "e")
    factor, _ = flux_calibration(exposure.hdr)
    expected, masked = calibrated_superpixels(*exposure[:4], bitmask=1, factor=factor)
    swapped = ImageFlag.SWAP_IMAGE | ImageFlag.SWAP_MASK | ImageFlag.SWAP_BACKGROUND
    native = [np.asarray(plane) for plane in exposure[:4]]
    native = [np.ascontiguousarray(plane, plane.dtype.newbyteorder("=")) for plane in native]
    stored = {
        "as in FITS": ([np.asarray(plane).T for plane in exposure[:4]], swapped),
        "[x, y]": (native, ImageFlag(0)),
    }
    for name, (planes, flags) in stored.items():
        flags |= ImageFlag.FITS_ORDER if name == "as in FITS" else ImageFlag(0)
        there = [ExposurePlanes(*map(backend.upload, planes), factor=factor) for _ in range(3)]
        found, counts = backend.calibrate(there, bitmask=1, flags=flags)
        same = [backend.download(one).tobytes() == expected.tobytes() for one in found]
        job.note(**{name: {"same": sum(same), "of": len(same), "masked": counts}})
        if not all(same) or counts != [masked] * 3:
            raise AssertionError(f"{name}: {same.count(False)} of 3 exposures differ from NumPy's")


def round_trip(job: Job) -> None:
    """Send images through super-pixel order, more of them than 2^31 elements."""
    backend, side = get_backend("cuda"), job.size.side
    most = _MOST if job.size.name == "survey" else _MOST >> 14
    n_exp = most // (2 * side**2) + 1
    n_bytes = 4 * 8 * n_exp * side**2
    free = backend.memory_state().free
    if n_bytes > free:
        raise NotHereError(f"{n_bytes:,} bytes are needed, {free:,} are free")
    images = random_image(side, 1), random_image(side, 2)
    im, ierr = (stack(backend, image, n_exp) for image in images)
    _mark_exposures(backend, im, ierr)
    superpixels = backend.superpixelize(im, ierr)
    # Poisoned by what cannot be right: the images of the other kind.
    out = stack(backend, images[1], n_exp), stack(backend, images[0], n_exp)
    back = backend.images_from_superpixels(superpixels, out=out)
    n_wrong = 0
    for start in range(0, n_exp, _AT_ONCE):
        for plane, image, sign in zip(back, images, (1, -1), strict=True):
            found = backend.download(plane[start : start + _AT_ONCE])
            marks = sign * np.arange(start, start + len(found), dtype=np.float32)
            n_wrong += int(
                np.count_nonzero((found[:, 0, 0] != marks) | (found[:, -1, -1] != marks))
            )
            found[:, 0, 0], found[:, -1, -1] = image[0, 0], image[-1, -1]
            n_wrong += int(np.count_nonzero((found != image).any(axis=(1, 2))))
    job.note(elements=int(np.prod(superpixels.shape)), exposures=n_exp, wrong=n_wrong)
    if n_wrong:
        raise AssertionError(f"{n_wrong} of {2 * n_exp} images came back otherwise")


def _mark_exposures(backend: Backend, im: object, ierr: object) -> None:
    """Make each exposure one of its own, by its first and its last pixel."""
    for planes, sign in ((im, 1), (ierr, -1)):
        for number, plane in enumerate(planes):
            value = np.full(1, sign * number, np.float32)
            flat = plane.reshape(-1)
            backend.upload(value, out=flat[:1])
            backend.upload(value, out=flat[-1:])
