"""The kernels of :mod:`matcher.kernels`, compiled by Numba; tests hold the two together.

Every function releases the GIL and keeps no state. Coordinates are pixels at 500 ppi with y *up*
(templates are recorded y down and turned over once, in :mod:`matcher.compare`), angles are radians
counter-clockwise. The compiled code is cached beside the package, so only the first start on a
machine pays for compilation.

Numba notices a change of this file, not of the constants imported from ``kernels.py``, which are
compiled in: save this file, too, when one of them changes. :class:`matcher.kernels.Parameters` are
arguments and need no such care.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np

from matcher.kernels import (
    BETTER,
    BUMP_REACH,
    DESCRIPTOR_LENGTH,
    DIMENSION,
    HULL_MARGIN_PX,
    HULL_SOFTNESS_PX,
    MAX_CANDIDATES,
    MAX_MINUTIAE,
    PAIR_CUT,
    PLACE_RADII_PX,
    PLACES,
    PLACES_A_RING,
    REACH_PX,
    SECTORS,
    TURNS,
    VOTE_CUT,
    VOTE_UNITS,
    polar_table,
)

_POLAR = polar_table()
_TWO_PI = 2.0 * math.pi

_jit: Any = nb.njit(cache=True, nogil=True, error_model="numpy")
# Sums may be reordered by the compiler (the order it picks is the same in every call), NaN may not.
_jit_sums: Any = nb.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"}
)


@_jit
def _first_from(rising, n, least):  # type: ignore[no-untyped-def]
    """The first of ``n`` rising values that is not below ``least``; ``n`` if there is none."""
    lo = 0
    hi = n
    while lo < hi:
        mid = (lo + hi) >> 1
        if rising[mid] < least:
            lo = mid + 1
        else:
            hi = mid
    return lo


@_jit
def convex_hull(x, y):  # type: ignore[no-untyped-def]
    n = x.shape[0]
    order = np.argsort(x, kind="mergesort")
    # lexicographic: insertion by y among equal x
    for a in range(1, n):
        b = a
        while b > 0 and x[order[b - 1]] == x[order[b]] and y[order[b - 1]] > y[order[b]]:
            order[b - 1], order[b] = order[b], order[b - 1]
            b -= 1
    hull = np.empty(2 * n + 2, np.int64)
    k = 0
    for a in range(n):
        i = order[a]
        while k >= 2 and _turn(x, y, hull[k - 2], hull[k - 1], i) <= 0.0:
            k -= 1
        hull[k] = i
        k += 1
    floor = k + 1
    for a in range(n - 2, -1, -1):
        i = order[a]
        while k >= floor and _turn(x, y, hull[k - 2], hull[k - 1], i) <= 0.0:
            k -= 1
        hull[k] = i
        k += 1
    return hull[: max(k - 1, 1)].copy()


@_jit
def kept(x, y, best_first, spacing, most):  # type: ignore[no-untyped-def]
    """Of rows from best to worst, those further than ``spacing`` from every better one kept."""
    rows = np.empty(min(most, best_first.shape[0]), np.int64)
    count = 0
    for row in best_first:
        alone = True
        for k in range(count):
            dx = x[row] - x[rows[k]]
            dy = y[row] - y[rows[k]]
            if dx * dx + dy * dy < spacing * spacing:
                alone = False
                break
        if alone:
            rows[count] = row
            count += 1
            if count == most:
                break
    return rows[:count].copy()


@_jit
def _before(a, b, first, second, third, fourth, fifth):  # type: ignore[no-untyped-def]
    """Whether row a comes before row b by five columns, one after the other."""
    if first[a] != first[b]:
        return first[a] < first[b]
    if second[a] != second[b]:
        return second[a] < second[b]
    if third[a] != third[b]:
        return third[a] < third[b]
    if fourth[a] != fourth[b]:
        return fourth[a] < fourth[b]
    return fifth[a] < fifth[b]


@_jit
def _sorted_rows(rows, first, second, third, fourth, fifth):  # type: ignore[no-untyped-def]
    """Insertion sort, in place and stable: there are a few dozen rows."""
    for a in range(1, rows.shape[0]):
        row = rows[a]
        b = a
        while b > 0 and _before(row, rows[b - 1], first, second, third, fourth, fifth):
            rows[b] = rows[b - 1]
            b -= 1
        rows[b] = row


@_jit
def best_first(x, y, angle, quality):  # type: ignore[no-untyped-def]
    """Rows by falling quality, then distance from the middle of them all, x, y and angle."""
    m = x.shape[0]
    worst = np.empty(m, np.int64)
    off_centre = np.empty(m, np.int64)
    middle_x = np.sort(x)[(m - 1) // 2]
    middle_y = np.sort(y)[(m - 1) // 2]
    for i in range(m):
        worst[i] = -np.int64(quality[i])
        off_centre[i] = (x[i] - middle_x) ** 2 + (y[i] - middle_y) ** 2
    rows = np.arange(m)
    _sorted_rows(rows, worst, off_centre, x, y, angle)
    return rows


@_jit
def in_canonical_order(rows, x, y, angle):  # type: ignore[no-untyped-def]
    """The same rows by x, y and angle."""
    ordered = rows.copy()
    _sorted_rows(ordered, x, y, angle, angle, angle)
    return ordered


@_jit
def hull_area(x, y):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.hull_area`, of the convex hull of these minutiae."""
    return _area(x, y, convex_hull(x, y))


@_jit
def self_likeness(descriptors):  # type: ignore[no-untyped-def]
    """Mean inner product of different minutiae's descriptors, two at least."""
    m, d = descriptors.shape
    of_sum = np.int64(0)
    own = np.int64(0)
    for c in range(d):
        total = np.int64(0)
        for i in range(m):
            v = np.int64(descriptors[i, c])
            total += v
            own += v * v
        of_sum += total * total
    return (of_sum - own) / (m * (m - 1))


@_jit
def narrow_spread(x, y):  # type: ignore[no-untyped-def]
    """Standard deviation across the narrow axis: root of the smaller eigenvalue."""
    n = x.shape[0]
    mx = 0.0
    my = 0.0
    for i in range(n):
        mx += x[i] / n
        my += y[i] / n
    xx = 0.0
    yy = 0.0
    xy = 0.0
    for i in range(n):
        xx += (x[i] - mx) ** 2 / (n - 1)
        yy += (y[i] - my) ** 2 / (n - 1)
        xy += (x[i] - mx) * (y[i] - my) / (n - 1)
    smaller = 0.5 * (xx + yy) - math.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
    return math.sqrt(max(smaller, 0.0))


@_jit
def _turn(x, y, a, b, c):  # type: ignore[no-untyped-def]
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])


