"""The most memory that building a patch takes, beside the patch itself; each in its own process."""

import json
import subprocess
import sys
from types import ModuleType

import pytest

from benchmarks.fields import BANDS, POSITION, Field, radius_of
from benchmarks.ratios import RATIOS
from benchmarks.sizes import Size

_PEAK = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

folder, ra, dec, radius, bands = json.loads(sys.argv[1])
"""

_FPGPU = """
import fpgpu
with fpgpu.open(folder, backend="cpu") as survey:
    def build(radius):
        return survey.patch(fpgpu.CircularRegion(ra, dec, radius), bands=bands)
    build(radius / 100).free()  # what is imported and looked up once
    before = peak()
    patch = build(radius)
    print(json.dumps([peak() - before, patch.nbytes - 4 * patch.plan.n_pixels]))
"""

_FORCEPHO = """
from forcepho.patches.pixel_patch import StorePatch
from forcepho.region import CircularRegion
patch = StorePatch(pixelstore=f"{folder}/pixels.h5", metastore=f"{folder}/meta.json")
patch.metastore.populate_wcs()
before = peak()
patch.build_patch(CircularRegion(ra, dec, radius), None, allbands=bands)
print(json.dumps([peak() - before, 4 * 4 * patch.npix]))
"""


def measured(code: str, field: Field, radius: float) -> tuple[int, int]:
    """Bytes of the peak, and of the patch without room for residuals, which nothing touches."""
    arguments = json.dumps([str(field.folder), *POSITION, radius / 3600, BANDS])
    run = [sys.executable, "-c", _PEAK + code, arguments]
    found = subprocess.run(run, capture_output=True, text=True, check=True)
    peak, patch = json.loads(found.stdout.splitlines()[-1])
    return peak, patch


def keep(request: pytest.FixtureRequest, way: str, size: Size, peak: int, patch: int) -> None:
    """Put the figures into the table of the run."""
    if request.config.getoption("benchmark_enable"):
        request.config.stash[RATIOS].note(
            f"peak memory of a patch of {size.few} exposures, r = 10 arcsec",
            f"{way:<42}{peak / 1e6:>7.0f} MB, {peak / patch:.2f} x the patch"
            f" ({patch / 1e6:.0f} MB without residuals)",
        )


def test_fpgpu(size: Size, field: Field, request: pytest.FixtureRequest) -> None:
    peak, patch = measured(_FPGPU, field, radius_of(size, 10.0))
    keep(request, "fpgpu, CPU", size, peak, patch)
    # A slot of staging memory comes on top, whatever the size of the patch.
    assert peak < 1.3 * patch + (5 << 20)


def test_forcepho(
    size: Size, field: Field, forcepho: ModuleType, request: pytest.FixtureRequest
) -> None:
    peak, patch = measured(_FORCEPHO, field, radius_of(size, 10.0))
    keep(request, "forcepho", size, peak, patch)
    assert peak > 0
