"""The most memory that a process has while it builds the patch of a large region."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from benchmarks.conftest import Keep
from benchmarks.inputs.field import POSITION, Field
from benchmarks.measurements import Measurement
from benchmarks.sizes import Size
from benchmarks.upstream import write_splines

ROOT = Path(__file__).parents[1]
OPERATION = "peak memory of a patch"


def measure_peak(who: str, field: Field, size: Size, splines: Path) -> dict[str, int]:
    """Build in a new process."""
    numbers = [*map(str, POSITION), str(size.large / 3600)]
    files = [str(path) for path in (field.pixels, field.meta(), field.psf, splines)]
    command = [sys.executable, "-m", "benchmarks.peak_memory", who, *files, *numbers]
    result = subprocess.run(
        [*command, *field.bands()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def record(who: str, field: Field, size: Size, tmp_path: Path, keep: Keep) -> dict[str, int]:
    """Keep what a patch took beyond what the process had before, beside the patch itself."""
    found = measure_peak(who, field, size, write_splines(tmp_path / "splines.h5"))
    found["taken"] = found["peak"] - found["before"]
    column = "forcepho" if who == "forcepho" else "fpgpu cpu"
    at = {"radius": size.large, "exposures": size.few}
    limit = {"limit": "the patch itself", "limit_value": float(found["patch"])}
    keep(Measurement(OPERATION, column, found["taken"], at=at, unit="B", **limit))
    return found


def test_fpgpu(field: Field, size: Size, tmp_path: Path, keep: Keep) -> None:
    found = record("fpgpu", field, size, tmp_path, keep)
    # A slot of staging memory comes on top, whatever the size of the patch.
    assert 0 < found["taken"] < 1.3 * found["patch"] + (5 << 20)


def test_forcepho(
    field: Field, size: Size, tmp_path: Path, keep: Keep, forcepho: ModuleType
) -> None:
    assert record("forcepho", field, size, tmp_path, keep)["taken"] > 0
