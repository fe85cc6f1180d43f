"""Make ``data/descriptor-*.npz``: ``python -m matcher.train_descriptor --minutes 60 --out FILE``.

The network sees only the synthetic population. Each step draws fingers nobody has seen, two
impressions of each through two sensors of random badness, and asks the network to pick each
minutia's mate among all minutiae of the other impressions (a contrastive loss over the whole batch,
van den Oord, Li and Vinyals 2018). Worse sensors than the population's own profiles are drawn on
purpose: other extractors lose and invent more minutiae, and little overlap is what searches fail
for. Descriptors of one side get the noise that short codes will add.

What a neighbour adds is a function of the cell it lies in: a blurred grid of rings, sectors and
directions weighted by the network, plus a smaller network over the cells' places and a value of
each cell's own, all written out as one table in the end; then come a rectifier and one layer.
At the end weights and units become whole numbers (:class:`matcher.kernels.Network`).

Needs PyTorch (2.13 was used), which nothing else here does and no extra installs: one CPU core and
a GB of memory are enough. Training is bounded by time, so two runs differ; the shipped file is what
``benchmarks/RESULTS.md`` reports on. It began with the weights of descriptor-1, which knew the
blurred grid alone (``--start``, from the history of this repository), and trained 27 minutes more.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.kernels import CELLS, DIMENSION, PLACES, REACH_PX, RINGS, SECTORS, TURNS, wrapped
from matcher.synthetic import POOLED, Batch, Population, Profile

UNITS = 320
WIDE_DIMENSION = 64
"""Of descriptors while they are learned without regard to codes; the best directions are kept."""
FINGERS_A_STEP = 64
"""At first; half as many again late, for more rivals."""
LEARNING_RATE = 1e-3
MIN_MINUTIAE = 6
CODE_NOISE = 0.25
"""Root mean square error of a code beside a descriptor of length 1."""

Side = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Cells of all neighbours, where each minutia's start, and the places it sees, 0 to 1."""
Step = tuple[Side, Side, NDArray[np.int64]]
"""Both impressions, and the rows of mated minutiae, (P, 2)."""


def random_sensors(rng: np.random.Generator) -> tuple[Profile, Profile]:
    """The pooled profile made worse (rarely better) in every respect, twice, for one population."""

    def times(low: float, high: float) -> float:
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    density, area = POOLED.density * times(0.4, 1.25), POOLED.area * times(0.45, 1.3)
    warp_length = POOLED.warp_length * times(0.7, 1.5)

    def sensor() -> Profile:
        return POOLED._replace(
            density=density,
            area=area * times(0.8, 1.25),
            offset_x=POOLED.offset_x * times(0.7, 2.4),
            offset_y=POOLED.offset_y * times(0.7, 2.4),
            rotation_wide_share=rng.uniform(0.05, 0.4),
            stretch=POOLED.stretch * times(0.7, 2.0),
            warp=POOLED.warp * times(0.7, 2.2),
            warp_length=warp_length,
            jitter=POOLED.jitter * times(0.8, 2.5),
            angle_noise=POOLED.angle_noise * times(0.8, 3.0),
            angle_noise_wide_share=rng.uniform(0.1, 0.3),
            loss=rng.uniform(0.01, 0.22),
            edge_loss_px=POOLED.edge_loss_px * times(0.8, 4.0),
            spurious=times(0.4, 8.0),
        )

    return sensor(), sensor()


def side_of(batch: Batch, fingers: list[int]) -> tuple[Side, NDArray[np.int64]]:
    """What the minutiae of these fingers see, and what each is: finger and row, or -1."""
    cells, lengths, seen, names = [], [], [], []
    for number, finger in enumerate(fingers):
        part = slice(int(batch.offsets[finger]), int(batch.offsets[finger + 1]))
        x, y = np.rint(batch.x[part]), -np.rint(batch.y[part])
        angle = np.rint(batch.angle[part] * (128.0 / math.pi)).astype(np.int64) % 256
        own, starts, places = kernels_fast.surroundings(x, y, angle.astype(np.uint8))
        cells.append(own)
        lengths.append(np.diff(starts))
        seen.append(places)
        master = batch.master_row[part].astype(np.int64)
        names.append(np.where(master >= 0, number * 1000 + master, -1))
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))))
    places = np.concatenate(seen) * np.float32(1.0 / 255.0)
    return (np.concatenate(cells), starts, places), np.concatenate(names)


