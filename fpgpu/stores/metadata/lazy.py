"""A table of values by band and expID that are made when they are first asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from threading import RLock
from typing import Any, Generic, TypeVar

from fpgpu.errors import NotInStoreError

__all__ = ["LazyBand", "LazyTable"]

T = TypeVar("T")


PENDING: Any = object()
"""Stands for a value that was not made yet."""


class LazyTable(MutableMapping[str, "LazyBand[T]"], Generic[T]):
    """Values by band and then by expID, like a dict of dicts; each is made at its first use.

    Parameters
    ----------
    kind : str
        What the values are, for messages: ``"header"``.
    load : callable
        ``load(band, expID)`` makes the value.
    changed : callable, optional
        ``changed(band, expID)`` is called after a value was replaced, added or removed.
    lock : threading.RLock, optional
        Held while a value is made, so that each is made once.
    """

    def __init__(
        self,
        kind: str,
        load: Callable[[str, str], T],
        changed: Callable[[str, str], None] | None = None,
        lock: Any = None,
    ) -> None:
        self.kind = kind
        self.load = load
        self.notify = changed or (lambda band, expID: None)
        self.lock = lock or RLock()
        self._bands: dict[str, LazyBand[T]] = {}

    def declare(self, band: str, expIDs: Iterable[str]) -> None:
        """Say which values can be made; values of the same names are forgotten."""
        self._band(band)._values.update(dict.fromkeys(expIDs, PENDING))

    def discard(self, band: str, expID: str) -> None:
        """Forget a value and that it can be made; nobody is told."""
        if band in self._bands:
            self._bands[band]._values.pop(expID, None)

    def put(self, band: str, expID: str, value: T) -> None:
        """Set a value, of a new band too."""
        self._band(band)[expID] = value

    def made(self, band: str, expID: str) -> T | None:
        """Return a value if it was made or put in before, else None."""
        return self._bands[band].made(expID) if band in self._bands else None

    def _band(self, band: str) -> "LazyBand[T]":
        """Return a band, which may be new."""
        if band not in self._bands:
            self._bands[band] = LazyBand(self, band)
        return self._bands[band]

    def __getitem__(self, band: str) -> "LazyBand[T]":
        try:
            return self._bands[band]
        except KeyError:
            bands = ", ".join(self._bands) or "none"
            raise NotInStoreError(f"no {self.kind} of band {band!r}; bands: {bands}") from None

    def __setitem__(self, band: str, values: Mapping[str, T]) -> None:
        if self._bands.get(band) is values:
            return
        new = LazyBand(self, band)
        old = list(self._bands.get(band, ()))
        self._bands[band] = new
        for expID in old:
            if expID not in values:
                self.notify(band, expID)
        new.update(values)

    def __delitem__(self, band: str) -> None:
        for expID in list(self[band]):
            del self[band][expID]
        del self._bands[band]

    def __iter__(self) -> Iterator[str]:
        return iter(self._bands)

    def __len__(self) -> int:
        return len(self._bands)

    def __repr__(self) -> str:
        counts = ", ".join(f"{band}: {len(values)}" for band, values in self._bands.items())
        return f"<{self.kind} by band and expID: {counts or 'none'}>"


class LazyBand(MutableMapping[str, T]):
    """The values of one band by expID, in the store's order."""

    def __init__(self, table: LazyTable[T], band: str) -> None:
        self._table = table
        self._band = band
        self._values: dict[str, T] = {}

    def made(self, expID: str) -> T | None:
        """Return a value if it was made or put in before, else None."""
        found = self._values.get(expID)
        return None if found is PENDING else found

    def __getitem__(self, expID: str) -> T:
        try:
            value = self._values[expID]
        except KeyError:
            raise NotInStoreError(
                f"no {self._table.kind} of exposure {expID!r} in band {self._band!r}, "
                f"which holds {len(self._values)}"
            ) from None
        if value is PENDING:
            with self._table.lock:
                value = self._values.get(expID, PENDING)  # another thread may have made it
                if value is PENDING:
                    value = self._values[expID] = self._table.load(self._band, expID)
        return value

    def __setitem__(self, expID: str, value: T) -> None:
        self._values[expID] = value
        self._table.notify(self._band, expID)

    def __delitem__(self, expID: str) -> None:
        if expID not in self._values:
            raise NotInStoreError(f"no {self._table.kind} of {expID!r} in band {self._band!r}")
        del self._values[expID]
        self._table.notify(self._band, expID)

    def __contains__(self, expID: object) -> bool:
        return expID in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        made = sum(value is not PENDING for value in self._values.values())
        return f"<{self._table.kind}s of {self._band}: {len(self._values)}, {made} in memory>"