@_jit
def _edges(x, y, hull, nx, ny, nc):  # type: ignore[no-untyped-def]
    """Outward unit normals and offsets of a hull's edges; how many there are."""
    edges = 0
    h = hull.shape[0]
    for a in range(h):
        b = a + 1 if a + 1 < h else 0
        ex = x[hull[b]] - x[hull[a]]
        ey = y[hull[b]] - y[hull[a]]
        length = math.sqrt(ex * ex + ey * ey)
        if length < 1e-6:
            continue
        nx[edges] = ey / length
        ny[edges] = -ex / length
        nc[edges] = (ey * x[hull[a]] - ex * y[hull[a]]) / length
        edges += 1
    return edges


@_jit
def _area(x, y, hull):  # type: ignore[no-untyped-def]
    twice = 0.0
    for a in range(hull.shape[0]):
        b = a + 1 if a + 1 < hull.shape[0] else 0
        twice += x[hull[a]] * y[hull[b]] - x[hull[b]] * y[hull[a]]
    return 0.5 * twice


@_jit
def _wrapped(angle):  # type: ignore[no-untyped-def]
    return angle - _TWO_PI * math.floor(angle / _TWO_PI + 0.5)


@_jit_sums
def _exp(v):  # type: ignore[no-untyped-def]
    """exp for v within 20 of 0, to 1e-5; without a call, so that loops over it vectorise."""
    z = v * np.float32(1.0 / 64.0)
    t = np.float32(1.0 / 720.0)
    t = t * z + np.float32(1.0 / 120.0)
    t = t * z + np.float32(1.0 / 24.0)
    t = t * z + np.float32(1.0 / 6.0)
    t = t * z + np.float32(0.5)
    t = t * z + np.float32(1.0)
    t = t * z + np.float32(1.0)
    t = t * t
    t = t * t
    t = t * t
    t = t * t
    t = t * t
    return t * t


@_jit_sums
def _seen(cx, cy, edges, nx, ny, nc, out):  # type: ignore[no-untyped-def]
    """Weight of places by how far they lie outside the hull's edges."""
    softness = np.float32(1.0 / HULL_SOFTNESS_PX)
    for c in range(cx.shape[0]):
        out[c] = np.float32(-1e9)
    for e in range(edges):
        a = nx[e]
        b = ny[e]
        o = nc[e]
        for c in range(cx.shape[0]):
            out[c] = max(out[c], a * cx[c] + b * cy[c] - o)
    for c in range(cx.shape[0]):
        v = (out[c] - np.float32(HULL_MARGIN_PX)) * softness
        v = min(max(v, np.float32(-20.0)), np.float32(20.0))
        out[c] = np.float32(1.0) / (np.float32(1.0) + _exp(v))


