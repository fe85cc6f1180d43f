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
    DIRECTION_SIGMA,
    DIRECTIONS,
    HULL_MARGIN_PX,
    HULL_SOFTNESS_PX,
    MAX_CANDIDATES,
    PAIR_CUT,
    RING_RADII_PX,
    RING_SIGMAS_PX,
    SECTOR_SIGMA,
    SECTORS,
    VOTE_CUT,
    VOTE_UNITS,
)

_RINGS = len(RING_RADII_PX)
_CELLS = _RINGS * SECTORS
_DENSITY = _CELLS * DIRECTIONS
_TWO_PI = 2.0 * math.pi

_jit: Any = nb.njit(cache=True, nogil=True, error_model="numpy")
# Sums may be reordered by the compiler (the order it picks is the same in every call), NaN may not.
_jit_sums: Any = nb.njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"}
)


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
def _turn(x, y, a, b, c):  # type: ignore[no-untyped-def]
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])


@_jit
def _outside(px, py, hx, hy):  # type: ignore[no-untyped-def]
    n = hx.shape[0]
    distance = -1e9
    for a in range(n):
        b = a + 1 if a + 1 < n else 0
        ex = hx[b] - hx[a]
        ey = hy[b] - hy[a]
        length = math.sqrt(ex * ex + ey * ey)
        if length < 1e-6:
            continue
        s = (ey * (px - hx[a]) - ex * (py - hy[a])) / length
        if s > distance:
            distance = s
    if distance == -1e9:
        distance = math.sqrt((px - hx[0]) ** 2 + (py - hy[0]) ** 2)
    return distance


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


@_jit
def neighbourhoods(x, y, angle):  # type: ignore[no-untyped-def]
    m = x.shape[0]
    out = np.zeros((m, _DENSITY + _CELLS), np.float32)
    hull = convex_hull(x, y)
    hx = x[hull]
    hy = y[hull]
    ring = np.empty(_RINGS)
    sector = np.empty(SECTORS)
    direction = np.empty(DIRECTIONS)
    reach = RING_RADII_PX[-1] + 2.5 * RING_SIGMAS_PX[-1]
    for i in range(m):
        for j in range(m):
            dx = x[j] - x[i]
            dy = y[j] - y[i]
            r = math.sqrt(dx * dx + dy * dy)
            if r > reach or r < 1e-3:
                continue
            bearing = math.atan2(dy, dx) - angle[i]
            turn = angle[j] - angle[i]
            for k in range(_RINGS):
                z = (r - RING_RADII_PX[k]) / RING_SIGMAS_PX[k]
                ring[k] = math.exp(-0.5 * z * z)
            for k in range(SECTORS):
                z = _wrapped(bearing - _TWO_PI * k / SECTORS) / SECTOR_SIGMA
                sector[k] = math.exp(-0.5 * z * z)
            for k in range(DIRECTIONS):
                z = _wrapped(turn - _TWO_PI * k / DIRECTIONS) / DIRECTION_SIGMA
                direction[k] = math.exp(-0.5 * z * z)
            for p in range(_RINGS):
                if ring[p] < 0.02:
                    continue
                for q in range(SECTORS):
                    w = ring[p] * sector[q]
                    if w < 0.02:
                        continue
                    base = (p * SECTORS + q) * DIRECTIONS
                    for k in range(DIRECTIONS):
                        out[i, base + k] += np.float32(w * direction[k])
        for p in range(_RINGS):
            for q in range(SECTORS):
                bearing = angle[i] + _TWO_PI * q / SECTORS
                cx = x[i] + RING_RADII_PX[p] * math.cos(bearing)
                cy = y[i] + RING_RADII_PX[p] * math.sin(bearing)
                d = _outside(cx, cy, hx, hy)
                out[i, _DENSITY + p * SECTORS + q] = 1.0 / (
                    1.0 + math.exp((d - HULL_MARGIN_PX) / HULL_SOFTNESS_PX)
                )
    return out


