"""Whoever a request says it is, the charge is of whom its key or token allows, and a refusal tells nobody's amounts."""

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outlay.app.config.tree import IssuerEntry
from outlay.app.identity.door import Door
from outlay.app.identity.keysets import read_keys
from outlay.flow.budgets import BudgetSpec
from outlay.flow.gateway.keys import PreviousSecret
from outlay.flow.gateway.snapshot import Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView, LedgerReader
from outlay.flow.scope import DIMENSIONS, scope_text
from outlay.flow.tags import TagSpec
from outlay.kernel.money import format_usd
from outlay.testing import MockProvider
from tests import world
from tests.harness import RunningGateway, budget, key
from tests.reality.identity_cases import (
    ADA,
    ADA_ENDED,
    ADA_OLD,
    BOB,
    GONE,
    TAGS,
    Case,
    make_case,
)
from tests.reality.load import Reply, parse
from tests.tokens import AUDIENCE, ISSUER, ec_key, jwk, jwks, rsa_key, token

SEEDS = range(int(os.environ.get("OUTLAY_SEEDS", "3")))
HOUR = 3600 * 10**9
EACH = ("team", "user", "key", "agent", "customer", "environment", "run", "tag.feature", "tag.free")
POLICIES = (
    TagSpec("feature", required=True, allowed=("chat", "rag-*")),
    TagSpec("cost-center", client_settable=False),
)
HELLO = [{"role": "user", "content": "hello"}]
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", {"model": "gpt-test", "max_tokens": 9, "messages": HELLO}),
    "anthropic": ("/v1/messages", {"model": "claude-test", "max_tokens": 9, "messages": HELLO}),
    "responses": ("/v1/responses", {"model": "gpt-test", "max_output_tokens": 16, "input": "hello"}),
    "embeddings": ("/v1/embeddings", {"model": "embed-test", "input": "hello"}),
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    **CALLS,
    "stream": ("/v1/chat/completions", {**CALLS["openai"][1], "stream": True}),
    "google": (
        "/v1beta/models/gemini-test:generateContent",
        {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 9}},
    ),
    "google-stream": (
        "/v1beta/models/gemini-test:streamGenerateContent?alt=sse",
        {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 9}},
    ),
    "cohere": ("/v2/rerank", {"model": "rerank-test", "query": "hello", "documents": ["a", "b"]}),
    "bedrock": (
        "/model/bedrock.claude-test-v1%3A0/converse",
        {"messages": [{"role": "user", "content": [{"text": "hello"}]}], "inferenceConfig": {"maxTokens": 9}},
    ),
    "images": ("/v1/images/generations", {"model": "dall-e-test", "prompt": "hello"}),
}


def door(folder: Path) -> Door:
    (folder / "keys.json").write_bytes(jwks(jwk(rsa_key(), "k1"), jwk(ec_key(), "e1")))
    entry = IssuerEntry(
        name="sso",
        issuer=ISSUER,
        audience=AUDIENCE,
        key="staff",
        jwks_file="keys.json",
        algorithms=("RS256", "ES256"),
        claims={"user": "sub", "team": "groups[0]", "environment": "environment"},
    )
    return Door([entry], {"sso": read_keys(entry, folder)}, lambda _name: None)


@contextmanager
def house(
    folder: Path, budgets: list[BudgetSpec], **changes: Any
) -> Iterator[tuple[RunningGateway, MockProvider]]:
    """A gateway with two keys, an issuer's tokens, and keys that ended."""
    now = time.time_ns()
    olds = [key("x", ADA_OLD), key("x", ADA_ENDED)]
    previous = tuple(
        PreviousSecret(old.secret_sha256, now + shift) for old, shift in zip(olds, (HOUR, -HOUR), strict=True)
    )
    keys = [
        key("ada", ADA, user="ada", agent="crawler", tags={"env": "prod"}, previous=previous),
        key("bob", BOB, team="ads", user="bob"),
        key("gone", GONE, expires_at=now - HOUR),
        key("staff", "sk-outlay-of-the-staff", team="", environment="prod"),
    ]
    with (
        MockProvider(
            prices=world.meter_prices(), aws_keys={"AKIDEXAMPLE": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
        ) as mock,
        RunningGateway(
            folder / "l.db",
            mock.url,
            budgets,
            keys=keys,
            tokens=door(folder),
            price_book=world.book(),
            upstreams=world.providers(mock.url),
            **{"settings": Settings(wait_s=0), "tags": POLICIES, **changes},
        ) as gateway,
    ):
        yield gateway, mock


@dataclass(slots=True)
class Line:
    """A kept connection: what one caller left behind must not colour the next."""

    url: str
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, case: Case, path: str, body: dict[str, Any]) -> Reply:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", int(self.url.rsplit(":", 1)[1]))
        reader, writer = self.streams
        data = json.dumps(body).encode()
        target = path + ("?" + case.query if case.query else "")
        head = f"POST {target} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n".encode()
        if "/messages" in path:
            head += b"anthropic-version: 2023-06-01\r\n"
        head += b"".join(name.encode() + b": " + value + b"\r\n" for name, value in case.headers)
        writer.write(head + b"content-length: %d\r\n\r\n" % len(data) + data)
        raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        length = next(
            (int(line[15:]) for line in raw.lower().split(b"\r\n") if line.startswith(b"content-length:")),
            None,
        )
        if length is None:
            raw += await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 20)
        else:
            raw += await asyncio.wait_for(reader.readexactly(length), 20)
        if b"connection: close" in raw.lower().partition(b"\r\n\r\n")[0]:
            await self.close()
        return parse(raw)

    async def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            with suppress(ConnectionError):
                await self.streams[1].wait_closed()
            self.streams = None

    async def __aenter__(self) -> "Line":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def settled(gateway: RunningGateway, count: int) -> dict[str, ChargeView]:
    """All charges by request id, once so many are written."""
    while True:
        gateway.call(gateway.books.flush)
        with LedgerReader(gateway.path) as reader:
            found = reader.charges(10_000)
        if len(found) >= count:
            return {charge.request_id: charge for charge in found}


