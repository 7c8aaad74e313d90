"""The libraries that read exposures, imported once for all workers of a machine.

Processes begin as copies of one that has imported this. Each would need about two seconds of its
own otherwise, most of it to find the extensions of ASDF; that is what five exposures take.
"""

import gc
from contextlib import suppress
from importlib import import_module

# A library that is broken says so in the worker that needs it, with the file that it needs it for.
with suppress(Exception):
    for library in ("astropy.io.fits", "astropy.wcs", "gwcs"):
        import_module(library)
    _ = import_module("asdf").get_config().extensions

# They stay; to look through all of them for garbage, as Python does now and then, takes a worker
# a tenth of a second.
gc.freeze()
