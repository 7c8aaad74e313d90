"""The likelihood compiled by Numba, in single precision with sums in double; slow to import.

64 pixels are taken at a time, a *block*: a super-pixel where their coordinates are those of one.
First the model of its pixels is added up from the Gaussians that reach it; then, per Gaussian,
moments of what is left. Both use coordinates in which a Gaussian is round: with the inverse
covariance F = L L^t and the offset d of a pixel, P = s L^t d, so that its exponential is 2 to the
power of -P.P. As L is triangular, P_y is the same along a row of x, and all that depends on it is
taken out of the inner loop. As P is at most 5 where a Gaussian counts, single precision loses
nothing in the moments.

Loops over `LANES` with constant ends and straight bodies are what LLVM turns into vectors. Partial
sums belong to a *work*, a fixed run of pixels of one exposure, so that they do not depend on how
many threads there are; they are added in the order of the works.
"""

import math
from typing import Any

import numpy as np

from fpgpu.jit import compiled
from fpgpu.layout import MAX_EXP_ARG, MAXBANDS, MAXRADII, NPARAMS

__all__ = ["add_up", "evaluate_works"]

PIXELS = 64
LANES = 16
ROWS = np.repeat(np.arange(8, dtype=np.float32), 8)
"""Of each pixel of a super-pixel, its place along x; `COLUMNS`, its place along y."""
COLUMNS = np.tile(np.arange(8, dtype=np.float32), 8)

AT_ONCE = 64
"""Gaussians whose model is summed in single precision before it is added in double."""

MOMENTS = 15
"""Sums of f P_x^a P_y^b: (0..4, 0), (0..3, 1), (0..2, 2), (0..1, 3), (0, 4), in this order."""

# Fields of a source as columns of float32.
RA, DEC, Q, PA, FLUXES = 0, 1, 2, 3, 6
SHARES = FLUXES + MAXBANDS
D_RHALF, D_SERSIC = SHARES + MAXRADII, SHARES + 2 * MAXRADII

# Columns of the tables of Gaussians: what moments are turned into slopes with, in double ...
X, Y, L11, L21, L22, HEIGHT, COUNTS, REACH_X, REACH_Y, N_WIDE = range(10)
# ... and what pixels are compared with: counts times height times (1 + (v.v - tr F) / 24).
ONE, P_XX, P_XY, P_YY, N_NARROW = range(5)

SCALE = math.sqrt(0.5 * math.log2(math.e))
FARTHEST = np.float32(-MAX_EXP_ARG * SCALE * SCALE)
REACH = 1.000001 * math.sqrt(MAX_EXP_ARG)
"""Standard deviations that a Gaussian reaches, and a little for rounding."""

# Numba's float() leaves single precision as it is: np.float64() does not.
# Added to a float32 it leaves the nearest integer in the lowest bits.
_TO_INTEGER = np.float32(1.5 * 2**23)
# 2**f for f within -0.5 to 0.5, to 8e-8 of itself.
_E0, _E1, _E2 = np.float32(1.00000007), np.float32(0.69314695), np.float32(0.24022122)
_E3, _E4, _E5 = np.float32(0.05550743), np.float32(0.00967546), np.float32(0.0013267)

# No reordering here: it would undo the rounding by `_TO_INTEGER`. NaN stays NaN.
_EXACT = {"contract", "nsz"}
_REORDERED = {"contract", "nsz", "reassoc"}


@compiled(_EXACT)
def _exp2(t: Any) -> Any:
    """Give 2 to the power of t from -26 to 0, and 0 below."""
    z = np.float32(t + _TO_INTEGER)
    f = t - (z - _TO_INTEGER)
    y = np.float32(_E0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * _E5)))))
    bits = np.int32(y.view(np.int32) + (z.view(np.int32) << 23))
    return bits.view(np.float32) if t >= FARTHEST else np.float32(0)


@compiled(_EXACT)
def _base(wide: Any, x: float, y: float) -> Any:
    """Give P at a place, rounded once, and how it grows along x and y."""
    l11, l21, l22 = SCALE * wide[L11], SCALE * wide[L21], SCALE * wide[L22]
    dx, dy = x - wide[X], y - wide[Y]
    px, py = np.float32(l11 * dx + l21 * dy), np.float32(l22 * dy)
    return px, py, np.float32(l11), np.float32(l21), np.float32(l22)