@pytest.mark.parametrize("seed", SEEDS)
def test_charges_are_of_whom_the_credential_allows(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    limits = [budget("all", "100")] + [budget(f"each-{name}", "50", {name: "*"}) for name in EACH]
    expected: dict[str, tuple[dict[str, Any], str]] = {}

    async def ask(case: Case, line: Line) -> None:
        kind = chance.choice(list(CALLS))
        path, body = CALLS[kind]
        extra = case.body if kind in ("openai", "responses") else {}
        if kind == "anthropic" and "metadata" in case.body:
            extra = {"metadata": {"user_id": "bob"}}
        reply = await line.send(case, path, {**body, **extra})
        if not case.codes:
            assert reply.status == 200, (case, reply.body)
            request_id = reply.headers["x-outlay-request-id"].removeprefix("req_")
            expected[request_id] = (case.who, str(body["model"]))
        else:
            assert 400 <= reply.status < 404, (case, reply.status)
            assert json.loads(reply.body)["error"]["code"] in case.codes, (case, reply.body)

    async def scene(gateway: RunningGateway) -> None:
        async with AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(Line(gateway.url)) for _ in range(4)]
            for _ in range(130):
                await ask(make_case(chance), chance.choice(lines))

    with house(tmp_path, limits) as (gateway, mock):
        asyncio.run(scene(gateway))
        assert len(expected) > 30
        found = settled(gateway, len(expected))
        assert found.keys() == expected.keys()
        assert sum(charge.cost_nanos for charge in found.values()) == mock.meter.total_nanos
        for request_id, (who, model) in expected.items():
            identity = found[request_id].identity
            booked = {name: value for name, value in identity.items() if value and name != "provider"}
            booked["tags"] = dict(identity.get("tags", ()))
            wanted = {"org": "acme", "model": model, **{name: value for name, value in who.items() if value}}
            assert booked == {"tags": {}, **wanted}, who
        _sums_are_the_total(gateway, found)
        _accounts_moved_by_their_own(gateway, found)
        # nothing that says who calls, and no credential, went on to the provider
        for call in mock.calls:
            for name, value in call.headers:
                assert not name.startswith(b"x-outlay-") or name == b"x-outlay-request-id"
                assert b"sk-outlay" not in value and not value.startswith((b"eyJ", b"Bearer eyJ"))
            assert b"sk-outlay" not in call.path.encode() and "eyJ" not in call.path


def _sums_are_the_total(gateway: RunningGateway, found: dict[str, ChargeView]) -> None:
    total = sum(charge.cost_nanos for charge in found.values())
    with LedgerReader(gateway.path) as reader:
        for name in (*DIMENSIONS, *(f"tag.{tag}" for tag in TAGS)):
            rows = reader.spend([name])
            assert sum(row.cost_nanos for row in rows) == total, name
            assert len({row.group[name] for row in rows}) == len(rows), name
    assert audit(gateway.path).findings == ()


def _accounts_moved_by_their_own(gateway: RunningGateway, found: dict[str, ChargeView]) -> None:
    """Each account holds exactly what calls of its value cost: added up from the charges."""
    expected: dict[tuple[str, str], int] = {}
    for charge in found.values():
        tags = dict(charge.identity.get("tags", ()))
        for name in EACH:
            value = tags.get(name[4:], "") if name.startswith("tag.") else charge.identity.get(name, "")
            if value:
                values = ((name, value),)
                if name == "run":
                    team = charge.identity.get("team", "") or "unattributed"
                    values = (("org", "acme"), ("run", value), ("team", team))
                scope = scope_text(values)
                expected[name, scope] = expected.get((name, scope), 0) + charge.cost_nanos
    accounts = gateway.call(
        lambda: [
            (account.budget.name, account.scope, account.spent, account.held)
            for account in gateway.books.directory.accounts()
        ]
    )
    assert all(held == 0 for _, _, _, held in accounts)
    moved = {
        (name.removeprefix("each-"), scope): spent
        for name, scope, spent, _ in accounts
        if name.startswith("each-") and spent
    }
    assert moved == {place: nanos for place, nanos in expected.items() if nanos}