@_jit
def seen_places(x, y, angle, hull, out):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.seen_places`; into (M, PLACES) float32, whole numbers."""
    unit = _TWO_PI / 256.0
    normals = np.empty((3, hull.shape[0]), np.float32)
    edges = _edges(x, y, hull, normals[0], normals[1], normals[2])
    gx = np.empty(PLACES, np.float32)
    gy = np.empty(PLACES, np.float32)
    for p in range(len(PLACE_RADII_PX)):
        for q in range(PLACES_A_RING):
            gx[p * PLACES_A_RING + q] = PLACE_RADII_PX[p] * math.cos(_TWO_PI * q / PLACES_A_RING)
            gy[p * PLACES_A_RING + q] = PLACE_RADII_PX[p] * math.sin(_TWO_PI * q / PLACES_A_RING)
    cx = np.empty(PLACES, np.float32)
    cy = np.empty(PLACES, np.float32)
    seen = np.empty(PLACES, np.float32)
    for i in range(x.shape[0]):
        co = np.float32(math.cos(angle[i] * unit))
        si = np.float32(math.sin(angle[i] * unit))
        for c in range(PLACES):
            cx[c] = x[i] + co * gx[c] - si * gy[c]
            cy[c] = y[i] + si * gx[c] + co * gy[c]
        if edges > 0:
            _seen(cx, cy, edges, normals[0], normals[1], normals[2], seen)
        else:
            for c in range(PLACES):
                d = math.sqrt((cx[c] - x[hull[0]]) ** 2 + (cy[c] - y[hull[0]]) ** 2)
                seen[c] = 1.0 / (1.0 + math.exp((d - HULL_MARGIN_PX) / HULL_SOFTNESS_PX))
        for c in range(PLACES):
            out[i, c] = np.float32(np.rint(np.float32(255.0) * seen[c]))


@_jit
def _add_cell(total, cell):  # type: ignore[no-untyped-def]
    for c in range(total.shape[0]):
        total[c] += np.int16(cell[c])


@_jit_sums
def _layer(values, weights, bias, out):  # type: ignore[no-untyped-def]
    """``values @ weights.T + bias`` of four minutiae, two outputs at a time.

    Eight sums share what is read: weights do not fit a core's nearest cache.

    Args:
        values: (4, F), weights: (H, F), bias: (H,), out: (4, H); float32, H even.
    """
    h, f = weights.shape
    for j in range(0, h, 2):
        a0 = np.float32(0.0)
        b0 = np.float32(0.0)
        c0 = np.float32(0.0)
        d0 = np.float32(0.0)
        a1 = np.float32(0.0)
        b1 = np.float32(0.0)
        c1 = np.float32(0.0)
        d1 = np.float32(0.0)
        for k in range(f):
            w0 = weights[j, k]
            w1 = weights[j + 1, k]
            a = values[0, k]
            b = values[1, k]
            c = values[2, k]
            d = values[3, k]
            a0 += a * w0
            b0 += b * w0
            c0 += c * w0
            d0 += d * w0
            a1 += a * w1
            b1 += b * w1
            c1 += c * w1
            d1 += d * w1
        out[0, j] = a0 + bias[j]
        out[1, j] = b0 + bias[j]
        out[2, j] = c0 + bias[j]
        out[3, j] = d0 + bias[j]
        out[0, j + 1] = a1 + bias[j + 1]
        out[1, j + 1] = b1 + bias[j + 1]
        out[2, j + 1] = c1 + bias[j + 1]
        out[3, j + 1] = d1 + bias[j + 1]


@_jit
def _cell(xi, yi, ai, xj, yj, aj):  # type: ignore[no-untyped-def]
    """The cell in which minutia i sees minutia j, -1 out of reach."""
    dx = np.int64(xj - xi)
    dy = np.int64(yj - yi)
    if dx > REACH_PX or dx < -REACH_PX or dy > REACH_PX or dy < -REACH_PX:
        return -1
    polar = _POLAR[dy + REACH_PX, dx + REACH_PX]
    if polar < 0:
        return -1
    sector = (((polar - np.int64(ai) + 128 // SECTORS) & 255) * SECTORS) >> 8
    turn = (((np.int64(aj) - np.int64(ai) + 128 // TURNS) & 255) * TURNS) >> 8
    return ((polar >> 8) * SECTORS + sector) * TURNS + turn


@_jit
def surroundings(x, y, angle):  # type: ignore[no-untyped-def]
    """:func:`matcher.kernels.neighbour_cells` one behind the other, where each minutia's start,
    and :func:`matcher.kernels.seen_places`."""
    m = x.shape[0]
    xf = x.astype(np.float32)
    yf = y.astype(np.float32)
    cells = np.empty(m * m, np.int64)
    starts = np.zeros(m + 1, np.int64)
    count = 0
    for i in range(m):
        for j in range(m):
            cell = _cell(xf[i], yf[i], angle[i], xf[j], yf[j], angle[j])
            if cell >= 0:
                cells[count] = cell
                count += 1
        starts[i + 1] = count
    seen = np.empty((m, PLACES), np.float32)
    seen_places(xf, yf, angle, convex_hull(xf, yf).astype(np.uint8), seen)
    return cells[:count].copy(), starts, seen


@_jit
def _rectified(units, total, gain):  # type: ignore[no-untyped-def]
    """Units from 0 to 255 of their sums; products of whole numbers are exact in float64."""
    for c in range(units.shape[0]):
        v = np.float64(total[c]) * 256.0 + np.float64(units[c])
        units[c] = np.float32(min(np.floor(max(v, 0.0) * gain), 255.0))


@_jit
def describe(x, y, angle, hull, cells, places, bias, gain, last, last_bias):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.describe`: descriptors of minutiae with a hull, (M, D) int8.

    Weights behind the cells, and biases, are float32, whole numbers all the same.
    """
    m = x.shape[0]
    width = cells.shape[1]
    out = np.empty((m, DIMENSION), np.int8)
    seen = np.zeros((m + 3, PLACES), np.float32)
    seen_places(x, y, angle, hull, seen)
    total = np.empty(width, np.int16)
    units = np.zeros((4, width), np.float32)
    vectors = np.zeros((4, DIMENSION), np.float32)
    for start in range(0, m, 4):
        count = min(4, m - start)
        _layer(seen[start : start + 4], places, bias, units)
        for r in range(count):
            i = start + r
            total[:] = 0
            for j in range(m):
                cell = _cell(x[i], y[i], angle[i], x[j], y[j], angle[j])
                if cell >= 0:
                    _add_cell(total, cells[cell])
            _rectified(units[r], total, gain * (1.0 / (1 << 24)))
        _layer(units, last, last_bias, vectors)
        for r in range(count):
            square = 0.0
            for c in range(DIMENSION):
                square += np.float64(vectors[r, c]) * np.float64(vectors[r, c])
            scale = DESCRIPTOR_LENGTH / math.sqrt(max(square, 1.0))
            for c in range(DIMENSION):
                v = np.rint(np.float64(vectors[r, c]) * scale)
                out[start + r, c] = np.int8(min(max(v, -127.0), 127.0))
    return out


@_jit_sums
def _likeness(first, second, unit, products, out):  # type: ignore[no-untyped-def]
    """Inner products of int16 descriptors times ``unit`` into ``out[:m, :n]``."""
    n = second.shape[0]
    for i in range(first.shape[0]):
        # Whole numbers first: with the conversion in one loop LLVM gives up vector registers.
        for j in range(n):
            s = np.int32(0)
            for k in range(DIMENSION):
                s += np.int32(first[i, k]) * np.int32(second[j, k])
            products[j] = s
        for j in range(n):
            out[i, j] = np.float32(products[j]) * unit


@_jit_sums
def _mate_weights(alike, m, n, no_mate, weight, rows, columns):  # type: ignore[no-untyped-def]
    """:func:`matcher.kernels.mate_weights` from ``alike[:m, :n]`` into ``weight``."""
    floor = np.float32(math.exp(no_mate))
    columns[:n] = floor
    for i in range(m):
        a = alike[i]
        e = weight[i]
        total = floor
        for j in range(n):
            t = _exp(a[j])
            e[j] = t
            columns[j] += t
            total += t
        rows[i] = np.float32(1.0) / math.sqrt(total)
    for j in range(n):
        columns[j] = np.float32(1.0) / math.sqrt(columns[j])
    for i in range(m):
        e = weight[i]
        r = rows[i]
        for j in range(n):
            e[j] *= r * columns[j]


@_jit
def mate_weights(dp, dr, scale, no_mate):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.mate_weights`."""
    m = dp.shape[0]
    n = dr.shape[0]
    alike = np.empty((m, n), np.float32)
    weight = np.empty((m, n), np.float32)
    products = np.empty(n, np.int32)
    _likeness(dp.astype(np.int16), dr.astype(np.int16), np.float32(scale), products, alike)
    _mate_weights(alike, m, n, no_mate, weight, np.empty(m, np.float32), np.empty(n, np.float32))
    return alike, weight


@_jit
def _candidates(weight, m, n, columns, best):  # type: ignore[no-untyped-def]
    """The best columns of each row and their weights, (MAX_CANDIDATES, >= m), best first.

    Missing ones have weight 0 and column 0. Equal weights rank by lower column.
    """
    for i in range(m):
        row = weight[i]
        w0 = np.float32(0.0)
        w1 = np.float32(0.0)
        w2 = np.float32(0.0)
        k0 = 0
        k1 = 0
        k2 = 0
        for j in range(n):
            w = row[j]
            if w > w2:
                if w > w1:
                    w2 = w1
                    k2 = k1
                    if w > w0:
                        w1 = w0
                        k1 = k0
                        w0 = w
                        k0 = j
                    else:
                        w1 = w
                        k1 = j
                else:
                    w2 = w
                    k2 = j
        columns[0, i] = k0
        columns[1, i] = k1
        columns[2, i] = k2
        best[0, i] = w0
        best[1, i] = w1
        best[2, i] = w2