@_jit_sums
def describe(neighbours, w1, b1, w2, b2, quantum):  # type: ignore[no-untyped-def]
    m, f = neighbours.shape
    h = w1.shape[1]
    d = w2.shape[1]
    out = np.empty((m, d), np.int8)
    hidden = np.empty(h, np.float32)
    vector = np.empty(d, np.float32)
    for i in range(m):
        hidden[:] = b1
        for k in range(f):
            v = neighbours[i, k]
            if v != 0.0:
                for c in range(h):
                    hidden[c] += v * w1[k, c]
        vector[:] = b2
        for k in range(h):
            v = hidden[k]
            if v > 0.0:
                for c in range(d):
                    vector[c] += v * w2[k, c]
        norm = np.float32(0.0)
        for c in range(d):
            norm += vector[c] * vector[c]
        scale = quantum / max(math.sqrt(norm), 1e-12)
        for c in range(d):
            out[i, c] = np.int8(min(max(round(vector[c] * scale), -127.0), 127.0))
    return out


@_jit_sums
def mate_weights(dp, dr, scale, no_mate):  # type: ignore[no-untyped-def]
    m, d = dp.shape
    n = dr.shape[0]
    alike = np.empty((m, n), np.float32)
    weight = np.empty((m, n), np.float32)
    rows = np.full(m, math.exp(no_mate))
    columns = np.full(n, math.exp(no_mate))
    for i in range(m):
        for j in range(n):
            s = np.int32(0)
            for k in range(d):
                s += np.int32(dp[i, k]) * np.int32(dr[j, k])
            v = np.float32(s) * np.float32(scale)
            e = math.exp(v)
            alike[i, j] = v
            weight[i, j] = e
            rows[i] += e
            columns[j] += e
    for i in range(m):
        rows[i] = 1.0 / math.sqrt(rows[i])
    for j in range(n):
        columns[j] = 1.0 / math.sqrt(columns[j])
    for i in range(m):
        for j in range(n):
            weight[i, j] = weight[i, j] * rows[i] * columns[j]
    return alike, weight


@_jit
def candidate_pairs(weight):  # type: ignore[no-untyped-def]
    m, n = weight.shape
    keep = min(MAX_CANDIDATES, n)
    ci = np.empty(m * keep, np.int32)
    cj = np.empty(m * keep, np.int32)
    cw = np.empty(m * keep, np.float32)
    best = np.empty(keep, np.int32)
    for i in range(m):
        found = 0
        for j in range(n):
            w = weight[i, j]
            if found == keep and w <= weight[i, best[keep - 1]]:
                continue
            k = found if found < keep else keep - 1
            while k > 0 and w > weight[i, best[k - 1]]:
                best[k] = best[k - 1]
                k -= 1
            best[k] = j
            found = min(found + 1, keep)
        for k in range(keep):
            ci[i * keep + k] = i
            cj[i * keep + k] = best[k]
            cw[i * keep + k] = weight[i, best[k]]
    return ci, cj, cw


@_jit
def _agreement(xp, yp, xr, yr, turn, q, i, j, i0, j0, co, si, rotation, P):  # type: ignore[no-untyped-def]
    """exp(-0.7 v) of a candidate against a proposed motion, 0 when they disagree."""
    dx = xp[i] - xp[i0]
    dy = yp[i] - yp[i0]
    ex = xr[j] - xr[j0] - (co * dx - si * dy)
    ey = yr[j] - yr[j0] - (si * dx + co * dy)
    slack = P.vote_px * P.vote_px + P.vote_slope * P.vote_slope * (dx * dx + dy * dy)
    v = (ex * ex + ey * ey) / slack
    if v >= VOTE_CUT:
        return 0.0
    a = _wrapped(turn[q] - rotation) / P.vote_angle
    v += a * a
    if v >= VOTE_CUT:
        return 0.0
    return math.exp(-0.7 * v)


@_jit
def propose_motions(xp, yp, xr, yr, ci, cj, cw, turn, P):  # type: ignore[no-untyped-def]
    count = ci.shape[0]
    order = np.argsort(-cw, kind="mergesort")
    votes = np.zeros(P.motions)
    proposal = np.full(P.motions, -1, np.int64)
    for s in range(min(P.proposals, count)):
        c = order[s]
        rotation = turn[c]
        if abs(rotation) > P.max_rotation:
            continue
        co = math.cos(rotation)
        si = math.sin(rotation)
        total = 0.0
        best = 0.0
        for q in range(count):
            if q > 0 and ci[q] != ci[q - 1]:
                total += best
                best = 0.0
            g = _agreement(xp, yp, xr, yr, turn, q, ci[q], cj[q], ci[c], cj[c], co, si, rotation, P)
            if g > 0.0:
                best = max(best, cw[q] * g)
        total += best
        k = P.motions - 1
        if total > votes[k]:
            while k > 0 and total > votes[k - 1]:
                votes[k] = votes[k - 1]
                proposal[k] = proposal[k - 1]
                k -= 1
            votes[k] = total
            proposal[k] = c
    return votes, proposal


