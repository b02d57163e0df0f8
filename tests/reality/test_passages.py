"""Routes let through at a price, a client's own credential, and shadow mode: what is let through is always booked."""

import time
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from outlay.flow.budgets import AccessRule
from outlay.flow.gateway.snapshot import ClientAuth, Disclose, Mode, PassRoute, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from tests.harness import SECRET, budget
from tests.reality.doors import HELLO, house
from tests.reality.sdk import charges

SHADOW = Settings(mode=Mode.SHADOW, disclose=Disclose.ALL)
BEARER = {"authorization": f"Bearer {SECRET}"}


def ask(url: str, path: str, method: str = "POST", **more: Any) -> httpx.Response:
    return httpx.request(method, url + path, headers=BEARER, timeout=20, **more)


# -- passthrough ---------------------------------------------------------------------------------------------------


def test_a_route_that_nobody_let_through(tmp_path: Path) -> None:
    with house(tmp_path) as (mock, gateway):
        answer = ask(gateway.url, "/v1/vector_stores", json={})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "route_not_found"
        assert not mock.calls


def test_a_price_per_request(tmp_path: Path) -> None:
    rules = (PassRoute("POST", "/v1/moderations2*", nanos_per_request=2_000_000),)
    with house(tmp_path, "0.005", providers={"passthrough": rules}) as (mock, gateway):
        # the mock knows no such route and answers 404: that is passed on, and costs nothing
        assert ask(gateway.url, "/v1/moderations2/x?a=b", json={"x": 1}).status_code == 404
        assert mock.calls[-1].path == "/v1/moderations2/x"
        assert mock.calls[-1].query == "a=b"
        assert charges(gateway)[0].basis == "void"


def test_a_priced_route_is_charged_and_refused_when_spent(tmp_path: Path) -> None:
    rules = (PassRoute("GET", "/_mock/*", nanos_per_request=2_000_000),)
    with house(tmp_path, "0.005", providers={"passthrough": rules}) as (mock, gateway):
        for _ in range(2):
            assert ask(gateway.url, "/passthrough/anthropic/_mock/meter", "GET").status_code == 200
        refused = ask(gateway.url, "/passthrough/anthropic/_mock/meter", "GET")
        assert refused.status_code == 402
        assert ask(gateway.url, "/passthrough/anthropic/_mock/meter").status_code == 404  # another method
        booked = charges(gateway)
        assert [charge.cost_nanos for charge in booked] == [2_000_000, 2_000_000]
        assert {charge.operation for charge in booked} == {"passthrough"}
        assert audit(gateway.path).findings == ()
        assert mock.meter.all.requests == 0


def test_a_price_per_second_is_bounded_and_cut(tmp_path: Path) -> None:
    rules = (PassRoute("POST", "/v1/images/variations", nanos_per_second=1_000_000_000, max_seconds=1),)
    with house(tmp_path, providers={"passthrough": rules}) as (_, gateway):
        answer = ask(gateway.url, "/v1/images/variations", json={})
        assert answer.status_code == 404  # the mock's own answer
        assert charges(gateway)[0].hold_nanos == 1_000_000_000


@pytest.mark.parametrize("path", ["/v1/x/../chat/completions", "/v1/x/%2e%2e/chat", "/v1/x//y"])
def test_a_prefix_is_no_way_out(tmp_path: Path, path: str) -> None:
    rules = (PassRoute("*", "/v1/x*", nanos_per_request=1),)
    with house(tmp_path, providers={"passthrough": rules}) as (mock, gateway):
        # httpx would tidy the path up: the bytes are sent as they stand
        import socket
        from urllib.parse import urlsplit

        address = urlsplit(gateway.url)
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as sock:
            head = (
                f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\ncontent-length: 2\r\n"
            )
            sock.sendall((head + "connection: close\r\n\r\n{}").encode())
            assert b" 404 " in sock.recv(4096).split(b"\r\n")[0]
        assert not mock.calls


# -- a client's own credential -------------------------------------------------------------------------------------


def test_a_subscription_is_booked_apart(tmp_path: Path) -> None:
    budgets = [budget("all", "0.01"), budget("plan", "5", {"billing": "api_equivalent"})]
    with house(tmp_path, providers={"client_auth": ClientAuth.OWN}) as (mock, gateway):
        gateway.swap(budgets=tuple(budgets))
        with anthropic.Anthropic(
            base_url=gateway.url,
            auth_token="oauth-of-the-client",
            api_key=None,
            default_headers={"x-outlay-key": SECRET},
            max_retries=0,
        ) as client:
            for _ in range(5):
                client.messages.create(model="claude-test", max_tokens=50, messages=HELLO)
        assert mock.calls[-1].header(b"authorization") == "Bearer oauth-of-the-client"
        assert mock.calls[-1].header(b"x-api-key") is None
        assert mock.calls[-1].header(b"x-outlay-key") is None
        gateway.call(gateway.books.flush)
        with LedgerReader(gateway.path) as reader:
            (row,) = reader.spend(["billing"])
            accounts = {account.budget: account.spent_nanos for account in reader.accounts(time.time_ns())}
        assert row.group == {"billing": "api_equivalent"}
        assert accounts == {"plan": mock.meter.total_nanos}
        with openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0) as plain:
            # without a credential of its own a call is billed as ever, and budgets count it
            plain.chat.completions.create(model="gpt-test", messages=HELLO, max_tokens=20)  # type: ignore[arg-type]
        assert mock.calls[-1].header(b"authorization") == "Bearer mock-key"


