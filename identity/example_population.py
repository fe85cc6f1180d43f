"""People who never lived, for the demonstration, the simulator and the tests.

Names are built from the heavenly stems and the word for "example", documents from division 999999,
which no place has, with a valid check character. Their fingers come from ``matcher.synthetic``, or
from a folder of real impressions (`<set>/<finger>_<impression>.iso`) that is read in place.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

from devices.terminal import Gender, Person, Sample
from identity.particulars import citizen_id_check_character
from matcher.codec import decode, encode
from matcher.synthetic import Population
from matcher.types import FingerPosition, Template

STEMS = "甲乙丙丁戊己庚辛壬癸"
BRANCHES = "子丑寅卯辰巳午未申酉戌亥"
EXAMPLE_DIVISION = "999999"
FINGERS = (FingerPosition.RIGHT_INDEX, FingerPosition.LEFT_INDEX)
FIRST_BIRTH = date(1958, 1, 1)
BIRTH_SPAN_DAYS = 17_000
BIRTH_STEP = 7_919  # without a common divisor with the span
ORDERS = 500
PEOPLE_PER_SEED = 1_000_000
TOO_FEW = 4  # minutiae; the matcher refuses fewer than 6
# Found by this register: finger 108 of one public set and 102 of another are one finger. All 64
# pairs of their impressions compare at 1e-3 to 1e-13 FMR with LEADER minutiae, and the medians of
# all other pairs across sets stay below 1e-2. Two people with one finger would be a poor example.
SAME_FINGER_AGAIN = frozenset({"fvc2004_db3b/102"})
ADDRESSES = ("样板路{0}号{1}单元{2}室", "示例街道范例小区{0}栋{1}单元{2}", "模拟里{0}弄{1}号{2}室")


def example_person(index: int, arrival: date) -> Person:
    """The particulars of person ``index``, the same every time."""
    rng = random.Random(index * 2_654_435_761)
    gender = rng.choice((Gender.MALE, Gender.FEMALE))
    # With the order number below, no document comes twice among 8.5 million people.
    birth = FIRST_BIRTH + timedelta(
        days=(index // ORDERS * BIRTH_STEP + index % ORDERS * 34) % BIRTH_SPAN_DAYS
    )
    name = STEMS[index % 10] + "示例" + BRANCHES[index // 10 % 12] + BRANCHES[index // 120 % 12]
    order = index % ORDERS * 2 + (gender is Gender.MALE)
    first_17 = f"{EXAMPLE_DIVISION}{birth:%Y%m%d}{order:03}"
    address = ADDRESSES[index % len(ADDRESSES)].format(
        rng.randint(1, 99), rng.randint(1, 6), rng.randint(101, 2805)
    )
    return Person(
        full_name=name,
        gender=gender,
        birth_date=birth,
        document_number=first_17 + citizen_id_check_character(first_17),
        household_division_code=EXAMPLE_DIVISION,
        residence_division_code=EXAMPLE_DIVISION,
        residence_address="示例区" + address,
        arrival_date=arrival,
    )


@dataclass(frozen=True)
class Fingers:
    """Where impressions come from: real people first, synthetic ones after them.

    Attributes:
        real: per person, per impression, one record a finger.
    """

    seed: int
    real: tuple[tuple[tuple[bytes, ...], ...], ...] = ()

    def records(self, index: int, impression: int) -> tuple[bytes, ...]:
        """The records of person ``index`` as captured the ``impression``-th time, from 0."""
        if index < len(self.real):
            impressions = self.real[index]
            return impressions[impression % len(impressions)]
        population = Population(self.seed)
        return tuple(
            encode([template])
            for template in population.templates_of_person(index, FINGERS, impression)
        )


def real_fingers(directory: Path, seed: int) -> Fingers:
    """Two consecutive fingers of a set make one person; what is missing is made up.

    Both are written down as index fingers: the sets do not say which fingers they are.
    """
    people = []
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        names = sorted(
            {path.stem.rsplit("_", 1)[0] for path in folder.glob("*_*.iso")}
            - {finger.split("/")[1] for finger in SAME_FINGER_AGAIN if folder.name in finger}
        )
        for pair in zip(names[::2], names[1::2], strict=False):
            impressions = [
                [path.read_bytes() for path in sorted(folder.glob(f"{name}_*.iso"))]
                for name in pair
            ]
            people.append(
                tuple(
                    tuple(
                        _at(position, record)
                        for position, record in zip(FINGERS, records, strict=True)
                    )
                    for records in zip(*impressions, strict=False)
                )
            )
    return Fingers(seed, tuple(people))


@dataclass(frozen=True)
class SyntheticCaptures:
    """What a simulated counter sees and captures: :class:`devices.simulator.Captures`.

    Attributes:
        seed: another seed is another population, with other fingers and other papers.
        arrival: when everybody came to the city.
    """

    seed: int
    arrival: date
    _population: Population = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_population", Population(self.seed))

    def person(self, papers: int) -> Person:
        return example_person(self.seed * PEOPLE_PER_SEED + papers, self.arrival)

    def samples(
        self, person: int, positions: Sequence[int], impression: int, poor: bool
    ) -> tuple[Sample, ...]:
        fingers = [FingerPosition(position) for position in positions]
        templates = self._population.templates_of_person(person, fingers, impression)
        if poor:
            templates = [_smudged(template) for template in templates]
        return tuple(Sample(encode([template])) for template in templates)


def _smudged(template: Template) -> Template:
    """What is left of a finger that was too dry: fewer minutiae than any comparison needs."""
    few = slice(0, TOO_FEW)
    return replace(
        template,
        x=template.x[few],
        y=template.y[few],
        angle=template.angle[few],
        kind=template.kind[few],
        quality=template.quality[few],
    )


def _at(position: FingerPosition, record: bytes) -> bytes:
    (view,) = decode(record)
    return encode([replace(view, position=position)])
