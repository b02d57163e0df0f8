"""All orders of events up to length 6, against what a shell is allowed to see; and the shape of the table."""

import itertools

import pytest

from outlay.flow.lifecycle import ENDING, TRANSITIONS, Command, Event, State, step
from outlay.flow.outcome import OUTCOMES, Billing, Failure, Verdict, failure_of_status, verdict

LENGTH = 6


def commands_of(events: tuple[Event, ...]) -> tuple[State, list[Command]]:
    state, commands = State.HOLDING, []
    for event in events:
        state, command = step(state, event)
        commands.append(command)
    return state, commands


def in_order(events: tuple[Event, ...], *wanted: Event) -> bool:
    """Whether `wanted` is a subsequence of `events`."""
    found = iter(events)
    return all(any(event is one for event in found) for one in wanted)


SERVED = (Event.HOLD_DURABLE, Event.REQUEST_SENT, Event.RESPONSE_STARTED, Event.RESPONSE_ENDED)


def must_have_ended(events: tuple[Event, ...]) -> bool:
    """Whether the order holds the events of an end: refused, failed, killed or served."""
    stored = next((event for event in events if event in (Event.HOLD_DURABLE, Event.HOLD_FAILED)), None)
    if stored is not Event.HOLD_DURABLE:
        return False
    after = events[events.index(Event.HOLD_DURABLE) :]
    return Event.UPSTREAM_FAILED in after or Event.KILL_ORDERED in after or in_order(events, *SERVED)


def test_every_order_ends_at_most_once_and_an_end_is_final() -> None:
    seen: set[Command] = set()
    ends = 0
    for events in itertools.product(Event, repeat=LENGTH):
        state, commands = commands_of(events)
        endings = [at for at, command in enumerate(commands) if command in ENDING]
        assert len(endings) <= 1, events
        if endings:
            assert state is State.ENDED, events
            assert set(commands[endings[0] + 1 :]) <= {Command.NONE}, events
        if must_have_ended(events):
            assert endings, events
            ends += 1
        # nothing leaves before the hold is durable, and at most once
        assert commands.count(Command.SEND) <= 1
        if Command.SEND in commands:
            assert Event.HOLD_DURABLE in events[: commands.index(Command.SEND) + 1]
        seen.update(commands)
    assert seen == set(Command)
    assert ends > 10_000


# the life as it reads: events, commands
PLAYBOOKS = {
    "served": (
        "HOLD_DURABLE REQUEST_SENT RESPONSE_STARTED RESPONSE_ENDED",
        "SEND NONE NONE SETTLE_ANSWER",
    ),
    "store down": ("HOLD_FAILED CLIENT_GONE", "REFUSE NONE"),
    "gone while the hold is on its way": ("CLIENT_GONE HOLD_DURABLE", "NONE VOID"),
    "gone, and the store is down": ("CLIENT_GONE HOLD_FAILED HOLD_DURABLE", "NONE NONE NONE"),
    "no connection": ("HOLD_DURABLE UPSTREAM_FAILED CLIENT_GONE", "SEND VOID NONE"),
    "gone before it was sent": ("HOLD_DURABLE CLIENT_GONE UPSTREAM_FAILED", "SEND VOID NONE"),
    "no response": ("HOLD_DURABLE REQUEST_SENT UPSTREAM_FAILED", "SEND NONE SETTLE_FAILURE"),
    "gone, drained": (
        "HOLD_DURABLE REQUEST_SENT CLIENT_GONE RESPONSE_STARTED RESPONSE_ENDED KILL_ORDERED",
        "SEND NONE DRAIN_OR_CANCEL NONE SETTLE_ANSWER NONE",
    ),
    "gone, drained too long": (
        "HOLD_DURABLE REQUEST_SENT RESPONSE_STARTED CLIENT_GONE KILL_ORDERED",
        "SEND NONE NONE DRAIN_OR_CANCEL SETTLE_FAILURE",
    ),
    "gone, then cut": (
        "HOLD_DURABLE REQUEST_SENT RESPONSE_STARTED CLIENT_GONE UPSTREAM_FAILED RESPONSE_ENDED",
        "SEND NONE NONE DRAIN_OR_CANCEL SETTLE_FAILURE NONE",
    ),
}


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_playbook(name: str) -> None:
    events, commands = (text.split() for text in PLAYBOOKS[name])
    state, found = commands_of(tuple(Event[event] for event in events))
    assert [command.name for command in found] == commands
    assert state is State.ENDED, "an unfinished playbook"


def test_nothing_follows_an_end_and_all_states_are_reached() -> None:
    assert all(state is not State.ENDED for state, _ in TRANSITIONS)
    assert {state for state, _ in TRANSITIONS.values()} | {State.HOLDING} == set(State)
    for (before, _), (after, command) in TRANSITIONS.items():
        if command in ENDING:
            assert after is State.ENDED, before


def test_the_outcome_table_is_complete() -> None:
    assert OUTCOMES.keys() == set(Billing)
    for row in OUTCOMES.values():
        assert row.keys() == set(Failure)


def test_what_was_not_sent_is_free_and_what_may_be_billed_never_is() -> None:
    free = {failure for failure in Failure if Verdict.VOID in {row[failure] for row in OUTCOMES.values()}}
    assert free == {Failure.NOT_SENT, Failure.REJECTED}
    assert OUTCOMES[Billing.BILLS_ERRORS][Failure.REJECTED] is Verdict.UNKNOWN


@pytest.mark.parametrize("billing", Billing)
@pytest.mark.parametrize("failure", Failure)
def test_hidden_output_is_never_counted(billing: Billing, failure: Failure) -> None:
    hidden = verdict(billing, failure, has_hidden_output=True)
    assert hidden is not Verdict.COUNTED
    if verdict(billing, failure) is not Verdict.COUNTED:
        assert hidden is verdict(billing, failure)


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        *((status, Failure.REJECTED) for status in (300, 400, 401, 404, 422, 429, 500, 501, 503, 529)),
        *((status, Failure.GATEWAY_ERROR) for status in (408, 499, 502, 504, 520, 524, 527)),
    ],
)
def test_point_of_failure_of_a_status(status: int, failure: Failure) -> None:
    assert failure_of_status(status) is failure
