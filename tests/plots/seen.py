"""What is looked at in a picture."""

from typing import Any


def panels(figure: Any) -> list[Any]:
    """The axes, which all name their x; colour bars are children of theirs."""
    return [axes for axes in figure.axes if axes.get_xlabel()]


def is_sky_map(axes: Any) -> bool:
    """Right ascension grows to the left, and both axes have the same scale."""
    return axes.xaxis_inverted() and not axes.yaxis_inverted() and axes.get_aspect() == 1.0


def nothing_overlaps(figure: Any) -> bool:
    """Titles and labels of axes are within the figure, and no two axes share a place."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [axes.get_tightbbox(canvas.get_renderer()) for axes in panels(figure)]
    inside = all(
        figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1
        and figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1
        for box in boxes
    )  # fmt: skip
    shared = [
        Bbox.intersection(a, b) for k, a in enumerate(boxes) for b in boxes[:k] if a.overlaps(b)
    ]
    return inside and all(min(both.width, both.height) < 3.0 for both in shared if both)
