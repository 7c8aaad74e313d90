"""Where kernel sources and NVRTC are found, and what is said when they are not."""

import subprocess
import sys
import zipfile
from pathlib import Path

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
        "print(c.source_digest()); print(*c.read_sources())"
    )
    result = subprocess.run(
        [sys.executable, "-c", show],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(elsewhere), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    folder, digest, names = result.stdout.splitlines()
    assert Path(folder) == elsewhere / "fpgpu" / "kernels"
    assert digest == compiler.source_digest()
    assert names.split() == list(compiler.read_sources())
