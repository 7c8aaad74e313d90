"""Which reader reads a file: chosen by what the file holds, never by what it is called.

A reader of another kind is added with `register_reader`, or by a package that names a `Reader` in
the entry-point group ``fpgpu.readers``; those are asked before the built-in ones.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import entry_points
from pathlib import Path

from fpgpu.errors import FpgpuError, MissingFileError, UnusableExposureError
from fpgpu.ingest.cutting import cut_exposure
from fpgpu.ingest.exposure import Exposure
from fpgpu.ingest.fitsfile import FitsFile
from fpgpu.ingest.frame import LEFT_OUT
from fpgpu.ingest.hst import is_hst, read_hst
from fpgpu.ingest.inputs import Input, ReadOptions
from fpgpu.ingest.jwst import is_jwst, read_jwst
from fpgpu.ingest.plain import is_plain, read_plain
from fpgpu.ingest.prepare import prepare
from fpgpu.ingest.refit import refit_header
from fpgpu.ingest.roman import is_asdf, read_roman
from fpgpu.stores.names import nearest_band

__all__ = [
    "ENTRY_POINTS",
    "InputFile",
    "Reader",
    "choose_reader",
    "read_exposure",
    "read_exposures",
    "register_reader",
    "registered_readers",
]

ENTRY_POINTS = "fpgpu.readers"
"""Entry-point group; each entry point gives a `Reader`."""

_HEAD_BYTES = 2880


class InputFile:
    """A file that somebody may be able to read; opened no more often than needed.

    Parameters
    ----------
    path : str or Path
        The file.
    companions : mapping of str to Path, optional
        Files that belong to it, by role.

    Raises
    ------
    MissingFileError
        When there is no such file.
    UnusableExposureError
        When it is no file that can be read.
    """

    def __init__(self, path: str | Path, companions: Mapping[str, Path] | None = None) -> None:
        self.path = Path(path)
        self.companion_paths = dict(companions or {})
        self._closing = ExitStack()
        try:
            with self.path.open("rb") as stream:
                self.head = stream.read(_HEAD_BYTES)
        except FileNotFoundError as error:
            raise MissingFileError(f"{path}: no such file") from error
        except (OSError, ValueError) as error:
            raise UnusableExposureError(f"{path}: cannot be read: {error}") from error

    @cached_property
    def fits(self) -> FitsFile:
        """The file opened as FITS."""
        return self._closing.enter_context(FitsFile(self.path))

    @cached_property
    def companions(self) -> dict[str, FitsFile]:
        """The files that belong to it, opened as FITS, by role."""
        paths = self.companion_paths.items()
        return {role: self._closing.enter_context(FitsFile(path)) for role, path in paths}

    def close(self) -> None:
        """Close whatever was opened."""
        self._closing.close()

    def __enter__(self) -> "InputFile":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@dataclass(frozen=True)
class Reader:
    """A kind of exposure file.

    Attributes
    ----------
    name : str
        What the kind is called.
    recognises : callable
        Takes an `InputFile` and tells whether it is of this kind.
    read : callable
        Takes an `InputFile` and `ReadOptions` and gives an `Exposure`, or an iterable of the
        several that the file holds; best an iterator that makes one at a time.
    """

    name: str
    recognises: Callable[[InputFile], bool]
    read: Callable[[InputFile, ReadOptions], Exposure | Iterable[Exposure]]


_BUILT_IN = (
    Reader(
        "roman", lambda f: is_asdf(f.head), lambda f, o: read_roman(f.path, o, f.companion_paths)
    ),
    Reader("jwst", lambda f: is_jwst(f.fits), lambda f, o: read_jwst(f.fits, o, f.companions)),
    Reader("hst", lambda f: is_hst(f.fits), lambda f, o: read_hst(f.fits, o, f.companions)),
    Reader("plain", lambda f: is_plain(f.fits), lambda f, o: read_plain(f.fits, o, f.companions)),
)

_registered: dict[str, Reader] = {}


def register_reader(reader: Reader) -> None:
    """Add a kind of exposure file; the latest is asked first.

    Parameters
    ----------
    reader : Reader
        Takes the place of an earlier one of the same name.
    """
    _registered.pop(reader.name, None)
    _registered[reader.name] = reader


def registered_readers() -> list[str]:
    """Name the readers that only this process knows.

    Returns
    -------
    list of str
        Those added with `register_reader`.
    """
    return list(_registered)


def choose_reader(file: InputFile) -> Reader:
    """Find the reader of a file.

    Parameters
    ----------
    file : InputFile
        The file.

    Returns
    -------
    Reader
        The first that recognises it: registered ones, those of installed packages, built-in ones.

    Raises
    ------
    UnusableExposureError
        When no reader does, or the file is damaged.
    """
    candidates = (*reversed(_registered.values()), *_installed(), *_BUILT_IN)
    for reader in candidates:
        if reader.recognises(file):
            return reader
    raise UnusableExposureError(
        f"{file.path}: no reader knows this kind of file (extensions "
        f"{', '.join(file.fits.names())}; readers {', '.join(r.name for r in candidates)}); "
        "expected at least SCI and ERR"
    )


def read_exposures(item: Input) -> Iterator[Exposure]:
    """Read the exposures of an input one after the other.

    Parameters
    ----------
    item : Input
        Files, or an exposure in memory, and how to read them.

    Yields
    ------
    Exposure
        Named as asked, its ``bitmask`` that of the calibration options where they name one,
        ``provenance["reader"]`` telling which reader read it. Only the bands asked for.

    Raises
    ------
    FpgpuError
        `MissingFileError`, `UnusableExposureError`, `WCSError`, `FlagError` or
        `ExposureNameError`: the files cannot be used as asked; the message names the file.
    """
    for exposure in read_all(item):
        if item.wants(exposure.band):
            prepare(exposure, item.calibration)
            yield exposure


def read_all(item: Input) -> Iterator[Exposure]:
    """Read the exposures of an input, of all bands and with nothing done to their pixels."""
    if item.exposure is not None:
        yield from _told("memory", map(_settled, cut_exposure(item.exposure, item.options)))
        return
    item.require_inside()
    # A mask that is to be ignored need not be sound.
    is_maskless = item.calibration.ignores_mask
    companions = {
        role: path for role, path in item.companions.items() if not (is_maskless and role == "mask")
    }
    with InputFile(item.path, companions) as file:
        reader = choose_reader(file)
        options = item.options
        if not item.calibration.do_fluxcal:
            options = replace(options, do_fluxcal=False)
        if is_maskless:
            options = replace(options, extensions={**options.extensions, "mask": LEFT_OUT})
        made = reader.read(file, options)
        several = [made] if isinstance(made, Exposure) else made
        yield from _told(reader.name, several if reader in _BUILT_IN else map(_settled, several))


def read_exposure(path: str | Path, options: ReadOptions | None = None) -> Exposure:
    """Read a file of any known kind that holds one exposure.

    Parameters
    ----------
    path : str or Path
        The file.
    options : ReadOptions, optional
        How to read; by default gWCS preferred, no padding, named by the file's name.

    Returns
    -------
    Exposure
        With ``provenance["reader"]`` telling which reader read it.

    Raises
    ------
    FpgpuError
        As `read_exposures`; `UnusableExposureError` also when the file holds several exposures, or
        none that was asked for.
    """
    item = Input(Path(path), options=options or ReadOptions())
    exposures = read_exposures(item)
    first = next(exposures, None)
    if first is None:
        asked = ", ".join(item.options.bands)
        there = [exposure.band for exposure in read_all(item)]
        raise UnusableExposureError(
            f"{path}: holds no exposure of the bands that were asked for ({asked}); "
            f"{nearest_band(asked, there)}"
        )
    if next(exposures, None) is not None:
        raise UnusableExposureError(
            f"{path}: holds several exposures; read them with fpgpu.ingest.readers.read_exposures"
        )
    return first


def _told(reader: str, found: Iterable[Exposure]) -> Iterator[Exposure]:
    """Say of exposures which reader read them."""
    for exposure in found:
        exposure.provenance["reader"] = reader
        yield exposure


def _settled(exposure: Exposure) -> Exposure:
    """Do to the header of somebody else's exposure what the readers here do to theirs."""
    if exposure.gwcs is None:
        notes, residual = refit_header(exposure.hdr, exposure.shape)
        exposure.notes += notes
        if residual is not None:
            exposure.provenance["sip_residual_px"] = residual
    elif exposure.sip is not None:
        exposure.provenance.setdefault("sip_residual_px", exposure.sip.residual)
    return exposure


@cache
def _installed() -> tuple[Reader, ...]:
    """Load the readers of installed packages."""
    readers = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            reader = entry.load()
        # Somebody else's package: whatever goes wrong there must be told as theirs.
        except Exception as error:
            raise FpgpuError(
                f"entry point {entry.value} ({ENTRY_POINTS}) fails: {error}"
            ) from error
        if not isinstance(reader, Reader):
            raise FpgpuError(f"entry point {entry.value} ({ENTRY_POINTS}) is no Reader: {reader!r}")
        readers.append(reader)
    return tuple(readers)
