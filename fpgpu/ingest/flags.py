"""Data-quality flags of JWST, HST and Roman: their bits and names.

A bitmask is given as a number, as names, or as both mixed, and is always turned into one integer
here; a mask image is turned into counts per flag name.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from fpgpu.errors import FlagError, LayoutError

__all__ = ["ANY_BIT", "HST", "JWST", "ROMAN", "BitSpec", "FlagSet", "flags_for"]

BitSpec = int | str | Iterable["int | str"]
"""A bitmask as a user gives it: ``5``, ``"0x5"``, ``"DO_NOT_USE+JUMP_DET"``, ``["DEAD", 4]``."""

ANY_BIT = 2**32 - 1
"""All bits that a data-quality image can have."""

_SEPARATORS = re.compile(r"[+,|\s]+")


class FlagSet:
    """The data-quality flags of one observatory.

    Parameters
    ----------
    observatory : str
        Name for messages.
    names : str
        The names of the bits, lowest first; ``-`` for one that has none.
    """

    def __init__(self, observatory: str, names: str) -> None:
        self.observatory = observatory
        self._of_bit = {bit: name for bit, name in enumerate(names.split()) if name != "-"}
        self.by_name = {name: 1 << bit for bit, name in self._of_bit.items()}

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
        return [self._of_bit.get(bit, f"BIT_{bit}") for bit in range(64) if bits >> bit & 1]

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
        values = [1 << bit for bit in range(64) if present >> bit & 1]
        counts = [int(np.count_nonzero(bits & bits.dtype.type(value))) for value in values]
        return dict(zip(self.names(present), counts, strict=True))

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
            return self.by_name[name]
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


JWST = FlagSet(
    "JWST",
    """
    DO_NOT_USE SATURATED JUMP_DET DROPOUT OUTLIER PERSISTENCE AD_FLOOR CHARGELOSS RESERVED
    NON_SCIENCE DEAD HOT WARM LOW_QE RC TELEGRAPH NONLINEAR BAD_REF_PIXEL NO_FLAT_FIELD
    NO_GAIN_VALUE NO_LIN_CORR NO_SAT_CHECK UNRELIABLE_BIAS UNRELIABLE_DARK UNRELIABLE_SLOPE
    UNRELIABLE_FLAT OPEN ADJ_OPEN FLUX_ESTIMATED MSA_FAILED_OPEN OTHER_BAD_PIXEL REFERENCE_PIXEL
    """,
)
"""JWST pixel flags, by the pipeline's document on data-quality flags."""

HST = FlagSet(
    "HST",
    """
    SOFTERR DATALOST DETECTORPROB DATAMASKED HOTPIX UNSTABLE WARMPIX BADBIAS SATPIXEL BADFLAT TRAP
    ATODSAT DRIZZLEREJECT DATAREJECT HIGH_CURVATURE
    """,
)
"""HST flags of WFC3, by calwf3, whose bits mean nearly the same for ACS; bit 12, a cosmic ray found
when dithered images were drizzled, has no name there and got one here.
"""

ROMAN = FlagSet(
    "Roman",
    """
    DO_NOT_USE SATURATED JUMP_DET DROPOUT GW_AFFECTED_DATA PERSISTENCE AD_FLOOR OUTLIER
    UNRELIABLE_ERROR NON_SCIENCE DEAD HOT WARM LOW_QE - TELEGRAPH NONLINEAR BAD_REF_PIXEL
    NO_FLAT_FIELD NO_GAIN_VALUE NO_LIN_CORR NO_SAT_CHECK UNRELIABLE_BIAS UNRELIABLE_DARK
    UNRELIABLE_SLOPE UNRELIABLE_FLAT RESERVED_5 RESERVED_6 UNRELIABLE_RESET RESERVED_7
    OTHER_BAD_PIXEL REFERENCE_PIXEL
    """,
)
"""Roman WFI pixel flags: mostly those of JWST."""

_BY_TELESCOPE = {"HST": HST, "ROMAN": ROMAN}


def flags_for(telescope: str | None) -> FlagSet:
    """Choose the flags by the TELESCOP keyword."""
    return _BY_TELESCOPE.get((telescope or "").strip().upper(), JWST)
