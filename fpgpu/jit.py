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
    """Import a module of compiled functions; None, said once, where Numba is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        logger.warning("%s: Numba cannot be imported (%s)", otherwise, error)
        return None


def compiled(fastmath: set[str] | bool = False, signature: Any = None) -> Callable[[Any], Any]:
    """Compile a function, and keep the code beside the module or in the user's cache."""
    from numba import njit

    def decorate(function: Any) -> Any:
        options = {"nogil": True, "fastmath": fastmath, "error_model": "numpy"}
        try:
            return njit(signature, cache=True, **options)(function)
        except RuntimeError:  # neither place can be written to
            return njit(signature, **options)(function)

    return decorate
