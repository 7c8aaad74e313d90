"""Names of files and folders as people write them."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["absolute_path", "as_path"]


def absolute_path(path: Path) -> Path:
    """Make a path absolute, without `..` in it; links are not followed."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow them)


def as_path(name: str | os.PathLike[str]) -> Path:
    """Take a name as a path, ``~`` being the home folder.

    Parameters
    ----------
    name : str or path
        The name.

    Returns
    -------
    Path
        Of ``~name`` of somebody unknown, a file of that name.

    Examples
    --------
    >>> as_path("stores/pixels.h5").name
    'pixels.h5'
    """
    path = Path(name)
    with suppress(RuntimeError):
        return path.expanduser()
    return path
