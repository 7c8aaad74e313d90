"""Run the command line as ``python -m fpgpu``."""

import sys

from fpgpu.cli.main import main

sys.exit(main())
