"""How much sky a set of footprints covers, overlaps counted once; and how often each place."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fpgpu.sky.polygons import bounding_caps
from fpgpu.sky.sphere import Floats, chord, tangent_coordinates, unit_vectors

__all__ = ["covered_area", "depth_map", "planar_area"]


def covered_area(footprints: Sequence[Floats], grid: int = 256) -> float:
    """Measure the area of the union of footprints.

    Footprints that touch are taken together, projected gnomonically (which keeps great-circle
    edges straight) and sampled on a grid; the answer is good to about ``1 / grid`` of the
    perimeter of each such group.

    Parameters
    ----------
    footprints : sequence of ndarray, shape (n_vertices, 2)
        Outlines: right ascension and declination in degrees, edges along great circles. Each
        group of touching footprints must fit in a hemisphere.
    grid : int, optional
        Number of samples along each side of a group.

    Returns
    -------
    float
        Square degrees.
    """
    if not footprints:
        return 0.0
    vectors = [unit_vectors(*np.transpose(outline)) for outline in footprints]
    return float(np.rad2deg(1) ** 2) * sum(
        _group_area([vectors[k] for k in group], grid) for group in _groups(vectors)
    )


def _groups(vectors: Sequence[Floats]) -> list[npt.NDArray[np.intp]]:
    """Sort footprints into groups whose bounding caps touch."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    caps = [bounding_caps(outline[None]) for outline in vectors]
    centres = np.concatenate([centre for centre, _ in caps])
    radii = np.concatenate([radius for _, radius in caps])
    pairs = cKDTree(centres).query_pairs(float(chord(2 * radii.max())), output_type="ndarray")
    apart = np.linalg.norm(centres[pairs[:, 0]] - centres[pairs[:, 1]], axis=1)
    pairs = pairs[apart <= chord(radii[pairs].sum(axis=1))]
    n = len(vectors)
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    n_groups, label = connected_components(graph, directed=False)
    return [np.flatnonzero(label == k) for k in range(n_groups)]


def _group_area(vectors: Sequence[Floats], grid: int) -> float:
    """Area of one group of footprints, in steradians."""
    middle = np.concatenate(vectors).mean(axis=0)
    middle /= np.linalg.norm(middle)
    planar = [np.stack(tangent_coordinates(v, middle), axis=-1) for v in vectors]
    low = np.min([p.min(axis=0) for p in planar], axis=0)
    step = (np.max([p.max(axis=0) for p in planar], axis=0) - low) / grid
    x = low[0] + (np.arange(grid) + 0.5) * step[0]
    y = low[1] + (np.arange(grid) + 0.5) * step[1]
    covered = depth_map(planar, np.ones(len(planar)), x, y) > 0
    # Element of solid angle of the gnomonic projection.
    element = step.prod() / (1 + x[:, None] ** 2 + y[None, :] ** 2) ** 1.5
    return float(element[covered].sum())


def planar_area(polygon: Floats) -> float:
    """Area of a polygon on the plane: half the sum of the cross products of successive vertices."""
    x, y = polygon.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - np.roll(x, -1) @ y))


def depth_map(
    polygons: Sequence[Floats], weights: npt.ArrayLike, x: Floats, y: Floats
) -> npt.NDArray[np.float64]:
    """Add up the weights of the polygons that cover each point of a grid.

    Parameters
    ----------
    polygons : sequence of ndarray, shape (n_vertices, 2)
        Outlines on the plane.
    weights : array_like, shape (n_polygons,)
        Of each polygon.
    x, y : ndarray, shapes (nx,) and (ny,)
        The grid, increasing.

    Returns
    -------
    ndarray of float64, shape (nx, ny)
        0 where there is none.
    """
    depth = np.zeros((len(x), len(y)))
    for polygon, weight in zip(polygons, np.asarray(weights, np.float64), strict=True):
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        part = tuple(
            slice(*np.searchsorted(axis, (low[k], high[k]))) for k, axis in enumerate((x, y))
        )
        depth[part] += weight * _inside(polygon, x[part[0], None], y[None, part[1]])
    return depth


def _inside(polygon: Floats, x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
    """Even-odd rule for the points of a grid, x of shape (nx, 1) and y of shape (1, ny)."""
    inside = np.zeros((x.size, y.size), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 <= y) != (y1 <= y)
        inside ^= crosses & (x < x0 + (y - y0) * ((x1 - x0) / (y1 - y0)))
    return inside
