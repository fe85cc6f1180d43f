"""The compiled heart of the population: random streams, fingers, impressions.

All of it lies in one file because Numba's cache watches only the file a function is in: compiled
code that calls into an edited other file, or reads the fields of a tuple whose definition moved,
would keep running the old one. Three parts.

Random streams
--------------
Every finger and every impression has its own stream, keyed by (seed, subject, position,
impression), so a population can be made in any order, in parallel, or one impression at a time, and
comes out the same. The generator is SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state.
The streams make test data; nothing secret may come from them.

The finger
----------
The ridge flow is a quadratic differential, the model of Huckemann, Hotz and Munk (2008): with
z = x + iy over the finger's base line, y squeezed, and R half the width of the finger's outline,

    Q(z) = product over deltas (z-d)(z-d*) / (product over cores (z-c)(z-c*) . (z^2 - R^2)^2)

and ridges run where Q dz^2 > 0, that is at the angle theta = -arg(Q) / 2. Without singularities it
is a plain arch; a core adds half a turn around itself, a delta takes one off. Where cores and
deltas lie makes the classes. A smooth random field of a few degrees is added, because no finger
follows its model exactly.

Minutiae are where a ridge begins: an ending is a ridge that starts, a bifurcation a ridge that
starts beside another, which is why both carry one direction, that of the new ridge. Where the flow
lines spread, or the ridge period shrinks along them, new ridges must start: the surplus of minutiae
pointing one way along the flow over those pointing the other is the curl of the ridges' wave vector
(Larkin and Fletcher 2007 treat minutiae as such dislocations), that is the flow's divergence over
the ridge period plus the change of ridge frequency along the flow. ``FLOW_SHARE`` of it is used. It
gives neighbouring minutiae the correlated directions they really have, more of them near cores and
deltas, and the drift downwards below the core.

On top of that the positions repel each other and close pairs point in opposite directions, with the
strengths measured in real templates (``_INHIBITION``, ``_OPPOSITE``).

Lengths are pixels at 500 ppi. Master coordinates have their origin in the middle of the finger pad
and y down, like templates; the flow is computed in z, y up.

The impression
--------------
In order: the contact area on the finger (an ellipse, its middle and size drawn anew each time), the
distortion of the skin (a strain plus a smooth random field), the rigid placement on the sensor, the
sensor's window, and the extractor: minutiae lost, displaced, turned, mistaken for the other kind,
and invented.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, compiled to machine code that runs without holding the GIL."""
    return cast("Callable[P, R]", numba.njit(cache=True, nogil=True)(function))


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


# --- random streams ---

State = NDArray[np.uint64]
"""(1,) uint64, changed by every draw."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1 = np.uint64(30)
_SHIFT_2 = np.uint64(27)
_SHIFT_3 = np.uint64(31)
_TO_53_BITS = np.uint64(11)


@compiled
def _mixed(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> _SHIFT_1)) * _MIX_1
    z = (z ^ (z >> _SHIFT_2)) * _MIX_2
    return z ^ (z >> _SHIFT_3)


@compiled
def stream(seed: int, index: int, position: int, impression: int) -> State:
    """The stream of one impression; impression -1 is the finger's own (its master)."""
    state = np.empty(1, np.uint64)
    z = _mixed(np.uint64(seed) + _GAMMA)
    z = _mixed(z ^ (np.uint64(index) + _GAMMA))
    z = _mixed(z ^ (np.uint64(position) * _MIX_1 + _GAMMA))
    state[0] = _mixed(z ^ (np.uint64(impression + 1) * _MIX_2 + _GAMMA))
    return state


@compiled
def uniform(state: State) -> float:
    """Uniform in [0, 1), 53 bits."""
    state[0] += _GAMMA
    return float(_mixed(state[0]) >> _TO_53_BITS) * (1.0 / 9007199254740992.0)


@compiled
def normal(state: State) -> float:
    """Standard normal (Box and Muller 1958, the cosine half)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(state)))
    return radius * math.cos(2.0 * math.pi * uniform(state))


# --- the finger ---

MAX_MASTER_MINUTIAE = 240
PAD_HALF_WIDTH = 205.0
PAD_HALF_HEIGHT = 275.0
"""The ellipse in which a master has minutiae: what any impression can show."""

PAD_MIDDLE = 330.0
"""Height of the middle of the pad over the base line."""

SQUEEZE = 0.8
"""By how much the model is flatter than the finger: fingers are longer than wide."""

RIDGE_PERIOD = 9.0
FLOW_SHARE = 0.9
"""Share of the dislocations asked for by the flow that become minutiae; the rest of the minutiae
point either way. Chosen with ``_BEND`` and ``_PERIOD_SPREAD`` so that the mean cosines of once and
twice the angle between two minutiae fall with their distance as in real templates."""

_SURPLUS_LIMIT = 1.0 / (35.0 * RIDGE_PERIOD)
"""Per px^2, at the singularities, where the divergence has no bound."""

_OFF_FLOW = 0.10
"""Radians by which a minutia's own direction leaves the flow: branches fan out, ends curl."""

