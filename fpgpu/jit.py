"""Functions that Numba compiles, in modules that are imported when they are first needed."""

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["compiled", "compiled_module"]

logger = logging.getLogger(__name__)


@cache
def compiled_module(name: str, otherwise: str) -> ModuleType | None:
    """Import a module of compiled functions; None, said once, where Numba is not installed.

    Parameters
    ----------
    name : str
        The module.
    otherwise : str
        What happens without it.

    Returns
    -------
    module or None
    """
    try:
        return import_module(name)
    except ImportError as error:
        logger.warning("%s: Numba cannot be imported (%s)", otherwise, error)
        return None


def compiled(fastmath: set[str] | bool = False, signature: Any = None) -> Callable[[Any], Any]:
    """Compile a function, and keep the code beside the module or in the user's cache.

    Parameters
    ----------
    fastmath : set of str or bool, optional
        What LLVM may assume or change of floating-point arithmetic.
    signature : numba signature, optional
        The types that it is compiled for at once; by default those of the first call.

    Returns
    -------
    callable
        The decorator.
    """
    from numba import njit

    def decorate(function: Any) -> Any:
        options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError:  # neither place can be written to
            return njit(signature, **options)(function)

    return decorate
