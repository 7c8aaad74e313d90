"""Where kernel sources and NVRTC are found, and what is said when they are not."""

import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

import fpgpu
from fpgpu.backends import compiler, nvrtc
from fpgpu.errors import BackendUnavailableError

CHECKOUT = Path(fpgpu.__file__).parent.parent


def test_a_missing_nvrtc_is_told_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: iter(()))
    nvrtc.load_nvrtc.cache_clear()
    with pytest.raises(BackendUnavailableError, match="pip install nvidia-cuda-nvrtc-cu12"):
        nvrtc.load_nvrtc()


def test_another_version_of_nvrtc_is_not_taken_for_the_wanted_one():
    try:
        nvrtc.load_nvrtc()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with pytest.raises(BackendUnavailableError, match=r"libnvrtc of CUDA 7 .*is of CUDA 1\d"):
        nvrtc.load_nvrtc(7)
    version = nvrtc.load_nvrtc().version[0]
    assert nvrtc.load_nvrtc(version).version[0] == version


def test_a_broken_nvrtc_is_told_with_its_path(tmp_path):
    library = tmp_path / "libnvrtc.so.12"
    library.write_text("no library")
    with pytest.raises(BackendUnavailableError, match=r"libnvrtc\.so\.12 cannot be loaded"):
        nvrtc.Nvrtc(library)


def test_what_cannot_be_loaded_is_passed_over_and_told(monkeypatch, tmp_path):
    broken = tmp_path / "libnvrtc.so.12"
    broken.write_text("no library")
    try:
        real = nvrtc.load_nvrtc().library
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    nvrtc.load_nvrtc.cache_clear()
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: iter([broken, Path(real)]))
    assert nvrtc.load_nvrtc().library == real
    nvrtc.load_nvrtc.cache_clear()
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: iter([broken, "libm.so.6"]))
    with pytest.raises(
        BackendUnavailableError, match=r"\.so\.12 cannot be loaded.*libm.so.6 is no"
    ):
        nvrtc.load_nvrtc()
    nvrtc.load_nvrtc.cache_clear()


def test_its_own_part_is_loaded_first(monkeypatch, tmp_path):
    for name in ("libnvrtc.so.13", "libnvrtc-builtins.so.13.0", "libnvrtc-builtins.alt.so.13.0"):
        (tmp_path / name).touch()
    loaded = []

    def load(name):
        loaded.append(Path(name).name)
        raise OSError("seen")

    monkeypatch.setattr(nvrtc.ctypes, "CDLL", load)
    with pytest.raises(BackendUnavailableError):
        nvrtc.Nvrtc(tmp_path / "libnvrtc.so.13")
    assert loaded == ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]


def test_wheels_of_every_version_are_found_and_alternatives_left(monkeypatch, tmp_path):
    for name in (
        "cu13/lib/libnvrtc.so.13",
        "cu13/lib/libnvrtc.alt.so.13",
        "cu14/lib/libnvrtc.so.14",
        "cuda_nvrtc/lib/libnvrtc.so.12",
        "cuda_nvrtc/lib/libnvrtc-builtins.so.12.9",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(nvrtc.importlib.util, "find_spec", lambda name: spec)
    found = [path for path in nvrtc.find_nvrtc() if str(path).startswith(str(tmp_path))]
    assert [path.name for path in found] == ["libnvrtc.so.14", "libnvrtc.so.13", "libnvrtc.so.12"]


# --- machine code, as a GPU gets it ----------------------------------------------------------


@pytest.fixture
def without_toolkit(monkeypatch):
    """NVRTC from its wheel alone."""
    monkeypatch.setattr(nvrtc, "_IN_TOOLKIT", ())
    monkeypatch.setattr(nvrtc.ctypes.util, "find_library", lambda name: None)
    for name in ("CUDA_PATH", "CUDA_HOME", "PATH"):
        monkeypatch.delenv(name, raising=False)
    nvrtc.load_nvrtc.cache_clear()
    try:
        nvrtc.load_nvrtc()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    yield
    nvrtc.load_nvrtc.cache_clear()


@pytest.mark.parametrize("name", [name for name in compiler.read_sources() if name.endswith(".cu")])
def test_every_kernel_is_compiled_without_a_toolkit_and_kept(without_toolkit, tmp_path, name):
    text, cache = compiler.single_file(name), tmp_path / "made" / "here"
    code = compiler.machine_code(name, text, 90, cache=cache)
    assert code.startswith(b"\x7fELF")
    for kernel in compiler.kernel_names(text):
        assert f".text.{kernel}".encode() in code
    assert code == compiler.compile_source(name, 90).cubin
    (kept,) = cache.iterdir()
    assert kept.read_bytes().endswith(code)


@pytest.fixture
def counted(monkeypatch):
    """Compilations, one by one: the options of each."""
    done = []

    class Fake:
        version = (12, 9)

        def architectures(self):
            return (75, 80, 89, 90)

        def compile(self, name, text, headers, options):
            done.append(options)
            is_ptx = "compute" in options[0]
            return nvrtc.Program(b"" if is_ptx else b"\x7fELF" + text.encode(), "ptx", "")

    monkeypatch.setattr(compiler, "load_nvrtc", lambda major: Fake())
    return done


def test_what_was_made_is_taken_again_and_nothing_else(counted, tmp_path):
    make = partial(compiler.machine_code, "a.cu", cache=tmp_path)
    first = make("text", 90)
    assert make("text", 90) == first
    assert len(counted) == 1
    make("other", 90), make("text", 80), make("text", 90, ("--std=c++17",))
    assert len(counted) == 4
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])  # damaged: compiled again
    assert make("text", 90) == first
    assert len(counted) == 5
    assert [path.suffix for path in tmp_path.iterdir()] == [".bin"] * 4