_FLOW_WAVES = 5
_BEND = 0.04
"""Radians, spread of each of the three short waves added to the model's ridge angle."""
_PERIOD_SPREAD = 0.02
_PERIOD_SPREAD_WIDE = 0.22
"""Spread of each of three short and two long waves in the logarithm of the ridge period."""

# Natural frequencies of NIST's fingerprint classification work (Wilson, Candela, Watson 1994): arch
# 3.7 %, tented arch 2.9 %, left loop 33.8 %, right loop 31.7 %, whorl 27.9 %; a quarter of whorls
# taken as double loops. Loops open to the little finger's side in 93 % of fingers, thumbs and rings
# have more whorls, indexes more arches and loops towards the thumb.
_ULNAR_SHARE = 0.93
_ULNAR_SHARE_INDEX = 0.70

# Acceptance of a new minutia by its distance to one already there: upper ends of the distance bins
# in px. From the pair correlation g(r) of 448 LEADER templates, relative to its level at 50 px.
_INHIBITION_PX = np.array([6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0])
_INHIBITION = np.array([0.0, 0.03, 0.10, 0.30, 0.72, 0.78, 0.84, 0.90, 0.96])
# Share of close pairs that point in opposite directions, from the same templates' mean cosine.
_OPPOSITE_PX = np.array([8.0, 10.0, 12.0, 15.0])
_OPPOSITE = np.array([0.95, 0.78, 0.80, 0.64])


@compiled
def pattern_of(state: State, position: int) -> int:
    """Draw the class of a finger at ``position`` (0 to 10)."""
    finger = (position - 1) % 5 if position > 0 else 5  # thumb, index, middle, ring, little, any
    index = finger == 1
    whorls = 0.279
    if finger == 0 or finger == 3:
        whorls = 0.40
    elif finger == 2 or finger == 4:
        whorls = 0.18
    arches = 0.13 if index else 0.055
    draw = uniform(state)
    if draw < arches:
        return 0 if uniform(state) < 0.56 else 1
    if draw < arches + whorls:
        return 5 if uniform(state) < 0.25 else 4
    ulnar = uniform(state) < (_ULNAR_SHARE_INDEX if index else _ULNAR_SHARE)
    right_hand = uniform(state) < 0.5 if position == 0 else position <= 5
    # Seen on the print, an ulnar loop of the right hand opens to the right.
    return 3 if ulnar == right_hand else 2


@compiled
def flow_of(state: State, pattern: int) -> NDArray[np.float64]:
    """Draw the flow of one finger: singularities, outline and random field as one flat array.

    Layout: [R, number of cores, number of deltas, cores x, y (2), deltas x, y (2), then five waves
    of (kx, ky, phase, amplitude in the angle, in the logarithm of the frequency)], 36 numbers.
    """
    flow = np.zeros(11 + 5 * _FLOW_WAVES)
    flow[0] = 340.0 + 20.0 * normal(state)
    cx = 8.0 * normal(state)
    cy = PAD_MIDDLE + 30.0 + 15.0 * normal(state)
    dx = min(175.0, max(60.0, 115.0 + 22.0 * normal(state)))
    dy = cy - min(260.0, max(90.0, 190.0 + 28.0 * normal(state)))
    if pattern == 1:
        flow[1] = 1.0
        flow[2] = 1.0
        flow[3], flow[4] = cx, cy - 15.0
        flow[7] = cx + 6.0 * normal(state)
        flow[8] = cy - 15.0 - min(110.0, max(30.0, 65.0 + 18.0 * normal(state)))
    elif pattern == 2 or pattern == 3:
        side = -1.0 if pattern == 3 else 1.0
        flow[1] = 1.0
        flow[2] = 1.0
        flow[3], flow[4] = cx, cy
        flow[7], flow[8] = cx + side * dx, dy
    elif pattern >= 4:
        apart = 14.0 + 16.0 * uniform(state)
        across = 5.0 * normal(state)
        if pattern == 5:
            apart = 40.0 + 50.0 * uniform(state)
            across = (30.0 + 14.0 * normal(state)) * (1.0 if uniform(state) < 0.5 else -1.0)
        flow[1] = 2.0
        flow[2] = 2.0
        flow[3], flow[4] = cx + across / 2.0, cy + apart / 2.0
        flow[5], flow[6] = cx - across / 2.0, cy - apart / 2.0
        flow[7], flow[8] = cx - dx, dy
        flow[9] = cx + min(175.0, max(60.0, 115.0 + 22.0 * normal(state)))
        flow[10] = dy + 18.0 * normal(state)
    for k in range(_FLOW_WAVES):
        bends = k < 3
        wave = 2.0 * math.pi / ((110.0 if bends else 350.0) + 200.0 * uniform(state))
        direction = 2.0 * math.pi * uniform(state)
        at = 11 + 5 * k
        flow[at] = wave * math.cos(direction)
        flow[at + 1] = wave * math.sin(direction)
        flow[at + 2] = 2.0 * math.pi * uniform(state)
        flow[at + 3] = (_BEND if bends else 0.0) * normal(state)
        flow[at + 4] = (_PERIOD_SPREAD if bends else _PERIOD_SPREAD_WIDE) * normal(state)
    return flow


