"""``fpgpu doctor`` says what works, what does not, and what to do about it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpgpu import doctor
from fpgpu.backends import availability
from fpgpu.backends.availability import CudaStatus, DriverStatus
from fpgpu.backends.compiler import ARCHITECTURES
from fpgpu.backends.cpu import CpuBackend
from fpgpu.backends.nvrtc import load_nvrtc
from fpgpu.cli.main import main
from fpgpu.doctor import diagnose
from fpgpu.errors import BackendUnavailableError, KernelCompileError
from tests.backends import standin_cupy
from tests.kernels.compiled import compile_once
from tests.kernels.host_kernels import HostKernels, has_compiler

NO_CUDA = CudaStatus(DriverStatus(), problem="no CuPy", fix='pip install "fpgpu[cuda12]"')


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine everywhere: one on which CUDA does not work."""
    monkeypatch.setattr(doctor, "cuda_status", lambda device: NO_CUDA)
    monkeypatch.setattr(doctor, "auto_choice", lambda device: ("cpu", "there is no CuPy"))
    monkeypatch.setattr(doctor, "compile_source", lambda name, arch, **_: compile_once(name, arch))


def fail(*args: object, **kwargs: object) -> Any:
    raise BackendUnavailableError("no NVRTC; install it with pip install nvidia-cuda-nvrtc-cu12")


def test_the_choice_and_its_reason() -> None:
    diagnosis = diagnose(archs=[90], measure=False)
    assert (diagnosis["choice"], diagnosis["reason"]) == ("cpu", "there is no CuPy")
    assert diagnosis["works"]


def test_versions_are_those_of_the_modules() -> None:
    import h5py

    versions = diagnose(archs=[90], measure=False)["versions"]
    assert versions["numpy"] == np.__version__
    assert versions["h5py"] == h5py.__version__
    assert versions["CuPy"] is None
    assert versions["NVRTC"]


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2\n", "470.256.02"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
            "GCC version:  gcc version 12.3.0\n",
            "570.86.15",
        ),
        ("something else\n", None),
        (None, None),
    ],
)
def test_the_release_of_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, release: str | None
) -> None:
    if text is not None:
        (tmp_path / "version").write_text(text)
    monkeypatch.setattr(availability, "_KERNEL_MODULE", tmp_path / "version")
    assert diagnose(archs=[90], measure=False)["versions"]["NVIDIA driver"] == release


def test_every_kernel_compiles_without_spills() -> None:
    kernels = diagnose(archs=[80, 90], measure=False)["kernels"]
    names = {kernel["kernel"] for kernel in kernels}
    assert names >= {"superpixelize", "unpack", "calibrate", "check_layout", "evaluate_patch"}
    assert {kernel["arch"] for kernel in kernels} == {80, 90}
    assert all(kernel["error"] is None and kernel["registers"] > 0 for kernel in kernels)
    assert all(kernel["spill_bytes"] == 0 for kernel in kernels)


def test_without_a_device_every_supported_architecture_is_compiled_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    usage = type("Compiled", (), {"usage": {}})
    monkeypatch.setattr(
        doctor, "compile_source", lambda name, arch, **_: asked.append(arch) or usage
    )
    diagnose(measure=False)
    assert set(asked) == set(ARCHITECTURES) & set(load_nvrtc().architectures())


def test_a_device_is_compiled_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    works = CudaStatus(DriverStatus((12, 8), 1), "14.2.0", (12, 9), (12, 9), capability=86)
    monkeypatch.setattr(doctor, "cuda_status", lambda device: works)
    monkeypatch.setattr(doctor, "get_backend", lambda *args: CpuBackend())
    diagnosis = diagnose(measure=False)
    assert {kernel["arch"] for kernel in diagnosis["kernels"]} == {86}
    assert diagnosis["versions"]["CUDA of the driver"] == "12.8"
    assert diagnosis["missing"] == []


def test_a_device_that_takes_no_kernel_is_told_and_the_rest_examined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def get_backend(name: str, *args: Any) -> CpuBackend:
        if name == "cuda":
            raise KernelCompileError("check_layout.cu is not taken by the driver")
        return CpuBackend()

    works = CudaStatus(DriverStatus((12, 8), 1), "14.2.0", (12, 9), (12, 9), capability=86)
    monkeypatch.setattr(doctor, "cuda_status", lambda device: works)
    monkeypatch.setattr(doctor, "get_backend", get_backend)
    diagnosis = diagnose(measure=False)
    assert [report["name"] for report in diagnosis["backends"]] == ["cpu"]
    assert diagnosis["missing"][0]["fix"] == "check_layout.cu is not taken by the driver"


