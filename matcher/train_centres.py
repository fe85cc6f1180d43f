"""Make ``data/centres-*.npz``: ``python -m matcher.train_centres --out FILE``.

Centres of the inverted lists: k-means over descriptors of the synthetic population, rounded to
whole numbers. They only divide the space; a gallery of real fingers fills the lists somewhat
unevenly, which costs time, not answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import faiss
import numpy as np

from matcher.compare import pack
from matcher.descriptor import shipped_model
from matcher.errors import FailureToEnrolError
from matcher.index import DESCRIPTOR_OFFSET
from matcher.synthetic import Population

LISTS = 1024
MINUTIAE = 80_000
ROUNDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the centres of the inverted lists.")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model, population = shipped_model(), Population(seed=2)
    descriptors, count, finger = [], 0, 0
    while count < MINUTIAE:
        try:
            template = pack(population.impression(finger), model)
        except FailureToEnrolError:
            continue
        finally:
            finger += 1
        descriptors.append(template.descriptors)
        count += len(template)
    vectors = np.concatenate(descriptors).astype(np.float32) + DESCRIPTOR_OFFSET
    faiss.omp_set_num_threads(1)
    kmeans = faiss.Kmeans(vectors.shape[1], LISTS, niter=ROUNDS, seed=1)
    kmeans.train(vectors)
    centres = np.clip(np.rint(np.asarray(kmeans.centroids)), 0, 255).astype(np.uint8)
    np.savez(arguments.out, centres=centres)


if __name__ == "__main__":
    main()