# -- amounts ---------------------------------------------------------------------------------------------------------

ABOVE: list[tuple[str, dict[str, str]]] = [
    ("company", {"org": "acme"}),
    ("team", {"team": "search"}),
    ("each-team", {"team": "*"}),
    ("model", {"model": "*"}),
    ("feature", {"tag.feature": "*"}),
    ("pooled-users", {"user": "a*"}),
    ("said-agent", {"customer": "*"}),
]
LIMIT = "0.000000137"
"""Less than any call needs, and a number that occurs by chance nowhere."""
CREDENTIALS = {"key": ADA, "rotated": ADA_OLD, "token": token(sub="ada", groups=["search"])}


def told(reply: Reply) -> str:
    """All that a caller can read off an answer."""
    return "\n".join(f"{name}: {value}" for name, value in reply.headers.items()) + reply.body.decode()


@pytest.mark.parametrize(("name", "scope"), ABOVE)
def test_refusals_leak_no_amounts_of_budgets_above(name: str, scope: dict[str, str], tmp_path: Path) -> None:
    async def scene(gateway: RunningGateway) -> list[tuple[str, Reply]]:
        found = []
        for who, secret in CREDENTIALS.items():
            for shape, (path, body) in SHAPES.items():
                headers = [
                    ("authorization", f"Bearer {secret}".encode()),
                    ("x-outlay-tags", b"feature=chat"),
                    ("x-outlay-customer", b"c1"),
                    ("x-outlay-run", b"r1"),
                ]
                line = Line(gateway.url)
                reply = await line.send(Case(headers, "", {}, set(), {}), path, body)
                found.append((f"{who} {shape}", reply))
                await line.close()
        return found

    above = budget(name, "1", scope)
    with house(tmp_path, [above, budget("own", "1", {"run": "*"})]) as (gateway, mock):
        # something is spent first, so that there is a figure to tell
        replies = dict(asyncio.run(scene(gateway)))
        assert all(reply.status == 200 for reply in replies.values()), {
            shape: reply.body for shape, reply in replies.items() if reply.status != 200
        }
        # of the run's own budget
        assert all(replies[f"{who} openai"].headers["x-outlay-remaining-usd"] for who in CREDENTIALS)
        settled(gateway, len(replies))
        gateway.swap(budgets=(budget(name, LIMIT, scope), budget("own", "1", {"run": "*"})))
        sent = len(mock.meter.entries)
        refused = dict(asyncio.run(scene(gateway)))
        accounts = gateway.call(
            lambda: [account for account in gateway.books.directory.accounts() if account.budget.name == name]
        )
        figures = {account.spent for account in accounts} | {account.limit or 0 for account in accounts}
        secret = {text for nanos in figures if nanos for text in (format_usd(nanos), str(nanos))}
        # shorter ones occur in ids by chance
        secret = {text for text in secret if len(text) >= 6}
        assert len(secret) >= 3
        for shape, reply in refused.items():
            assert reply.status in (402, 400), (shape, reply.status, reply.body)
            text = told(reply)
            assert name in text and "budget_spent" in text.lower(), text
            for amount in secret:
                assert amount not in text, (shape, amount, text)
            assert not any(f'"{field}"' in text for field in ("limit", "spent", "held", "needed")), text
            assert "x-outlay-remaining-usd" not in reply.headers
        assert len(mock.meter.entries) == sent


@pytest.mark.parametrize("scope", [{"user": "*"}, {"run": "*"}, {"agent": "*", "team": "*"}])
def test_a_budget_that_stands_for_the_caller_tells_its_amounts(scope: dict[str, str], tmp_path: Path) -> None:
    """The test above would pass if nobody were ever told anything."""
    with house(tmp_path, [budget("own", LIMIT, scope)]) as (gateway, _):

        async def scene(secret: str) -> Reply:
            headers = [
                ("authorization", f"Bearer {secret}".encode()),
                ("x-outlay-tags", b"feature=chat"),
                ("x-outlay-run", b"r1"),
                ("x-outlay-agent", b"crawler"),
            ]
            path, body = CALLS["openai"]
            async with Line(gateway.url) as line:
                return await line.send(Case(headers, "", {}, set(), {}), path, body)

        for secret in CREDENTIALS.values():
            reply = asyncio.run(scene(secret))
            assert (reply.status, reply.error["limit"]) == (402, LIMIT)
