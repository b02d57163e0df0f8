"""What a hostile review found once, and must not find again."""

import asyncio
import gzip
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

from outlay.flow.budgets import AccessRule
from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, SECRET, RunningGateway, budget, key
from tests.reality.load import Reply, parse, post

MESSAGES = [{"role": "user", "content": "hi"}]
OTHER = "sk-outlay-other-team"


def ask(
    gateway: RunningGateway, secret: str = SECRET, headers: dict[str, str] | None = None, **body: Any
) -> Reply:
    request = {"model": "gpt-test", "messages": MESSAGES, **body}
    return asyncio.run(post(gateway.url, request, secret=secret, headers=headers))


async def raw(gateway: RunningGateway, data: bytes) -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(-1), 10)
    writer.close()
    return parse(answer)


def post_bytes(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def test_the_output_limit_goes_under_the_name_the_provider_knows(tmp_path: Path) -> None:
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(
            tmp_path / "l.db", mock.url, [budget("all", "1")], output_limit_field="max_tokens"
        ) as gateway,
    ):
        assert ask(gateway).status == 200
        assert ask(gateway, max_completion_tokens=33).status == 200
        bodies = [json.loads(call.body) for call in mock.calls]
        assert [found.get("max_tokens") for found in bodies] == [4096, 33]
        assert not any("max_completion_tokens" in found for found in bodies)


def test_compressed_bodies_wait_for_a_key_and_may_not_explode(tmp_path: Path) -> None:
    bomb = gzip.compress(b'{"model":"gpt-test","x":"' + b"a" * 30_000_000 + b'"}')
    good = gzip.compress(json.dumps({"model": "gpt-test", "messages": MESSAGES, "max_tokens": 9}).encode())
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")]) as gateway,
    ):
        known = f"authorization: Bearer {SECRET}"
        assert asyncio.run(raw(gateway, post_bytes(bomb, "content-encoding: gzip"))).status == 401
        assert asyncio.run(raw(gateway, post_bytes(bomb, "content-encoding: gzip", known))).status == 413
        assert asyncio.run(raw(gateway, post_bytes(good, "content-encoding: gzip", known))).status == 200


def test_a_large_body_is_not_taken_without_a_key(tmp_path: Path) -> None:
    with RunningGateway(tmp_path / "l.db", "http://127.0.0.1:9", [budget("all", "1")]) as gateway:
        reply = asyncio.run(raw(gateway, post_bytes(b"x" * 30_000)))
        assert (reply.status, reply.error["code"]) == (401, "key_unknown")


def test_an_unusual_layout_is_bounded(tmp_path: Path) -> None:
    slow = b'{ "model":"gpt-test","zz":[' + b"[]," * 3_000_000 + b'[]],"messages":[]}'
    with RunningGateway(tmp_path / "l.db", "http://127.0.0.1:9", [budget("all", "1")]) as gateway:
        before = time.monotonic()
        reply = asyncio.run(raw(gateway, post_bytes(slow, f"authorization: Bearer {SECRET}")))
        assert (reply.status, reply.error["code"]) == (422, "unusual_json")
        assert time.monotonic() - before < 5


def test_letter_case_and_aliases_pass_no_deny_and_no_budget(tmp_path: Path) -> None:
    from outlay.flow.gateway.snapshot import ModelRoute

    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("none-of-it", "0", {"model": "gpt-t*"})],
            models=[ModelRoute("fast", "openai", "gpt-test")],
            keys=[key(), key("other", OTHER, deny_models=("gpt-t*",))],
        ) as gateway,
    ):
        assert ask(gateway).status == 402
        assert ask(gateway, model="GPT-Test").status in (402, 422)
        assert ask(gateway, OTHER, model="GPT-Test").status == 403
        assert ask(gateway, OTHER, model="fast").status == 403
        assert mock.meter.entries == []


def test_a_run_is_its_teams_own(tmp_path: Path) -> None:
    settings = Settings(disclose=Disclose.OWN)
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(
            tmp_path / "l.db",
            mock.url,
            [budget("each-run", "0.0045", {"run": "*"})],
            settings=settings,
            keys=[key(), key("other", OTHER, team="elsewhere")],
        ) as gateway,
    ):
        run = {"x-outlay-run": "nightly"}
        mine = ask(gateway, headers=run, max_tokens=80)
        theirs = ask(gateway, OTHER, headers=run, max_tokens=80)
        assert mine.headers["x-outlay-run-cost-usd"] == theirs.headers["x-outlay-run-cost-usd"]
        for _ in range(6):
            ask(gateway, headers=run, max_tokens=80)
        assert ask(gateway, headers=run, max_tokens=80).status == 402
        assert ask(gateway, OTHER, headers=run, max_tokens=80).status == 200


def test_a_call_of_a_fortune_is_refused_and_reports_go_on(tmp_path: Path) -> None:
    with (
        MockProvider(prices=MOCK_PRICES, behaviour={"failure": "garbage"}) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("soft", "1", hard=False)]) as gateway,
    ):
        reply = ask(gateway, max_tokens=2**31 - 1, n=128)
        assert (reply.status, reply.error["code"]) == (422, "unbounded")
        for _ in range(5):
            assert ask(gateway, max_tokens=90_000_000, n=1).status == 200
        gateway.call(gateway.books.flush)
        with LedgerReader(gateway.path) as reader:
            assert reader.spend(["team"])[0].unknown_nanos > 10**12


def test_what_hides_behind_a_second_name_is_refused(tmp_path: Path) -> None:
    bodies = [
        '{"model":"gpt-test","messages":[{"role":"user","content":[{"type":"image_url"}],"content":"hi"}]}',
        '{"model":"gpt-test","messages":[{"role":"user","content":[{"type":"image_url","type":"text","text":"a"}]}]}',
        '{"model":"gpt-test","messages":[],"tools":[{"type":"web_search","type":"function","function":{}}]}',
    ]
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [budget("all", "1")]) as gateway,
    ):
        for body in bodies:
            reply = asyncio.run(raw(gateway, post_bytes(body.encode(), f"authorization: Bearer {SECRET}")))
            assert (reply.status, reply.error["code"]) == (422, "duplicate_field"), body
        assert mock.meter.entries == []


def test_rules_see_the_model_whatever_its_case(tmp_path: Path) -> None:
    rules = [AccessRule({"team": "search"}, allow=("GPT-*",))]
    with (
        MockProvider(prices=MOCK_PRICES) as mock,
        RunningGateway(tmp_path / "l.db", mock.url, [], rules=rules) as gateway,
    ):
        assert ask(gateway).status == 200
        request = urllib.request.Request(gateway.url + "/healthz")
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 200
        gateway.call(gateway.books.flush)
        assert audit(gateway.path).findings == ()