@_jit
def candidate_pairs(weight):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.candidate_pairs`; (MAX_CANDIDATES, M) each."""
    m, n = weight.shape
    columns = np.empty((MAX_CANDIDATES, m), np.int32)
    best = np.empty((MAX_CANDIDATES, m), np.float32)
    _candidates(weight, m, n, columns, best)
    return columns, best


@_jit
def _workspace():  # type: ignore[no-untyped-def]
    """Scratch memory of one comparison after the other."""
    size = MAX_MINUTIAE
    return (
        np.empty((size, size), np.float32),  # alike
        np.empty((size, size), np.float32),  # weight
        np.empty((MAX_CANDIDATES, size), np.int32),  # candidates' columns
        np.empty((MAX_CANDIDATES, size), np.float32),  # their weights
        np.empty((3 * MAX_CANDIDATES, size), np.float32),  # their places and turns
        np.empty((24, size), np.float32),  # vectors over minutiae, pairs or edges
        np.empty((4, size), np.int32),  # rows of pairs, mates, mates before
        np.empty(size, np.bool_),  # taken
        np.empty(size * size, np.int32),  # pairs within reach: rows
        np.empty(size * size, np.int32),  # columns
        np.empty(size * size, np.float32),  # evidence
    )


@_jit_sums
def _votes(m, xp, yp, cx, cy, ct, cw, x0, y0, u0, v0, co, si, rotation, P):  # type: ignore[no-untyped-def]
    """Votes for the motion that lays (x0, y0) on (u0, v0), turning by ``rotation``."""
    vote2 = np.float32(P.vote_px * P.vote_px)
    slope2 = np.float32(P.vote_slope * P.vote_slope)
    per_turn = np.float32(1.0 / P.vote_angle)
    quarter = np.float32(1.0 / VOTE_CUT)
    turn = np.float32(_TWO_PI)
    inverse = np.float32(1.0 / _TWO_PI)
    zero = np.float32(0.0)
    total = np.float32(0.0)
    for i in range(m):
        dx = xp[i] - x0
        dy = yp[i] - y0
        slack = np.float32(1.0) / (vote2 + slope2 * (dx * dx + dy * dy))
        ax = u0 + (co * dx - si * dy)
        ay = v0 + (si * dx + co * dy)
        best = zero
        for r in range(MAX_CANDIDATES):
            ex = cx[r, i] - ax
            ey = cy[r, i] - ay
            a = ct[r, i] - rotation
            a = (a - turn * np.floor(a * inverse + np.float32(0.5))) * per_turn
            v = (ex * ex + ey * ey) * slack + a * a
            u = max(np.float32(1.0) - v * quarter, zero)
            best = max(best, cw[r, i] * u * u)
        total += best
    return total


@_jit
def _proposals(m, xp, yp, cx, cy, ct, cw, P, order_weight, order, votes, proposal):  # type: ignore[no-untyped-def]
    """The best supported motions; candidates are numbered ``MAX_CANDIDATES * i + r``."""
    kept = 0
    limit = min(P.proposals, MAX_MINUTIAE)
    for i in range(m):
        for r in range(MAX_CANDIDATES):
            w = cw[r, i]
            if w <= 0.0 or (kept == limit and w <= order_weight[kept - 1]):
                break
            k = kept if kept < limit else kept - 1
            while k > 0 and w > order_weight[k - 1]:
                order_weight[k] = order_weight[k - 1]
                order[k] = order[k - 1]
                k -= 1
            order_weight[k] = w
            order[k] = MAX_CANDIDATES * i + r
            kept = min(kept + 1, limit)
    for h in range(P.motions):
        votes[h] = 0.0
        proposal[h] = -1
    for s in range(kept):
        i = order[s] // MAX_CANDIDATES
        r = order[s] % MAX_CANDIDATES
        rotation = ct[r, i]
        if abs(rotation) > P.max_rotation:
            continue
        co = np.float32(math.cos(rotation))
        si = np.float32(math.sin(rotation))
        total = _votes(
            m, xp, yp, cx, cy, ct, cw, xp[i], yp[i], cx[r, i], cy[r, i], co, si, rotation, P
        )
        k = P.motions - 1
        if total > votes[k]:
            while k > 0 and total > votes[k - 1]:
                votes[k] = votes[k - 1]
                proposal[k] = proposal[k - 1]
                k -= 1
            votes[k] = total
            proposal[k] = order[s]


@_jit_sums
def _fit_motion(used, ax, ay, bx, by, turn, weight, lever):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.fit_motion`; pair by pair."""
    sw = np.float32(0.0)
    sx = np.float32(0.0)
    sy = np.float32(0.0)
    ux = np.float32(0.0)
    uy = np.float32(0.0)
    for q in range(used):
        w = weight[q]
        sw += w
        sx += w * ax[q]
        sy += w * ay[q]
        ux += w * bx[q]
        uy += w * by[q]
    if sw <= 0.0:
        return 0.0, 0.0, 0.0
    sx /= sw
    sy /= sw
    ux /= sw
    uy /= sw
    dot = np.float32(0.0)
    cross = np.float32(0.0)
    for q in range(used):
        w = weight[q]
        px = ax[q] - sx
        py = ay[q] - sy
        qx = bx[q] - ux
        qy = by[q] - uy
        dot += w * (px * qx + py * qy)
        cross += w * (px * qy - py * qx)
    level = np.float32(0.0)
    steep = np.float32(0.0)
    for q in range(used):
        level += weight[q] * math.cos(turn[q])
        steep += weight[q] * math.sin(turn[q])
    rotation = math.atan2(cross + lever * steep, dot + lever * level)
    co = math.cos(rotation)
    si = math.sin(rotation)
    return rotation, ux - (co * sx - si * sy), uy - (si * sx + co * sy)


@_jit_sums
def _field(m, px, py, used, qx, qy, rx, ry, weight, fi, prior, inverse, fx, fy, sums):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.distortion`: pairs moved to (qx, qy) miss by (rx, ry)."""
    one = np.float32(1.0)
    zero = np.float32(0.0)
    for i in range(m):
        total = prior
        gx = zero
        gy = zero
        x = px[i]
        y = py[i]
        for q in range(used):
            dx = qx[q] - x
            dy = qy[q] - y
            u = max(one - (dx * dx + dy * dy) * inverse, zero)
            u2 = u * u
            w = weight[q] * u2 * u2
            total += w
            gx += w * rx[q]
            gy += w * ry[q]
        fx[i] = gx
        fy[i] = gy
        sums[i] = total
    # A minutia's own residual has no say.
    for q in range(used):
        i = fi[q]
        sums[i] -= weight[q]
        fx[i] -= weight[q] * rx[q]
        fy[i] -= weight[q] * ry[q]
    for i in range(m):
        fx[i] /= sums[i]
        fy[i] /= sums[i]


@_jit_sums
def _largest(values, m, n):  # type: ignore[no-untyped-def]
    largest = np.float32(0.0)
    for i in range(m):
        row = values[i]
        for j in range(n):
            largest = max(largest, row[j])
    return largest


