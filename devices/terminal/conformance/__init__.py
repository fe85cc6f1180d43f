"""Do server, proxy and terminal behave? What ``anju terminal check`` asks, as a library.

::

    for finding in check(Target("10.0.0.5:7443", directory=Path("credentials"))):
        print(finding.check, finding.outcome.value, finding.found, finding.advice)

Nobody is enrolled, and nothing is uploaded for good.
"""

from devices.terminal.conformance.checks import Target, check
from devices.terminal.conformance.findings import Finding, Outcome, failed, passed, skipped

__all__ = ["Finding", "Outcome", "Target", "check", "failed", "passed", "skipped"]
