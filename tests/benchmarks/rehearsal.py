"""Run a module where there is no GPU as if there were one, over a stand-in for CuPy.

Arguments: a folder for compiled kernels, a module (``benchmarks``, ``pytest``), and its arguments.
"""

import runpy
import sys
from pathlib import Path

import fpgpu.backends.availability
from fpgpu.backends.availability import CudaStatus, DriverStatus

WORKS = CudaStatus(DriverStatus((12, 9), 1), "14.2.0", (12, 9), (12, 9), capability=90)
fpgpu.backends.availability.cuda_status = lambda device=0: WORKS  # before others take it by name

from benchmarks.gpu.job import launch_by  # noqa: E402
from tests.backends import standin_cupy  # noqa: E402
from tests.kernels.host_kernels import HostKernels  # noqa: E402

_, kernels, module, *arguments = sys.argv
standin_cupy.install(HostKernels(Path(kernels)), to_stay=True)
launch_by([sys.executable, "-m", __spec__.name, kernels])
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