@_jit
def _pair_up(m, n, px, py, pa, xr, yr, ar, alike, likest, sigma, P, li, lj, ll, mates, taken, won):  # type: ignore[no-untyped-def]  # fmt: skip
    """One-to-one pairing by falling evidence; ties by probe, then reference row.

    Reference minutiae come by rising x, so those within reach are neighbours in the list.
    """
    found = 0
    # Beyond this squared deviation there is no evidence left whatever the descriptors say.
    limit = min(
        PAIR_CUT, (P.pair_bias + P.descriptor_weight * likest) / (0.5 * P.geometry_weight) + 1e-3
    )
    reach = np.float32(math.sqrt(limit) * sigma)
    reach2 = np.float32(limit * sigma * sigma)
    precision = np.float32(1.0 / (sigma * sigma))
    per_turn = np.float32(1.0 / P.pair_angle)
    half = np.float32(0.5 * P.geometry_weight)
    bias = np.float32(P.pair_bias)
    weight = np.float32(P.descriptor_weight)
    turn = np.float32(_TWO_PI)
    inverse = np.float32(1.0 / _TWO_PI)
    cut = np.float32(PAIR_CUT)
    for i in range(m):
        mates[i] = -1
        won[i] = 0.0
        x = px[i]
        y = py[i]
        lo = _first_from(xr, n, x - reach)
        for j in range(lo, n):
            ex = xr[j] - x
            if ex > reach:
                break
            ey = yr[j] - y
            d2 = ex * ex + ey * ey
            if d2 < reach2:
                a = ar[j] - pa[i]
                a = (a - turn * np.floor(a * inverse + np.float32(0.5))) * per_turn
                v = d2 * precision + a * a
                if v < cut:
                    e = bias - half * v + weight * alike[i, j]
                    if e > 0.0:
                        li[found] = i
                        lj[found] = j
                        ll[found] = e
                        found += 1
    for j in range(n):
        taken[j] = False
    count = 0
    # Few are within reach: an insertion sort that keeps equals in their order.
    for q in range(1, found):
        e = ll[q]
        i = li[q]
        j = lj[q]
        k = q
        while k > 0 and ll[k - 1] < e:
            ll[k] = ll[k - 1]
            li[k] = li[k - 1]
            lj[k] = lj[k - 1]
            k -= 1
        ll[k] = e
        li[k] = i
        lj[k] = j
    for q in range(found):
        i = li[q]
        j = lj[q]
        if mates[i] < 0 and not taken[j]:
            mates[i] = j
            taken[j] = True
            won[i] = ll[q]
            count += 1
    return count


@_jit_sums
def _beyond(px, py, edges, nx, ny, nc, x0, y0):  # type: ignore[no-untyped-def]
    """:func:`matcher.kernels.outside` of one point, by :func:`_edges`; (x0, y0) if none."""
    if edges == 0:
        return math.sqrt((px - x0) * (px - x0) + (py - y0) * (py - y0))
    distance = np.float32(-1e9)
    for e in range(edges):
        distance = max(distance, nx[e] * px + ny[e] * py - nc[e])
    return distance


@_jit_sums
def _support(m, px, py, inside, paired, unpaired, ux, uy, uw, i, inverse):  # type: ignore[no-untyped-def]
    """Weight of the paired minutiae around one, and of all of them in both templates."""
    near = np.float32(0.0)
    around = np.float32(0.0)
    zero = np.float32(0.0)
    x = px[i]
    y = py[i]
    for k in range(m):
        dx = px[k] - x
        dy = py[k] - y
        u = max(np.float32(1.0) - (dx * dx + dy * dy) * inverse, zero)
        u2 = u * u
        w = u2 * u2 * inside[k]
        around += w
        near += w * paired[k]
    for q in range(unpaired):
        dx = ux[q] - x
        dy = uy[q] - y
        u = max(np.float32(1.0) - (dx * dx + dy * dy) * inverse, zero)
        u2 = u * u
        around += u2 * u2 * uw[q]
    near -= np.float32(1.0)  # itself
    return near, around - np.float32(1.0) + near


