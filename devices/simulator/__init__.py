from devices.simulator.direct import Progress, Report, Visit, fleet, simulate

__all__ = ["Progress", "Report", "Visit", "fleet", "simulate"]
