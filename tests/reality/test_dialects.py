"""The 4 x 4 matrix: every vendor's SDK against a model behind every dialect, a feature a row.

A cell passes if the SDK's call works, what it was told is what the mock said, the provider was sent the feature, and
the ledger equals the meter; or if it is the 422 that docs/translation.md promises, by the name it promises.
"""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import anthropic
import openai
import pytest
from google.genai import errors as google

from outlay.flow.gateway.snapshot import ModelRoute, Provider
from outlay.flow.ledger.audit import audit
from outlay.testing import MockProvider, content
from outlay.wire.intent import Dialect, Operation
from outlay.wire.translate.table import CHAT, FEATURES, GENERATE, MESSAGES, RESPONSES
from tests.harness import RunningGateway, budget
from tests.reality.dialect_cases import ARGUMENTS, CASES, PATHS, SERVERS, SHORT, Told, ask
from tests.reality.doors import Clients, clients, house
from tests.reality.sdk import charges

PAIRS = list(product(SHORT, SHORT))
IDS = [f"{SHORT[client]}->{SHORT[server]}" for client, server in PAIRS]
CELLS = [
    pytest.param(client, server, name, id=f"{SHORT[client]}->{SHORT[server]}: {name}")
    for name, case in CASES.items()
    for client, server in PAIRS
    if client in case.asks
]
URL_SAFE = str.maketrans("+/", "-_")
"""Google's SDK writes base64 so."""
REFUSED = {
    Dialect.OPENAI: openai.APIStatusError,
    Dialect.ANTHROPIC: anthropic.APIStatusError,
    Dialect.GOOGLE: google.APIError,
}
DIALECT = {
    CHAT: Dialect.OPENAI,
    RESPONSES: Dialect.OPENAI,
    MESSAGES: Dialect.ANTHROPIC,
    GENERATE: Dialect.GOOGLE,
}
ERRORS: dict[int, dict[Dialect, type[Exception]]] = {
    400: {
        Dialect.OPENAI: openai.BadRequestError,
        Dialect.ANTHROPIC: anthropic.BadRequestError,
        Dialect.GOOGLE: google.ClientError,
    },
    429: {
        Dialect.OPENAI: openai.RateLimitError,
        Dialect.ANTHROPIC: anthropic.RateLimitError,
        Dialect.GOOGLE: google.ClientError,
    },
    500: {
        Dialect.OPENAI: openai.InternalServerError,
        Dialect.ANTHROPIC: anthropic.InternalServerError,
        Dialect.GOOGLE: google.ServerError,
    },
}


class Rig:
    """One gateway, its mock and the SDKs, for every cell."""

    def __init__(self, mock: MockProvider, gateway: RunningGateway, vendors: Clients) -> None:
        self.mock, self.gateway, self.vendors = mock, gateway, vendors
        self.booked = 0

    def behave(self, **changes: Any) -> None:
        self.mock.service.reset()
        self.booked = audit(self.gateway.path).spend_nanos
        self.mock.behave(**changes)

    def check(self, calls: int) -> None:
        """The ledger grew by what the provider metered, and by as many charges."""
        self.mock.wait_for(calls)
        found = charges(self.gateway)
        new = [charge.cost_nanos for charge in found[:calls]]
        assert sum(new) == self.mock.meter.total_nanos
        report = audit(self.gateway.path)
        assert (report.findings, report.open_holds) == ((), 0)
        assert report.spend_nanos == self.booked + self.mock.meter.total_nanos


def one_dialect_providers(url: str) -> tuple[Provider, ...]:
    """The mock four times, each time speaking one dialect only."""
    shared: dict[str, Any] = {"api_key": "mock-key"}
    return (
        Provider("only-chat", Dialect.OPENAI, url + "/v1", price_source="openai", apis=(CHAT,), **shared),
        Provider(
            "only-responses", Dialect.OPENAI, url + "/v1", price_source="openai", apis=(RESPONSES,), **shared
        ),
        Provider("only-messages", Dialect.ANTHROPIC, url, price_source="anthropic", **shared),
        Provider("only-gemini", Dialect.GOOGLE, url, price_source="google", **shared),
    )


