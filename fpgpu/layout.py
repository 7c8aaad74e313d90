"""The binary interface: structured dtypes shared with CUDA kernels and with forcepho.

This is the only place where the layouts are written in Python. `layout_checks` turns them into a C
header of static assertions that every kernel source includes, so that a field that moves on one
side only is a compile error and never a wrong number.

`PATCH_DTYPE`, `PSF_DTYPE`, `SOURCE_DTYPE` and `RESPONSE_DTYPE` are forcepho's structs. The others
are the argument tables of fpgpu's own kernels: one row an exposure, so that a single launch serves
a whole batch.
"""

from enum import IntFlag
from typing import Any

import numpy as np

__all__ = [
    "CALIBRATE_COUNTS_DTYPE",
    "CALIBRATE_DTYPE",
    "EVALUATE_WORK_DTYPE",
    "IMAGE_GAUSSIAN_DTYPE",
    "MAXBANDS",
    "MAXRADII",
    "MAXSOURCES",
    "MAX_EXP_ARG",
    "NO_PIXEL",
    "NPARAMS",
    "NUMACCUMS",
    "PATCH_ARRAYS",
    "PATCH_DTYPE",
    "PSF_COLS",
    "PSF_DTYPE",
    "RESPONSE_DTYPE",
    "SEEN_DTYPE",
    "SOURCE_DTYPE",
    "UNPACK_DTYPE",
    "ImageFlag",
    "layout_checks",
]

MAXBANDS = 30
"""Most bands in a patch."""

MAXSOURCES = 30
"""Most sources of a patch for forcepho's kernels; fpgpu's take any number."""

MAXRADII = 10
"""Most Gaussians in the mixture of a Sersic profile."""

NPARAMS = 7
"""Derivatives per source and band: flux, ra, dec, q, pa, sersic, rhalf."""

NUMACCUMS = 1
"""Accumulators in each block of the fitting kernel."""

MAX_EXP_ARG = 36.0
"""A Gaussian is not evaluated where its exponent, 0.5 * this, is larger."""

NO_PIXEL = 0xFFFFFFFF
"""`first_overflow` of an exposure in which every value is finite."""

POINTER = np.dtype(np.uint64)

PSF_COLS = ["amp", "xcen", "ycen", "Cxx", "Cyy", "Cxy"]
"""Names of the six float32 parameters of one PSF Gaussian, in the order of the struct."""

PSF_DTYPE = np.dtype([(name, np.float32) for name in PSF_COLS] + [("sersic_bin", np.int32)])
"""One PSF Gaussian as the kernels read it (``PSFSourceGaussian``), 28 bytes."""

PATCH_ARRAYS: dict[str, np.dtype[Any]] = {
    "data": np.dtype(np.float32),
    "ierr": np.dtype(np.float32),
    "xpix": np.dtype(np.float32),
    "ypix": np.dtype(np.float32),
    "residual": np.dtype(np.float32),
    "exposure_start": np.dtype(np.int32),
    "exposure_N": np.dtype(np.int32),
    "band_start": np.dtype(np.int16),
    "band_N": np.dtype(np.int16),
    "rad2": np.dtype(np.float32),
    "D": np.dtype(np.float32),
    "crpix": np.dtype(np.float32),
    "crval": np.dtype(np.float32),
    "CW": np.dtype(np.float32),
    "G": np.dtype(np.float32),
    "n_psf_per_source": np.dtype(np.int32),
    "psfgauss": PSF_DTYPE,
    "psfgauss_start": np.dtype(np.int32),
}
"""What each pointer of the patch struct points to, in the order of the struct."""

_PATCH_ORDER = list(PATCH_ARRAYS)
_PATCH_ORDER[9:9] = ["n_sources", "n_radii"]

PATCH_DTYPE = np.dtype(
    [(name, POINTER if name in PATCH_ARRAYS else np.int32) for name in _PATCH_ORDER], align=True
)
"""The ``Patch`` struct, 152 bytes: addresses as uint64, so that it can be filled for any device."""

SOURCE_DTYPE = np.dtype(
    [
        ("ra", np.float32),
        ("dec", np.float32),
        ("q", np.float32),
        ("pa", np.float32),
        ("nsersic", np.float32),
        ("rh", np.float32),
        ("fluxes", np.float32, MAXBANDS),
        ("mixture_amplitudes", np.float32, MAXRADII),
        ("damplitude_drh", np.float32, MAXRADII),
        ("damplitude_dnsersic", np.float32, MAXRADII),
    ],
    align=True,
)
"""One source of a proposal (``Source``), 264 bytes."""

RESPONSE_DTYPE = np.dtype([("dchi2_dparam", np.float32, NPARAMS * MAXSOURCES)], align=True)
"""What the fitting kernel returns for one band (``Response``), 840 bytes."""

CALIBRATE_DTYPE = np.dtype(
    [
        ("image", POINTER),
        ("error", POINTER),
        ("mask", POINTER),
        ("background", POINTER),
        ("area", POINTER),
        ("superpixels", POINTER),
        ("factor", np.float32),
        ("inverse_factor", np.float32),
    ],
    align=True,
)
"""One exposure for the `calibrate` kernel; mask, background and area may be null."""

