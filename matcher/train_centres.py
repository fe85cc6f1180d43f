"""Make ``data/centres-*.npz``: ``python -m matcher.train_centres --out FILE``.

Centres of the inverted lists and the codebook of the short codes in them: k-means over descriptors
of the synthetic population, rounded to whole numbers. The centres only divide the space; a gallery
of real fingers fills the lists somewhat unevenly, which costs time, not answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from matcher.compare import pack
from matcher.descriptor import shipped_model
from matcher.errors import FailureToEnrolError
from matcher.index import COARSE, CODE_HALVES
from matcher.synthetic import Population

LISTS = 4096
MINUTIAE = 200_000
ROUNDS = 10


def described(minutiae: int) -> NDArray[np.float32]:
    """Descriptors of one impression each of enough synthetic fingers."""
    model, population = shipped_model(), Population(seed=2)
    descriptors, count, finger = [], 0, 0
    while count < minutiae:
        try:
            template = pack(population.impression(finger), model)
        except FailureToEnrolError:
            continue
        finally:
            finger += 1
        descriptors.append(template.descriptors)
        count += len(template)
    return np.concatenate(descriptors).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the centres of the inverted lists.")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    vectors = described(MINUTIAE)
    faiss.omp_set_num_threads(1)
    kmeans = faiss.Kmeans(len(COARSE), LISTS, niter=ROUNDS, seed=1, max_points_per_centroid=1000)
    kmeans.train(np.ascontiguousarray(vectors[:, COARSE]))
    codes = faiss.ProductQuantizer(vectors.shape[1], CODE_HALVES, 4)
    codes.train(vectors)
    codebook = faiss.vector_to_array(codes.centroids).reshape(CODE_HALVES, 16, -1)
    np.savez(
        arguments.out,
        centres=np.clip(np.rint(np.asarray(kmeans.centroids)), -127, 127).astype(np.int8),
        codebook=np.clip(np.rint(codebook), -127, 127).astype(np.int8),
    )


if __name__ == "__main__":
    main()