@_jit
def fit_motion(xp, yp, xr, yr, turn, fi, fj, fw, lever):  # type: ignore[no-untyped-def]
    sw = 0.0
    sx = 0.0
    sy = 0.0
    ux = 0.0
    uy = 0.0
    for q in range(fi.shape[0]):
        i = fi[q]
        j = fj[q]
        w = fw[q]
        sw += w
        sx += w * xp[i]
        sy += w * yp[i]
        ux += w * xr[j]
        uy += w * yr[j]
    if sw <= 0.0:
        return 0.0, 0.0, 0.0
    sx /= sw
    sy /= sw
    ux /= sw
    uy /= sw
    dot = 0.0
    cross = 0.0
    for q in range(fi.shape[0]):
        i = fi[q]
        j = fj[q]
        w = fw[q]
        ax = xp[i] - sx
        ay = yp[i] - sy
        bx = xr[j] - ux
        by = yr[j] - uy
        dot += w * (ax * bx + ay * by + lever * math.cos(turn[q]))
        cross += w * (ax * by - ay * bx + lever * math.sin(turn[q]))
    rotation = math.atan2(cross, dot)
    co = math.cos(rotation)
    si = math.sin(rotation)
    return rotation, ux - (co * sx - si * sy), uy - (si * sx + co * sy)


@_jit
def _pair_up(px, py, pa, xr, yr, ar, alike, sigma, P, li, lj, ll, mates, taken, evidence):  # type: ignore[no-untyped-def]
    """One-to-one pairing by falling evidence; ties by probe, then reference row."""
    m = px.shape[0]
    n = xr.shape[0]
    found = 0
    limit = PAIR_CUT * sigma * sigma
    for i in range(m):
        mates[i] = -1
        evidence[i] = 0.0
        for j in range(n):
            ex = xr[j] - px[i]
            ey = yr[j] - py[i]
            d2 = ex * ex + ey * ey
            if d2 < limit:
                a = _wrapped(ar[j] - pa[i]) / P.pair_angle
                v = d2 / (sigma * sigma) + a * a
                if v < PAIR_CUT:
                    e = (
                        P.pair_bias
                        - 0.5 * P.geometry_weight * v
                        + P.descriptor_weight * alike[i, j]
                    )
                    if e > 0.0:
                        li[found] = i
                        lj[found] = j
                        ll[found] = e
                        found += 1
    for j in range(n):
        taken[j] = False
    count = 0
    for q in np.argsort(-ll[:found], kind="mergesort"):
        i = li[q]
        j = lj[q]
        if mates[i] < 0 and not taken[j]:
            mates[i] = j
            taken[j] = True
            evidence[i] = ll[q]
            count += 1
    return count