@_jit
def compare(xp, yp, ap, kp, dp, hp, xr, yr, ar, kr, dr, hr, scale, P, features, mates):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.compare`."""
    return _compare(
        xp, yp, ap, kp, dp.astype(np.int16), hp, xr, yr, ar, kr, dr.astype(np.int16), hr,
        scale, P, features, mates, _workspace(),
    )  # fmt: skip


@_jit
def _compare(xp, yp, ap, kp, dp, hp, xr, yr, ar, kr, dr, hr, scale, P, features, mates, work):  # type: ignore[no-untyped-def]
    """Compare, descriptors as int16, with scratch memory from :func:`_workspace`."""
    (alike, weight, columns, cw, candidate, vectors, indices, taken, li, lj, ll) = work
    m = xp.shape[0]
    n = xr.shape[0]
    features[:] = 0.0
    features[14] = m
    features[15] = n
    mates[:m] = -1
    rotation0 = 0.0
    tx0 = 0.0
    ty0 = 0.0
    _likeness(dp, dr, np.float32(scale), indices[0], alike)
    _mate_weights(alike, m, n, P.no_mate, weight, vectors[0], vectors[1])
    _candidates(weight, m, n, columns, cw)
    cx = candidate[:MAX_CANDIDATES]
    cy = candidate[MAX_CANDIDATES : 2 * MAX_CANDIDATES]
    ct = candidate[2 * MAX_CANDIDATES :]
    for r in range(MAX_CANDIDATES):
        for i in range(m):
            j = columns[r, i]
            cx[r, i] = xr[j]
            cy[r, i] = yr[j]
            ct[r, i] = _wrapped(ar[j] - ap[i])
    votes = vectors[2]
    proposal = indices[2]
    _proposals(m, xp, yp, cx, cy, ct, cw, P, vectors[3], indices[0], votes, proposal)
    best = -1e30
    likest = _largest(alike, m, n)
    evidence = vectors[4]
    inside = vectors[5]
    px = vectors[6]
    py = vectors[7]
    pa = vectors[8]
    fx = vectors[9]
    fy = vectors[10]
    fw = vectors[11]
    ft = vectors[12]
    qx = vectors[13]  # of pairs: first minutia, as recorded or moved
    qy = vectors[14]
    bx = vectors[15]  # of pairs: second minutia, or what is missed
    by = vectors[16]
    fi = indices[0]
    pair = indices[1]
    before = indices[3]
    edges_r = -1
    edges_p = -1
    for h in range(P.motions):
        c = proposal[h]
        if c < 0 or votes[h] < P.rival_votes * votes[0]:
            continue
        # The proposal, fitted to the best of each minutia's candidates that voted for it.
        i0 = c // MAX_CANDIDATES
        r0 = c % MAX_CANDIDATES
        rotation = float(ct[r0, i0])
        co = math.cos(rotation)
        si = math.sin(rotation)
        used = 0
        for i in range(m):
            g = 0.0
            chosen = 0
            for r in range(MAX_CANDIDATES):
                w = cw[r, i] * _agreement(
                    xp[i] - xp[i0], yp[i] - yp[i0], cx[r, i] - cx[r0, i0], cy[r, i] - cy[r0, i0],
                    ct[r, i] - rotation, co, si, P,
                )  # fmt: skip
                if w > g:
                    g = w
                    chosen = r
            if g > 0.0:
                fi[used] = i
                fw[used] = g
                ft[used] = ct[chosen, i]
                qx[used] = xp[i]
                qy[used] = yp[i]
                bx[used] = cx[chosen, i]
                by[used] = cy[chosen, i]
                used += 1
        count = 0
        tx = 0.0
        ty = 0.0
        for r in range(P.rounds + 1):
            rotation, tx, ty = _fit_motion(used, qx, qy, bx, by, ft, fw, P.angle_lever_px2)
            co = math.cos(rotation)
            si = math.sin(rotation)
            cof = np.float32(co)
            sif = np.float32(si)
            txf = np.float32(tx)
            tyf = np.float32(ty)
            for i in range(m):
                px[i] = cof * xp[i] - sif * yp[i] + txf
                py[i] = sif * xp[i] + cof * yp[i] + tyf
                pa[i] = ap[i] + np.float32(rotation)
            sigma = P.coarse_px
            if r >= 2:
                sigma = P.fine_px
                for q in range(used):
                    i = fi[q]
                    qx[q] = px[i]
                    qy[q] = py[i]
                    bx[q] -= px[i]
                    by[q] -= py[i]
                _field(
                    m, px, py, used, qx, qy, bx, by, fw, fi, np.float32(P.field_prior),
                    np.float32(1.0 / (BUMP_REACH * P.field_px) ** 2), fx, fy, vectors[0],
                )  # fmt: skip
                for i in range(m):
                    px[i] += fx[i]
                    py[i] += fy[i]
            else:
                fx[:m] = 0.0
                fy[:m] = 0.0
            before[:m] = pair[:m]
            count = _pair_up(
                m, n, px, py, pa, xr, yr, ar, alike, likest, sigma, P, li, lj, ll, pair, taken,
                evidence,
            )  # fmt: skip
            same = True
            for i in range(m):
                same = same and pair[i] == before[i]
            if r >= P.steady and same:
                break
            used = 0
            for i in range(m):
                j = pair[i]
                if j >= 0:
                    fi[used] = i
                    fw[used] = 1.0 / (1.0 + math.exp(-evidence[i]))
                    ft[used] = ar[j] - ap[i]
                    qx[used] = xp[i]
                    qy[used] = yp[i]
                    bx[used] = xr[j]
                    by[used] = yr[j]
                    used += 1
            if used == 0:
                break
        if count == 0:
            continue

        # Measure the pairing.
        ev = 0.0
        likeness = 0.0
        mate_weight = 0.0
        r2 = 0.0
        a2 = 0.0
        f2 = 0.0
        kind = 0.0
        cx_ = 0.0
        cy_ = 0.0
        cc = 0.0
        for i in range(m):
            j = pair[i]
            if j < 0:
                continue
            ev += evidence[i]
            likeness += alike[i, j]
            mate_weight += weight[i, j]
            r2 += (xr[j] - px[i]) ** 2 + (yr[j] - py[i]) ** 2
            a = _wrapped(ar[j] - pa[i])
            a2 += a * a
            f2 += fx[i] * fx[i] + fy[i] * fy[i]
            kind += kp[i] == kr[j]
            cx_ += xr[j]
            cy_ += yr[j]
        cx_ /= count
        cy_ /= count
        for i in range(m):
            j = pair[i]
            if j >= 0:
                cc += (xr[j] - cx_) ** 2 + (yr[j] - cy_) ** 2
        if edges_r < 0:
            edges_r = _edges(xr, yr, hr, vectors[18], vectors[19], vectors[20])
            edges_p = _edges(xp, yp, hp, vectors[21], vectors[22], vectors[23])
        up = 0.0
        ur = 0.0
        for i in range(m):
            inside[i] = 1.0
            if pair[i] < 0:
                away = _beyond(
                    px[i],
                    py[i],
                    edges_r,
                    vectors[18],
                    vectors[19],
                    vectors[20],
                    xr[hr[0]],
                    yr[hr[0]],
                )
                inside[i] = 1.0 / (1.0 + math.exp(away / P.overlap_px))
                up += inside[i]
        unpaired = 0
        for j in range(n):
            if not taken[j]:
                ux = xr[j] - tx
                uy = yr[j] - ty
                away = _beyond(
                    np.float32(co * ux + si * uy), np.float32(co * uy - si * ux),
                    edges_p, vectors[21], vectors[22], vectors[23], xp[hp[0]], yp[hp[0]],
                )  # fmt: skip
                w = 1.0 / (1.0 + math.exp(away / P.overlap_px))
                ur += w
                qx[unpaired] = xr[j]
                qy[unpaired] = yr[j]
                fw[unpaired] = w
                unpaired += 1
        total = ev - P.unpaired_cost * (up + ur)
        if total > best + BETTER:
            best = total
            support = 0.0
            supported = 0.0
            reach = np.float32(1.0 / (BUMP_REACH * P.support_px) ** 2)
            paired = vectors[17]
            for i in range(m):
                paired[i] = pair[i] >= 0
            for i in range(m):
                if pair[i] < 0:
                    continue
                near, around = _support(m, px, py, inside, paired, unpaired, qx, qy, fw, i, reach)
                share = 2.0 * near / (around + 1e-9 + P.support_prior)
                support += share
                supported += share * evidence[i]
            features[0] = total
            features[1] = count
            features[2] = ev
            features[3] = likeness / count
            features[4] = math.sqrt(r2 / count)
            features[5] = math.sqrt(a2 / count)
            features[6] = kind / count
            features[7] = count + up
            features[8] = count + ur
            features[9] = abs(_wrapped(rotation))
            features[10] = votes[h]
            features[11] = up
            features[12] = ur
            features[13] = mate_weight
            features[16] = math.sqrt(cc / count)
            features[17] = math.sqrt(f2 / count)
            features[18] = support / count
            features[19] = supported
            dense_p = m / max(_area(xp, yp, hp), 1.0)
            dense_r = n / max(_area(xr, yr, hr), 1.0)
            common = min((count + up) / dense_p, (count + ur) / dense_r)
            features[20] = (
                common * dense_p * dense_r * math.pi * 4.0 * P.fine_px * P.fine_px * P.pair_angle
            )
            rotation0 = rotation
            tx0 = tx
            ty0 = ty
            for i in range(m):
                mates[i] = pair[i]
    return rotation0, tx0, ty0


@_jit
def _agreement(dx, dy, ex, ey, turn, co, si, P):  # type: ignore[no-untyped-def]
    """How well a candidate agrees with a proposed motion, from 1 to 0."""
    ex -= co * dx - si * dy
    ey -= si * dx + co * dy
    slack = P.vote_px * P.vote_px + P.vote_slope * P.vote_slope * (dx * dx + dy * dy)
    a = _wrapped(turn) / P.vote_angle
    u = max(1.0 - ((ex * ex + ey * ey) / slack + a * a) / VOTE_CUT, 0.0)
    return u * u


@_jit
def _precedes(x0, y0, a0, x1, y1, a1):  # type: ignore[no-untyped-def]
    """Whether the first template goes first: fewer minutiae, then the smaller coordinates."""
    if x0.shape[0] != x1.shape[0]:
        return x0.shape[0] < x1.shape[0]
    for i in range(x0.shape[0]):
        if x0[i] != x1[i]:
            return x0[i] < x1[i]
        if y0[i] != y1[i]:
            return y0[i] < y1[i]
        if a0[i] != a1[i]:
            return a0[i] < a1[i]
    return True


@_jit
def compare_rows(  # type: ignore[no-untyped-def]
    x,
    y,
    a,
    k,
    d,
    h,
    xs,
    ys,
    angles,
    kinds,
    descriptors,
    hulls,
    starts,
    hull_starts,
    rows,
    scale,
    P,
    features,
):
    """Compare one packed template with many rows of the store; see :mod:`matcher.compare`."""
    unit = np.float32(_TWO_PI / 256.0)
    xp = x.astype(np.float32)
    yp = y.astype(np.float32)
    ap = a.astype(np.float32) * unit
    dp = d.astype(np.int16)
    mates = np.empty(256, np.int32)
    work = _workspace()
    other = np.empty((3, MAX_MINUTIAE), np.float32)
    described = np.empty((MAX_MINUTIAE, d.shape[1]), np.int16)
    for q in range(rows.shape[0]):
        row = rows[q]
        lo = starts[row]
        hi = starts[row + 1]
        x1 = xs[lo:hi]
        y1 = ys[lo:hi]
        a1 = angles[lo:hi]
        h1 = hulls[hull_starts[row] : hull_starts[row + 1]]
        xr = other[0, : hi - lo]
        yr = other[1, : hi - lo]
        ar = other[2, : hi - lo]
        dr = described[: hi - lo]
        for i in range(hi - lo):
            xr[i] = x1[i]
            yr[i] = y1[i]
            ar[i] = a1[i] * unit
            for e in range(DIMENSION):
                dr[i, e] = descriptors[lo + i, e]
        if _precedes(x, y, a, x1, y1, a1):
            _compare(
                xp, yp, ap, k, dp, h, xr, yr, ar, kinds[lo:hi], dr, h1,
                scale, P, features[q], mates, work,
            )  # fmt: skip
        else:
            _compare(
                xr, yr, ar, kinds[lo:hi], dr, h1, xp, yp, ap, k, dp, h,
                scale, P, features[q], mates, work,
            )  # fmt: skip


@_jit
def ballots(distances, ids, alive, rows, half_scale):  # type: ignore[no-untyped-def]
    """What each probe minutia found and its :func:`matcher.kernels.shares`, one by one.

    Entries as far as the last are left out where there may be more of them: which of equals FAISS
    keeps depends on the order they were added in. So are the dead, and rows that came later.

    Args:
        distances: (M, K) float32, rising; ids: (M, K) int64, row times 2^28 and a place, or -1.
        alive: (R,) bool; rows: how many of them there were when the search began.

    Returns:
        (N,) int64 keys, the id times 128 and the probe minutia, and (N,) float64 shares.
    """
    m, k = ids.shape
    keys = np.empty(m * k, np.int64)
    share = np.empty(m * k)
    count = 0
    for i in range(m):
        first = count
        cut = distances[i, k - 1] if ids[i, k - 1] >= 0 else np.float32(np.inf)
        for j in range(k):
            name = ids[i, j]
            if name < 0 or distances[i, j] >= cut:
                break
            row = name >> 28
            if row >= rows or not alive[row]:
                continue
            keys[count] = (name << 7) | i
            share[count] = distances[i, j]
            count += 1
        if count > first:
            nearest = share[first]
            total = 0.0
            # From small to large: equals add up the same in either order.
            for j in range(count - 1, first - 1, -1):
                share[j] = math.exp(half_scale * (nearest - share[j]))
                total += share[j]
            for j in range(first, count):
                share[j] /= total
    return keys[:count].copy(), share[:count].copy()


@_jit
def vote(keys, share, angle, px, py, P):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.vote`; hits as :func:`ballots` gives them, by rising key."""
    count = keys.shape[0]
    rows = np.empty(count, np.int64)
    votes = np.empty(count, np.int64)
    motions = np.empty((count, 3), np.float64)
    voice = np.zeros(px.shape[0])
    probe = np.empty(count, np.int64)
    x = np.empty(count, np.float32)
    y = np.empty(count, np.float32)
    turn = np.empty(count, np.float64)
    for s in range(count):
        name = keys[s] >> 7
        probe[s] = keys[s] & 127
        x[s] = (name >> 18) & 1023
        y[s] = (name >> 8) & 1023
        turn[s] = (np.float64(name & 255) - np.float64(angle[probe[s]])) * (math.pi / 128.0)
    found = 0
    start = 0
    while start < count:
        row = keys[start] >> 35
        stop = start + 1
        while stop < count and keys[stop] >> 35 == row:
            stop += 1
        best = 0.0
        for s in range(start, stop):
            rotation = _wrapped(turn[s])
            if abs(rotation) > P.max_rotation:
                continue
            co = math.cos(rotation)
            si = math.sin(rotation)
            i0 = probe[s]
            if stop == start + 1:  # most rows: a hit by chance
                total = share[s]
            else:
                for q in range(start, stop):
                    i = probe[q]
                    g = _agreement(
                        px[i] - px[i0], py[i] - py[i0], x[q] - x[s], y[q] - y[s],
                        turn[q] - rotation, co, si, P,
                    )  # fmt: skip
                    voice[i] = max(voice[i], share[q] * g)
                total = 0.0
                for q in range(start, stop):
                    total += voice[probe[q]]
                    voice[probe[q]] = 0.0
            if total > best:
                best = total
                motions[found, 0] = rotation
                motions[found, 1] = x[s] - (co * px[i0] - si * py[i0])
                motions[found, 2] = y[s] - (si * px[i0] + co * py[i0])
        if best > 0.0:
            rows[found] = row
            votes[found] = np.int64(best * VOTE_UNITS)
            found += 1
        start = stop
    return rows[:found].copy(), votes[:found].copy(), motions[:found].copy()


@_jit
def unpacked(geometry, x, y, angle, kind):  # type: ignore[no-untyped-def]
    """Take packed minutiae apart; see :func:`matcher.kernels.packed_geometry`."""
    for i in range(geometry.shape[0]):
        g = geometry[i]
        x[i] = g >> 22
        y[i] = (g >> 12) & 1023
        angle[i] = (g >> 4) & 255
        kind[i] = g & 15


@_jit_sums
def _nearest_mate(x, y, a, lo, hi, xr, yr, ar, inverse, per_turn):  # type: ignore[no-untyped-def]
    """The best fitting minutia among ``lo:hi`` and how well it fits, from 1 to 0."""
    turn = np.float32(_TWO_PI)
    rounds = np.float32(1.0 / _TWO_PI)
    best = np.float32(0.0)
    mate = -1
    for j in range(lo, hi):
        ex = xr[j] - x
        ey = yr[j] - y
        t = ar[j] - a
        t = (t - turn * np.floor(t * rounds + np.float32(0.5))) * per_turn
        u = np.float32(1.0) - (ex * ex + ey * ey) * inverse - t * t
        if u > best:
            best = u
            mate = j
    return mate, best


@_jit
def rank_rows(xp, yp, ap, geometry, starts, rows, motions, P):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.rank_score`, of each row; probe minutiae by rising x."""
    scores = np.zeros(rows.shape[0])
    m = xp.shape[0]
    size = MAX_MINUTIAE
    x = np.empty(size, np.float32)
    y = np.empty(size, np.float32)
    a = np.empty(size, np.float32)
    taken = np.empty(size, np.float32)
    pairs = np.empty((7, size), np.float32)
    unit = np.float32(_TWO_PI / 256.0)
    for s in range(rows.shape[0]):
        lo = starts[rows[s]]
        n = starts[rows[s] + 1] - lo
        for j in range(n):
            g = geometry[lo + j]
            x[j] = g >> 22
            y[j] = (g >> 12) & 1023
            a[j] = ((g >> 4) & 255) * unit
        rotation = motions[s, 0]
        tx = motions[s, 1]
        ty = motions[s, 2]
        for r in range(P.rank_rounds + 1):
            sigma = P.rank_coarse_px if r < P.rank_rounds else P.rank_fine_px
            reach = np.float32(BUMP_REACH * sigma)
            inverse = np.float32(1.0 / (BUMP_REACH * sigma) ** 2)
            per_turn = np.float32(1.0 / (BUMP_REACH * P.rank_angle))
            co = np.float32(math.cos(rotation))
            si = np.float32(math.sin(rotation))
            for j in range(n):
                taken[j] = 0.0
            used = 0
            score = 0.0
            for i in range(m):
                px = co * xp[i] - si * yp[i] + np.float32(tx)
                py = si * xp[i] + co * yp[i] + np.float32(ty)
                first = _first_from(x, n, px - reach)
                last = first
                while last < n and x[last] <= px + reach:
                    last += 1
                if first == last:
                    continue
                j, fit = _nearest_mate(
                    px, py, ap[i] + np.float32(rotation), first, last, x, y, a, inverse, per_turn
                )
                if j < 0:
                    continue
                w = fit * fit
                if w > taken[j]:
                    score += w - taken[j]
                    taken[j] = w
                pairs[0, used] = xp[i]
                pairs[1, used] = yp[i]
                pairs[2, used] = x[j]
                pairs[3, used] = y[j]
                pairs[4, used] = a[j] - ap[i]
                pairs[5, used] = w
                used += 1
            if used == 0 or r == P.rank_rounds:
                scores[s] = score
                break
            rotation, tx, ty = _fit_motion(
                used, pairs[0], pairs[1], pairs[2], pairs[3], pairs[4], pairs[5],
                P.angle_lever_px2,
            )  # fmt: skip
    return scores


