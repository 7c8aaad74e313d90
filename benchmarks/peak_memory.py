"""Build a large patch in a process of its own, and print what memory that took as JSON.

``python -m benchmarks.peak_memory fpgpu|forcepho PIXELS META PSF SPLINES RA DEC RADIUS BAND...``

The stores are open before, and a small patch was built: what is counted is the large one.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import fpgpu

__all__ = ["main"]

_SMALL = 0.05  # of the radius
_RESET_PEAK = "5"  # see proc(5), clear_refs


def main(arguments: list[str]) -> None:
    """Build both patches and say what the large one took."""
    who, pixels, meta, psf, splines, ra, dec, radius, *bands = arguments
    files = Path(pixels), Path(meta), Path(psf)
    small, large = (
        fpgpu.CircularRegion(float(ra), float(dec), scale * float(radius)) for scale in (_SMALL, 1)
    )
    if who == "forcepho":
        found = _forcepho(files, Path(splines), small, large, bands)
    else:
        found = _fpgpu(files, small, large, bands)
    print(json.dumps(found))


def _fpgpu(
    files: tuple[Path, Path, Path],
    small: fpgpu.CircularRegion,
    large: fpgpu.CircularRegion,
    bands: list[str],
) -> dict[str, int]:
    pixels, meta, psf = files
    with fpgpu.open(pixels=pixels, meta=meta, psf=psf, backend="cpu") as survey:
        survey.patch(small, bands=bands).free()
        before = _resident()
        with survey.patch(large, bands=bands) as patch:
            return {"before": before, "peak": _peak(), "patch": _touched(patch)}


def _forcepho(
    files: tuple[Path, Path, Path],
    splines: Path,
    small: fpgpu.CircularRegion,
    large: fpgpu.CircularRegion,
    bands: list[str],
) -> dict[str, int]:
    import warnings

    warnings.simplefilter("ignore")
    from benchmarks.upstream import circle, store_patch

    patch = store_patch(*files, splines)
    patch.build_patch(circle(small), allbands=bands)
    before = _resident()
    patch.build_patch(circle(large), allbands=bands)
    return {"before": before, "peak": _peak(), "patch": 4 * 4 * patch.npix}


def _touched(patch: Any) -> int:
    """Bytes of a patch without the room for residuals, which building it does not touch."""
    return int(patch.nbytes - 4 * patch.plan.n_pixels)


def _resident() -> int:
    """Forget the peak so far, and give the bytes that are resident now."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    """Ask the kernel; getrusage would also count what the parent had."""
    status = Path("/proc/self/status").read_text()
    (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", status)
    return 1024 * int(kilobytes)


if __name__ == "__main__":
    main(sys.argv[1:])
