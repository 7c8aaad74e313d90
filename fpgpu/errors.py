"""The exceptions of fpgpu.

Every error a user can meet derives from `FpgpuError`. A message says what was found, what was
expected, where (file, dataset, exposure), and what to do. Built-in exceptions are kept as second
bases where a Python user would catch them.
"""

from collections.abc import Sequence

__all__ = [
    "BackendUnavailableError",
    "CatalogError",
    "ConfigError",
    "DeviceMemoryError",
    "ExecutorError",
    "ExposureNameError",
    "FlagError",
    "ForcephoMissingError",
    "FpgpuError",
    "IntegrityError",
    "KernelCompileError",
    "KernelLaunchError",
    "LayoutError",
    "MissingExtraError",
    "MissingFileError",
    "MissingStoreError",
    "NotInStoreError",
    "PSFError",
    "PlanError",
    "RegionError",
    "ReleasedMemoryError",
    "StagingBusyError",
    "StagingError",
    "StoreBusyError",
    "StoreConflictError",
    "StoreError",
    "StoreFormatError",
    "StoreWriteError",
    "StreamError",
    "UnusableExposureError",
    "UsageError",
    "WCSDisagreementError",
    "WCSError",
]


class FpgpuError(Exception):
    """Base of every error that fpgpu raises on purpose.

    Examples
    --------
    >>> try:
    ...     fpgpu.open("nowhere")
    ... except fpgpu.FpgpuError as error:
    ...     print(str(error).partition(";")[0])
    nowhere is not a folder
    """


class StoreError(FpgpuError):
    """Something is wrong with a pixel, meta or PSF store."""


class MissingStoreError(StoreError, FileNotFoundError):
    """A store that should be read does not exist."""


class StoreFormatError(StoreError, ValueError):
    """A file is not a store of the expected kind: truncated, garbage or foreign."""


class StoreConflictError(StoreError, ValueError):
    """What was asked contradicts what a store already holds."""


class StoreBusyError(StoreError, OSError):
    """Another handle, thread or process holds the store."""


class StoreWriteError(StoreError, OSError):
    """A change could not be made durable; the store is as it was before."""


class NotInStoreError(StoreError, KeyError):
    """A band or an exposure is not in the store."""

    # KeyError shows the repr of its argument; a message should read as text.
    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class IntegrityError(StoreError, ValueError):
    """Stored data do not match their checksum, or are what no exposure can be."""


class ExposureNameError(FpgpuError, ValueError):
    """A band or exposure name is empty, escapes its folder or collides with another."""


class FlagError(FpgpuError, ValueError):
    """A data-quality flag or bitmask is not known."""


class LayoutError(FpgpuError, ValueError):
    """An array has the wrong shape, dtype or memory layout."""


class CatalogError(FpgpuError, ValueError):
    """A catalogue of sources lacks a column, or holds a source that cannot be modelled."""


class PSFError(FpgpuError, ValueError):
    """An image is none of a PSF, or no mixture of Gaussians is near enough to it."""


class PlanError(FpgpuError, ValueError):
    """A patch that was asked for is over a limit, or how to choose its pixels is not known."""


class RegionError(FpgpuError, ValueError):
    """A region of sky is not well defined."""


class WCSError(FpgpuError, ValueError):
    """A world coordinate system is missing, malformed or cannot be evaluated."""


class WCSDisagreementError(WCSError):
    """Two descriptions of the same image's WCS give different places on the sky."""


class UnusableExposureError(FpgpuError, ValueError):
    """An input exposure cannot go into a store."""


class ExecutorError(FpgpuError, RuntimeError):
    """What should do the work of an ingest cannot be started, or was lost."""


class UsageError(FpgpuError, ValueError):
    """A command was given arguments that do not go together."""


class ConfigError(FpgpuError, ValueError):
    """A configuration file has an unknown key or a value that makes no sense."""


class MissingFileError(UnusableExposureError, FileNotFoundError):
    """An input file does not exist."""


class ForcephoMissingError(FpgpuError, ImportError):
    """Some part of forcepho is asked for and cannot be imported."""


class MissingExtraError(FpgpuError, ImportError):
    """An optional package is asked for and cannot be imported."""


class BackendUnavailableError(FpgpuError, RuntimeError):
    """The compute backend that was asked for cannot run here."""


class KernelCompileError(FpgpuError, RuntimeError):
    """A kernel did not compile.

    Parameters
    ----------
    message : str
        What happened.
    source : str, optional
        Name of the source file.
    options : sequence of str, optional
        What the compiler was told, the architecture among them.
    log : str, optional
        What the compiler said.
    """

    def __init__(
        self, message: str, *, source: str = "", options: Sequence[str] = (), log: str = ""
    ) -> None:
        super().__init__(message)
        self.source = source
        self.options = tuple(options)
        self.log = log


class KernelLaunchError(FpgpuError, RuntimeError):
    """A kernel cannot be launched with these arguments on this device."""


class DeviceMemoryError(FpgpuError, MemoryError):
    """A backend has no memory left for what was asked; it stays usable for less."""


class ReleasedMemoryError(FpgpuError, RuntimeError):
    """An arena or a staging slot was used after it was given back."""


class StagingError(FpgpuError, RuntimeError):
    """A staging ring cannot serve a request: too large, or the ring is closed."""


class StagingBusyError(StagingError, TimeoutError):
    """No staging slot came free in time."""


class StreamError(FpgpuError, RuntimeError):
    """What builds the patches of a stream has ended before them."""
