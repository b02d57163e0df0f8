"""Test parts that are part of the product: the mock provider with a meter of its own, child processes, ports.

Shares no code with the rooms it checks.
"""

from outlay.testing.behaviour import Behaviour, BehaviourError, Bill, Failure, Framing, JobEnd, UsageReport
from outlay.testing.call import Call
from outlay.testing.meter import Meter, MeterEntry, Outcome, Rates, Tokens, Totals
from outlay.testing.ports import free_port, wait_for_listener
from outlay.testing.processes import ChildProcess
from outlay.testing.provider import MockProvider

__all__ = [
    "Behaviour",
    "BehaviourError",
    "Bill",
    "Call",
    "ChildProcess",
    "Failure",
    "Framing",
    "JobEnd",
    "Meter",
    "MeterEntry",
    "MockProvider",
    "Outcome",
    "Rates",
    "Tokens",
    "Totals",
    "UsageReport",
    "free_port",
    "wait_for_listener",
]