@compiled
def flow_at(flow: NDArray[np.float64], x: float, y: float) -> tuple[float, float]:
    """Ridge angle in radians (any branch, y up) at ``x + iy``, and the surplus of minutiae there.

    The surplus is per px^2, of minutiae pointing along the angle over those pointing back, limited.
    """
    z = complex(x, SQUEEZE * y)
    outline = z * z - flow[0] * flow[0]
    slope = 4.0 * z / outline
    turned = outline * outline  # of argument twice the ridge angle
    for k in range(int(flow[1])):
        core = complex(flow[3 + 2 * k], SQUEEZE * flow[4 + 2 * k])
        both = (z - core) * (z - core.conjugate()) + 1e-9
        turned *= both
        slope += 2.0 * (z - core.real) / both
    for k in range(int(flow[2])):
        delta = complex(flow[7 + 2 * k], SQUEEZE * flow[8 + 2 * k])
        both = (z - delta) * (z - delta.conjugate()) + 1e-9
        turned *= both.conjugate()
        slope -= 2.0 * (z - delta.real) / both
    angle = 0.5 * math.atan2(turned.imag, turned.real)
    # slope is -d log Q / dz, so d theta/dx = Im(slope) / 2 and d theta/dy = Re(slope) / 2.
    # Undoing the squeeze makes every ridge steeper: tan(angle) grows by 1 / SQUEEZE.
    level, steep = math.cos(angle), math.sin(angle) / SQUEEZE
    gain = 0.5 / (SQUEEZE * (level * level + steep * steep))
    angle = math.atan2(steep, level)
    angle_dx = gain * slope.imag
    angle_dy = gain * slope.real * SQUEEZE
    frequency_dx = 0.0
    frequency_dy = 0.0
    for k in range(_FLOW_WAVES):
        kx = flow[11 + 5 * k]
        ky = flow[12 + 5 * k]
        argument = kx * x + ky * y + flow[13 + 5 * k]
        sine, cosine = math.sin(argument), math.cos(argument)
        angle += flow[14 + 5 * k] * sine
        angle_dx += flow[14 + 5 * k] * cosine * kx
        angle_dy += flow[14 + 5 * k] * cosine * ky
        frequency_dx -= flow[15 + 5 * k] * sine * kx
        frequency_dy -= flow[15 + 5 * k] * sine * ky
    along_x, along_y = math.cos(angle), math.sin(angle)
    spreading = along_x * angle_dy - along_y * angle_dx
    narrowing = along_x * frequency_dx + along_y * frequency_dy
    surplus = (spreading + narrowing) / RIDGE_PERIOD
    return angle, max(-_SURPLUS_LIMIT, min(_SURPLUS_LIMIT, surplus))


