"""Data-quality flags: bit, name and meaning, for JWST and HST.

One registry per observatory. A bitmask is given as a number, as names, or as both mixed, and is
always turned into one integer here; a mask image is turned into counts per flag name.

The JWST table is the pixel table of the pipeline's document on data-quality flags. HST's is the
one of calwf3, whose bits mean nearly the same for ACS; bit 12 has no name there and got one here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import FlagError, LayoutError

__all__ = ["ANY_BIT", "HST", "JWST", "BitSpec", "Flag", "FlagSet", "flags_for"]

BitSpec = int | str | Iterable["int | str"]
"""A bitmask as a user gives it: ``5``, ``"0x5"``, ``"DO_NOT_USE+JUMP_DET"``, ``["DEAD", 4]``."""

ANY_BIT = 2**32 - 1
"""All bits that a data-quality image can have."""

_SEPARATORS = re.compile(r"[+,|\s]+")


@dataclass(frozen=True)
class Flag:
    """One bit of a data-quality image.

    Attributes
    ----------
    value : int
        The bit as a power of two.
    name : str
        The observatory's mnemonic.
    meaning : str
        One line for people.
    """

    value: int
    name: str
    meaning: str


class FlagSet:
    """The data-quality flags of one observatory.

    Parameters
    ----------
    observatory : str
        Name for messages.
    flags : iterable of Flag
        The bits, each a different power of two below ``2**32``.
    """

    def __init__(self, observatory: str, flags: Iterable[Flag]) -> None:
        self.observatory = observatory
        self.by_name: Mapping[str, Flag] = {flag.name: flag for flag in flags}
        self._name_of = {flag.value: flag.name for flag in self.by_name.values()}

    def __repr__(self) -> str:
        return f"<FlagSet {self.observatory}: {len(self.by_name)} flags>"

    def parse(self, spec: BitSpec) -> int:
        """Turn a bitmask given in any form into one integer."""
        words = self._words(spec)
        if not words:
            raise FlagError(f"no data-quality flag in {spec!r}; expected a number or flag names")
        bits = 0
        for word in words:
            value = word if isinstance(word, int) else self._number_or_name(word)
            if not 0 <= value < 1 << 32:
                raise FlagError(f"bitmask {word} is outside 0 .. 2**32 - 1")
            bits |= value
        return bits

    def names(self, bits: int) -> list[str]:
        """Name the bits that are set, lowest first."""
        return [
            self._name_of.get(1 << bit, f"BIT_{bit}")
            for bit in range(bits.bit_length())
            if bits >> bit & 1
        ]

    def count(self, mask: npt.NDArray[Any]) -> dict[str, int]:
        """Count the pixels that carry each flag.

        Parameters
        ----------
        mask : ndarray of integers or bool, any shape
            A data-quality image; signed types are read as bit patterns.

        Returns
        -------
        dict of str to int
            Pixels per flag name, only flags that occur, lowest bit first. One pixel counts once
            for every flag it carries.

        Raises
        ------
        LayoutError
            When `mask` does not hold integers.
        """
        # Most pixels carry none; in the order of memory, for images are transposed.
        bits = np.ravel(mask, order="K")
        bits = _as_unsigned(bits[bits != 0])
        present = int(np.bitwise_or.reduce(bits)) if bits.size else 0
        names = self.names(present)
        values = [1 << bit for bit in range(present.bit_length()) if present >> bit & 1]
        return {
            name: int(np.count_nonzero(bits & bits.dtype.type(value)))
            for name, value in zip(names, values, strict=True)
        }

    def _words(self, spec: BitSpec) -> list[int | str]:
        """Split a specification into numbers and single words."""
        if isinstance(spec, bool):
            raise FlagError(f"{spec!r} is no bitmask; expected a number or flag names")
        if isinstance(spec, int | np.integer):
            return [int(spec)]
        if isinstance(spec, str):
            return [word for word in _SEPARATORS.split(spec) if word]
        if not isinstance(spec, Iterable):
            raise FlagError(f"{spec!r} is no bitmask; expected a number or flag names")
        return [word for part in spec for word in self._words(part)]

    def _number_or_name(self, word: str) -> int:
        name = word.upper()
        if name in self.by_name:
            return self.by_name[name].value
        try:
            return int(word, 0)
        except ValueError:
            near = get_close_matches(name, self.by_name, n=3)
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else "known: " + ", ".join(self.by_name)
            )
            raise FlagError(
                f"{word!r} is no {self.observatory} data-quality flag and no number; {hint}"
            ) from None


def _as_unsigned(mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """View a mask as native unsigned integers of its own width."""
    mask = np.asarray(mask)
    if mask.dtype == np.bool_:
        return mask.view(np.uint8)
    if mask.dtype.kind not in "iu":
        raise LayoutError(f"a data-quality image holds integers, found dtype {mask.dtype}")
    native = mask.astype(mask.dtype.newbyteorder("="), copy=False)
    # A signed image is a bit pattern too: HST writes bit 15 of an int16 as a negative number.
    return native.view(f"u{mask.dtype.itemsize}")


def _flag_set(observatory: str, table: str, others: Iterable[Flag] = ()) -> FlagSet:
    """Build the flags from lines of ``bit NAME meaning``; of the others, those of other bits."""
    rows = (line.split(None, 2) for line in table.strip().splitlines())
    flags = [Flag(1 << int(bit), name, text) for bit, name, text in rows]
    bits = {flag.value for flag in flags}
    kept = [flag for flag in others if flag.value not in bits]
    return FlagSet(observatory, sorted([*flags, *kept], key=lambda flag: flag.value))


JWST = _flag_set(
    "JWST",
    """
    0  DO_NOT_USE        bad pixel, not for science
    1  SATURATED         saturated during the exposure
    2  JUMP_DET          a jump (cosmic ray) was found in the ramp
    3  DROPOUT           data lost in transmission
    4  OUTLIER           rejected by outlier detection
    5  PERSISTENCE       high persistence
    6  AD_FLOOR          below the floor of the A/D converter
    7  CHARGELOSS        charge migrated to neighbours
    8  RESERVED          not used
    9  NON_SCIENCE       not on the science part of the detector
    10 DEAD              dead pixel
    11 HOT               hot pixel
    12 WARM              warm pixel
    13 LOW_QE            low quantum efficiency
    14 RC                RC pixel
    15 TELEGRAPH         random telegraph noise
    16 NONLINEAR         highly nonlinear
    17 BAD_REF_PIXEL     reference pixel that cannot be used
    18 NO_FLAT_FIELD     the flat field could not be measured
    19 NO_GAIN_VALUE     the gain could not be measured
    20 NO_LIN_CORR       no linearity correction
    21 NO_SAT_CHECK      no saturation check
    22 UNRELIABLE_BIAS   large variance of the bias
    23 UNRELIABLE_DARK   large variance of the dark
    24 UNRELIABLE_SLOPE  large variance of the slope
    25 UNRELIABLE_FLAT   large variance of the flat
    26 OPEN              open pixel, its counts go to the neighbours
    27 ADJ_OPEN          beside an open pixel
    28 FLUX_ESTIMATED    flux estimated because data are missing
    29 MSA_FAILED_OPEN   light of a shutter that failed open
    30 OTHER_BAD_PIXEL   bad for another reason
    31 REFERENCE_PIXEL   reference pixel
    """,
)
"""JWST pixel flags."""

HST = _flag_set(
    "HST",
    """
    0  SOFTERR         Reed-Solomon decoding error
    1  DATALOST        data replaced by a fill value
    2  DETECTORPROB    bad detector pixel, or beyond the aperture
    3  DATAMASKED      masked by the aperture (WFC3/IR: deviant zero read)
    4  HOTPIX          hot pixel
    5  UNSTABLE        unstable pixel (CCDs, older data: charge-transfer tail)
    6  WARMPIX         warm pixel
    7  BADBIAS         bad bias value, bad column
    8  SATPIXEL        full-well saturation
    9  BADFLAT         bad in the flat field (WFC3/IR: blob)
    10 TRAP            charge trap or sink pixel
    11 ATODSAT         saturation of the A/D converter
    12 DRIZZLEREJECT   cosmic ray found when dithered images were drizzled
    13 DATAREJECT      cosmic ray found when images or reads were combined
    14 HIGH_CURVATURE  too many cosmic rays, or ghost of crosstalk
    """,
)
"""HST flags of ACS and WFC3."""


ROMAN = _flag_set(
    "Roman",
    """
    4  GW_AFFECTED_DATA  read while a guide window was
    7  OUTLIER           rejected by outlier detection
    8  UNRELIABLE_ERROR  uncertainty that cannot be relied on
    26 RESERVED_5        not used
    27 RESERVED_6        not used
    28 UNRELIABLE_RESET  sensitive to reset anomaly
    29 RESERVED_7        not used
    """,
    [flag for name, flag in JWST.by_name.items() if name != "RC"],
)
"""Roman WFI pixel flags: those of JWST, but for bit 14, which has no name, and the above."""

_BY_TELESCOPE = {"HST": HST, "ROMAN": ROMAN}


def flags_for(telescope: str | None) -> FlagSet:
    """Choose the flags by the TELESCOP keyword."""
    return _BY_TELESCOPE.get((telescope or "").strip().upper(), JWST)