@_jit
def compare(xp, yp, ap, kp, dp, hp, xr, yr, ar, kr, dr, hr, scale, P, features, mates):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.compare`."""
    m = xp.shape[0]
    n = xr.shape[0]
    features[:] = 0.0
    features[14] = m
    features[15] = n
    mates[:m] = -1
    motion = np.zeros(3)
    alike, weight = mate_weights(dp, dr, scale, P.no_mate)
    ci, cj, cw = candidate_pairs(weight)
    turn = np.empty(ci.shape[0])
    for q in range(ci.shape[0]):
        turn[q] = _wrapped(ar[cj[q]] - ap[ci[q]])
    votes, proposal = propose_motions(xp, yp, xr, yr, ci, cj, cw, turn, P)

    best = -1e30
    pair = np.empty(m, np.int32)
    taken = np.empty(n, np.bool_)
    evidence = np.zeros(m)
    inside = np.empty(m)
    px = np.empty(m)
    py = np.empty(m)
    pa = np.empty(m)
    fx = np.zeros(m)
    fy = np.zeros(m)
    size = max(m, ci.shape[0])
    fi = np.empty(size, np.int32)
    fj = np.empty(size, np.int32)
    fw = np.empty(size)
    ft = np.empty(size)
    li = np.empty(m * n, np.int32)
    lj = np.empty(m * n, np.int32)
    ll = np.empty(m * n)
    for h in range(P.motions):
        c = proposal[h]
        if c < 0:
            continue
        # The proposal, fitted to everything that voted for it.
        rotation = turn[c]
        co = math.cos(rotation)
        si = math.sin(rotation)
        used = 0
        for q in range(ci.shape[0]):
            g = _agreement(xp, yp, xr, yr, turn, q, ci[q], cj[q], ci[c], cj[c], co, si, rotation, P)
            if g > 0.0:
                fi[used] = ci[q]
                fj[used] = cj[q]
                fw[used] = cw[q] * g
                ft[used] = turn[q]
                used += 1
        count = 0
        tx = 0.0
        ty = 0.0
        for r in range(P.rounds + 1):
            rotation, tx, ty = fit_motion(
                xp, yp, xr, yr, ft, fi[:used], fj[:used], fw[:used], P.angle_lever_px2
            )
            co = math.cos(rotation)
            si = math.sin(rotation)
            for i in range(m):
                px[i] = co * xp[i] - si * yp[i] + tx
                py[i] = si * xp[i] + co * yp[i] + ty
                pa[i] = ap[i] + rotation
                fx[i] = 0.0
                fy[i] = 0.0
            sigma = P.coarse_px
            if r >= 2:
                sigma = P.fine_px
                reach = BUMP_REACH * BUMP_REACH * P.field_px * P.field_px
                for i in range(m):
                    total = P.field_prior
                    gx = 0.0
                    gy = 0.0
                    for q in range(used):
                        k = fi[q]
                        if k == i:
                            continue
                        dx = px[k] - px[i]
                        dy = py[k] - py[i]
                        u = 1.0 - (dx * dx + dy * dy) / reach
                        if u <= 0.0:
                            continue
                        w = fw[q] * (u * u) * (u * u)
                        total += w
                        gx += w * (xr[fj[q]] - px[k])
                        gy += w * (yr[fj[q]] - py[k])
                    fx[i] = gx / total
                    fy[i] = gy / total
                for i in range(m):
                    px[i] += fx[i]
                    py[i] += fy[i]
            count = _pair_up(
                px, py, pa, xr, yr, ar, alike, sigma, P, li, lj, ll, pair, taken, evidence
            )
            used = 0
            for i in range(m):
                if pair[i] >= 0:
                    fi[used] = i
                    fj[used] = pair[i]
                    fw[used] = 1.0 / (1.0 + math.exp(-evidence[i]))
                    ft[used] = ar[pair[i]] - ap[i]
                    used += 1
            if used == 0:
                break
        if count == 0:
            continue
        unpaired = 0

        # Measure the pairing.
        ev = 0.0
        likeness = 0.0
        mate_weight = 0.0
        r2 = 0.0
        a2 = 0.0
        f2 = 0.0
        kind = 0.0
        cx = 0.0
        cy = 0.0
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
            cx += xr[j]
            cy += yr[j]
        cx /= count
        cy /= count
        for i in range(m):
            j = pair[i]
            if j >= 0:
                cc += (xr[j] - cx) ** 2 + (yr[j] - cy) ** 2
        up = 0.0
        ur = 0.0
        hx = xr[hr]
        hy = yr[hr]
        for i in range(m):
            inside[i] = 1.0
            if pair[i] < 0:
                inside[i] = 1.0 / (1.0 + math.exp(_outside(px[i], py[i], hx, hy) / P.overlap_px))
                up += inside[i]
        hx = xp[hp]
        hy = yp[hp]
        for j in range(n):
            if not taken[j]:
                bx = xr[j] - tx
                by = yr[j] - ty
                d = _outside(co * bx + si * by, co * by - si * bx, hx, hy)
                w = 1.0 / (1.0 + math.exp(d / P.overlap_px))
                ur += w
                li[unpaired] = j
                ll[unpaired] = w
                unpaired += 1
        total = ev - P.unpaired_cost * (up + ur)
        if total > best + BETTER:
            best = total
            support = 0.0
            supported = 0.0
            reach = BUMP_REACH * BUMP_REACH * P.support_px * P.support_px
            for i in range(m):
                j = pair[i]
                if j < 0:
                    continue
                near = 0.0
                around = 1e-9
                for k in range(m):
                    if k != i:
                        dx = px[k] - px[i]
                        dy = py[k] - py[i]
                        u = 1.0 - (dx * dx + dy * dy) / reach
                        if u <= 0.0:
                            continue
                        w = (u * u) * (u * u) * inside[k]
                        around += w
                        if pair[k] >= 0:
                            near += w
                            around += w
                for q in range(unpaired):
                    dx = xr[li[q]] - px[i]
                    dy = yr[li[q]] - py[i]
                    u = 1.0 - (dx * dx + dy * dy) / reach
                    if u > 0.0:
                        around += (u * u) * (u * u) * ll[q]
                share = 2.0 * near / (around + P.support_prior)
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
            features[18] = support / count
            features[19] = supported
            dense_p = m / max(_area(xp, yp, hp), 1.0)
            dense_r = n / max(_area(xr, yr, hr), 1.0)
            common = min((count + up) / dense_p, (count + ur) / dense_r)
            features[20] = (
                common * dense_p * dense_r * math.pi * 4.0 * P.fine_px * P.fine_px * P.pair_angle
            )
            features[17] = math.sqrt(f2 / count)
            motion[0] = rotation
            motion[1] = tx
            motion[2] = ty
            for i in range(m):
                mates[i] = pair[i]
    return motion


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
    mates = np.empty(256, np.int32)
    for q in range(rows.shape[0]):
        row = rows[q]
        lo = starts[row]
        hi = starts[row + 1]
        x1 = xs[lo:hi]
        y1 = ys[lo:hi]
        a1 = angles[lo:hi]
        h1 = hulls[hull_starts[row] : hull_starts[row + 1]]
        xr = x1.astype(np.float32)
        yr = y1.astype(np.float32)
        ar = a1.astype(np.float32) * unit
        if _precedes(x, y, a, x1, y1, a1):
            compare(
                xp,
                yp,
                ap,
                k,
                d,
                h,
                xr,
                yr,
                ar,
                kinds[lo:hi],
                descriptors[lo:hi],
                h1,
                scale,
                P,
                features[q],
                mates,
            )
        else:
            compare(
                xr,
                yr,
                ar,
                kinds[lo:hi],
                descriptors[lo:hi],
                h1,
                xp,
                yp,
                ap,
                k,
                d,
                h,
                scale,
                P,
                features[q],
                mates,
            )


@_jit
def vote(row, probe, x, y, turn, share, px, py, rows, P):  # type: ignore[no-untyped-def]
    """See :func:`matcher.kernels.vote`; the hits' columns come one by one."""
    votes = np.zeros(rows, np.int64)
    voice = np.zeros(px.shape[0])
    start = 0
    while start < row.shape[0]:
        stop = start + 1
        while stop < row.shape[0] and row[stop] == row[start]:
            stop += 1
        best = 0.0
        for s in range(start, stop):
            rotation = turn[s]
            if abs(_wrapped(rotation)) > P.max_rotation:
                continue
            co = math.cos(rotation)
            si = math.sin(rotation)
            voice[:] = 0.0
            for q in range(start, stop):
                dx = px[probe[q]] - px[probe[s]]
                dy = py[probe[q]] - py[probe[s]]
                ex = x[q] - x[s] - (co * dx - si * dy)
                ey = y[q] - y[s] - (si * dx + co * dy)
                slack = P.vote_px * P.vote_px + P.vote_slope * P.vote_slope * (dx * dx + dy * dy)
                v = (ex * ex + ey * ey) / slack
                if v >= VOTE_CUT:
                    continue
                a = _wrapped(turn[q] - rotation) / P.vote_angle
                v += a * a
                if v < VOTE_CUT:
                    voice[probe[q]] = max(voice[probe[q]], share[q] * math.exp(-0.7 * v))
            total = 0.0
            for i in range(px.shape[0]):
                total += voice[i]
            best = max(best, total)
        votes[row[start]] = np.int64(best * VOTE_UNITS)
        start = stop
    return votes