@compiled
def draw_master(
    state: State, pattern: int, density: float, ending_share: float, out: NDArray[np.float64]
) -> int:
    """Draw a master's minutiae into ``out``; the number drawn comes back.

    Args:
        state: the finger's stream.
        pattern: :class:`PatternClass`.
        density: minutiae per px^2 over the pad, before inhibition thins them.
        ending_share: share of ridge endings.
        out: (5, MAX_MASTER_MINUTIAE) float64, overwritten: x, y, angle, kind, visibility.
    """
    flow = flow_of(state, pattern)
    capacity = out.shape[1]
    area = math.pi * PAD_HALF_WIDTH * PAD_HALF_HEIGHT
    # Proposals at the highest intensity that occurs, thinned to the intensity of their place.
    highest = density + FLOW_SHARE * _SURPLUS_LIMIT
    count = 0
    for _ in range(int(highest * area)):
        radius = math.sqrt(uniform(state))
        around = 2.0 * math.pi * uniform(state)
        x = PAD_HALF_WIDTH * radius * math.cos(around)
        y = PAD_HALF_HEIGHT * radius * math.sin(around)
        thin = uniform(state) * highest
        if thin > density:
            angle, surplus = flow_at(flow, x, y + PAD_MIDDLE)
            if thin > density + FLOW_SHARE * abs(surplus):
                continue
        kept = 1.0
        nearest = -1
        nearest_squared = 225.0
        for j in range(count):
            dx = out[0, j] - x
            dy = out[1, j] + y
            squared = dx * dx + dy * dy
            if squared < 1600.0:
                distance = math.sqrt(squared)
                for b in range(_INHIBITION_PX.shape[0]):
                    if distance < _INHIBITION_PX[b]:
                        kept *= _INHIBITION[b]
                        break
                if squared < nearest_squared:
                    nearest_squared = squared
                    nearest = j
            if kept == 0.0:
                break
        if uniform(state) >= kept:
            continue
        angle, surplus = flow_at(flow, x, y + PAD_MIDDLE)
        forward = 0.5 * density + FLOW_SHARE * max(0.0, surplus)
        if uniform(state) * (density + FLOW_SHARE * abs(surplus)) >= forward:
            angle += math.pi
        if nearest >= 0:
            distance = math.sqrt(nearest_squared)
            opposite = 0.5
            for b in range(_OPPOSITE_PX.shape[0]):
                if distance < _OPPOSITE_PX[b]:
                    opposite = _OPPOSITE[b]
                    break
            along = math.cos(angle - out[2, nearest])
            if (along > 0.0) == (uniform(state) < opposite):
                angle += math.pi
        out[0, count] = x
        out[1, count] = -y
        out[2, count] = (angle + _OFF_FLOW * normal(state)) % (2.0 * math.pi)
        out[3, count] = 1.0 if uniform(state) < ending_share else 2.0
        # Most minutiae are found every time, some half of the time.
        out[4, count] = 1.0 - 0.5 * uniform(state) ** 11
        count += 1
        if count == capacity:
            break
    return count


# --- the impression ---

MAX_MINUTIAE = 255
"""What a record of ISO/IEC 19794-2:2005 can hold in one view."""

_WAVES = 10
_SPURIOUS_APART_PX = 8.0


