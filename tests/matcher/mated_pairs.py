"""What mated pairs of synthetic impressions look like, in the figures of the real ones.

The real figures (``shared/data/stats.json``) come from matching; here the true correspondence is
known, so it is used, cut at the distances at which the real matching gives up. Pairs with fewer
than ``MIN_MATCHED`` minutiae in common count as not aligned and are left out, as there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from matcher.synthetic import Batch, Population

MIN_MATCHED = 8
MAX_RESIDUAL_PX = 20.0
"""The real matching allows 12 px around a smooth field, which itself bends away from the rigid fit
by up to 14 px (95th percentile of its maximum)."""
MAX_TURN_DEG = 25.0
DISTANCE_BINS_PX = np.array([0, 25, 50, 75, 100, 150, 200, 300, 10_000])
_GRID_PX = 6.0

Floats = NDArray[np.float64]


@dataclass
class PairFigures:
    """One entry per aligned pair, or pooled over all their minutiae where the name says so."""

    pairs: int = 0
    matched: list[float] = field(default_factory=list)
    matched_of_smaller: list[float] = field(default_factory=list)
    matched_of_mean: list[float] = field(default_factory=list)
    overlap_of_smaller: list[float] = field(default_factory=list)
    overlap_of_union: list[float] = field(default_factory=list)
    rotation_deg: list[float] = field(default_factory=list)
    pair_rms_px: list[float] = field(default_factory=list)
    unmatched_in_overlap: list[float] = field(default_factory=list)
    unmatched_counts: list[tuple[int, int]] = field(default_factory=list)
    residual_px_pooled: list[Floats] = field(default_factory=list)
    turn_deg_pooled: list[Floats] = field(default_factory=list)
    same_kind_pooled: list[NDArray[np.bool_]] = field(default_factory=list)
    covariance_sum: Floats = field(default_factory=lambda: np.zeros(8))
    covariance_count: Floats = field(default_factory=lambda: np.zeros(8))

    def summary(self) -> dict[str, float]:
        """The figures that are compared, by name."""
        residual = np.concatenate(self.residual_px_pooled)
        turn = np.concatenate(self.turn_deg_pooled)
        rotation = np.abs(self.rotation_deg)
        unmatched = np.array(self.unmatched_counts)
        figures = {
            "not_aligned": 1.0 - len(self.matched) / self.pairs,
            "residual_rms": float(np.sqrt(np.mean(residual**2) / 2.0)),
            "smooth_px2": self.covariance_sum[0] / self.covariance_count[0],
            "cov_75_100_px2": self.covariance_sum[3] / self.covariance_count[3],
            "zero_lag_px2": float(np.mean(residual**2)),
            "turn_sd": float(np.sqrt(np.mean(turn**2))),
            "type_agree": float(np.mean(np.concatenate(self.same_kind_pooled))),
            "unmatched_pooled": float(unmatched[:, 0].sum() / unmatched[:, 1].sum()),
        }
        for name, values, percentiles in (
            ("matched", self.matched, (5, 50, 95)),
            ("matched_of_smaller", self.matched_of_smaller, (5, 50, 95)),
            ("matched_of_mean", self.matched_of_mean, (5, 25, 50, 75, 95)),
            ("overlap_of_smaller", self.overlap_of_smaller, (5, 50, 95)),
            ("overlap_of_union", self.overlap_of_union, (5, 50, 95)),
            ("rotation_abs", rotation, (50, 75, 95)),
            ("pair_rms", self.pair_rms_px, (5, 50, 95)),
            ("residual", residual, (25, 50, 75, 90, 95)),
            ("turn_abs", np.abs(turn), (50, 75, 90, 95)),
            ("unmatched", self.unmatched_in_overlap, (5, 50, 95)),
        ):
            for percentile in percentiles:
                figures[f"{name}_p{percentile}"] = float(np.percentile(values, percentile))
        return figures


def figures_of(population: Population, fingers: int, impressions: int) -> dict[str, float]:
    """Generate ``fingers`` with ``impressions`` each and measure all their mated pairs."""
    total = fingers * impressions
    batch = population.batch(
        np.repeat(np.arange(fingers), impressions),
        np.zeros(total, dtype=np.int64),
        np.tile(np.arange(impressions), fingers),
    )
    masks = [_contact_mask(population, region) for region in batch.region.astype(np.float64)]
    areas = np.array([mask.sum() for mask in masks]) * _GRID_PX**2
    counts = np.diff(batch.offsets)
    found = PairFigures()
    for finger in range(fingers):
        members = range(finger * impressions, (finger + 1) * impressions)
        for a in members:
            for b in range(a + 1, members.stop):
                _measure(population, batch, a, b, masks, found)
    figures = found.summary()
    figures["count_mean"] = float(counts.mean())
    figures["count_sd"] = float(counts.std())
    for percentile in (5, 25, 50, 75, 95):
        figures[f"count_p{percentile}"] = float(np.percentile(counts, percentile))
    for percentile in (5, 50, 95):
        figures[f"area_p{percentile}"] = float(np.percentile(areas, percentile))
    figures["density"] = float(counts.sum() / areas.sum() * 1e4)
    figures["ending_share"] = float(np.mean(batch.kind == 1))
    return figures


def _measure(
    population: Population,
    batch: Batch,
    a: int,
    b: int,
    masks: list[NDArray[np.bool_]],
    found: PairFigures,
) -> None:
    found.pairs += 1
    part_a = slice(int(batch.offsets[a]), int(batch.offsets[a + 1]))
    part_b = slice(int(batch.offsets[b]), int(batch.offsets[b + 1]))
    rows_a, rows_b = batch.master_row[part_a], batch.master_row[part_b]
    # Spurious minutiae (-1) stand last, so the indices of the real ones need no shift.
    _, in_a, in_b = np.intersect1d(
        rows_a[rows_a >= 0], rows_b[rows_b >= 0], return_indices=True, assume_unique=True
    )
    if len(in_a) < MIN_MATCHED:
        return
    from_xy = np.stack([batch.x[part_a], batch.y[part_a]], axis=1).astype(np.float64)[in_a]
    to_xy = np.stack([batch.x[part_b], batch.y[part_b]], axis=1).astype(np.float64)[in_b]
    turned = batch.angle[part_a][in_a] - batch.angle[part_b][in_b]
    keep = np.ones(len(in_a), dtype=bool)
    for _ in range(4):
        rotation, residual = _rigid_residual(from_xy, to_xy, keep)
        turn = np.degrees(np.angle(np.exp(1j * (turned - rotation))))
        norm = np.hypot(residual[:, 0], residual[:, 1])
        keep = (norm < MAX_RESIDUAL_PX) & (np.abs(turn) < MAX_TURN_DEG)
        if keep.sum() < MIN_MATCHED:
            return
    matched = int(keep.sum())
    smaller, larger = sorted((len(rows_a), len(rows_b)))
    found.matched.append(matched)
    found.matched_of_smaller.append(matched / smaller)
    found.matched_of_mean.append(2.0 * matched / (smaller + larger))
    shared = int((masks[a] & masks[b]).sum())
    area_a, area_b = int(masks[a].sum()), int(masks[b].sum())
    found.overlap_of_smaller.append(shared / min(area_a, area_b))
    found.overlap_of_union.append(shared / (area_a + area_b - shared))
    found.rotation_deg.append(float(np.degrees(rotation)))
    found.pair_rms_px.append(float(np.sqrt(np.mean(norm[keep] ** 2) / 2.0)))
    found.residual_px_pooled.append(norm[keep])
    found.turn_deg_pooled.append(turn[keep])
    kinds_agree = batch.kind[part_a][in_a] == batch.kind[part_b][in_b]
    found.same_kind_pooled.append(kinds_agree[keep])
    upper = np.triu_indices(matched, 1)
    apart = from_xy[keep][:, None] - from_xy[keep]
    bins = np.digitize(np.hypot(apart[..., 0], apart[..., 1])[upper], DISTANCE_BINS_PX) - 1
    np.add.at(found.covariance_sum, bins, (residual[keep] @ residual[keep].T)[upper])
    np.add.at(found.covariance_count, bins, 1.0)
    unmatched = in_overlap = 0
    for part, own, other, rows in ((part_a, a, b, in_a), (part_b, b, a, in_b)):
        is_matched = np.zeros(part.stop - part.start, dtype=bool)
        is_matched[rows[keep]] = True
        on_finger = _on_finger(batch, part, batch.region[own])
        covered = _inside(population, batch.region[other], on_finger) | is_matched
        unmatched += int((covered & ~is_matched).sum())
        in_overlap += int(covered.sum())
    found.unmatched_counts.append((unmatched, in_overlap))
    found.unmatched_in_overlap.append(unmatched / in_overlap)


def _rigid_residual(a: Floats, b: Floats, keep: NDArray[np.bool_]) -> tuple[float, Floats]:
    """Least squares rotation (radians, clockwise on the image) of a onto b, and what it leaves."""
    mean_a, mean_b = a[keep].mean(axis=0), b[keep].mean(axis=0)
    h = (a[keep] - mean_a).T @ (b[keep] - mean_b)
    angle = float(np.arctan2(h[0, 1] - h[1, 0], h[0, 0] + h[1, 1]))
    c, s = np.cos(angle), np.sin(angle)
    return angle, b - ((a - mean_a) @ np.array([[c, s], [-s, c]]) + mean_b)


def _contact_mask(population: Population, region: Floats) -> NDArray[np.bool_]:
    x, y = np.meshgrid(np.arange(-216, 217, _GRID_PX), np.arange(-288, 289, _GRID_PX))
    return _inside(population, region, np.stack([x.ravel(), y.ravel()], axis=1))


def _inside(population: Population, region: NDArray[np.floating], xy: Floats) -> NDArray[np.bool_]:
    """Whether places on the finger were in contact and within the sensor's window."""
    profile = population.profile
    x, y = xy[:, 0] - region[0], xy[:, 1] - region[1]
    c, s = np.cos(region[4]), np.sin(region[4])
    at_x, at_y = c * x + s * y + region[5], -s * x + c * y + region[6]
    inside: NDArray[np.bool_] = (x / region[2]) ** 2 + (y / region[3]) ** 2 <= 1.0
    window: NDArray[np.bool_] = (
        (at_x >= profile.margin)
        & (at_x < profile.image_width - profile.margin)
        & (at_y >= profile.margin)
        & (at_y < profile.image_height - profile.margin)
    )
    return inside & window


def _on_finger(batch: Batch, part: slice, region: NDArray[np.floating]) -> Floats:
    """Places on the image -> on the finger, undoing the placement but not the distortion."""
    x, y = batch.x[part] - region[5], batch.y[part] - region[6]
    c, s = np.cos(region[4]), np.sin(region[4])
    return np.stack([c * x - s * y + region[0], s * x + c * y + region[1]], axis=1)
