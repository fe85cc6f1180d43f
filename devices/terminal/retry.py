"""When to try again: exponential backoff with full jitter inside one deadline.

Waits are drawn evenly from 0 to a bound that doubles, so that a city's terminals do not come back
in step after an outage ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from devices.errors import UnreachableError

T = TypeVar("T")


@dataclass(frozen=True)
class RetryPolicy:
    """How to try again.

    Attributes:
        attempt_s: how long one attempt may take, seconds.
        first_wait_s, longest_wait_s: bounds of the first wait and of every later one, seconds.
        sleep, monotonic, uniform: replaced in tests.
    """

    attempt_s: float = 15.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = random.uniform


DEFAULT_POLICY = RetryPolicy()
# For callers that have their own idea of when to come back.
ONE_ATTEMPT = RetryPolicy(attempt_s=math.inf, uniform=lambda low, high: math.inf)


def retrying(
    attempt: Callable[[float], T], deadline_s: float, policy: RetryPolicy = DEFAULT_POLICY
) -> T:
    """The answer of the first attempt that does not end in :class:`UnreachableError`.

    Args:
        attempt: called with the seconds it may take.
        deadline_s: seconds for everything, waits included.

    Raises:
        UnreachableError: when the next attempt would begin after the deadline; of the last attempt
            that was told a reason, because the very last may just have run out of time.
    """
    end = policy.monotonic() + deadline_s
    bound = policy.first_wait_s
    telling: UnreachableError | None = None
    while True:
        left = end - policy.monotonic()
        try:
            return attempt(max(0.001, min(policy.attempt_s, left)))
        except UnreachableError as error:
            telling = error if error.reason or telling is None else telling
            wait = policy.uniform(0, bound)
            if error.status == "RESOURCE_EXHAUSTED":
                wait += error.retry_after_s
            if policy.monotonic() + wait >= end:
                raise telling from telling.__cause__
            policy.sleep(wait)
            bound = min(2 * bound, policy.longest_wait_s)