@compiled
def draw_impression(
    state: State,
    profile: Profile,
    master: NDArray[np.float64],
    count: int,
    size_of_finger: float,
    out: NDArray[np.float64],
    region: NDArray[np.float64],
) -> int:
    """Draw one impression into ``out``; the number of its minutiae comes back.

    Args:
        state: the impression's stream.
        profile: the sensor's parameters.
        master: (5, >= count) float64 as filled by ``draw_master``.
        count: minutiae in the master.
        size_of_finger: contact area of this finger over the profile's median.
        out: (6, MAX_MINUTIAE) float64, overwritten: x, y, angle, kind, quality, and the row of the
            minutia in the master, -1 for one that is not there.
        region: (8,) float64, overwritten: the contact ellipse on the finger (middle x, y, half
            width, half height), then the placement on the sensor (angle, shift x, y) and the
            finger quality, 0 to 100.
    """
    careless = uniform(state) < profile.wide_share
    poor = uniform(state) < profile.poor_share
    widen = profile.wide_factor if careless else 1.0
    middle_x = profile.offset_x * widen * normal(state)
    middle_y = profile.offset_y * widen * normal(state)
    area = profile.area * size_of_finger * math.exp(profile.area_spread_impression * normal(state))
    loss = min(0.6, profile.loss * math.exp(profile.loss_spread * normal(state)))
    spurious_mean = profile.spurious * (0.5 + loss / profile.loss * 0.35)
    if poor:
        # Half of the failures show little of the finger, half are blurred.
        if uniform(state) < 0.5:
            area *= 0.35 + 0.3 * uniform(state)
            middle_x += 45.0 * normal(state)
            middle_y += 70.0 * normal(state)
        else:
            loss = 0.3 + 0.3 * uniform(state)
            spurious_mean += 6.0 * uniform(state)
    aspect = profile.aspect * math.exp(profile.aspect_spread * normal(state))
    half_width = min(math.sqrt(area / (math.pi * aspect)), PAD_HALF_WIDTH)
    half_height = min(area / (math.pi * half_width), PAD_HALF_HEIGHT)

    turn = profile.rotation * normal(state)
    if uniform(state) < profile.rotation_wide_share:
        turn = profile.rotation_wide * normal(state)
    cosine, sine = math.cos(turn), math.sin(turn)
    shift_x = 0.5 * profile.image_width + profile.shift_x * normal(state)
    shift_y = 0.5 * profile.image_height + profile.shift_y * normal(state)

    # Smooth field: random Fourier features of a Gaussian covariance (Rahimi and Recht 2007).
    strength = math.exp(profile.distortion_spread * normal(state))
    if poor:
        strength *= 1.3
    waves = np.empty((_WAVES, 5))
    amplitude = profile.warp * strength * math.sqrt(2.0 / _WAVES)
    for k in range(_WAVES):
        waves[k, 0] = normal(state) / profile.warp_length
        waves[k, 1] = normal(state) / profile.warp_length
        waves[k, 2] = 2.0 * math.pi * uniform(state)
        waves[k, 3] = amplitude * normal(state)
        waves[k, 4] = amplitude * normal(state)
    strain = profile.stretch * strength
    xx, xy, yy = strain * normal(state), 0.7 * strain * normal(state), strain * normal(state)

    jitter = profile.jitter * math.exp(profile.jitter_spread * normal(state))
    found = 0
    quality_sum = 0.0
    low_x, high_x = profile.margin, profile.image_width - profile.margin
    low_y, high_y = profile.margin, profile.image_height - profile.margin
    for row in range(count):
        x = master[0, row] - middle_x
        y = master[1, row] - middle_y
        inside = 1.0 - math.sqrt((x / half_width) ** 2 + (y / half_height) ** 2)
        if inside <= 0.0:
            continue
        depth = inside * half_width / profile.edge_loss_px
        seen = (1.0 - loss) * master[4, row]
        if depth < 1.0:
            seen *= 0.35 + 0.65 * depth
        if uniform(state) >= seen:
            continue
        moved_x = x + xx * x + xy * y
        moved_y = y + xy * x + yy * y
        lean = 0.0
        for k in range(_WAVES):
            argument = waves[k, 0] * x + waves[k, 1] * y + waves[k, 2]
            wave = math.cos(argument)
            moved_x += waves[k, 3] * wave
            moved_y += waves[k, 4] * wave
            lean -= (
                0.5 * math.sin(argument) * (waves[k, 4] * waves[k, 0] - waves[k, 3] * waves[k, 1])
            )
        # Where a ridge ends is less certain than on which side of its neighbour it lies.
        along = jitter * 1.3 * normal(state)
        across = jitter * 0.57 * normal(state)
        if uniform(state) < 0.1:
            along, across = 2.0 * along, 2.0 * across
        ridge_x, ridge_y = math.cos(master[2, row]), -math.sin(master[2, row])
        moved_x += along * ridge_x - across * ridge_y
        moved_y += along * ridge_y + across * ridge_x
        at_x = cosine * moved_x + sine * moved_y + shift_x
        at_y = -sine * moved_x + cosine * moved_y + shift_y
        if not (low_x <= at_x < high_x and low_y <= at_y < high_y):
            continue
        noise = profile.angle_noise
        if uniform(state) < profile.angle_noise_wide_share:
            noise = profile.angle_noise_wide
        kind = master[3, row]
        if uniform(state) < profile.type_flip:
            kind = 3.0 - kind
        # Rotation in y-down coordinates: the image turns counter-clockwise by ``turn``.
        out[0, found] = at_x
        out[1, found] = at_y
        out[2, found] = (master[2, row] + turn - lean + noise * normal(state)) % (2.0 * math.pi)
        out[3, found] = kind
        quality = 99.0 - 22.0 * (1.0 - seen) - 12.0 * uniform(state) ** 2 - 12.0 * loss
        out[4, found] = math.floor(max(30.0, min(98.0, quality)))
        out[5, found] = float(row)
        quality_sum += out[4, found]
        found += 1
        if found == MAX_MINUTIAE:
            break

    spurious = _poisson(state, spurious_mean)
    for _ in range(spurious):
        if found == MAX_MINUTIAE:
            break
        radius = math.sqrt(uniform(state))
        around = 2.0 * math.pi * uniform(state)
        x = half_width * radius * math.cos(around)
        y = half_height * radius * math.sin(around)
        at_x = cosine * x + sine * y + shift_x
        at_y = -sine * x + cosine * y + shift_y
        angle = 2.0 * math.pi * uniform(state)
        kind = 1.0 if uniform(state) < profile.ending_share else 2.0
        quality = 50.0 + 40.0 * uniform(state)
        if not (low_x <= at_x < high_x and low_y <= at_y < high_y):
            continue
        nearest = -1
        nearest_squared = 3600.0
        for j in range(found):
            squared = (out[0, j] - at_x) ** 2 + (out[1, j] - at_y) ** 2
            if squared < nearest_squared:
                nearest, nearest_squared = j, squared
        if nearest_squared < _SPURIOUS_APART_PX**2:
            continue
        if nearest >= 0:
            # Broken ridges and noise lie along the flow too: take a neighbour's line.
            angle = out[2, nearest] + 0.25 * normal(state)
            if uniform(state) < 0.5:
                angle += math.pi
        out[0, found] = at_x
        out[1, found] = at_y
        out[2, found] = angle % (2.0 * math.pi)
        out[3, found] = kind
        out[4, found] = math.floor(quality)
        out[5, found] = -1.0
        quality_sum += out[4, found]
        found += 1

    region[0], region[1], region[2], region[3] = middle_x, middle_y, half_width, half_height
    region[4], region[5], region[6] = turn, shift_x, shift_y
    region[7] = math.floor(quality_sum / found) if found > 0 else 0.0
    return found


