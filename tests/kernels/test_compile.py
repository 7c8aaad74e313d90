"""Every kernel compiles to machine code for every architecture, without a GPU, and frugally."""

import re
import subprocess
import sys

import pytest

from fpgpu.backends import nvrtc
from fpgpu.backends.compiler import ARCHITECTURES, compile_source, kernel_names, read_sources
from fpgpu.errors import BackendUnavailableError, KernelCompileError
from tests.kernels.compiled import compile_once, known_architectures, most_spilled

SOURCES = [name for name in read_sources() if name.endswith(".cu")]
MOVING_DATA = [name for name in SOURCES if name != "evaluate.cu"]  # whose bits are NumPy's
BLOCK_THREADS = 256
REGISTERS_PER_BLOCK = 65536
SMALLEST_SHARED_MEMORY = 48 * 1024

DEPRECATED = (
    "nvrtc: warning: Architectures prior to '<compute/sm>_75' are deprecated and may be removed in"
    " a future release"
)
SPILLING = """
#include "layout.cuh"
extern "C" __global__ void __launch_bounds__(1024, 2) spill(float* a) {
    float v[96];
    for (int k = 0; k < 96; k++) v[k] = a[k * 1024 + threadIdx.x];
    __syncthreads();
    for (int k = 0; k < 96; k++)
        for (int m = 0; m < 96; m++) a[(k * 96 + m) * 1024 + threadIdx.x] = v[k] * v[m];
}
"""


@pytest.fixture(scope="module", autouse=True)
def needs_nvrtc() -> None:
    try:
        nvrtc.load_nvrtc()
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def archs(long_form):
    """The oldest, the newest and one between; all of them in the long form."""
    known = known_architectures()
    return known if long_form else (known[0], 90, known[-1])


@pytest.mark.parametrize("name", SOURCES)
def test_compiles_without_spills_or_warnings(name, archs):
    for arch in archs:
        compiled = compile_once(name, arch)
        assert compiled.cubin.startswith(b"\x7fELF")
        assert "warning" not in compiled.log.replace(DEPRECATED, "")
        assert sorted(compiled.usage) == sorted(kernel_names(read_sources()[name]))
        for kernel, usage in compiled.usage.items():
            spilled = usage.spill_store_bytes, usage.spill_load_bytes, usage.stack_bytes
            assert max(spilled) <= most_spilled(arch), (arch, kernel, usage)
            assert 0 < usage.registers * BLOCK_THREADS <= REGISTERS_PER_BLOCK, (arch, kernel, usage)
            assert usage.shared_bytes <= SMALLEST_SHARED_MEMORY, (arch, kernel, usage)


def test_a_kernel_that_spills_is_reported_to_spill():
    sources = {**read_sources(), "spill.cu": SPILLING}
    usage = compile_source("spill.cu", 80, sources=sources).usage["spill"]
    assert usage.registers == 32
    assert usage.spill_store_bytes > 0
    assert usage.spill_load_bytes > 0
    assert usage.stack_bytes > 0


@pytest.mark.parametrize("name", MOVING_DATA)
def test_flushing_denormals_changes_no_arithmetic(name):
    ptx = compile_source(name, 80, extra_options=("--ftz=true",)).ptx
    assert not re.findall(r"^.*\.ftz.*$", ptx, re.M)


@pytest.mark.parametrize("name", MOVING_DATA)
def test_no_multiplication_is_fused_with_an_addition(name):
    ptx = compile_once(name, 80).ptx
    assert not re.findall(r"^.*\bfma\..*$", ptx, re.M)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_tied_to_the_dtypes(name):
    moved = dict(read_sources())
    moved["patch.cuh"] = _swap(moved["patch.cuh"], "float* D;", "float* CW;")
    with pytest.raises(KernelCompileError, match="offset of Patch::D"):
        compile_source(name, 80, sources=moved)


@pytest.mark.parametrize(
    ("header", "before", "after", "message"),
    [
        ("patch.cuh", "float Cxx, Cyy, Cxy;", "float Cxx, Cxy, Cyy;", "PSFSourceGaussian::Cyy"),
        ("patch.cuh", "short* band_N;", "int* band_N;", "type of Patch::band_N"),
        ("patch.cuh", "int sersic_bin;", "float sersic_bin;", "type of PSFSourceGaussian"),
        ("patch.cuh", "int n_radii;", "int n_radii; int padding;", "offset of Patch::rad2"),
        ("patch.cuh", "#define MAXBANDS 30 ", "#define MAXBANDS 31 ", "MAXBANDS"),
        ("patch.cuh", "[NPARAMS * MAXSOURCES]", "[NPARAMS]", "sizeof Response"),
        ("tables.cuh", "#define SWAP_MASK 8", "#define SWAP_MASK 9", "SWAP_MASK"),
        ("tables.cuh", "float background;", "double background;", "UnpackExposure"),
    ],
)
def test_a_change_on_the_c_side_only_is_a_compile_error(header, before, after, message):
    sources = dict(read_sources())
    assert sources[header].count(before) == 1
    sources[header] = sources[header].replace(before, after)
    with pytest.raises(KernelCompileError, match=message):
        compile_source("superpixelize.cu", 80, sources=sources)


def test_an_error_tells_the_log_the_architecture_and_the_options():
    sources = {**read_sources(), "broken.cu": "__global__ void broken() { nonsense; }"}
    with pytest.raises(KernelCompileError) as caught:
        compile_source("broken.cu", 90, sources=sources)
    for part in ("broken.cu", "nonsense", "sm_90", "--fmad=false", "NVRTC"):
        assert part in str(caught.value)
    assert caught.value.source == "broken.cu"
    assert "--gpu-architecture=sm_90" in caught.value.options
    assert "nonsense" in caught.value.log


def test_an_unknown_architecture_is_a_compile_error():
    with pytest.raises(KernelCompileError, match="sm_17"):
        compile_source("unpack.cu", 17)


def test_an_unknown_source_is_named_with_those_there_are():
    with pytest.raises(KernelCompileError, match=r"'unpck\.cu'.*unpack\.cu"):
        compile_source("unpck.cu", 80)


def test_the_compiler_knows_every_architecture():
    compiler = nvrtc.load_nvrtc()
    dropped = {arch for arch in ARCHITECTURES if arch not in compiler.architectures()}
    assert dropped == ({70} if compiler.version >= (13, 0) else set())


def test_compiling_does_not_need_cupy():
    code = (
        "from fpgpu.backends.compiler import compile_source; compile_source('superpixelize.cu', 80)"
    )
    code += "; import sys; print('cupy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def _swap(text: str, a: str, b: str) -> str:
    """Exchange two parts of a text, each of which occurs once."""
    assert text.count(a) == text.count(b) == 1
    return text.replace(a, "\0").replace(b, a).replace("\0", b)
