"""What can be wrong with a store folder, and how it is told."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["KINDS", "Problem", "Verdict"]

KINDS = {
    "unreadable": "a file of the store cannot be read",
    "damaged": "the pixels do not match the checksum that was stored with them",
    "not finite": "stored values are NaN or infinite, or inverse uncertainties are negative",
    "wrong shape": "an exposure does not have the size of the store, or of its header",
    "missing shard": "the store links to a file that is not there",
    "refused link": "the store links to something outside of its folder",
    "orphan": "a file of shards or records that no commit names",
    "only in pixels": "an exposure without header in the meta store",
    "only in meta": "a header without pixels",
    "header": "the header in the meta store is no usable header",
    "WCS": "positions on the sky are not what was stored with the exposure",
    "view": "forcepho's meta.json or meta.asdf are not as the store is",
    "changed": "meta.json or meta.asdf were changed since fpgpu wrote them",
    "leftover": "a file that a killed writer left",
    "units": "the exposures of a band are in several units",
    "PSF": "the PSF store cannot be used",
}
"""Kinds of problems and what they mean."""

REMEDIES = {
    "missing shard": "put it back, or fpgpu remove DIR '{where}'",
    "refused link": "do not trust this store; remove the exposure",
    "orphan": "committed, or deleted if all it holds is in the store; kept where that is not clear",
    "only in pixels": "add it again, or its header with MetaStore, or remove it",
    "only in meta": "add it again or remove it",
    "WCS": "add the exposure again",
    "view": "written again",
    "changed": "if that was meant, 'fpgpu views' takes it over; if not, remove both files and run "
    "it",
    "leftover": "deleted",
    "units": "ingest them again with their calibration, remove some, or name a unit when making a "
    "patch (--units)",
    "PSF": "restore it from a copy or write it again",
}
"""What `repair` does about problems of a kind, or what a person can do."""

AGAIN = "add the exposure again or remove it"
REPAIRABLE = {"orphan", "view", "leftover"}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes
    ----------
    kind : str
        A key of `KINDS`.
    where : str
        The exposure ``band/expID`` or the file.
    what : str
        What was found.
    remedy : str
        What `repair` does about it, or what a person can do.
    repairable : bool
        Whether `repair` does it.
    """

    kind: str
    where: str
    what: str
    remedy: str
    repairable: bool = False


@dataclass
class Verdict:
    """What a check of a store folder found.

    Attributes
    ----------
    folder : str
        The store folder.
    n_exposures : int
        Exposures in the pixel store.
    n_verified : int
        Of these, how many match their checksum.
    n_unchecked : int
        How many have none, as those that forcepho wrote.
    n_wcs : int
        How many have a refit that was compared with their gWCS.
    problems : list of Problem
        In the order they were found.
    """

    folder: str
    n_exposures: int = 0
    n_verified: int = 0
    n_unchecked: int = 0
    n_wcs: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def add(
        self,
        kind: str,
        where: str,
        what: object,
        remedy: str = "",
        *,
        repairable: bool | None = None,
    ) -> None:
        """Note a problem.

        Parameters
        ----------
        kind, where : str
            As for `Problem`.
        what : object
            Its text says what was found.
        remedy : str, optional
            As for `Problem`, if not that of all problems of this kind.
        repairable : bool, optional
            As for `Problem`, if not that of all problems of this kind.
        """
        remedy = remedy or REMEDIES.get(kind, AGAIN).format(where=where)
        can = kind in REPAIRABLE if repairable is None else repairable
        self.problems.append(Problem(kind, where, str(what), remedy, can))

    def counts(self) -> dict[str, int]:
        """Count the problems by kind.

        Returns
        -------
        dict of str to int
            Kinds that were found.
        """
        return dict(Counter(problem.kind for problem in self.problems))

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain types.

        Returns
        -------
        dict
            Ready for JSON.
        """
        return asdict(self) | {"ok": self.ok, "counts": self.counts()}
