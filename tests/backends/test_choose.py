"""One switch: "cpu", "cuda", "auto"; and an explicit "cuda" never falls back."""

import logging
import re
import types
from collections.abc import Callable
from typing import Any

import pytest

from fpgpu.backends import availability, choose
from fpgpu.backends.availability import CudaStatus, DriverStatus, cuda_status
from fpgpu.backends.choose import get_backend
from fpgpu.backends.staging import StagingSettings
from fpgpu.errors import BackendUnavailableError, KernelCompileError, LayoutError

WORKS = CudaStatus(DriverStatus((12, 8), 1), "14.2.0", (12, 9), (12, 9))
BROKEN = CudaStatus(DriverStatus(), problem="the card is on fire", fix="put it out")


def cupy(**changes: Any) -> types.ModuleType:
    """Enough of CuPy to be asked whether it works; two devices."""
    facts = {"is_hip": False, "runtime": 12090, "n_devices": 2, "capability": "90", "nvrtc": None}
    facts |= {"broken": None} | changes
    module = types.ModuleType("cupy")
    module.__version__ = "14.2.0"

    def count() -> int:
        if facts["broken"]:
            raise RuntimeError(facts["broken"])
        return facts["n_devices"]

    module.nvrtc_fault = facts["nvrtc"]
    module.cuda = types.SimpleNamespace(
        runtime=types.SimpleNamespace(
            is_hip=facts["is_hip"],
            runtimeGetVersion=lambda: facts["runtime"],
            getDeviceCount=count,
            CUDARuntimeError=RuntimeError,
        ),
        Device=lambda n: types.SimpleNamespace(compute_capability=facts["capability"]),
    )
    return module


@pytest.fixture
def status_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., CudaStatus]:
    """Ask for the status given a driver and a CuPy, or the error of importing it."""

    def ask(
        driver: DriverStatus, package: types.ModuleType | Exception, device: int = 0
    ) -> CudaStatus:
        def import_cupy() -> types.ModuleType:
            if isinstance(package, Exception):
                raise package
            return package

        monkeypatch.setattr(availability, "driver_status", lambda: driver)

        def load_nvrtc(major: int) -> Any:
            assert major in (12, 13)
            if reason := getattr(package, "nvrtc_fault", None):
                raise BackendUnavailableError(reason)
            return types.SimpleNamespace(version=(major, 9))

        monkeypatch.setattr(availability, "import_cupy", import_cupy)
        monkeypatch.setattr(availability, "load_nvrtc", load_nvrtc)
        return cuda_status(device)

    return ask


DRIVER_12, DRIVER_13 = DriverStatus((12, 4), 2), DriverStatus((13, 0), 2)
NO_CUPY = ModuleNotFoundError("No module named 'cupy'", name="cupy")


@pytest.mark.parametrize(
    ("driver", "package", "problem", "fix"),
    [
        (DRIVER_12, NO_CUPY, "CuPy is not installed", 'pip install "fpgpu[cuda12]"'),
        (DRIVER_13, NO_CUPY, "CuPy is not installed", 'pip install "fpgpu[cuda13]"'),
        (DRIVER_12, ImportError("libnvrtc.so.12"), "libnvrtc.so.12", 'pip install "fpgpu[cuda12]"'),
        (DRIVER_12, cupy(is_hip=True), "built for ROCm", 'pip install "fpgpu[cuda12]"'),
        (DRIVER_12, cupy(nvrtc="no nvrtc"), "no nvrtc", 'pip install "fpgpu[cuda12]"'),
        (
            DRIVER_12,
            cupy(runtime=13000),
            "built for CUDA 13.0, but the driver supports CUDA 12.4",
            'pip uninstall cupy-cuda13x and pip install "fpgpu[cuda12]"',
        ),
        (
            DRIVER_12,
            cupy(capability="61"),
            "compute capability 6.1; the kernels need 7.0",
            "Volta",
        ),
        (
            DRIVER_13,
            cupy(capability="70", runtime=13000),
            "compute capability 7.0, which CUDA 12 was the last to compile for",
            'pip uninstall cupy-cuda13x and pip install "fpgpu[cuda12]"',
        ),
        (DRIVER_12, cupy(n_devices=0), "there is no device 0", "device="),
        (DRIVER_12, cupy(broken="error 999"), "runtime does not start: error 999", "nvidia-smi"),
        (DriverStatus(problem="no driver", fix="--gpus all"), cupy(), "no driver", "--gpus all"),
    ],
)
def test_the_reason_and_the_remedy_are_named(
    status_of: Callable[..., CudaStatus],
    driver: DriverStatus,
    package: Any,
    problem: str,
    fix: str,
) -> None:
    status = status_of(driver, package)
    assert problem in str(status.problem)
    assert fix in str(status.fix)