def draw(rng: np.random.Generator, fingers: int) -> Step:
    """Two impressions each of new fingers."""
    seed, numbers = int(rng.integers(1 << 62)), np.arange(fingers)
    batches = [
        Population(seed, sensor).batch(numbers, np.zeros(fingers, int), np.full(fingers, k))
        for k, sensor in enumerate(random_sensors(rng))
    ]
    fewest = np.minimum(*(np.diff(batch.offsets) for batch in batches))
    usable = np.flatnonzero(fewest >= MIN_MINUTIAE).tolist()
    (first, names), (second, others) = (side_of(batch, usable) for batch in batches)
    own = np.flatnonzero(names >= 0)
    order = np.argsort(others, kind="stable")
    place = np.minimum(np.searchsorted(others[order], names[own]), others.shape[0] - 1)
    mated = others[order][place] == names[own]
    return first, second, np.stack((own[mated], order[place[mated]]), axis=1)


GRID_RADII_PX = np.array((14.0, 30.0, 50.0, 74.0, 104.0))
GRID_SIGMAS_PX = np.array((7.0, 9.0, 11.0, 13.0, 16.0))
GRID_SECTORS, GRID_DIRECTIONS = 10, 6


def grid() -> NDArray[np.float32]:
    """What a neighbour in each cell adds to a blurred grid, (CELLS, rings x sectors x directions).

    Averages over 27 places of a cell.
    """
    sector_step, turn_step = 2.0 * math.pi / GRID_SECTORS, 2.0 * math.pi / GRID_DIRECTIONS
    total = np.zeros((RINGS, SECTORS, TURNS, 5, GRID_SECTORS, GRID_DIRECTIONS))
    parts = (np.arange(3) + 0.5) / 3.0
    for i in parts:
        distance = (np.arange(RINGS) + i) * (REACH_PX / RINGS)
        ring = np.exp(-0.5 * ((distance[:, None] - GRID_RADII_PX) / GRID_SIGMAS_PX) ** 2)
        for j in parts:
            bearing = (np.arange(SECTORS) + j - 0.5) * (2.0 * math.pi / SECTORS)
            off = wrapped(bearing[:, None] - sector_step * np.arange(GRID_SECTORS))
            sector = np.exp(-0.5 * (off / (0.6 * sector_step)) ** 2)
            spot = ring[:, None, :, None] * sector[None, :, None, :]
            spot[spot < 0.02] = 0.0
            for k in parts:
                turn = (np.arange(TURNS) + k - 0.5) * (2.0 * math.pi / TURNS)
                off = wrapped(turn[:, None] - turn_step * np.arange(GRID_DIRECTIONS))
                direction = np.exp(-0.5 * (off / (0.6 * turn_step)) ** 2)
                total += np.einsum("rbpq,td->rbtpqd", spot, direction) / 27.0
    return total.reshape(CELLS, -1).astype(np.float32)


def waves() -> torch.Tensor:
    """Smooth functions of the cells' places, (CELLS, functions)."""
    ring = (torch.arange(RINGS) + 0.5) * (REACH_PX / RINGS)
    sector = torch.arange(SECTORS) * (2.0 * math.pi / SECTORS)
    turn = torch.arange(TURNS) * (2.0 * math.pi / TURNS)
    r, b, t = torch.meshgrid(ring, sector, turn, indexing="ij")
    knots = torch.linspace(3.0, 141.0, 10)
    bumps = torch.exp(-0.5 * ((r[..., None] - knots) / (8.0 + 0.06 * knots)) ** 2)
    turned = [wave(k * b) for k in (1, 2, 3, 4) for wave in (torch.cos, torch.sin)]
    turned += [wave(k * t) for k in (1, 2, 3) for wave in (torch.cos, torch.sin)]
    return torch.cat((bumps, torch.stack(turned, dim=-1)), dim=-1).reshape(CELLS, -1)


