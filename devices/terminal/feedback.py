"""What is wrong with a capture and how to do better: one table, in the languages of the counter.

Findings are for the person who holds somebody's finger at that moment. Most of them advise; those
in :data:`DOUBTFUL` mean that what was captured is not what it is called, or is no use at all, and
are put right, or insisted on, before anything is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

LANGUAGES = ("en", "zh")


class Problem(Enum):
    """Tokens for software; :meth:`Finding.text` is for people."""

    NO_FINGER = "no-finger"
    TOO_DARK = "too-dark"
    TOO_FAINT = "too-faint"
    PARTIAL = "partial"
    UNCLEAR = "unclear"
    FEW_MINUTIAE = "few-minutiae"
    SMALL_AREA = "small-area"
    UNUSABLE = "unusable"
    CAPTURES_DIFFER = "captures-differ"
    SAME_FINGER = "same-finger"
    NAMED_TWICE = "named-twice"


DOUBTFUL = frozenset(
    {Problem.UNUSABLE, Problem.CAPTURES_DIFFER, Problem.SAME_FINGER, Problem.NAMED_TWICE}
)

_TEXTS: dict[Problem, dict[str, tuple[str, str]]] = {
    Problem.NO_FINGER: {
        "en": (
            "there is hardly a finger in the image",
            "place it flat on the middle of the reader",
        ),
        "zh": ("图像中几乎没有手指", "请将手指平放在采集窗中央"),
    },
    Problem.TOO_DARK: {
        "en": ("the image is dark", "press less, or dry the finger"),
        "zh": ("图像过黑，手指可能太湿或按压过重", "请轻按，或擦干手指后重采"),
    },
    Problem.TOO_FAINT: {
        "en": ("the ridges are faint", "press a little more, or moisten the finger"),
        "zh": ("纹线过淡，手指可能太干", "请稍加力按压，或湿润手指后重采"),
    },
    Problem.PARTIAL: {
        "en": (
            "only part of the finger is seen",
            "place it flat on the middle of the reader",
        ),
        "zh": ("只采到手指的一部分", "请将手指平放在采集窗中央"),
    },
    Problem.UNCLEAR: {
        "en": (
            "the ridges cannot be told apart",
            "clean finger and reader, and capture again",
        ),
        "zh": ("纹线模糊不清", "请清洁手指和采集窗后重采"),
    },
    Problem.FEW_MINUTIAE: {
        "en": (
            "few minutiae were found",
            "roll the finger straight, press evenly, and capture again",
        ),
        "zh": ("提取到的细节点太少", "请放正手指、均匀按压后重采"),
    },
    Problem.SMALL_AREA: {
        "en": (
            "only a small area of the finger was captured",
            "lay down the whole pad, not the tip",
        ),
        "zh": ("采集面积太小", "请用整个指腹按压，不要只用指尖"),
    },
    Problem.UNUSABLE: {
        "en": (
            "nobody could be recognised by this capture",
            "capture again, or give the reason why this finger cannot be captured",
        ),
        "zh": ("此枚指纹无法用于识别", "请重采；确实无法采集的，请注明原因"),
    },
    Problem.CAPTURES_DIFFER: {
        "en": (
            "the two captures do not match",
            "make sure that both are of this finger, and capture both again",
        ),
        "zh": ("两次采集的指纹不一致", "请确认两次都是这枚手指，并重采两次"),
    },
    Problem.SAME_FINGER: {
        "en": (
            "it is the same finger as the {other}",
            "capture each finger under its own name",
        ),
        "zh": ("与{other}是同一枚手指", "请按提示的指位逐一采集"),
    },
    Problem.NAMED_TWICE: {
        "en": (
            "two of the captures have this name",
            "name each finger once, and capture again what is named wrongly",
        ),
        "zh": ("有两次采集标为同一指位", "请核对指位，标错的请重采"),
    },
}

# By finger position code, ISO/IEC 19794-2 table 5.
_FINGERS: dict[str, tuple[str, ...]] = {
    "en": (
        "finger",
        *(
            f"{hand} {finger}"
            for hand in ("right", "left")
            for finger in ("thumb", "index finger", "middle finger", "ring finger", "little finger")
        ),
    ),
    "zh": (
        "手指",
        *(
            f"{hand}手{finger}"
            for hand in ("右", "左")
            for finger in ("拇指", "食指", "中指", "环指", "小指")
        ),
    ),
}


def finger_name(position: int, language: str) -> str:
    """What a finger is called, e.g. ``right index finger``; position 0 is any finger."""
    return _FINGERS[language][position]


def advice(problem: Problem, language: str = "en") -> str:
    """What is wrong and what to do, without the finger's name."""
    wrong, better = _TEXTS[problem][language]
    return f"{wrong}: {better}" if language == "en" else f"{wrong}。{better}"


@dataclass(frozen=True)
class Finding:
    """Something to put right.

    Attributes:
        position: which finger; 0 if that is not known.
        other: for ``SAME_FINGER``, which other one.
    """

    position: int
    problem: Problem
    other: int = 0

    @property
    def doubtful(self) -> bool:
        """Whether it has to be put right, or insisted on."""
        return self.problem in DOUBTFUL

    def text(self, language: str = "en") -> str:
        """One line for the person at the counter; ``language`` is one of :data:`LANGUAGES`."""
        said = advice(self.problem, language).format(other=finger_name(self.other, language))
        colon = ": " if language == "en" else "："
        return f"{finger_name(self.position, language)}{colon}{said}"
