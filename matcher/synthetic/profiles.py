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
    density=0.000202,
    density_spread=0.56,
    ending_share=0.701,
    area=79900.0,
    area_spread_finger=0.253,
    area_spread_impression=0.0953,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=13.6,
    offset_y=24.0,
    wide_share=0.18,
    wide_factor=2.12,
    shift_x=24.0,
    shift_y=36.0,
    rotation=0.0364,
    rotation_wide=0.338,
    rotation_wide_share=0.0979,
    stretch=0.0115,
    warp=1.39,
    warp_length=75.0,
    distortion_spread=0.679,
    jitter=0.821,
    jitter_spread=0.3,
    angle_noise=0.0279,
    angle_noise_wide=0.101,
    angle_noise_wide_share=0.15,
    loss=0.00803,
    loss_spread=0.86,
    edge_loss_px=4.01,
    spurious=0.401,
    type_flip=0.0584,
    poor_share=0.07,
)
"""All real sensors of the table together: 1,616 impressions."""

FVC2002_DB1 = Profile(
    image_width=388.0,
    image_height=374.0,
    margin=6.0,
    density=0.000225,
    density_spread=0.59,
    ending_share=0.725,
    area=81100.0,
    area_spread_finger=0.15,
    area_spread_impression=0.139,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=17.0,
    offset_y=29.9,
    wide_share=0.18,
    wide_factor=2.37,
    shift_x=20.4,
    shift_y=40.5,
    rotation=0.0209,
    rotation_wide=0.28,
    rotation_wide_share=0.46,
    stretch=0.0132,
    warp=1.59,
    warp_length=75.0,
    distortion_spread=0.48,
    jitter=0.614,
    jitter_spread=0.3,
    angle_noise=0.0308,
    angle_noise_wide=0.1,
    angle_noise_wide_share=0.15,
    loss=0.0126,
    loss_spread=0.449,
    edge_loss_px=4.66,
    spurious=0.484,
    type_flip=0.0653,
    poor_share=0.06,
)
"""Optical sensor, unguided: large rotations."""

FVC2002_DB3 = Profile(
    image_width=300.0,
    image_height=300.0,
    margin=4.0,
    density=8.04e-05,
    density_spread=0.123,
    ending_share=0.731,
    area=54100.0,
    area_spread_finger=0.173,
    area_spread_impression=0.199,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=9.75,
    offset_y=17.2,
    wide_share=0.18,
    wide_factor=3.17,
    shift_x=11.5,
    shift_y=20.8,
    rotation=0.0436,
    rotation_wide=0.495,
    rotation_wide_share=0.221,
    stretch=0.00938,
    warp=1.13,
    warp_length=75.0,
    distortion_spread=0.361,
    jitter=1.08,
    jitter_spread=0.3,
    angle_noise=0.0366,
    angle_noise_wide=0.109,
    angle_noise_wide_share=0.15,
    loss=0.034,
    loss_spread=0.572,
    edge_loss_px=6.53,
    spurious=0.738,
    type_flip=0.106,
    poor_share=0.08,
)
"""Capacitive sensor, small area."""

FVC2004_DB2 = Profile(
    image_width=328.0,
    image_height=364.0,
    margin=4.0,
    density=9.35e-05,
    density_spread=0.462,
    ending_share=0.595,
    area=93300.0,
    area_spread_finger=0.14,
    area_spread_impression=0.133,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=24.2,
    offset_y=42.6,
    wide_share=0.18,
    wide_factor=2.3,
    shift_x=16.9,
    shift_y=42.5,
    rotation=0.0619,
    rotation_wide=0.346,
    rotation_wide_share=0.161,
    stretch=0.00763,
    warp=0.922,
    warp_length=75.0,
    distortion_spread=0.749,
    jitter=1.18,
    jitter_spread=0.3,
    angle_noise=0.0345,
    angle_noise_wide=0.0944,
    angle_noise_wide_share=0.15,
    loss=0.0338,
    loss_spread=1.13,
    edge_loss_px=6.47,
    spurious=0.729,
    type_flip=0.104,
    poor_share=0.1,
)
"""Optical sensor, dry and moist fingers, little overlap."""

FVC2004_DB3 = Profile(
    image_width=293.0,
    image_height=469.0,
    margin=4.0,
    density=0.000191,
    density_spread=0.163,
    ending_share=0.7,
    area=95000.0,
    area_spread_finger=0.175,
    area_spread_impression=0.101,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=13.7,
    offset_y=24.1,
    wide_share=0.18,
    wide_factor=1.21,
    shift_x=8.78,
    shift_y=20.5,
    rotation=0.0297,
    rotation_wide=0.0638,
    rotation_wide_share=0.0769,
    stretch=0.0205,
    warp=2.48,
    warp_length=75.0,
    distortion_spread=0.338,
    jitter=1.18,
    jitter_spread=0.3,
    angle_noise=0.0364,
    angle_noise_wide=0.0957,
    angle_noise_wide_share=0.15,
    loss=0.0601,
    loss_spread=1.1,
    edge_loss_px=11.5,
    spurious=1.49,
    type_flip=0.101,
    poor_share=0.03,
)
"""Thermal sweep sensor: strong distortion."""

UPEK = Profile(
    image_width=248.0,
    image_height=338.0,
    margin=3.0,
    density=0.000105,
    density_spread=0.636,
    ending_share=0.723,
    area=80300.0,
    area_spread_finger=0.128,
    area_spread_impression=0.12,
    aspect=1.35,
    aspect_spread=0.08,
    offset_x=6.93,
    offset_y=12.2,
    wide_share=0.18,
    wide_factor=2.45,
    shift_x=9.89,
    shift_y=11.0,
    rotation=0.0251,
    rotation_wide=0.0708,
    rotation_wide_share=0.0883,
    stretch=0.00947,
    warp=1.14,
    warp_length=75.0,
    distortion_spread=0.57,
    jitter=0.614,
    jitter_spread=0.3,
    angle_noise=0.0243,
    angle_noise_wide=0.0684,
    angle_noise_wide_share=0.15,
    loss=0.00653,
    loss_spread=1.22,
    edge_loss_px=3.74,
    spurious=0.368,
    type_flip=0.0304,
    poor_share=0.0,
)
"""Capacitive touch sensor, guided placement."""
