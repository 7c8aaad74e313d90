"""A stand-in for forcepho's scenes, for tests that do without forcepho."""

from types import SimpleNamespace
from typing import Any

from fpgpu.patch.pack import FORCEPHO_RADII as RADII

__all__ = ["Scene"]


class Scene:
    """As much of a scene as packing looks at."""

    def __init__(self, catalog: Any) -> None:
        self.sources = [
            SimpleNamespace(ra=row["ra"], dec=row["dec"], radii=RADII) for row in catalog
        ]
        self.active_sources = self.sources
