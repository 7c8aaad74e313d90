"""What a store as a whole asks of each exposure that a run puts into it."""

from pathlib import Path

from fpgpu.errors import UnusableExposureError
from fpgpu.ingest.resume import Key, Present
from fpgpu.stores.names import NameTree

__all__ = ["Admission"]


class Admission:
    """Lets exposures of one size, and of names that do not collide, into a store.

    Parameters
    ----------
    folder : Path
        The store folder, for messages.
    present : Present
        What it holds.

    Attributes
    ----------
    shape : tuple of int or None
        Pixels (nx, ny) of every exposure; None before the first one.
    """

    def __init__(self, folder: Path, present: Present) -> None:
        self.shape = present.shape
        self._folder = folder
        self._given_by: dict[Key, Path] = {}
        expIDs: dict[str, set[str]] = {}
        for band, expID in present.in_pixels | present.in_meta:
            expIDs.setdefault(band, set()).add(expID)
        self._names = {band: NameTree(names) for band, names in expIDs.items()}

    def admit(self, key: Key, shape: tuple[int, int], file: Path) -> None:
        """Take note of an exposure that goes in.

        Parameters
        ----------
        key : (str, str)
            Band and expID.
        shape : tuple of int
            Its pixels (nx, ny).
        file : Path
            What it came from.

        Raises
        ------
        UnusableExposureError
            When it is of another size, or another file of this run gave one of this name.
        ExposureNameError
            When it would lie inside another exposure, or another one inside it.
        """
        if self.shape is not None and shape != self.shape:
            raise UnusableExposureError(
                f"{file}: its image has shape {shape}, but {self._folder} holds images of "
                f"{self.shape}; all images of a store have one size"
            )
        if key in self._given_by:
            raise UnusableExposureError(
                f"{file}: would replace {'/'.join(key)}, which {self._given_by[key]} gave in this "
                "run; use --framedir to name exposures by their folders"
            )
        band, expID = key
        self._names.setdefault(band, NameTree(())).add(expID)
        self._given_by[key] = file
        self.shape = shape