@pytest.mark.parametrize(
    ("package", "problem"),
    [
        (NO_CUPY, "CuPy is not installed"),
        (ImportError("libcuda"), "CuPy cannot be imported: libcuda"),
        (RuntimeError("a library is broken"), "CuPy cannot be imported: a library is broken"),
        (cupy(nvrtc="no nvrtc:\nnot here\n"), "no nvrtc: not here"),
    ],
)
def test_a_missing_driver_is_told_beside_what_cupy_lacks(
    status_of: Callable[..., CudaStatus], package: Any, problem: str
) -> None:
    status = status_of(DriverStatus(problem="there is no driver", fix="buy one"), package)
    assert re.fullmatch(f"{problem}; and there is no driver", str(status.problem))
    assert str(status.fix).endswith("; and buy one")


@pytest.mark.parametrize(("device", "usable"), [(0, True), (1, True), (2, False), (-1, False)])
def test_devices_are_counted(
    status_of: Callable[..., CudaStatus], device: int, usable: bool
) -> None:
    assert (status_of(DRIVER_13, cupy(), device).problem is None) == usable


@pytest.mark.parametrize(("capability", "runtime"), [("70", 12090), ("75", 13000), ("120", 13000)])
def test_every_generation_works_with_a_cuda_that_compiles_for_it(
    status_of: Callable[..., CudaStatus], capability: str, runtime: int
) -> None:
    assert status_of(DRIVER_13, cupy(capability=capability, runtime=runtime)).problem is None


def test_an_older_cuda_than_the_drivers_works(status_of: Callable[..., CudaStatus]) -> None:
    assert status_of(DRIVER_13, cupy(runtime=12020)).problem is None


@pytest.fixture
def cuda_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[CudaStatus], list[int]]:
    """Decide whether CUDA works; returns the list of times that it was asked."""

    def decide(status: CudaStatus) -> list[int]:
        asked: list[int] = []

        def answer(device: int = 0) -> CudaStatus:
            asked.append(device)
            return status

        monkeypatch.setattr(choose, "cuda_status", answer)
        monkeypatch.setattr(choose, "_choices", {})
        return asked

    return decide


def test_cpu_needs_nothing(cuda_is: Callable[[CudaStatus], list[int]]) -> None:
    asked = cuda_is(BROKEN)
    assert get_backend("cpu").name == "cpu"
    assert asked == []


def test_cuda_without_a_device_is_an_error_with_the_reason(
    cuda_is: Callable[[CudaStatus], list[int]],
) -> None:
    cuda_is(BROKEN)
    with pytest.raises(BackendUnavailableError, match="the card is on fire; to use it: put it out"):
        get_backend("cuda")


