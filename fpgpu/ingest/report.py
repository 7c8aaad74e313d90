"""What became of the files of an ingest run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["IngestReport", "IngestRow"]


@dataclass(frozen=True)
class IngestRow:
    """What became of one file.

    Attributes
    ----------
    file : Path
        The file as given.
    status : str
        ``"stored"``, ``"replaced"`` or ``"refused"``.
    reason : str
        Why it was refused; empty otherwise.
    band, expID : str
        The exposure's key; empty when it could not be found out.
    n_pixels, n_masked : int
        Pixels stored, and how many of them have zero weight because they are bad.
    masked : dict of str to int
        Bad pixels by cause; one pixel may count for several causes.
    bitmask : int
        The bits of the data-quality image that were taken as bad.
    flags : dict of str to int
        Pixels per data-quality flag of the file, bad or not.
    flux_factor : float
        Nanojansky (or other unit) for one unit of the file.
    flux_units : str
        Unit of the stored flux.
    wcs_kind : str
        ``"gwcs"`` or ``"fits"``.
    sip_residual : float or None
        Largest difference of the SIP refit from the gWCS, in pixels.
    notes : tuple of str
        What a user should know.
    seconds : float
        Time spent.
    """

    file: Path
    status: str
    reason: str = ""
    band: str = ""
    expID: str = ""
    n_pixels: int = 0
    n_masked: int = 0
    masked: dict[str, int] = field(default_factory=dict)
    bitmask: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    flux_factor: float = 1.0
    flux_units: str = ""
    wcs_kind: str = ""
    sip_residual: float | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass
class IngestReport:
    """What became of all files of a run.

    Attributes
    ----------
    out : Path
        The store folder.
    rows : list of IngestRow
        One per file, in the order given.
    """

    out: Path
    rows: list[IngestRow] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every file went in."""
        return all(row.status != "refused" for row in self.rows)

    @property
    def added(self) -> list[IngestRow]:
        """The files that went in."""
        return [row for row in self.rows if row.status != "refused"]

    @property
    def n_pixels(self) -> int:
        """Pixels of all files that went in."""
        return sum(row.n_pixels for row in self.rows)

    @property
    def refused(self) -> list[IngestRow]:
        """The files that did not go in."""
        return [row for row in self.rows if row.status == "refused"]

    def masked_by_cause(self) -> dict[str, int]:
        """Sum the bad pixels of all files.

        Returns
        -------
        dict of str to int
            Pixels per cause.
        """
        return _total(row.masked for row in self.rows)

    def flag_counts(self) -> dict[str, int]:
        """Sum the flagged pixels of all files.

        Returns
        -------
        dict of str to int
            Pixels per data-quality flag.
        """
        return _total(row.flags for row in self.rows)


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Add counts by key, keys in the order of their first appearance."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)
