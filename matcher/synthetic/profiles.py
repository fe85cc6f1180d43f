"""How impressions differ from their finger, per sensor: the parameters of the generator.

Fitted to the figures of ``shared/data/stats.json`` (mated pairs of public sets, 8 impressions a
finger, LEADER extractor, after rigid alignment): generate, measure the same way
(``tests/matcher/mated_pairs.py``), turn the knob that belongs to each figure, ten times over. The
figures stand in ``tests/matcher/test_synthetic.py``, which holds the generator to them.
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
    aspect_spread: float
    """Height of the contact area over its width, and its log-normal spread per impression."""
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
    jitter_spread: float
    """Independent error of a minutia's place (root mean square per axis, without its tail), and its
    log-normal spread per impression."""
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
    density=0.000313,
    density_spread=0.6,
    ending_share=0.699,
    area=80100.0,
    area_spread_finger=0.245,
    area_spread_impression=0.0899,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=13.4,
    offset_y=23.6,
    wide_share=0.18,
    wide_factor=2.31,
    shift_x=24.0,
    shift_y=36.0,
    rotation=0.0394,
    rotation_wide=0.28,
    rotation_wide_share=0.1,
    stretch=0.0114,
    warp=1.42,
    warp_length=75.0,
    distortion_spread=0.64,
    jitter=0.80,
    jitter_spread=0.3,
    angle_noise=0.0276,
    angle_noise_wide=0.0983,
    angle_noise_wide_share=0.15,
    loss=0.0115,
    loss_spread=0.75,
    edge_loss_px=4.54,
    spurious=0.466,
    type_flip=0.0584,
    poor_share=0.07,
)
"""All real sensors of the table together: 1,616 impressions."""

FVC2002_DB1 = Profile(
    image_width=388.0,
    image_height=374.0,
    margin=6.0,
    density=0.000392,
    density_spread=0.539,
    ending_share=0.732,
    area=81600.0,
    area_spread_finger=0.148,
    area_spread_impression=0.139,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=17.3,
    offset_y=30.6,
    wide_share=0.18,
    wide_factor=2.21,
    shift_x=20.4,
    shift_y=40.5,
    rotation=0.0105,
    rotation_wide=0.284,
    rotation_wide_share=0.5,
    stretch=0.0132,
    warp=1.61,
    warp_length=75.0,
    distortion_spread=0.475,
    jitter=0.599,
    jitter_spread=0.3,
    angle_noise=0.0308,
    angle_noise_wide=0.0982,
    angle_noise_wide_share=0.15,
    loss=0.0166,
    loss_spread=0.3,
    edge_loss_px=5.12,
    spurious=0.542,
    type_flip=0.0653,
    poor_share=0.06,
)
"""Optical sensor, unguided: large rotations."""

FVC2002_DB3 = Profile(
    image_width=300.0,
    image_height=300.0,
    margin=4.0,
    density=0.000207,
    density_spread=0.198,
    ending_share=0.741,
    area=56000.0,
    area_spread_finger=0.166,
    area_spread_impression=0.185,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=9.97,
    offset_y=17.6,
    wide_share=0.18,
    wide_factor=3.22,
    shift_x=11.5,
    shift_y=20.8,
    rotation=0.0393,
    rotation_wide=0.433,
    rotation_wide_share=0.211,
    stretch=0.0103,
    warp=1.25,
    warp_length=75.0,
    distortion_spread=0.345,
    jitter=1.08,
    jitter_spread=0.3,
    angle_noise=0.0354,
    angle_noise_wide=0.105,
    angle_noise_wide_share=0.15,
    loss=0.0404,
    loss_spread=0.3,
    edge_loss_px=7.41,
    spurious=0.86,
    type_flip=0.106,
    poor_share=0.08,
)
"""Capacitive sensor, small area."""

FVC2004_DB2 = Profile(
    image_width=328.0,
    image_height=364.0,
    margin=4.0,
    density=0.000209,
    density_spread=0.572,
    ending_share=0.589,
    area=92300.0,
    area_spread_finger=0.179,
    area_spread_impression=0.098,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=21.5,
    offset_y=38.0,
    wide_share=0.18,
    wide_factor=2.24,
    shift_x=16.9,
    shift_y=42.5,
    rotation=0.0563,
    rotation_wide=0.361,
    rotation_wide_share=0.128,
    stretch=0.00789,
    warp=0.958,
    warp_length=75.0,
    distortion_spread=0.696,
    jitter=1.09,
    jitter_spread=0.3,
    angle_noise=0.0341,
    angle_noise_wide=0.0961,
    angle_noise_wide_share=0.15,
    loss=0.0385,
    loss_spread=0.3,
    edge_loss_px=7.11,
    spurious=0.817,
    type_flip=0.104,
    poor_share=0.1,
)
"""Optical sensor, dry and moist fingers, little overlap."""

FVC2004_DB3 = Profile(
    image_width=293.0,
    image_height=469.0,
    margin=4.0,
    density=0.000344,
    density_spread=0.294,
    ending_share=0.711,
    area=96000.0,
    area_spread_finger=0.175,
    area_spread_impression=0.0973,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=13.6,
    offset_y=24.0,
    wide_share=0.18,
    wide_factor=1.35,
    shift_x=8.78,
    shift_y=20.5,
    rotation=0.0299,
    rotation_wide=0.0791,
    rotation_wide_share=0.068,
    stretch=0.0209,
    warp=2.54,
    warp_length=75.0,
    distortion_spread=0.344,
    jitter=1.15,
    jitter_spread=0.3,
    angle_noise=0.0365,
    angle_noise_wide=0.0981,
    angle_noise_wide_share=0.15,
    loss=0.0687,
    loss_spread=0.907,
    edge_loss_px=12.5,
    spurious=1.66,
    type_flip=0.101,
    poor_share=0.03,
)
"""Thermal sweep sensor: strong distortion."""

UPEK = Profile(
    image_width=248.0,
    image_height=338.0,
    margin=3.0,
    density=0.000215,
    density_spread=0.577,
    ending_share=0.729,
    area=80500.0,
    area_spread_finger=0.132,
    area_spread_impression=0.114,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=6.73,
    offset_y=11.9,
    wide_share=0.18,
    wide_factor=2.48,
    shift_x=9.89,
    shift_y=11.0,
    rotation=0.0262,
    rotation_wide=0.0786,
    rotation_wide_share=0.0736,
    stretch=0.00989,
    warp=1.2,
    warp_length=75.0,
    distortion_spread=0.548,
    jitter=0.581,
    jitter_spread=0.3,
    angle_noise=0.0243,
    angle_noise_wide=0.068,
    angle_noise_wide_share=0.15,
    loss=0.01,
    loss_spread=0.704,
    edge_loss_px=4.32,
    spurious=0.439,
    type_flip=0.0304,
    poor_share=0.0,
)
"""Capacitive touch sensor, guided placement."""
