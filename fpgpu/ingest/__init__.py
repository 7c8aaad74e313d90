"""From archive files to exposures in a store.

The package can be called: ``fpgpu.ingest(files, "stores")`` is `fpgpu.ingest.pipeline.ingest`, with
the same arguments.
"""

import inspect
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        from fpgpu.ingest.pipeline import ingest

        return ingest(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        from fpgpu.ingest.pipeline import ingest

        return inspect.signature(ingest)


sys.modules[__name__].__class__ = _CallablePackage