def test_copies_are_measured() -> None:
    (report,) = diagnose(archs=[90])["backends"]
    (memcpy,) = report["copies"]
    assert memcpy["bytes_per_second"] > 0
    assert memcpy["n_bytes"] == 64 << 20


def test_the_line_that_installs_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "load_nvrtc", fail)
    diagnosis = diagnose(measure=False)
    assert diagnosis["kernels"] == []
    fixes = [missing["fix"] for missing in diagnosis["missing"]]
    assert fixes[0] == 'pip install "fpgpu[cuda12]"'
    assert "pip install nvidia-cuda-nvrtc-cu12" in fixes[1]
    assert diagnosis["versions"]["NVRTC"] is None
    assert diagnosis["works"], "a CPU needs no compiler"


def test_a_device_taken_by_others_is_told_and_the_rest_examined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = CudaStatus(DriverStatus((12, 8), 1), "14.2.0", (12, 9), (12, 9), capability=86)
    monkeypatch.setattr(doctor, "cuda_status", lambda device: works)
    monkeypatch.setattr(
        doctor, "get_backend", lambda name, *args: CpuBackend() if name == "cpu" else fail()
    )
    diagnosis = diagnose(measure=False)
    assert [report["name"] for report in diagnosis["backends"]] == ["cpu"]
    assert [missing["what"] for missing in diagnosis["missing"]] == ["a device that can be used"]


def break_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(backend: CpuBackend, array: Any, out: Any = None) -> Any:
        return array + 1

    monkeypatch.setattr(CpuBackend, "download", spoil)


def break_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    right = CpuBackend.check_layout

    def spoil(backend: CpuBackend, patch: int, n_bands: int) -> Any:
        seen = right(backend, patch, n_bands)
        seen["last"] = 0
        return seen

    monkeypatch.setattr(CpuBackend, "check_layout", spoil)


def break_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(backend: CpuBackend) -> Any:
        raise RuntimeError("cudaErrorLaunchFailure")

    monkeypatch.setattr(CpuBackend, "memory_state", die)


def break_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuBackend, "upload", fail)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_images, "does not give back the images"),
        (break_patches, "does not see the patch"),
        (break_all, "RuntimeError: cudaErrorLaunchFailure"),
        (break_uploads, "BackendUnavailableError: no NVRTC"),
    ],
)
def test_a_backend_that_does_not_work_is_found_out(
    monkeypatch: pytest.MonkeyPatch, spoil: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch)
    (report,) = diagnose(archs=[90], measure=False)["backends"]
    assert message in str(report["error"])
    assert main(["doctor", "--arch", "90"]) == 1
    printed = capsys.readouterr().out
    assert f"trial failed: {report['error']}" in printed
    assert "the cpu backend does NOT work" in printed


def test_a_cuda_backend_passes_the_same_trial(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not has_compiler():
        pytest.skip("kernels cannot run on the CPU: g++ is not installed")
    kernels = HostKernels(tmp_path_factory.mktemp("doctor_kernels"))
    report = doctor._try_out(standin_cupy.install(kernels)(0), measure=False)
    assert report["error"] is None
    assert report["memory_total"] == standin_cupy.TOTAL


def test_the_command_says_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--arch", "90"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "backend auto takes: cpu, because there is no CuPy",
        np.__version__,
        "memcpy in the host:",
        "kernels compiled for sm_90",
        'missing: no CuPy\n    to change it: pip install "fpgpu[cuda12]"',
        "the cpu backend works",
    ):
        assert text in printed


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--arch", "90", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["choice"] == "cpu"
    assert found["works"] is True
    assert found["backends"][0]["limits"]["threads_per_block"] == 1024
    assert {kernel["arch"] for kernel in found["kernels"]} == {90}
    assert found["missing"] == [{"what": NO_CUDA.problem, "fix": NO_CUDA.fix}]


def test_a_kernel_that_does_not_compile_is_shown_with_its_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_unpack(name: str, arch: int, **_: Any) -> Any:
        if name == "unpack.cu":
            raise KernelCompileError("unpack.cu(7): error: expected a ';'")
        return compile_once(name, arch)

    monkeypatch.setattr(doctor, "compile_source", fail_unpack)
    assert main(["doctor", "--arch", "90"]) == 1
    printed = capsys.readouterr().out
    assert "unpack.cu for sm_90 FAILED: unpack.cu(7): error" in printed
    assert "superpixelize_words" in printed