def routes() -> tuple[ModelRoute, ...]:
    """`SERVERS`, each at its provider."""
    models = {CHAT: "gpt-test", RESPONSES: "gpt-test", MESSAGES: "claude-test", GENERATE: "gemini-test"}
    return tuple(
        ModelRoute(SERVERS[server], f"only-{SHORT[server]}", model) for server, model in models.items()
    )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with house(tmp_path_factory.mktemp("matrix"), "1000") as (mock, gateway):
        gateway.swap(providers=one_dialect_providers(mock.url), models=routes())
        with clients(gateway.url) as vendors:
            yield Rig(mock, gateway, vendors)


def promised(feature: str, client: Operation, server: Operation) -> str | None:
    """The field that a 422 names; None if the feature is carried."""
    row = next(row for row in FEATURES if row.name == feature)
    return None if client is server or server in row.targets else row.fields[client]


@pytest.mark.parametrize(("client", "server", "name"), CELLS)
def test_cell(rig: Rig, client: Operation, server: Operation, name: str) -> None:
    case = CASES[name]
    rig.behave(**case.mock)
    field = promised(case.feature, client, server)
    if field is not None:
        with pytest.raises(REFUSED[DIALECT[client]]) as raised:
            ask(rig.vendors, client, SERVERS[server], case.asks[client], stream=case.stream)
        assert status_of(raised.value) == 422
        assert field in str(raised.value)
        assert not rig.mock.calls
        return
    told = ask(rig.vendors, client, SERVERS[server], case.asks[client], stream=case.stream)
    call = rig.mock.calls[-1]
    assert PATHS[server].lower() in call.path.lower()
    sent = json.dumps(json.loads(call.body), separators=(",", ":"))
    for mark in case.marks:
        if not (name == "user" and server is GENERATE):  # a hint there: it has no such field
            assert mark in sent or mark.translate(URL_SAFE) in sent
    assert_told(name, told, client, server)
    rig.check(1)


def assert_told(name: str, told: Told, client: Operation, server: Operation) -> None:
    """What came back means what the mock said."""
    if name in ("tools", "forced tool", "streaming tool call"):
        assert told.calls == [("look_up", ARGUMENTS)]
        assert told.end == "tools"
    elif name == "parallel tool calls":
        assert [call[0] for call in told.calls] == ["look_up"] * len(told.calls)
        assert len(told.calls) == 3
    elif name == "limit":
        assert (told.text, told.end, told.output) == (content.words(0, 24), "length", 24)
    elif name == "structured output":
        assert told.text == '{"verdict_key":"ledger"}'
        assert told.end == "stop"
    elif name.startswith("usage"):
        assert (told.input, told.cached, told.output) == (100, 20, 40)
        if MESSAGES not in (client, server):
            assert told.reasoning == 10  # Anthropic does not state it apart
        assert told.text == content.words(0, 30)
    else:
        assert (told.text, told.end) == (content.words(0, 40), "stop")
        assert told.calls == []


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("client", "server"), PAIRS, ids=IDS)
def test_errors_are_the_clients_own(
    rig: Rig, client: Operation, server: Operation, stream: bool, status: int
) -> None:
    rig.behave(status=status)
    with pytest.raises(ERRORS[status][DIALECT[client]]) as raised:
        ask(rig.vendors, client, SERVERS[server], {}, stream=stream)
    assert status_of(raised.value) == status
    rig.check(1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("client", "server"), PAIRS, ids=IDS)
def test_refused_at_the_cap(rig: Rig, client: Operation, server: Operation, stream: bool) -> None:
    rig.behave()
    spent = (*rig.gateway.snapshot.budgets, budget("spent", "0.000000001"))
    before = rig.gateway.snapshot.budgets
    rig.gateway.swap(budgets=spent)
    try:
        with pytest.raises(REFUSED[DIALECT[client]]) as raised:
            ask(rig.vendors, client, SERVERS[server], {}, stream=stream)
    finally:
        rig.gateway.swap(budgets=before)
    assert status_of(raised.value) == 402
    assert "budget" in str(raised.value).lower()
    assert not rig.mock.calls


def status_of(error: BaseException) -> int:
    """The HTTP status, as any of the SDKs has it."""
    found = getattr(error, "status_code", None) or getattr(error, "code", None)
    assert isinstance(found, int)
    return found
