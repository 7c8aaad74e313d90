"""Names of files and folders as people write them."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["as_path"]


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
