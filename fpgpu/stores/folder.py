"""The files of one store folder and what they are called."""

from dataclasses import dataclass
from pathlib import Path

from fpgpu.errors import MissingStoreError

__all__ = ["StoreFolder"]


@dataclass(frozen=True)
class StoreFolder:
    """The places of the stores that belong together.

    Parameters
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def pixels(self) -> Path:
        """The pixel store, HDF5."""
        return self.path / "pixels.h5"

    @property
    def meta(self) -> Path:
        """The headers, JSON."""
        return self.path / "meta.json"

    @property
    def psf(self) -> Path:
        """The PSF store, HDF5; not every folder has one."""
        return self.path / "psf.h5"

    def holds_anything(self) -> bool:
        """Tell whether there is a part of a store, be it whole or not."""
        shards = self.pixels.with_suffix(".shards")
        return self.pixels.is_file() or self.meta.is_file() or shards.is_dir()

    def require(self) -> "StoreFolder":
        """Return the folder itself when its pixel and meta stores exist."""
        if not self.path.is_dir():
            raise MissingStoreError(
                f"{self.path} is not a folder; a store folder is made by "
                f"'fpgpu ingest FILES... --out {self.path}'"
            )
        missing = [store.name for store in (self.pixels, self.meta) if not store.is_file()]
        if missing == [self.meta.name] and self.pixels.with_suffix(".shards").is_dir():
            return self  # forcepho's views are not written yet
        if len(missing) == 1:
            other = (self.pixels, self.meta)[missing[0] == self.pixels.name].name
            raise MissingStoreError(
                f"{self.path} holds {other} but no {missing[0]}, which belongs to it; put it back "
                "from a copy, or ingest all exposures into a new folder"
            )
        if missing:
            raise MissingStoreError(
                f"{self.path} holds no {' and no '.join(missing)}; a store folder is made by "
                f"'fpgpu ingest FILES... --out {self.path}'"
            )
        return self
