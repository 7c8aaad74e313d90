"""How large the inputs of benchmarks are, and the types of shared fixtures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["BATCHES", "SIZES", "USUAL_BANDS", "USUAL_SOURCES", "Measure", "Size"]

Measure = Callable[..., Any]


@dataclass(frozen=True)
class Size:
    """How large the inputs are. What stands in tuples is fitted: how an operation grows with it."""

    name: str
    side: int
    """Pixels along each side of an image."""
    bands: tuple[int, ...]
    """Bands asked for; a field has the last of them."""
    a_band: tuple[int, ...]
    """Exposures in each band; a field has the last of them."""
    radii: tuple[float, ...]
    """Of regions, arcsec."""
    radius: float
    """Of the usual region."""
    sources: tuple[int, ...]
    archive: tuple[int, ...]
    """Exposures in a meta store."""
    elsewhere: int
    """Exposures that a region does not touch, added to those of a field."""
    window: int
    """Super-pixels along each side of what a patch takes from an exposure; 72 are 10 arcsec."""

    @property
    def few(self) -> int:
        """Exposures of a field in its usual three bands."""
        return USUAL_BANDS * self.a_band[-1]

    @property
    def many(self) -> int:
        """Exposures of an archive."""
        return self.archive[-1]

    @property
    def large(self) -> float:
        """Radius of a large region, arcsec."""
        return self.radii[-1]


USUAL_BANDS = 3
USUAL_SOURCES = 15

SIZES = {
    "small": Size(
        "small",
        side=128,
        bands=(1, 2, 3),
        a_band=(1, 2, 3),
        radii=(0.3, 0.6, 1.2),
        radius=0.6,
        sources=(1, 5, 15),
        archive=(9, 30, 60),
        elsewhere=10,
        window=6,
    ),
    "survey": Size(
        "survey",
        side=2048,
        bands=(1, 2, 3, 6),
        a_band=(2, 4, 6, 12),
        radii=(1.0, 2.0, 3.0, 5.0, 10.0),
        radius=3.0,
        sources=(1, 5, 15, 30),
        archive=(36, 360, 1000, 10_000),
        elsewhere=1000,
        window=72,
    ),
}

BATCHES = (1, 4, 16, 64)
"""Exposures that an operation of a backend works on in one call."""
