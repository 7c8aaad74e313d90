"""What a store remembers of how an exposure was calibrated: the attributes of its dataset."""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import h5py
import numpy as np

import fpgpu
from fpgpu.calibration import MaskCounts
from fpgpu.errors import UnusableExposureError
from fpgpu.stores.hdf5.guard import attributes_of

__all__ = ["CHECKSUM", "CalibrationRecord", "names_of", "update_checksum"]

PREFIX = "fpgpu_"
CHECKSUM = PREFIX + "checksum"
VERSION = PREFIX + "version"
COUNT = PREFIX + "masked_"
NAMES = ("im", "err", "mask", "bkg", "image_name")
COUNTS = tuple(f.name for f in fields(MaskCounts))

Scalar = str | float | int


@dataclass(frozen=True)
class CalibrationRecord:
    """How the stored values of an exposure were made from its image.

    Attributes
    ----------
    band, expID : str
        The exposure.
    counts_to_flux : float
        Factor that the image was multiplied by.
    flux_units : str
        ``"nJy"``, ``"counts"`` (calibration asked, but the header has none) or ``"image"``.
    bitmask_applied : int or None
        Bits of the mask that make a pixel unusable, if only some do.
    names : dict of str
        Files that the image came from: `im`, `err`, `mask`, `bkg`, or `image_name`.
    masked : MaskCounts or None
        How many pixels got no weight, and why; None in stores that forcepho wrote.
    checksum : str or None
        Of the stored bytes, ``"crc32:"`` and 8 hexadecimal digits; None in forcepho's stores.
    version : str or None
        Version of fpgpu that wrote it; None in forcepho's stores.
    provenance : dict
        What the reader of the exposure has added.
    """

    band: str
    expID: str
    counts_to_flux: float
    flux_units: str
    bitmask_applied: int | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    masked: MaskCounts | None = None
    checksum: str | None = None
    version: str | None = fpgpu.__version__
    provenance: Mapping[str, Scalar] = field(default_factory=dict)

    def to_attributes(self) -> dict[str, Any]:
        """Return HDF5 attributes, those that forcepho writes with the types it gives them."""
        attributes: dict[str, Any] = {
            "counts_to_flux": np.float64(self.counts_to_flux),
            "flux_units": self.flux_units,
        }
        if self.bitmask_applied is not None:
            attributes["bitmask_applied"] = np.int64(self.bitmask_applied)
        attributes |= self.names
        if self.version is not None and self.checksum is not None:
            attributes |= {VERSION: self.version, CHECKSUM: self.checksum}
        if self.masked is not None:
            counts = asdict(self.masked)
            attributes |= {COUNT + name: np.int64(counts[name]) for name in COUNTS}
        for name, value in self.provenance.items():
            attribute = PREFIX + name.removeprefix(PREFIX)
            if attribute in attributes:
                raise UnusableExposureError(f"provenance {name!r} is a name that fpgpu uses itself")
            attributes[attribute] = value
        return attributes

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON can hold it."""
        self.to_attributes()
        provenance = {name: _plain(value) for name, value in self.provenance.items()}
        for name, value in provenance.items():
            if not isinstance(value, str | int | float):
                raise UnusableExposureError(
                    f"provenance {name!r} is a {type(value).__name__}; expected text or a number"
                )
        return {
            "key": [self.band, self.expID],
            "counts_to_flux": float(self.counts_to_flux),
            "flux_units": self.flux_units,
            "bitmask_applied": self.bitmask_applied,
            "names": dict(self.names),
            "masked": self.masked and {name: int(n) for name, n in asdict(self.masked).items()},
            "checksum": self.checksum,
            "version": self.version,
            "provenance": provenance,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "CalibrationRecord":
        """Return the record that `to_json` gave."""
        rest = dict(found)
        band, expID = rest.pop("key")
        masked = rest.pop("masked")
        return cls(band, expID, masked=None if masked is None else MaskCounts(**masked), **rest)

    @classmethod
    def from_dataset(cls, band: str, expID: str, dataset: h5py.Dataset) -> "CalibrationRecord":
        """Read the record of an exposure, as complete as its writer made it."""
        found = {n: _plain(value) for n, value in attributes_of(dataset, strings=True).items()}
        lost = [name for name in dataset.attrs if name.startswith(PREFIX) and name not in found]
        if lost or (VERSION in found) != (CHECKSUM in found):
            raise OSError(f"attributes of {dataset.name} are damaged, like {lost or sorted(found)}")
        counts = {name: found.pop(COUNT + name, None) for name in COUNTS}
        is_counted = all(isinstance(n, int) for n in counts.values())
        bitmask = found.pop("bitmask_applied", None)
        return cls(
            band,
            expID,
            counts_to_flux=float(found.pop("counts_to_flux", 1.0)),
            flux_units=str(found.pop("flux_units", "image")),
            bitmask_applied=None if bitmask is None else int(bitmask),
            names={name: str(found.pop(name)) for name in NAMES if name in found},
            masked=MaskCounts(**counts) if is_counted else None,
            checksum=found.pop(CHECKSUM, None),
            version=found.pop(VERSION, None),
            provenance={
                name.removeprefix(PREFIX): value
                for name, value in found.items()
                if name.startswith(PREFIX)
            },
        )


def names_of(names: object) -> dict[str, str]:
    """Return the file names of an image set as forcepho stores them."""
    if isinstance(names, str | os.PathLike):
        return {"image_name": os.fsdecode(names)}
    # A plain sequence has the order of forcepho's ImageNameSet.
    members = getattr(names, "_fields", NAMES[:4])
    values = names if isinstance(names, Sequence) else ()
    return {
        member: os.fsdecode(value)
        for member, value in zip(members, values, strict=False)
        if isinstance(value, str | os.PathLike)
    }


def update_checksum(data: Any, checksum: str | None = None) -> str:
    """Return the checksum of bytes, or of what had `checksum` followed by these bytes."""
    start = 0 if checksum is None else int(checksum.removeprefix("crc32:"), 16)
    return f"crc32:{zlib.crc32(data, start):08x}"


def _plain(value: Any) -> Any:
    """Return a Python object instead of a NumPy scalar."""
    return value.item() if isinstance(value, np.generic) else value