def test_a_cache_that_cannot_be_written_is_done_without(counted, tmp_path):
    (tmp_path / "file").touch()
    assert compiler.machine_code("a.cu", "text", 90, cache=tmp_path / "file" / "x")
    assert compiler.machine_code("a.cu", "text", 90, cache=None)
    assert len(counted) == 2


@pytest.mark.parametrize(
    ("capability", "target"),
    [(90, "sm_90"), (86, "sm_80"), (120, "compute_90"), (70, "sm_70"), (89, "sm_89")],
)
def test_a_device_gets_code_that_it_can_run(counted, capability, target):
    code = compiler.machine_code("a.cu", "text", capability)
    assert counted[0][0] == f"--gpu-architecture={target}"
    assert code == (b"ptx\0" if target.startswith("compute") else b"\x7fELFtext")


def test_the_cache_is_within_that_of_cupy(monkeypatch, tmp_path):
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path))
    assert compiler.cache_folder() == tmp_path / "fpgpu"
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "1")
    assert compiler.cache_folder() is None
    monkeypatch.delenv("CUPY_CACHE_IN_MEMORY")
    monkeypatch.delenv("CUPY_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiler.cache_folder() == tmp_path / ".cupy" / "kernel_cache" / "fpgpu"


def test_a_toolkit_is_found_by_its_variable(monkeypatch, tmp_path):
    library = tmp_path / "lib64" / "libnvrtc.so"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    assert library in list(nvrtc.find_nvrtc())


def test_missing_sources_are_told_with_both_places(monkeypatch, tmp_path):
    monkeypatch.setattr(fpgpu, "__file__", str(tmp_path / "fpgpu" / "__init__.py"))
    monkeypatch.setattr(compiler.resources, "files", lambda _: tmp_path / "fpgpu")
    with pytest.raises(BackendUnavailableError, match=r"neither in .*nor in"):
        compiler.kernel_folder()


def test_sources_need_no_header_from_outside():
    included = {
        line.split()[1].strip('"')
        for text in compiler.read_sources().values()
        for line in text.splitlines()
        if line.startswith("#include")
    }
    assert included <= set(compiler.read_sources())


@pytest.mark.skipif(
    not (CHECKOUT / "pyproject.toml").is_file(), reason="a wheel is built from a checkout only"
)
def test_a_wheel_brings_the_kernels(tmp_path):
    build = "from hatchling.build import build_wheel; print(build_wheel(__import__('sys').argv[1]))"
    result = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    wheel = tmp_path / result.stdout.split()[-1]
    elsewhere = tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(elsewhere)
    show = (
        "import fpgpu.backends.compiler as c; print(c.kernel_folder());"
        "print(len(c.single_file('unpack.cu'))); print(*c.read_sources())"
    )
    result = subprocess.run(
        [sys.executable, "-c", show],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(elsewhere), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    folder, length, names = result.stdout.splitlines()
    assert Path(folder) == elsewhere / "fpgpu" / "kernels"
    assert int(length) == len(compiler.single_file("unpack.cu"))
    assert names.split() == list(compiler.read_sources())
