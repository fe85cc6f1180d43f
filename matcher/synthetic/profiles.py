"""How impressions differ from their finger, per sensor: the parameters of the generator.

The real figures behind them are those of ``shared/data/stats.json`` (8 impressions each of the
fingers of public sets, LEADER extractor, 500 ppi), repeated in :data:`REAL` so that the test which
compares the generator with them needs no data on disk. The parameters were fitted by generating
mated pairs, measuring them the same way, and turning the knob belonging to each figure.
"""

from __future__ import annotations

from typing import NamedTuple


class Profile(NamedTuple):
    """Parameters of one sensor and its use. A named tuple, because compiled code reads it.

    Lengths are pixels at 500 ppi, angles radians, all spreads standard deviations. Fields that say
    ``per finger`` or ``per impression`` are drawn once for each.
    """

    image_width: float
    image_height: float
    margin: float
    """Blank border in which no minutia is found."""

    density: float
    """Minutiae proposed per px^2 of pad, before neighbours inhibit each other."""
    density_spread: float
    """Log-normal, per finger."""
    ending_share: float

    area: float
    """Median contact area, px^2."""
    area_spread_finger: float
    area_spread_impression: float
    """Log-normal."""
    aspect: float
    """Height of the contact area over its width."""
    offset_x: float
    offset_y: float
    """Spread of the middle of the contact area on the finger, per impression."""
    wide_share: float
    wide_factor: float
    """Share of impressions placed carelessly, and by how much their offsets grow."""
    shift_x: float
    shift_y: float
    """Spread of where the contact area lies on the sensor, per impression."""
    rotation: float
    rotation_wide: float
    rotation_wide_share: float

    stretch: float
    """Spread of each entry of the linear part of the distortion (strain)."""
    warp: float
    warp_length: float
    """Median amplitude per axis and correlation length of the smooth distortion."""
    distortion_spread: float
    """Log-normal, per impression, of both."""
    jitter: float
    """Independent error of a minutia's place per axis."""
    angle_noise: float
    angle_noise_wide: float
    angle_noise_wide_share: float

    loss: float
    """Median share of minutiae not found."""
    loss_spread: float
    """Log-normal, per impression."""
    edge_loss_px: float
    """Depth of the rim of the contact area in which finding a minutia is not certain."""
    spurious: float
    """Mean number of minutiae found that are not there."""
    type_flip: float
    poor_share: float
    """Share of impressions that fail: most of the finger missing or little found."""


POOLED = Profile(
    image_width=480.0,
    image_height=560.0,
    margin=6.0,
    density=0.00029,
    density_spread=0.20,
    ending_share=0.673,
    area=82000.0,
    area_spread_finger=0.20,
    area_spread_impression=0.17,
    aspect=1.35,
    offset_x=9.0,
    offset_y=16.0,
    wide_share=0.18,
    wide_factor=2.2,
    shift_x=24.0,
    shift_y=36.0,
    rotation=0.036,
    rotation_wide=0.20,
    rotation_wide_share=0.10,
    stretch=0.012,
    warp=1.5,
    warp_length=75.0,
    distortion_spread=0.45,
    jitter=1.38,
    angle_noise=0.034,
    angle_noise_wide=0.09,
    angle_noise_wide_share=0.15,
    loss=0.035,
    loss_spread=0.8,
    edge_loss_px=10.0,
    spurious=0.8,
    type_flip=0.058,
    poor_share=0.03,
)