class Descriptor(torch.nn.Module):  # type: ignore[misc]
    """A table over cells, the places seen, a rectifier, and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.from_numpy(grid()))
        self.register_buffer("waves", waves())
        self.weights = torch.nn.Parameter(0.05 * torch.randn(self.grid.shape[1], UNITS))
        self.own = torch.nn.Parameter(torch.zeros(CELLS, UNITS))
        self.smooth = torch.nn.Sequential(
            torch.nn.Linear(self.waves.shape[1], 96),
            torch.nn.GELU(),
            torch.nn.Linear(96, 96),
            torch.nn.GELU(),
            torch.nn.Linear(96, UNITS),
        )
        torch.nn.init.zeros_(self.smooth[4].weight)
        torch.nn.init.zeros_(self.smooth[4].bias)
        self.places = torch.nn.Linear(PLACES, UNITS)
        self.last = torch.nn.Linear(UNITS, WIDE_DIMENSION)
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(20.0)))

    def start(self, path: Path) -> None:
        """Take the weights of a network over the grid alone: w1, b1, w2 and b2."""
        with np.load(path) as arrays:
            first, last = arrays["w1"], arrays["w2"]
            cut = self.grid.shape[1]
            self.weights.data = torch.from_numpy(first[:cut].copy())
            self.places.weight.data = torch.from_numpy(first[cut:].T.copy())
            self.places.bias.data = torch.from_numpy(arrays["b1"].copy())
            self.last.weight.data = torch.from_numpy(last.T.copy())
            self.last.bias.data = torch.from_numpy(arrays["b2"].copy())

    def narrow(self, sample: Side) -> None:
        """Keep the directions in which descriptors vary most."""
        with torch.no_grad():
            vectors = torch.nn.functional.normalize(self.layers(self.table(), sample)[1], dim=1)
            _, axes = np.linalg.eigh(np.cov(vectors.numpy().T))
            kept = torch.from_numpy(axes[:, ::-1][:, :DIMENSION].T.astype(np.float32))
            weight, bias = self.last.weight.data, self.last.bias.data
            self.last = torch.nn.Linear(UNITS, DIMENSION)
            self.last.weight.data, self.last.bias.data = kept @ weight, kept @ bias

    def table(self) -> torch.Tensor:
        return self.grid @ self.weights + self.own + self.smooth(self.waves)

    def layers(self, table: torch.Tensor, side: Side) -> tuple[torch.Tensor, torch.Tensor]:
        """Units and descriptors, the latter not yet of one length."""
        cells, starts, seen = side
        summed = torch.nn.functional.embedding_bag(
            torch.from_numpy(cells), table, torch.from_numpy(starts[:-1]), mode="sum"
        )
        units = torch.relu(summed + self.places(torch.from_numpy(seen)))
        return units, self.last(units)


def contrastive_loss(
    network: Descriptor, step: Step, code_noise: float
) -> tuple[torch.Tensor, float]:
    """The loss, and the share of minutiae whose mate is the most alike."""
    table = network.table()
    first, second = (
        torch.nn.functional.normalize(network.layers(table, side)[-1], dim=1) for side in step[:2]
    )
    noise = torch.randn_like(second) * (code_noise / math.sqrt(second.shape[1]))
    second = torch.nn.functional.normalize(second + noise, dim=1)
    i, j = torch.from_numpy(step[2][:, 0]), torch.from_numpy(step[2][:, 1])
    scale = torch.exp(network.log_scale)
    forth, back = scale * (first[i] @ second.T), scale * (second[j] @ first.T)
    entropy = torch.nn.functional.cross_entropy
    loss = 0.5 * (entropy(forth, j) + entropy(back, i))
    return loss, float((forth.argmax(dim=1) == j).float().mean())


def in_whole_numbers(network: Descriptor, sample: Side) -> dict[str, NDArray[Any]]:
    """The arrays of :class:`matcher.kernels.Network`.

    Units are scaled so that one in a thousand of the sample's is cut off. Descriptors are turned
    onto their principal axes, which changes no distance: the component of most variance first, that
    of least second, and so on, so that every pair of components, which share a code of four bits,
    varies about as much (in the manner of Ge, He, Ke and Sun 2013).
    """
    with torch.no_grad():
        table = network.table()
        units, vectors = (values.numpy() for values in network.layers(table, sample))
        places, bias = network.places.weight.numpy(), network.places.bias.numpy()
        weight, last_bias = network.last.weight.numpy(), network.last.bias.numpy()
        cells = table.numpy()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    _, axes = np.linalg.eigh(np.cov(vectors.T))
    falling = np.arange(DIMENSION)[::-1]
    turned = axes[:, np.stack((falling, falling[::-1]), axis=1).ravel()[:DIMENSION]].T
    # Nothing is clipped that many prints have; a whole step of a cell is 256 of a sum.
    step = float(np.quantile(np.abs(cells), 0.9999)) / 127.0
    unit = float(np.quantile(units[units > 0.0], 0.999)) / 255.0
    last = turned @ weight * unit
    last_step = float(np.abs(last).max()) / 127.0

    def whole(values: NDArray[Any], step: float, dtype: type) -> NDArray[Any]:
        limit = np.iinfo(dtype).max
        return np.clip(np.rint(values / step), -limit, limit).astype(dtype)

    return {
        "cells": whole(cells, step, np.int8),
        "places": whole(places / 255.0, step / 256.0, np.int16),
        "bias": whole(bias, step / 256.0, np.int32),
        "gain": np.asarray(round((1 << 24) * (step / 256.0) / unit)),
        "last": whole(last, last_step, np.int8),
        "last_bias": whole(turned @ last_bias, last_step, np.int32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the minutia descriptor.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--start", type=Path, help="weights of a network over the grid alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    held_out = [draw(np.random.default_rng(7000 + k), FINGERS_A_STEP) for k in range(4)]
    network = Descriptor()
    if arguments.start is not None:
        network.start(arguments.start)
        network.narrow(held_out[0][0])
    # A cell's own value sees few neighbours a step.
    others = [value for name, value in network.named_parameters() if name != "own"]
    groups = [{"params": others, "share": 1.0}, {"params": [network.own], "share": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=1e-4)
    began, reported, step = time.monotonic(), 0.0, 0
    while (spent := (time.monotonic() - began) / 60.0) < arguments.minutes:
        warm = min(1.0, (step + 1) / 200.0)
        cool = 0.5 * (1.0 + math.cos(math.pi * spent / arguments.minutes)) + 0.005
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm * cool * group["share"]
        late = spent > 0.6 * arguments.minutes
        batch = draw(rng, FINGERS_A_STEP * 3 // 2 if late else FINGERS_A_STEP)
        loss, _ = contrastive_loss(network, batch, CODE_NOISE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1
        if spent - reported > 0.5:
            reported = spent
            with torch.no_grad():
                checks = [contrastive_loss(network, batch, 0.0) for batch in held_out]
            print(
                f"{spent:5.1f} min  step {step}  held-out loss"
                f" {np.mean([float(check[0]) for check in checks]):.3f}  mate first"
                f" {np.mean([check[1] for check in checks]):.3f}  scale"
                f" {float(torch.exp(network.log_scale)):.1f}",
                flush=True,
            )
    if network.last.out_features != DIMENSION:
        network.narrow(held_out[0][0])
    arrays: dict[str, Any] = in_whole_numbers(network, draw(rng, 128)[0])
    np.savez_compressed(arguments.out, **arrays)


if __name__ == "__main__":
    main()
