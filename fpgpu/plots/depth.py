"""A map of depth on axes of the sky: how many exposures, or how faint."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fpgpu.plots.canvas import MAP, add_bar, show_image
from fpgpu.sky.sphere import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["show_depth"]

_MOST_STEPS = 12


def show_depth(
    axes: "Axes",
    depth: npt.NDArray[np.float64],
    x: Floats,
    y: Floats,
    label: str,
    most: float,
    least: float = 0.0,
) -> None:
    """Draw a map of depth; places without any stay white.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where.
    depth : ndarray of float64, shape (nx, ny)
        The map; NaN, and 0 in one of counts, where there is nothing.
    x, y : ndarray, shapes (nx,) and (ny,)
        Offsets of its points, evenly spaced.
    label : str
        What it is, for the colour bar.
    most : float
        Upper end of the colours.
    least : float, optional
        Lower end; 0 makes a map of counts, which has a colour a count while there are few.
    """
    import matplotlib
    from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize

    half = 0.5 * (x[1] - x[0]), 0.5 * (y[1] - y[0])
    extent = (x[0] - half[0], x[-1] + half[0], y[0] - half[1], y[-1] + half[1])
    colors: Any = matplotlib.colormaps[MAP]
    is_count = least == 0.0
    norm: Any
    ticks: Any = None
    if is_count and most <= _MOST_STEPS:
        n_steps = max(int(most), 1)
        steps = np.arange(0.5, n_steps + 1.0)
        norm, ticks = BoundaryNorm(steps, n_steps), steps[:-1] + 0.5
        colors = ListedColormap(colors(np.linspace(0.1 if n_steps == 1 else 0.0, 1.0, n_steps)))
    else:
        norm = Normalize(least or 1.0, max(most, least + 1e-3))
    empty = np.isnan(depth) | ((depth == 0) if is_count else False)
    drawn = show_image(axes, np.ma.masked_where(empty, depth), extent, cmap=colors, norm=norm)
    add_bar(axes, drawn, label, ticks)