def test_auto_falls_to_the_cpu_and_logs_why_once(
    cuda_is: Callable[[CudaStatus], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    asked = cuda_is(BROKEN)
    with caplog.at_level(logging.INFO, "fpgpu"):
        assert [get_backend("auto").name for _ in range(3)] == ["cpu"] * 3
    assert asked == [0]
    assert len(caplog.messages) == 1
    assert "cpu, because the card is on fire; for a GPU: put it out" in caplog.messages[0]


@pytest.mark.parametrize(
    "error",
    [
        BackendUnavailableError("no libnvrtc"),
        KernelCompileError("check_layout.cu is not taken:\nlog"),
        RuntimeError("cudaErrorDevicesUnavailable"),
        LayoutError("a staging buffer at 0x200"),
        MemoryError("cannot lock"),
        OSError("no libcudart"),
    ],
)
def test_auto_falls_to_the_cpu_when_the_device_cannot_be_used_after_all(
    cuda_is: Callable[[CudaStatus], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def refuse(device: int, staging: StagingSettings | None) -> None:
        raise error

    cuda_is(WORKS)
    module = types.SimpleNamespace(CudaBackend=refuse)
    monkeypatch.setattr(choose, "import_module", {"fpgpu.backends.cuda": module}.__getitem__)
    with pytest.raises((BackendUnavailableError, KernelCompileError)):
        get_backend("cuda")
    with caplog.at_level(logging.INFO, "fpgpu"):
        assert [get_backend("auto").name for _ in range(2)] == ["cpu"] * 2
    assert len(caplog.messages) == 1
    assert str(error).partition("\n")[0].rstrip(":") in caplog.messages[0]
    assert "\n" not in caplog.messages[0]


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_cuda_is_taken_where_it_works(
    cuda_is: Callable[[CudaStatus], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    name: Any,
) -> None:
    cuda_is(WORKS)
    module = types.SimpleNamespace(CudaBackend=lambda device, staging: (device, staging))
    monkeypatch.setattr(choose, "import_module", {"fpgpu.backends.cuda": module}.__getitem__)
    staging = StagingSettings(depth=9)
    assert get_backend(name, device=1, staging=staging) == (1, staging)


def test_a_device_that_refuses_is_told_in_its_words(
    cuda_is: Callable[[CudaStatus], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(device: int, staging: StagingSettings | None) -> None:
        raise RuntimeError("cudaErrorDevicesUnavailable")

    cuda_is(WORKS)
    module = types.SimpleNamespace(CudaBackend=refuse)
    monkeypatch.setattr(choose, "import_module", {"fpgpu.backends.cuda": module}.__getitem__)
    with pytest.raises(BackendUnavailableError, match=r"device 0 .*cudaErrorDevicesUnavailable"):
        get_backend("cuda")


def test_backends_are_new_objects_with_their_own_settings() -> None:
    first, second = get_backend("cpu"), get_backend("cpu", staging=StagingSettings(depth=9))
    assert first is not second
    assert (first.staging_settings.depth, second.staging_settings.depth) == (3, 9)


@pytest.mark.parametrize(
    ("name", "device", "message"),
    [("gpu", None, "no backend 'gpu'; there are 'cpu', 'cuda', 'auto'"), ("cpu", 1, "no device 1")],
)
def test_senseless_choices_are_refused(name: Any, device: int | None, message: str) -> None:
    with pytest.raises(BackendUnavailableError, match=message):
        get_backend(name, device)


def test_no_driver_is_found_out_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(availability.ctypes, "CDLL", missing)
    status = availability.driver_status()
    assert status.version is None
    assert "libcuda.so.1 cannot be loaded" in str(status.problem)


class Driver:
    """A CUDA driver that answers as told."""

    def __init__(self, init: int = 0, n_devices: int = 1, version: int = 12080) -> None:
        self.init, self.n_devices, self.version = init, n_devices, version

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDriverGetVersion(self, number: Any) -> int:
        number._obj.value = self.version
        return 0

    def cuDeviceGetCount(self, number: Any) -> int:
        number._obj.value = self.n_devices
        return 0

    def cuGetErrorName(self, status: int, name: Any) -> int:
        name._obj.value = b"CUDA_ERROR_SYSTEM_NOT_READY"
        return 0


@pytest.mark.parametrize(
    ("driver", "problem"),
    [
        (Driver(), None),
        (Driver(init=100), "sees no device (CUDA_VISIBLE_DEVICES='-1')"),
        (Driver(n_devices=0), "sees no device (CUDA_VISIBLE_DEVICES='-1')"),
        (Driver(init=802), "does not start: CUDA_ERROR_SYSTEM_NOT_READY"),
    ],
)
def test_what_the_driver_says_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, problem: str | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.setattr(availability, "_started_in", None)
    monkeypatch.setattr(availability.ctypes, "CDLL", lambda name: driver)
    status = availability.driver_status()
    assert status.version == (12, 8)
    assert (problem or "") in str(status.problem)
    assert (status.problem is None) == (problem is None)
    assert (status.fix is None) == (problem is None)


def test_a_driver_started_before_a_fork_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability.ctypes, "CDLL", lambda name: Driver())
    monkeypatch.setattr(availability, "_started_in", -1)
    status = availability.driver_status()
    assert "forked" in str(status.problem)
    assert "spawn" in str(status.fix)
