"""Fingerprints of people who never lived, as hard to tell apart as real ones.

For demos, tests, benchmarks and the training of descriptors::

    population = Population(seed=1)
    reference = population.impression(7, FingerPosition.RIGHT_INDEX, 0)
    probe = population.impression(7, FingerPosition.RIGHT_INDEX, 1)

``kernels.py`` has the model of the finger and of what a sensor and an extractor make of it,
``profiles.py`` says how strongly, per sensor. The model works on minutiae, not on images: the
published generators (SFinGe, Anguli) draw images, from which an extractor takes its minutiae, at
seconds an impression; bulk galleries need thousands a second. Rejected: resampling real templates,
which would carry real people's fingerprints into a repository.
"""

from matcher.synthetic.kernels import Profile
from matcher.synthetic.population import Batch, Master, PatternClass, Population
from matcher.synthetic.profiles import (
    FVC2002_DB1,
    FVC2002_DB3,
    FVC2004_DB2,
    FVC2004_DB3,
    POOLED,
    UPEK,
)

__all__ = [
    "FVC2002_DB1",
    "FVC2002_DB3",
    "FVC2004_DB2",
    "FVC2004_DB3",
    "POOLED",
    "UPEK",
    "Batch",
    "Master",
    "PatternClass",
    "Population",
    "Profile",
]