@compiled
def _poisson(state: State, mean: float) -> int:
    limit = math.exp(-mean)
    product = uniform(state)
    drawn = 0
    while product > limit:
        product *= uniform(state)
        drawn += 1
    return drawn


# --- many at once ---


@compiled
def draw_finger(
    state: State, profile: Profile, position: int, out: NDArray[np.float64]
) -> tuple[int, int, float]:
    """Draw a finger: its class, the number of its minutiae, its relative contact area."""
    pattern = pattern_of(state, position)
    density = profile.density * math.exp(profile.density_spread * normal(state))
    ending_share = min(0.95, max(0.3, profile.ending_share + 0.08 * normal(state)))
    size = math.exp(profile.area_spread_finger * normal(state))
    if position == 1 or position == 6:
        size *= 1.2
    elif position == 5 or position == 10:
        size *= 0.8
    count = draw_master(state, pattern, density, ending_share, out)
    return pattern, count, size


@compiled
def draw_batch(
    seed: int,
    profile: Profile,
    index: NDArray[np.int64],
    position: NDArray[np.int64],
    number: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int16], NDArray[np.float32]]:
    """Offsets (N + 1,), x, y, angle (3, M), kind, quality, master row (3, M), region (N, 8)."""
    total = index.shape[0]
    offsets = np.zeros(total + 1, np.int64)
    region = np.empty((total, 8), np.float32)
    capacity = 64 * total + MAX_MINUTIAE
    columns = np.empty((3, capacity), np.float32)
    rows = np.empty((3, capacity), np.int16)
    master = np.empty((5, MAX_MASTER_MINUTIAE))
    drawn = np.empty((6, MAX_MINUTIAE))
    where = np.empty(8)
    last_index, last_position = -1, -1
    count = 0
    size = 1.0
    for i in range(total):
        if index[i] != last_index or position[i] != last_position:
            last_index, last_position = index[i], position[i]
            _, count, size = draw_finger(
                stream(seed, last_index, last_position, -1), profile, last_position, master
            )
        state = stream(seed, last_index, last_position, number[i])
        found = draw_impression(state, profile, master, count, size, drawn, where)
        begin = offsets[i]
        if begin + found > capacity:
            grown = 2 * capacity + MAX_MINUTIAE
            more_columns = np.empty((3, grown), np.float32)
            more_rows = np.empty((3, grown), np.int16)
            more_columns[:, :begin] = columns[:, :begin]
            more_rows[:, :begin] = rows[:, :begin]
            columns, rows, capacity = more_columns, more_rows, grown
        for j in range(found):
            for c in range(3):
                columns[c, begin + j] = drawn[c, j]
                rows[c, begin + j] = int(drawn[3 + c, j])
        for c in range(8):
            region[i, c] = where[c]
        offsets[i + 1] = begin + found
    end = offsets[total]
    return offsets, columns[:, :end].copy(), rows[:, :end].copy(), region