@_jit
def compare_references(x, y, a, k, d, h, geometry, starts, rows, network, scale, P, features):  # type: ignore[no-untyped-def]
    """:func:`compare_rows` with references of which only the minutiae are kept.

    Their descriptors and hulls are made on the way, the same as when they were packed.
    """
    unit = np.float32(_TWO_PI / 256.0)
    xp = x.astype(np.float32)
    yp = y.astype(np.float32)
    ap = a.astype(np.float32) * unit
    dp = d.astype(np.int16)
    mates = np.empty(256, np.int32)
    work = _workspace()
    for q in range(rows.shape[0]):
        part = geometry[starts[rows[q]] : starts[rows[q] + 1]]
        n = part.shape[0]
        x1 = np.empty(n, np.int16)
        y1 = np.empty(n, np.int16)
        a1 = np.empty(n, np.uint8)
        k1 = np.empty(n, np.uint8)
        unpacked(part, x1, y1, a1, k1)
        xr = x1.astype(np.float32)
        yr = y1.astype(np.float32)
        ar = a1.astype(np.float32) * unit
        h1 = convex_hull(xr, yr).astype(np.uint8)  # of one type: compiled once
        dr = describe(xr, yr, a1, h1, *network).astype(np.int16)
        probe = (xp, yp, ap, k, dp, h)
        other = (xr, yr, ar, k1, dr, h1)
        # One call, so that the comparison is compiled into this once.
        first, second = (probe, other) if _precedes(x, y, a, x1, y1, a1) else (other, probe)
        _compare(
            first[0], first[1], first[2], first[3], first[4], first[5],
            second[0], second[1], second[2], second[3], second[4], second[5],
            scale, P, features[q], mates, work,
        )  # fmt: skip


