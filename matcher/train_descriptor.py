"""Make ``data/descriptor-*.npz``: ``python -m matcher.train_descriptor --minutes 20 --out FILE``.

The network sees only the synthetic population. Each step draws fingers nobody has seen, two
impressions of each through sensors of random badness, and asks the network to pick each minutia's
mate among all minutiae of the other impressions (a contrastive loss over the whole batch, van den
Oord, Li and Vinyals 2018). Worse sensors than the population's own profiles are drawn on purpose:
extractors other than the one the profiles were measured with lose and invent more minutiae.

Needs PyTorch (2.13 was used), which nothing else here does and no extra installs: one CPU core and
a few hundred MB are enough. Training is bounded by time, so two runs differ; the shipped file is
what ``benchmarks/RESULTS.md`` reports on.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from matcher import kernels_fast
from matcher.synthetic import POOLED, Batch, Population, Profile

HIDDEN = 320
FINGERS_A_STEP = 64
LEARNING_RATE = 2e-3
MIN_MINUTIAE = 8


def random_sensor(rng: np.random.Generator) -> Profile:
    """The pooled profile made worse (rarely better) in every respect, by random factors."""

    def times(low: float, high: float) -> float:
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    return POOLED._replace(
        density=POOLED.density * times(0.4, 1.2),
        area=POOLED.area * times(0.6, 1.3),
        offset_x=POOLED.offset_x * times(0.7, 2.0),
        offset_y=POOLED.offset_y * times(0.7, 2.0),
        rotation_wide_share=rng.uniform(0.05, 0.4),
        stretch=POOLED.stretch * times(0.7, 2.0),
        warp=POOLED.warp * times(0.7, 2.2),
        warp_length=POOLED.warp_length * times(0.7, 1.5),
        jitter=POOLED.jitter * times(0.8, 2.5),
        angle_noise=POOLED.angle_noise * times(0.8, 3.0),
        angle_noise_wide_share=rng.uniform(0.1, 0.3),
        loss=rng.uniform(0.01, 0.2),
        edge_loss_px=POOLED.edge_loss_px * times(0.8, 4.0),
        spurious=times(0.4, 8.0),
    )


def described(batch: Batch, row: int) -> NDArray[np.float32]:
    part = slice(int(batch.offsets[row]), int(batch.offsets[row + 1]))
    angle = np.rint(batch.angle[part] * (128.0 / math.pi)).astype(np.int64) % 256
    neighbours: NDArray[np.float32] = kernels_fast.neighbourhoods(
        np.rint(batch.x[part]), -np.rint(batch.y[part]), angle.astype(np.uint8)
    )
    return neighbours


def draw(
    rng: np.random.Generator, fingers: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Neighbourhoods of first and second impressions, and the rows of mated minutiae."""
    population = Population(int(rng.integers(1 << 62)), random_sensor(rng))
    index = np.repeat(np.arange(fingers), 2)
    batch = population.batch(index, np.zeros_like(index), np.tile([0, 1], fingers))
    first, second, pairs = [], [], []
    offset = [0, 0]
    for finger in range(fingers):
        rows = []
        for impression in range(2):
            start, stop = batch.offsets[2 * finger + impression : 2 * finger + impression + 2]
            rows.append(batch.master_row[start:stop])
        if min(len(rows[0]), len(rows[1])) < MIN_MINUTIAE:
            continue
        first.append(described(batch, 2 * finger))
        second.append(described(batch, 2 * finger + 1))
        mate_of = {int(m): i for i, m in enumerate(rows[1]) if m >= 0}
        pairs += [
            (offset[0] + i, offset[1] + mate_of[int(m)])
            for i, m in enumerate(rows[0])
            if int(m) in mate_of
        ]
        offset[0] += len(rows[0])
        offset[1] += len(rows[1])
    return np.concatenate(first), np.concatenate(second), np.asarray(pairs, dtype=np.int64)


class Network(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, inputs: int, dimension: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(inputs, HIDDEN)
        self.second = torch.nn.Linear(HIDDEN, dimension)
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, neighbours: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.first(neighbours))
        return torch.nn.functional.normalize(self.second(hidden), dim=1)


def contrastive_loss(
    network: Network, batch: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
) -> tuple[torch.Tensor, float]:
    """The loss, and the share of minutiae whose mate is the most alike."""
    first, second = network(torch.from_numpy(batch[0])), network(torch.from_numpy(batch[1]))
    alike = torch.exp(network.log_scale) * (first @ second.T)
    i, j = torch.from_numpy(batch[2][:, 0]), torch.from_numpy(batch[2][:, 1])
    loss = torch.nn.functional.cross_entropy(alike[i], j) + torch.nn.functional.cross_entropy(
        alike.T[j], i
    )
    return loss, float((alike[i].argmax(dim=1) == j).float().mean())


def save(network: Network, path: Path) -> None:
    state = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    np.savez(
        path,
        w1=np.ascontiguousarray(state["first.weight"].T),
        b1=state["first.bias"],
        w2=np.ascontiguousarray(state["second.weight"].T),
        b2=state["second.bias"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the minutia descriptor.")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    held_out = [draw(np.random.default_rng(7000 + k), FINGERS_A_STEP) for k in range(4)]
    network = Network(held_out[0][0].shape[1], arguments.dimension)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    began, reported, step = time.monotonic(), 0.0, 0
    while (spent := (time.monotonic() - began) / 60.0) < arguments.minutes:
        warm = min(1.0, (step + 1) / 50.0)
        cool = 0.5 * (1.0 + math.cos(math.pi * spent / arguments.minutes)) + 0.01
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm * cool
        loss, _ = contrastive_loss(network, draw(rng, FINGERS_A_STEP))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if spent - reported > 0.5:
            reported = spent
            with torch.no_grad():
                checks = [contrastive_loss(network, batch) for batch in held_out]
            print(
                f"{spent:5.1f} min  step {step}  held-out loss"
                f" {np.mean([float(check[0]) for check in checks]):.3f}  mate first"
                f" {np.mean([check[1] for check in checks]):.3f}  scale"
                f" {float(torch.exp(network.log_scale)):.1f}",
                flush=True,
            )
            save(network, arguments.out)
    save(network, arguments.out)


if __name__ == "__main__":
    main()