CALIBRATE_COUNTS_DTYPE = np.dtype(
    [
        ("masked", np.uint32),
        ("nonfinite_flux", np.uint32),
        ("bad_error", np.uint32),
        ("flagged", np.uint32),
        ("bad_area", np.uint32),
        ("overflowed", np.uint32),
        ("first_overflow", np.uint32),
    ],
    align=True,
)
"""What `calibrate` counted in one exposure; a pixel can count under several causes."""

UNPACK_DTYPE = np.dtype(
    [
        ("source", POINTER),
        ("start", np.int32),
        ("count", np.int32),
        ("row_length", np.int32),
        ("background", np.float32),
    ],
    align=True,
)
"""One exposure for the `unpack` kernel."""

_IMAGE_GAUSSIAN = ["x", "y", "x_rest", "y_rest", "ax", "ay", "bx", "by"]
_IMAGE_GAUSSIAN += ["bend", "bend_a", "bend_b", "peak"]

IMAGE_GAUSSIAN_DTYPE = np.dtype([(name, np.float32) for name in _IMAGE_GAUSSIAN])
"""One Gaussian of a source on one exposure, as `project_gaussians` leaves it on a device."""

EVALUATE_WORK_DTYPE = np.dtype(
    [(name, np.int32) for name in ("exposure", "band", "first_pixel", "n_pixels")]
)
"""One run of pixels of one exposure for the `evaluate_patch` kernel."""

SEEN_DTYPE = np.dtype(
    [
        ("value", np.uint64),
        ("count", np.uint64),
        ("checksum", np.uint64),
        ("first", np.uint32),
        ("last", np.uint32),
    ],
    align=True,
)
"""What `check_layout` saw in one field of a patch."""


class ImageFlag(IntFlag):
    """How the image planes given to a kernel are stored.

    ``FITS_ORDER``: every plane is as in a FITS file, x contiguous; else ``im[x, y]``, y
    contiguous. ``SWAP_*``: that plane has the other byte order than the machine.
    """

    FITS_ORDER = 1
    SWAP_IMAGE = 2
    SWAP_ERROR = 4
    SWAP_MASK = 8
    SWAP_BACKGROUND = 16
    SWAP_AREA = 32


# Struct names on the C side.
C_STRUCTS: dict[str, np.dtype[Any]] = {
    "PSFSourceGaussian": PSF_DTYPE,
    "Patch": PATCH_DTYPE,
    "Source": SOURCE_DTYPE,
    "Response": RESPONSE_DTYPE,
    "CalibrateExposure": CALIBRATE_DTYPE,
    "CalibrateCounts": CALIBRATE_COUNTS_DTYPE,
    "UnpackExposure": UNPACK_DTYPE,
    "ImageGaussian": IMAGE_GAUSSIAN_DTYPE,
    "EvaluateWork": EVALUATE_WORK_DTYPE,
    "Seen": SEEN_DTYPE,
}

C_CONSTANTS: dict[str, float] = {
    "MAXBANDS": MAXBANDS,
    "MAXSOURCES": MAXSOURCES,
    "MAXRADII": MAXRADII,
    "NPARAMS": NPARAMS,
    "NUMACCUMS": NUMACCUMS,
    "MAX_EXP_ARG": MAX_EXP_ARG,
    "NO_PIXEL": NO_PIXEL,
    **{str(flag.name): flag.value for flag in ImageFlag},
}

_C_SCALARS = {"<f4": "float", "<i4": "int", "<i2": "short", "<u4": "unsigned int"}

# offsetof needs <cstddef>, which NVRTC does not have; __INTADDR__ is its own front end's spelling.
_PREAMBLE = """\
// Generated from the NumPy dtypes of fpgpu/layout.py; not to be edited.
#ifdef __CUDACC_RTC__
#define FPGPU_OFFSET(type, field) __INTADDR__(&(((type *)0)->field))
#else
#define FPGPU_OFFSET(type, field) __builtin_offsetof(type, field)
#endif
template <class A, class B> struct fpgpu_same { static constexpr bool value = false; };
template <class A> struct fpgpu_same<A, A> { static constexpr bool value = true; };
"""


def _c_type(struct: str, field: str, dtype: np.dtype[Any]) -> str | None:
    """Return the C type a field must have, None where any type of that size will do."""
    if struct == "Patch" and field in PATCH_ARRAYS:
        target = PATCH_ARRAYS[field]
        return ("PSFSourceGaussian" if target == PSF_DTYPE else _C_SCALARS[target.str]) + "*"
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"{_C_SCALARS[base.str]}[{shape[0]}]"
    return _C_SCALARS.get(dtype.str)


def layout_checks() -> str:
    """Write the C header of static assertions that ties the kernels to these dtypes."""
    lines = [_PREAMBLE]
    for struct, dtype in C_STRUCTS.items():
        lines.append(f'static_assert(sizeof({struct}) == {dtype.itemsize}, "sizeof {struct}");')
        for field, (kind, offset, *_) in (dtype.fields or {}).items():
            what = f"{struct}::{field}"
            lines += [
                f'static_assert(FPGPU_OFFSET({struct}, {field}) == {offset}, "offset of {what}");',
                f'static_assert(sizeof({struct}::{field}) == {kind.itemsize}, "size of {what}");',
            ]
            if c_type := _c_type(struct, field, kind):
                lines.append(
                    f"static_assert(fpgpu_same<decltype({what}), {c_type}>::value,"
                    f' "type of {what}");'
                )
    lines += [
        f'static_assert({name} == {value!r}, "{name}");' for name, value in C_CONSTANTS.items()
    ]
    return "\n".join(lines) + "\n"