@_jit
def living_codes(codes, ids, alive, new_rows, out_codes, out_ids):  # type: ignore[no-untyped-def]
    """Copy the living entries of one inverted list, packed in FAISS's blocks of 32 codes.

    A block holds, for each of the sub-quantizers in turn, 16 bytes: the low halves are entries 0-15
    and the high halves 16-31, in the order 0, 8, 1, 9, ... 7, 15. The output may be the input.

    Args:
        codes: (blocks, M, 16) uint8; ids: (N,) int64, row number times 2^28 and a place.
        alive: (R,) bool; entries of row R and later ones are left out.
        new_rows: (R,) int64, the new number of each row, or (0,) where they stay.
        out_codes, out_ids: as many.

    Returns:
        How many live.
    """
    count = 0
    for e in range(ids.shape[0]):
        row = ids[e] >> 28
        if row >= alive.shape[0] or not alive[row]:
            continue
        if new_rows.shape[0]:
            row = new_rows[row]
        out_ids[count] = (row << 28) | (ids[e] & ((1 << 28) - 1))
        a = e & 15
        b = count & 15
        source = 2 * a if a < 8 else 2 * (a - 8) + 1
        target = 2 * b if b < 8 else 2 * (b - 8) + 1
        down = 4 if e & 16 else 0
        up = 4 if count & 16 else 0
        for m in range(codes.shape[1]):
            half = (codes[e >> 5, m, source] >> down) & 15
            kept = out_codes[count >> 5, m, target] & (240 >> up)
            out_codes[count >> 5, m, target] = kept | (half << up)
        count += 1
    return count
