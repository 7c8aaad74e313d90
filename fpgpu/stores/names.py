"""Which band and exposure names a store accepts.

Names come from file names and headers and become HDF5 groups and files of a store folder, so they
are input like any other: a name that would leave its folder, that cannot be written everywhere, or
that two exposures would share, is refused before anything is written.
"""

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from fpgpu.errors import ExposureNameError, NotInStoreError

__all__ = [
    "EXP_FMT",
    "NameTree",
    "check_band",
    "check_expID",
    "check_no_collision",
    "each_band",
    "nearest_band",
    "some",
]

EXP_FMT = "{}/{}"
"""Key of an exposure: ``EXP_FMT.format(band, expID)``."""

DATASET_NAME = "data"
"""Name of the dataset inside an exposure's group, so no group inside an exposure may have it."""

MAX_COMPONENT_BYTES = 255
"""Longest file name that common file systems take."""


def check_band(name: object) -> str:
    """Refuse a band name that cannot name a group or a folder."""
    text = _checked_text("band", name)
    if "/" in text:
        raise ExposureNameError(
            f"band {text!r} holds a slash; allowed is one name without slashes, like 'F200W'"
        )
    _check_component("band", text, text)
    return text


def each_band(
    bands: Iterable[str], known: Collection[str] | None = None, where: object = "the store"
) -> list[str]:
    """Name each band that is asked for once."""
    try:
        names: list[Any] = [bands] if isinstance(bands, str | bytes) else list(bands)
        asked = list(dict.fromkeys(n.decode() if isinstance(n, bytes) else n for n in names))
    except (TypeError, UnicodeDecodeError) as error:
        raise ExposureNameError(
            f"bands were given as {bands!r}; expected a name such as 'F200W', or a list of names"
        ) from error
    for band in asked:
        if known is not None and band not in known:
            raise NotInStoreError(f"no band {band!r} in {where}; {nearest_band(band, known)}")
    return asked


def nearest_band(band: object, known: Iterable[str]) -> str:
    """Say which bands there are, and which of them may have been meant."""
    by_case = {name.upper(): name for name in known}
    near = [by_case[name] for name in get_close_matches(str(band).upper(), by_case, n=3)]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"it has {', '.join(by_case.values()) or 'none'}{hint}"


def some(names: Sequence[str], most: int = 5) -> str:
    """List some names, each once, and count the rest."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - most} more" if len(unique) > most else ""
    return ", ".join(unique[:most]) + more


def check_expID(name: object) -> str:
    """Refuse an exposure name that cannot name a group inside its band."""
    text = _checked_text("expID", name)
    if text.startswith("/"):
        raise ExposureNameError(
            f"expID {text!r} is absolute; allowed are names relative to the band, like 'visit1/e1'"
        )
    for component in text.split("/"):
        _check_component("expID", text, component)
        if component == DATASET_NAME:
            raise ExposureNameError(
                f"expID {text!r} has a component named {DATASET_NAME!r}, which is the name of the "
                "dataset inside every exposure; choose another"
            )
    return text


def check_no_collision(name: str, existing: Collection[str]) -> None:
    """Refuse an exposure that would lie inside another one, or another inside it."""
    NameTree(existing).add(name)


class NameTree:
    """The expIDs of a band, to which many are added at once.

    Parameters
    ----------
    names : collection of str
        The expIDs there are.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names: set[str] = set()
        self._enclosed: dict[str, str] = {}  # by path, the first name that lies inside it
        for name in names:
            self._put(name, _enclosing(name))

    def add(self, name: str) -> None:
        """Add a name, which may be there already."""
        paths = _enclosing(name)
        enclosing = next((path for path in paths if path in self._names), None)
        if enclosing is not None:
            raise ExposureNameError(
                f"expID {name!r} would lie inside the existing exposure {enclosing!r}; "
                "rename one of the two"
            )
        if name in self._enclosed:
            raise ExposureNameError(
                f"expID {name!r} would enclose the existing exposure {self._enclosed[name]!r}; "
                "rename one of the two"
            )
        self._put(name, paths)

    def _put(self, name: str, paths: list[str]) -> None:
        self._names.add(name)
        for path in paths:
            self._enclosed.setdefault(path, name)


def _enclosing(name: str) -> list[str]:
    """Return the paths that a name lies inside."""
    parts = name.split("/")
    return ["/".join(parts[:n_parts]) for n_parts in range(1, len(parts))]


def _checked_text(kind: str, name: object) -> str:
    """Return `name` as a plain string that is not empty and can be written as UTF-8."""
    if not isinstance(name, str):
        raise ExposureNameError(f"{kind} must be a string; found {type(name).__name__} {name!r}")
    if not name:
        raise ExposureNameError(f"{kind} is empty; allowed is a name of one character or more")
    try:
        name.encode()
    except UnicodeEncodeError as exc:
        raise ExposureNameError(f"{kind} {name!r} cannot be written as UTF-8: {exc}") from exc
    return str(name)


def _check_component(kind: str, name: str, component: str) -> None:
    """Refuse what no single group or file may be called."""
    where = f"{kind} {name!r}"
    if not component:
        raise ExposureNameError(
            f"{where} has an empty component; allowed are names joined by single slashes, "
            "none at the end"
        )
    if component in {".", ".."}:
        raise ExposureNameError(
            f"{where} has the component {component!r}, which would leave its place in the store"
        )
    if component != component.strip():
        raise ExposureNameError(f"{where} has blanks around the component {component!r}")
    bad = next((c for c in component if c == "\\" or not c.isprintable()), None)
    if bad is not None:
        raise ExposureNameError(
            f"{where} holds {bad!r}; backslashes and control characters are not allowed"
        )
    n_bytes = len(component.encode())
    if n_bytes > MAX_COMPONENT_BYTES:
        raise ExposureNameError(
            f"{where} has a component of {n_bytes} bytes; at most {MAX_COMPONENT_BYTES} are allowed"
        )