def test_a_credential_stays_here_unless_the_operator_says(tmp_path: Path) -> None:
    with house(tmp_path) as (mock, gateway):
        with anthropic.Anthropic(
            base_url=gateway.url,
            auth_token="oauth-of-the-client",
            api_key=None,
            default_headers={"x-outlay-key": SECRET},
            max_retries=0,
        ) as client:
            client.messages.create(model="claude-test", max_tokens=50, messages=HELLO)
        assert mock.calls[-1].header(b"authorization") is None
        assert mock.calls[-1].header(b"x-api-key") == "mock-key"
        assert charges(gateway)[0].identity.get("billing") is None


def test_a_rule_holds_whoever_pays(tmp_path: Path) -> None:
    rules = [AccessRule({"team": "search"}, deny=("claude-*",))]
    with house(tmp_path, providers={"client_auth": ClientAuth.OWN}, rules=rules) as (mock, gateway):
        with (
            anthropic.Anthropic(
                base_url=gateway.url,
                auth_token="oauth-of-the-client",
                api_key=None,
                default_headers={"x-outlay-key": SECRET},
                max_retries=0,
            ) as client,
            pytest.raises(anthropic.PermissionDeniedError),
        ):
            client.messages.create(model="claude-test", max_tokens=50, messages=HELLO)
        assert not mock.calls


def test_the_same_key_goes_on_to_another_gateway(tmp_path: Path) -> None:
    with house(tmp_path, providers={"client_auth": ClientAuth.SAME}) as (mock, gateway):
        with openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0) as client:
            client.chat.completions.create(model="gpt-test", messages=HELLO)  # type: ignore[arg-type]
        assert mock.calls[-1].header(b"authorization") == f"Bearer {SECRET}"
        assert charges(gateway)[0].identity.get("billing") is None


# -- shadow --------------------------------------------------------------------------------------------------------


def test_nothing_is_refused_in_shadow_and_every_decision_is_recorded(tmp_path: Path) -> None:
    rules = [AccessRule({"team": "search"}, deny=("claude-*",))]
    with house(tmp_path, "0.001", settings=SHADOW, rules=rules) as (mock, gateway):
        with openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0) as client:
            for _ in range(3):
                client.chat.completions.create(model="gpt-test", messages=HELLO, max_tokens=60)  # type: ignore[arg-type]
            client.chat.completions.create(model="gpt-unpriced", messages=HELLO)  # type: ignore[arg-type]
        assert ask(
            gateway.url, "/v1/messages", json={"model": "claude-test", "max_tokens": 5, "messages": HELLO}
        ).status_code in (200, 400)
        assert ask(gateway.url, "/v1/vector_stores", json={}).status_code == 404
        reasons = [charge.reason or "" for charge in charges(gateway)][::-1]
        assert reasons[:3] == [
            "",
            "shadow: budget_spent: all (org=acme)",
            "shadow: budget_spent: all (org=acme)",
        ] or (reasons[0].startswith("shadow: ") and reasons[2].startswith("shadow: budget_spent"))
        assert reasons[3].startswith("shadow: model_unpriced")
        assert reasons[4].startswith("shadow: model_not_allowed")
        assert reasons[5].startswith("shadow: route_not_found")
        found = audit(gateway.path)
        assert found.findings == ()
        assert found.open_holds == 0
        assert len(mock.calls) == 6
        with LedgerReader(gateway.path) as reader:
            rows = reader.spend(["decision"])
        assert sum(row.charges for row in rows) == 6
        assert "budget_spent: all (org=acme)" in {row.group["decision"] for row in rows}


def test_shadow_ends_at_once(tmp_path: Path) -> None:
    with house(tmp_path, "0.000000001", settings=SHADOW) as (_, gateway):
        with openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0) as client:
            client.chat.completions.create(model="gpt-test", messages=HELLO)  # type: ignore[arg-type]
            gateway.swap(settings=Settings(disclose=Disclose.ALL))
            with pytest.raises(openai.APIStatusError) as raised:
                client.chat.completions.create(model="gpt-test", messages=HELLO)  # type: ignore[arg-type]
            assert raised.value.status_code == 402
        assert audit(gateway.path).findings == ()
