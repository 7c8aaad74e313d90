"""How far what takes long has come: tqdm's bar, where somebody looks."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["is_watched", "progress_bar"]

_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def is_watched() -> bool:
    """Tell whether somebody may look: standard error is a terminal, or this is a notebook."""
    from tqdm import auto  # not autonotebook itself, which warns that it is experimental

    return sys.stderr.isatty() or auto.notebook_tqdm is not auto.std_tqdm


def progress_bar(total: int, label: str, shown: bool | None = None) -> "tqdm":
    """Make a bar.

    Parameters
    ----------
    total : int
        Number of steps.
    label : str
        What is being done.
    shown : bool, optional
        Whether to draw it; by default where somebody may look.

    Returns
    -------
    tqdm.tqdm
        A context manager with `update` and `set_postfix_str`.

    Examples
    --------
    >>> with progress_bar(2, "fit", shown=False) as bar:
    ...     bar.update()
    """
    from tqdm.auto import tqdm

    shown = is_watched() if shown is None else shown
    return tqdm(
        total=total, desc=label, disable=not shown, bar_format=_FORMAT, dynamic_ncols=True,
        mininterval=0.0,
    )  # fmt: skip
