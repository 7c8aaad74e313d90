"""Run the command line as ``python -m fpgpu``."""

import sys

from fpgpu.cli.main import main

if __name__ == "__main__":  # workers of MPI import it, too
    sys.exit(main())
