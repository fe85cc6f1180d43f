"""Simulated stations with real terminals, and the truth beside to hold the register against.

``day`` draws who comes when, ``faults`` what goes wrong; ``run`` lets both happen to the terminals
of ``fleet``, which are processes of their own (``worker``) behind a network that can be broken
(``network``). ``verdict`` compares what the terminals were told with what the register holds.
``direct`` is the short way, without queue and faults: one call after the other.

Needs the extra ``[terminal]`` and nothing of the service. Faces, papers and fingers come in through
:class:`Captures`.
"""

from devices.simulator.day import Arrival, Captures, DayPlan, Mix, plan_day
from devices.simulator.direct import Progress, Report, Visit, fleet, simulate
from devices.simulator.faults import Fault, FaultKind, FaultRates, plan_faults
from devices.simulator.run import Run, RunSettings, ServerControl, State
from devices.simulator.verdict import Facts, Submission, Verdict, judge

__all__ = [
    "Arrival",
    "Captures",
    "DayPlan",
    "Facts",
    "Fault",
    "FaultKind",
    "FaultRates",
    "Mix",
    "Progress",
    "Report",
    "Run",
    "RunSettings",
    "ServerControl",
    "State",
    "Submission",
    "Verdict",
    "Visit",
    "fleet",
    "judge",
    "plan_day",
    "plan_faults",
    "simulate",
]