@compiled(_EXACT)
def _render(
    near: Any,
    wide: Any,
    narrow: Any,
    x: float,
    y: float,
    rows: Any,
    columns: Any,
    E: Any,
    model: Any,
) -> None:
    """Add Gaussians to the model of a super-pixel; keep their exponentials."""
    for i in range(len(near)):
        px, py, ax, bx, by = _base(wide[near[i]], x, y)
        k = narrow[near[i]]
        one, k_xx, k_xy, k_yy = k[ONE], k[P_XX], k[P_XY], k[P_YY]
        kept = E[i]
        for lane in range(LANES):
            v = py + by * columns[lane]
            u = px + ax * rows[lane] + bx * columns[lane]
            vv = v * v
            constant, linear = one + k_yy * vv, k_xy * v
            for step in range(4):
                p = u + np.float32(2 * step) * ax
                e = _exp2(-(vv + p * p))
                kept[step * LANES + lane] = e
                model[step * LANES + lane] += e * (constant + p * (linear + k_xx * p))


@compiled(_EXACT)
def _gather(
    near: Any,
    wide: Any,
    x: float,
    y: float,
    rows: Any,
    columns: Any,
    E: Any,
    weight: Any,
    sums: Any,
) -> None:
    """Add the moments of weight times exponential over a super-pixel to those of each Gaussian."""
    for i in range(len(near)):
        px, py, ax, bx, by = _base(wide[near[i]], x, y)
        kept = E[i]
        to = sums[near[i] * (MOMENTS * LANES) : (near[i] + 1) * (MOMENTS * LANES)]
        for lane in range(LANES):
            v = py + by * columns[lane]
            u = px + ax * rows[lane] + bx * columns[lane]
            s0 = s1 = s2 = s3 = s4 = np.float32(0)
            for step in range(4):
                p = u + np.float32(2 * step) * ax
                f = weight[step * LANES + lane] * kept[step * LANES + lane]
                s0 += f
                f *= p
                s1 += f
                f *= p
                s2 += f
                f *= p
                s3 += f
                f *= p
                s4 += f
            to[lane] += s0
            to[1 * LANES + lane] += s1
            to[2 * LANES + lane] += s2
            to[3 * LANES + lane] += s3
            to[4 * LANES + lane] += s4
            s0, s1, s2, s3 = s0 * v, s1 * v, s2 * v, s3 * v
            to[5 * LANES + lane] += s0
            to[6 * LANES + lane] += s1
            to[7 * LANES + lane] += s2
            to[8 * LANES + lane] += s3
            s0, s1, s2 = s0 * v, s1 * v, s2 * v
            to[9 * LANES + lane] += s0
            to[10 * LANES + lane] += s1
            to[11 * LANES + lane] += s2
            s0, s1 = s0 * v, s1 * v
            to[12 * LANES + lane] += s0
            to[13 * LANES + lane] += s1
            to[14 * LANES + lane] += s0 * v


@compiled(_EXACT)
def _render_anywhere(
    near: Any, wide: Any, narrow: Any, x: float, y: float, dx: Any, dy: Any, E: Any, model: Any
) -> None:
    """Do as `_render` for pixels at any offsets from x, y."""
    for i in range(len(near)):
        px, py, ax, bx, by = _base(wide[near[i]], x, y)
        k = narrow[near[i]]
        one, k_xx, k_xy, k_yy = k[ONE], k[P_XX], k[P_XY], k[P_YY]
        kept = E[i]
        for j in range(PIXELS):
            u, v = px + ax * dx[j] + bx * dy[j], py + by * dy[j]
            e = _exp2(-(v * v + u * u))
            kept[j] = e
            model[j] += e * (one + k_yy * (v * v) + u * (k_xy * v + k_xx * u))


