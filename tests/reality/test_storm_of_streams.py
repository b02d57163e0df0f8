"""Sixty streams at once through failing providers, retried and rerouted: each attempt is booked as it was metered.

And what no price covers: refused on every route before anything leaves, or charged at the ceiling and marked so.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outlay.flow.gateway.snapshot import ModelRoute, Target
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.lookup.book import PriceBook
from outlay.lookup.feed import feed_of
from outlay.lookup.overrides import Ceiling
from outlay.testing import MockProvider
from outlay.testing.meter import MeterEntry
from tests import world
from tests.harness import RunningGateway, budget
from tests.reality.doors import DOORS, Clients, clients, house
from tests.reality.lanes import (
    FORMS,
    LANES,
    SERVERS,
    SETTINGS,
    End,
    Lane,
    Rig,
    Seen,
    assert_covered,
    call,
    providers,
    rig_of,
)
from tests.reality.sdk import charges
from tests.reality.test_doors import status_of

CALLS = 60
ROUTES = {
    # form: the server at each of the two providers
    "chat": ("chat", "messages"),
    "chat with usage": ("gemini", "chat"),
    "completions": ("completions", "completions"),
    "responses": ("responses", "messages"),
    "messages": ("messages", "gemini"),
    "gemini": ("gemini", "chat"),
    "converse": ("bedrock", "bedrock"),
    "invoke": ("bedrock", "bedrock"),
}
FAULTS: list[dict[str, Any]] = [
    {"status": 429},
    {"status": 503},
    {"status": 504, "bill": "full"},
    {"failure": "hang_headers"},
    {"failure": "hang", "after_chunks": 3},
    {"failure": "cut_headers"},
    {"failure": "cut", "after_chunks": 4, "bill": "ahead"},
    {"failure": "cut", "after_chunks": 0, "reset": True, "bill": "full"},
    {"failure": "cut_json", "after_chunks": 6, "bill": "full"},
    {"failure": "early_end", "after_chunks": 5, "bill": "full"},
    {"failure": "stream_error", "after_chunks": 2, "bill": "full"},
]


def faults(rng: random.Random) -> list[dict[str, Any]]:
    """What befalls the calls of one provider, in the order of their arrival; half of them nothing."""
    return [rng.choice(FAULTS) if rng.random() < 0.5 else {} for _ in range(4 * CALLS)]


def routes() -> tuple[ModelRoute, ...]:
    return tuple(
        ModelRoute(
            f"any-{number}",
            targets=(
                Target(f"a-{first}", SERVERS[first].model),
                Target(f"b-{second}", SERVERS[second].model),
            ),
            retries=1,
            backoff_ms=5,
        )
        for number, (first, second) in enumerate(ROUTES.values())
    )


@pytest.mark.parametrize("seed", [3, 17])
def test_the_ledger_is_the_meters_attempt_by_attempt(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    usual = {"output_tokens": 40, "chunk_ms": 1}
    shared: dict[str, Any] = {"prices": world.meter_prices(), "models": world.MODELS, "behaviour": usual}
    limits = {"first_byte_timeout_s": 1, "idle_timeout_s": 1}
    with MockProvider(**shared) as a, MockProvider(**shared) as b:
        a.queue(*faults(rng))
        b.queue(*faults(rng))
        with RunningGateway(
            tmp_path / "l.db",
            a.url,
            [budget("all", "1000"), budget("team", "1000", {"team": "*"})],
            price_book=world.book(),
            upstreams=(*providers(a.url, "a", **limits), *providers(b.url, "b", **limits)),
            models=routes(),
            settings=msgspec.structs.replace(SETTINGS, breaker_failures=10_000),
        ) as gateway:
            forms = [list(FORMS)[number % len(FORMS)] for number in range(CALLS)]
            names = {form: f"any-{number}" for number, form in enumerate(ROUTES)}
            with ThreadPoolExecutor(CALLS) as pool:
                answers = list(pool.map(lambda form: call(gateway.url, form, names[form]), forms))
            entries = {"a": a.wait_for(1), "b": b.wait_for(1)}
            gateway.call(gateway.books.flush)
            with LedgerReader(gateway.path) as reader:
                booked = reader.charges(1000)[::-1]
        assert_each_attempt(booked, entries)
        assert_told(list(zip(forms, answers, strict=True)), booked)
        report = audit(tmp_path / "l.db")
        assert (report.findings, report.open_holds) == ((), 0)
        assert len({charge.request_id for charge in booked}) == CALLS
        assert len(booked) > CALLS, "no call was tried again"
        assert {charge.basis for charge in booked} == {"metered", "void", "outcome_unknown"}


def assert_each_attempt(booked: list[ChargeView], entries: dict[str, list[MeterEntry]]) -> None:
    """Every attempt that a provider saw has one charge, in the same order, and no other attempt has one."""
    attempts: dict[tuple[str, str], list[ChargeView]] = defaultdict(list)
    numbers: dict[str, list[int]] = defaultdict(list)
    for charge in sorted(booked, key=lambda charge: charge.attempt):
        attempts[f"req_{charge.request_id}", charge.provider[0]].append(charge)
        numbers[charge.request_id].append(charge.attempt)
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())
    metered: dict[tuple[str, str], list[MeterEntry]] = defaultdict(list)
    for name, found in entries.items():
        for entry in sorted(found, key=lambda entry: entry.sequence):
            metered[str(entry.outlay_request_id), name].append(entry)
    assert attempts.keys() == metered.keys()
    for key, found in attempts.items():
        for charge, entry in zip(found, metered[key], strict=True):
            assert_covered(charge, entry)
            # exact, or marked because nobody here can know; what came whole is always exact
            assert (entry.outcome == "complete") == (charge.basis == "metered"), (charge, entry)
            assert (entry.status in (429, 503)) == (charge.basis == "void"), (charge, entry)


def assert_told(answers: list[tuple[str, Seen]], booked: list[ChargeView]) -> None:
    """A client that believes to have a whole answer has one, and one that has not knows."""
    last = {
        f"req_{charge.request_id}": charge for charge in sorted(booked, key=lambda charge: charge.attempt)
    }
    seen = set()
    for form, answer in answers:
        request_id = answer.headers["x-outlay-request-id"]
        is_whole = answer.status == 200 and answer.end(form) is End.WHOLE
        assert is_whole == (last[request_id].basis == "metered")
        seen.add(request_id)
    assert seen == last.keys()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_of(tmp_path_factory.mktemp("unpriced")) as found:
        yield found


UNPRICED = PriceBook.build(feed_of([]))
CEILING = PriceBook.build(
    feed_of([]), ceilings=[Ceiling(usd_per_mtok={"input": "50", "output": "200"}, context_window=128_000)]
)


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_a_stream_of_an_unpriced_model_is_refused(rig: Rig, lane: Lane) -> None:
    rig.behave()
    rig.gateway.swap(book=UNPRICED)
    answer = call(rig.gateway.url, lane.form, f"hosted-{lane.server}")
    assert (answer.status, answer.is_complete) == (422, True)
    assert b"price" in answer.body
    assert not rig.mock.calls
    assert rig.charges(0) == []


@pytest.mark.parametrize("lane", LANES, ids=str)
def test_a_stream_at_the_ceiling_is_marked(rig: Rig, lane: Lane) -> None:
    rig.behave()
    rig.gateway.swap(book=CEILING)
    assert call(rig.gateway.url, lane.form, f"hosted-{lane.server}").end(lane.form) is End.WHOLE
    charge, entry = rig.check("ceiling")
    assert entry.tokens.output == 40
    assert charge.cost_nanos == entry.tokens.input * 50_000 + entry.tokens.output * 200_000
    # broken, it is held at the ceiling all the same, and marked as what it is
    rig.behave(failure="cut", after_chunks=5, bill="full")
    call(rig.gateway.url, lane.form, f"hosted-{lane.server}")
    rig.check("outcome_unknown")


@pytest.fixture(scope="module")
def unpriced(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[MockProvider, RunningGateway, Clients]]:
    with house(tmp_path_factory.mktemp("doors")) as (mock, gateway), clients(gateway.url) as vendors:
        gateway.swap(book=UNPRICED)
        yield mock, gateway, vendors


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if not door.is_free])
def test_every_door_is_closed_to_unpriced_models(
    unpriced: tuple[MockProvider, RunningGateway, Clients], name: str
) -> None:
    mock, gateway, vendors = unpriced
    # each vendor's SDK has its own class for it
    with pytest.raises(Exception) as raised:
        DOORS[name].use(vendors)
    assert status_of(raised.value) == 422
    assert "price" in str(raised.value)
    assert not mock.calls
    assert charges(gateway) == []
