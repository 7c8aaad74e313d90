"""``python -m benchmarks --backend cuda`` where there is no GPU, over a stand-in for CuPy.

Arguments: a folder for compiled kernels, and those of ``python -m benchmarks``.
"""

import sys
from pathlib import Path

import fpgpu.backends.availability
import fpgpu.backends.choose
import fpgpu.doctor
from fpgpu.backends.availability import CudaStatus, DriverStatus
from tests.backends import standin_cupy
from tests.kernels.host_kernels import HostKernels

cuda_class = standin_cupy.install(HostKernels(Path(sys.argv[1])))
fpgpu.backends.availability.cuda_status = lambda device=0: CudaStatus(DriverStatus())
fpgpu.backends.choose.get_backend = lambda name, device=0: cuda_class(0)
fpgpu.doctor.diagnose = lambda: fpgpu.doctor.Diagnosis("cuda", "", {}, None, (), (), ())

from benchmarks.__main__ import main  # noqa: E402

sys.exit(main(sys.argv[2:]))
