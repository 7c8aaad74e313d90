"""How large the inputs of benchmarks are, and the types of shared fixtures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["BATCHES", "SIZES", "Measure", "Size"]

Measure = Callable[..., Any]


@dataclass(frozen=True)
class Size:
    """How large the inputs are."""

    side: int
    """Pixels along each side of an image."""
    few: int
    """Exposures of one field."""
    many: int
    """Exposures of a survey."""
    window: int
    """Super-pixels along each side of what a patch takes from an exposure; 72 are 10 arcsec."""


SIZES = {
    "small": Size(side=128, few=6, many=60, window=6),
    "survey": Size(side=2048, few=36, many=10_000, window=72),
}

BATCHES = (1, 4, 16, 64)
"""Exposures that an operation of a backend works on in one call."""