@compiled(_EXACT)
def _gather_anywhere(
    near: Any, wide: Any, x: float, y: float, dx: Any, dy: Any, E: Any, weight: Any, sums: Any
) -> None:
    """Do as `_gather` for pixels at any offsets from x, y."""
    for i in range(len(near)):
        px, py, ax, bx, by = _base(wide[near[i]], x, y)
        first = near[i] * (MOMENTS * LANES)
        for step in range(PIXELS // LANES):
            for lane in range(LANES):
                j = step * LANES + lane
                u, v = px + ax * dx[j] + bx * dy[j], py + by * dy[j]
                row = weight[j] * E[i, j]
                number = 0
                for power in range(5):
                    f = row
                    for _ in range(5 - power):
                        sums[first + number * LANES + lane] += f
                        f *= u
                        number += 1
                    row *= v


@compiled(_REORDERED)
def _total(values: Any) -> float:
    """Add single precision in double."""
    total = 0.0
    for i in range(len(values)):
        total += np.float64(values[i])
    return total


@compiled(_REORDERED)
def _compare(model: Any, data: Any, ierr: Any, weight: Any) -> float:
    """Set the slopes of chi2 by the model of each pixel, 0 beyond the last, and return chi2."""
    total = 0.0
    weight[len(model) :] = 0
    for j in range(len(model)):
        d, w = np.float64(data[j]), np.float64(ierr[j])
        r = d - model[j]
        # (r^2 - d^2) as a product: r and d are nearly equal in most pixels.
        total -= (model[j] * w) * ((r + d) * w)
        weight[j] = -2 * r * w * w
    return total


@compiled(_REORDERED)
def _is_superpixel(x: Any, y: Any, rows: Any, columns: Any) -> bool:
    """Whether 64 pixels lie as those of a super-pixel."""
    elsewhere = 0
    for j in range(PIXELS):
        elsewhere += int(x[j] != x[0] + rows[j]) + int(y[j] != y[0] + columns[j])
    return elsewhere == 0


@compiled(_EXACT)
def _shape(D: Any, q: float, pa: float, out: Any) -> None:
    """Set the covariance xx, xy, yy of a source of unit radius, its q and its pa derivative."""
    c, s = math.cos(pa), math.sin(pa)
    # D R S and its derivatives, column by column: R turns, S = diag(1/q, q) stretches.
    ax, ay = D[0, 0] * c + D[0, 1] * s, D[1, 0] * c + D[1, 1] * s
    bx, by = D[0, 1] * c - D[0, 0] * s, D[1, 1] * c - D[1, 0] * s
    long, wide = 1 / (q * q), q * q
    out[0] = long * ax * ax + wide * bx * bx
    out[1] = long * ax * ay + wide * bx * by
    out[2] = long * ay * ay + wide * by * by
    d_long, d_wide = -2 * long / q, 2 * q
    out[3] = d_long * ax * ax + d_wide * bx * bx
    out[4] = d_long * ax * ay + d_wide * bx * by
    out[5] = d_long * ay * ay + d_wide * by * by
    out[6] = 2 * (long - wide) * ax * bx
    out[7] = (long - wide) * (ax * by + ay * bx)
    out[8] = 2 * (long - wide) * ay * by


@compiled(_EXACT)
def _project(
    patch: Any,
    sources: Any,
    band: int,
    exposure: int,
    psf_per_source: bool,
    shapes: Any,
    wide: Any,
    narrow: Any,
) -> bool:
    """Put the sources on an exposure; False where one is no Gaussian: NaN, or of no radius."""
    D, CW, crpix, crval, G, rad2, psf, bins, psf_start, n_psf = patch
    sound = True
    for source in range(len(sources)):
        a = sources[source]
        east = np.float64(a[RA]) - np.float64(crval[exposure, source, 0])
        north = np.float64(a[DEC]) - np.float64(crval[exposure, source, 1])
        m = CW[exposure, source]
        x = (
            np.float64(crpix[exposure, source, 0])
            + np.float64(m[0, 0]) * east
            + np.float64(m[0, 1]) * north
        )
        y = (
            np.float64(crpix[exposure, source, 1])
            + np.float64(m[1, 0]) * east
            + np.float64(m[1, 1]) * north
        )
        shape = shapes[source]
        _shape(D[exposure, source].astype(np.float64), np.float64(a[Q]), np.float64(a[PA]), shape)
        flux = np.float64(G[exposure]) * np.float64(a[FLUXES + band])
        first = psf_start[exposure] + (source * n_psf[band] if psf_per_source else 0)
        for p in range(n_psf[band]):
            gaussian = psf[first + p]
            radius = bins[first + p]
            if radius < 0 or radius >= len(rad2):
                return False
            r2 = np.float64(rad2[radius])
            cxx = np.float64(gaussian[3]) + r2 * shape[0]
            cyy = np.float64(gaussian[4]) + r2 * shape[2]
            cxy = np.float64(gaussian[5]) + r2 * shape[1]
            det = cxx * cyy - cxy * cxy
            counts = flux * np.float64(gaussian[0]) * np.float64(a[SHARES + radius])
            w = wide[source * n_psf[band] + p]
            w[X], w[Y] = x + np.float64(gaussian[1]), y + np.float64(gaussian[2])
            w[L11], w[L22] = math.sqrt(cyy / det), math.sqrt(1 / cyy)
            w[L21] = -cxy / det / w[L11]
            w[HEIGHT] = math.sqrt(1 / det) / (2 * math.pi)
            w[COUNTS] = counts
            w[REACH_X], w[REACH_Y] = REACH * math.sqrt(cxx), REACH * math.sqrt(cyy)
            l11, l21, l22 = w[L11], w[L21], w[L22]
            k = narrow[source * n_psf[band] + p]
            peak, part = counts * w[HEIGHT], counts * w[HEIGHT] / (24 * SCALE * SCALE)
            k[ONE] = peak * (1 - (l11 * l11 + l21 * l21 + l22 * l22) / 24)
            k[P_XX] = part * (l11 * l11 + l21 * l21)
            k[P_XY] = part * (2 * l21 * l22)
            k[P_YY] = part * (l22 * l22)
            sound &= math.isfinite(k[ONE] + k[P_XX] + w[X] + w[Y])
    return sound


@compiled(_EXACT)
def _slopes(m: Any, w: Any, out: Any) -> None:
    """Turn moments into derivatives by counts, x, y, and by covariance xx, xy (once), yy."""
    l11, l21, l22, h = w[L11], w[L21], w[L22], w[HEIGHT]
    s1, s2 = 1 / SCALE, 1 / (SCALE * SCALE)
    s3, s4 = s1 * s2, s2 * s2
    k00, k10, k20, k30, k40 = h * m[0], h * s1 * m[1], h * s2 * m[2], h * s3 * m[3], h * s4 * m[4]
    k01, k11, k21, k31 = h * s1 * m[5], h * s2 * m[6], h * s3 * m[7], h * s4 * m[8]
    k02, k12, k22 = h * s2 * m[9], h * s3 * m[10], h * s4 * m[11]
    k03, k13, k04 = h * s3 * m[12], h * s4 * m[13], h * s4 * m[14]
    # v.v = a p_x^2 + 2 b p_x p_y + c p_y^2, the matrix being Q = L^t L, with the trace of F.
    a, b, c = l11 * l11 + l21 * l21, l21 * l22, l22 * l22
    one = 1 - (a + c) / 24
    n00 = one * k00 + (a * k20 + 2 * b * k11 + c * k02) / 24
    n10 = one * k10 + (a * k30 + 2 * b * k21 + c * k12) / 24
    n01 = one * k01 + (a * k21 + 2 * b * k12 + c * k03) / 24
    n20 = one * k20 + (a * k40 + 2 * b * k31 + c * k22) / 24
    n11 = one * k11 + (a * k31 + 2 * b * k22 + c * k13) / 24
    n02 = one * k02 + (a * k22 + 2 * b * k13 + c * k04) / 24
    # As in fpgpu.likelihood.gaussians: shift = L (n - Q k / 12),
    # stretch = L ((N - n00) / 2 - (Q K + K Q - Q k00) / 24) L^t.
    x, y = n10 - (a * k10 + b * k01) / 12, n01 - (b * k10 + c * k01) / 12
    xx = (n20 - n00) / 2 - (2 * (a * k20 + b * k11) - a * k00) / 24
    xy = n11 / 2 - (a * k11 + b * k02 + b * k20 + c * k11 - b * k00) / 24
    yy = (n02 - n00) / 2 - (2 * (b * k11 + c * k02) - c * k00) / 24
    counts = w[COUNTS]
    out[0] = n00
    out[1], out[2] = counts * l11 * x, counts * (l21 * x + l22 * y)
    out[3] = counts * l11 * l11 * xx
    out[4] = counts * (l11 * l21 * xx + l11 * l22 * xy)
    out[5] = counts * (l21 * l21 * xx + 2 * l21 * l22 * xy + l22 * l22 * yy)


@compiled(_EXACT)
def _chain(
    patch: Any,
    sources: Any,
    band: int,
    exposure: int,
    psf_per_source: bool,
    shapes: Any,
    wide: Any,
    sums: Any,
    touched: Any,
    out: Any,
) -> None:
    """Apply the chain rule: from moments per Gaussian to the seven derivatives of each source."""
    _, CW, _, _, G, rad2, psf, bins, psf_start, n_psf = patch
    moments, slopes = np.empty(MOMENTS), np.empty(6)
    for source in range(len(sources)):
        a, shape, to = sources[source], shapes[source], out[source]
        flux = np.float64(a[FLUXES + band])
        first = psf_start[exposure] + (source * n_psf[band] if psf_per_source else 0)
        dx = dy = 0.0
        for p in range(n_psf[band]):
            g = source * n_psf[band] + p
            if not touched[g]:
                continue
            for number in range(MOMENTS):
                start = (g * MOMENTS + number) * LANES
                moments[number] = _total(sums[start : start + LANES])
            _slopes(moments, wide[g], slopes)
            radius = bins[first + p]
            by_share = np.float64(G[exposure]) * np.float64(psf[first + p, 0]) * slopes[0]
            to[0] += by_share * np.float64(a[SHARES + radius])
            to[5] += by_share * flux * np.float64(a[D_SERSIC + radius])
            to[6] += by_share * flux * np.float64(a[D_RHALF + radius])
            dx += slopes[1]
            dy += slopes[2]
            r2 = np.float64(rad2[radius])
            xx, xy, yy = r2 * slopes[3], 2 * r2 * slopes[4], r2 * slopes[5]
            to[3] += xx * shape[3] + xy * shape[4] + yy * shape[5]
            to[4] += xx * shape[6] + xy * shape[7] + yy * shape[8]
        m = CW[exposure, source]
        to[1] += dx * np.float64(m[0, 0]) + dy * np.float64(m[1, 0])
        to[2] += dx * np.float64(m[0, 1]) + dy * np.float64(m[1, 1])


@compiled(_EXACT)
def _find_near(
    wide: Any, low_x: float, high_x: float, low_y: float, high_y: float, near: Any
) -> int:
    """List the Gaussians that reach a rectangle."""
    n = 0
    for g in range(len(wide)):
        near[n] = g
        w = wide[g]
        n += int(
            (w[X] + w[REACH_X] >= low_x)
            & (w[X] - w[REACH_X] <= high_x)
            & (w[Y] + w[REACH_Y] >= low_y)
            & (w[Y] - w[REACH_Y] <= high_y)
        )
    return n


@compiled(_EXACT)
def _block() -> Any:
    """Make room for a value a pixel; rows of a larger array would not be known as contiguous."""
    return np.empty(PIXELS, np.float32)


@compiled(_EXACT)
def evaluate_works(
    works: Any,
    first: int,
    step: int,
    pixels: Any,
    residual: Any,
    patch: Any,
    batch: Any,
    psf_per_source: bool,
    chi2: Any,
    derivatives: Any,
) -> None:
    """Evaluate every `step`-th work from the `first` on, for all scenes of a batch.

    Parameters
    ----------
    works : ndarray of int64, shape (n_works, 4)
        Exposure, band, first pixel and number of pixels of each.
    first, step : int
        Numbers count through the scenes of the batch, and within one through the works.
    pixels : tuple of ndarray of float32, shape (n_pixels,)
        Data, ierr, xpix, ypix.
    residual : ndarray of float32, shape (n_pixels,) or (0,)
        Where to write residuals; of no size, they are not written.
    patch : tuple of ndarray
        D, CW, crpix, crval, G, rad2; PSF Gaussians as float32 (n, 7) and their radii as int32 (n,);
        psfgauss_start and n_psf_per_source.
    batch : ndarray of float32, shape (n_batch, n_sources, 66)
        The sources.
    psf_per_source : bool
        Whether each source has its own PSF, or all the first one's.
    chi2 : ndarray of float64, shape (n_batch, n_works)
        Set.
    derivatives : ndarray of float64, shape (n_batch, n_works, n_sources, 7)
        Added to.
    """
    data, ierr, xpix, ypix = pixels
    rows, columns = ROWS.copy(), COLUMNS.copy()  # as constants they would be unrolled
    n_sources = batch.shape[1]
    most = 1
    for i in range(len(works)):
        most = max(most, n_sources * patch[9][works[i, 1]])
    wide_all, narrow_all = np.empty((most, N_WIDE)), np.empty((most, N_NARROW), np.float32)
    shapes = np.empty((n_sources, 9))
    near_all, touched = np.empty(most, np.int64), np.zeros(most, np.bool_)
    E = np.empty((most, PIXELS), np.float32)
    sums = np.empty(most * MOMENTS * LANES, np.float32)
    model, part, weight = np.empty(PIXELS), _block(), _block()
    dx, dy = _block(), _block()
    for number in range(first, len(batch) * len(works), step):
        scene, work = number // len(works), number % len(works)
        exposure, band, start, count = works[work]
        n_gaussians = n_sources * patch[9][band]
        wide, narrow = wide_all[:n_gaussians], narrow_all[:n_gaussians]
        sound = _project(patch, batch[scene], band, exposure, psf_per_source, shapes, wide, narrow)
        if not sound:
            chi2[scene, work] = np.nan
            derivatives[scene, work] = np.nan
            if len(residual):
                residual[start : start + count] = np.nan
            continue
        touched[:n_gaussians] = False
        total = 0.0
        for begin in range(start, start + count, PIXELS):
            n = min(PIXELS, start + count - begin)
            here = slice(begin, begin + n)
            x, y, d, w = xpix[here], ypix[here], data[here], ierr[here]
            x0, y0 = np.float64(x[0]), np.float64(y[0])
            regular = n == PIXELS and _is_superpixel(x, y, rows, columns)
            if regular:
                near = near_all[: _find_near(wide, x0, x0 + 7, y0, y0 + 7, near_all)]
            else:
                near = near_all[: _find_near(wide, x.min(), x.max(), y.min(), y.max(), near_all)]
            for i in range(len(near)):
                if not touched[near[i]]:
                    touched[near[i]] = True
                    at = near[i] * (MOMENTS * LANES)
                    sums[at : at + MOMENTS * LANES] = 0
            if not regular:
                dx[:], dy[:] = 0, 0
                dx[:n], dy[:n] = x - x[0], y - y[0]
            model[:] = 0
            for one in range(0, len(near), AT_ONCE):
                some, kept = near[one : one + AT_ONCE], E[one : one + AT_ONCE]
                part[:] = 0
                if regular:
                    _render(some, wide, narrow, x0, y0, rows, columns, kept, part)
                else:
                    _render_anywhere(some, wide, narrow, x0, y0, dx, dy, kept, part)
                for j in range(PIXELS):
                    model[j] += part[j]
            total += _compare(model[:n], d, w, weight)
            if len(residual):
                for j in range(n):
                    residual[begin + j] = d[j] - model[j]
            if regular:
                _gather(near, wide, x0, y0, rows, columns, E, weight, sums)
            else:
                _gather_anywhere(near, wide, x0, y0, dx, dy, E, weight, sums)
        chi2[scene, work] = total
        _chain(
            patch,
            batch[scene],
            band,
            exposure,
            psf_per_source,
            shapes,
            wide,
            sums,
            touched,
            derivatives[scene, work],
        )


@compiled(_EXACT)
def add_up(works: Any, chi2: Any, derivatives: Any, chi2_out: Any, derivatives_out: Any) -> None:
    """Add what works have found, in their order, to the zeros of each band."""
    n_sources = derivatives.shape[2]
    for scene in range(len(chi2)):
        slopes = np.zeros((chi2_out.shape[1], n_sources, NPARAMS))
        for work in range(len(works)):
            band = works[work, 1]
            chi2_out[scene, band] += chi2[scene, work]
            for source in range(n_sources):
                for k in range(NPARAMS):
                    slopes[band, source, k] += derivatives[scene, work, source, k]
        derivatives_out[scene] = slopes
