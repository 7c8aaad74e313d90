"""The libraries that read exposures, imported once for all workers of a machine.

Processes begin as copies of one that has imported this. Each would need about two seconds of its
own otherwise, most of it to find the extensions of ASDF; that is what five exposures take.
"""

from contextlib import suppress
from importlib import import_module

# A library that is broken says so in the worker that needs it, with the file that it needs it for.
with suppress(Exception):
    for library in ("astropy.io.fits", "astropy.wcs", "gwcs"):
        import_module(library)
    _ = import_module("asdf").get_config().extensions
