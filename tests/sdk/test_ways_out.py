"""The ways out that are no plain call: redirects, proxies; and a ledger that cannot be written for a while."""

import threading
import time
from pathlib import Path

import apsw
import openai
import pytest

import outlay
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import LedgerReader
from outlay.lookup.overrides import Ceiling
from tests.sdk.shop import SAY, shop
from tests.sdk.sink import Sink

PRICE = [Ceiling(provider="openai", usd_per_mtok={"input": "1", "output": "1"})]


def wrapped(base_url: str, ledger: Path, **more: object) -> openai.OpenAI:
    raw = openai.OpenAI(base_url=base_url, api_key="key", max_retries=0, **more)  # type: ignore[arg-type]
    return outlay.wrap(raw, budget_usd=10, budget="all", ledger=ledger, provider="openai", prices=PRICE)


def test_a_redirect_to_elsewhere_is_a_call_to_elsewhere(tmp_path: Path) -> None:
    with Sink() as sink, Sink() as other:
        sink.redirect("/v1/chat/completions", other.url + "/v1/chat/completions")
        client = wrapped(sink.url + "/v1", tmp_path / "sdk.db")
        with pytest.raises(outlay.CallRefused) as caught:
            client.chat.completions.create(model="gpt-test", messages=SAY)
        assert caught.value.error_code == "provider_unknown"
        assert (len(sink.requests), other.requests) == (1, [])
        with LedgerReader(tmp_path / "sdk.db") as reader:
            assert [one.status for one in reader.charges()] == ["void"]
        client.close()


def test_a_redirect_within_the_provider_is_a_second_attempt(tmp_path: Path) -> None:
    with Sink() as sink:
        sink.redirect("/v1/chat/completions", sink.url + "/openai/v1/chat/completions")
        client = wrapped(sink.url + "/v1", tmp_path / "sdk.db")
        assert client.chat.completions.create(model="gpt-test", messages=SAY)
        assert len(sink.requests) == 2
        with LedgerReader(tmp_path / "sdk.db") as reader:
            assert [one.status for one in reader.charges()] == ["settled", "void"]
        client.close()


def test_a_file_may_be_kept_elsewhere(tmp_path: Path) -> None:
    with Sink() as sink, Sink() as other:
        sink.redirect("/v1/files/file_1/content", other.url + "/blobs/1")
        client = wrapped(sink.url + "/v1", tmp_path / "sdk.db")
        assert client.files.content("file_1").content
        assert other.requests == [("GET", "/blobs/1", False)]
        client.close()


def test_a_proxy_does_not_go_past_the_meter(tmp_path: Path) -> None:
    with Sink() as proxy:
        http = openai.DefaultHttpxClient(proxy=proxy.url)
        client = wrapped("http://api.nowhere.test/v1", tmp_path / "sdk.db", http_client=http)
        assert client.chat.completions.create(model="gpt-test", messages=SAY)
        assert proxy.requests == [("POST", "http://api.nowhere.test/v1/chat/completions", False)]
        assert audit(tmp_path / "sdk.db").charges == 1
        client.close()
        http.close()


def test_an_answer_that_was_paid_for_is_not_lost_with_the_ledger(tmp_path: Path) -> None:
    with shop(tmp_path, first_byte_ms=500) as place:
        client = place.gpt()
        blocker = apsw.Connection(str(place.ledger))

        def block() -> None:
            while not place.mock.calls:
                time.sleep(0.01)
            # the hold is placed and the call is on its way: from now on nothing can be written
            blocker.execute("BEGIN IMMEDIATE")

        thread = threading.Thread(target=block)
        thread.start()
        answer = client.chat.completions.create(model="gpt-test", messages=SAY)
        thread.join()
        assert answer.choices[0].message.content
        assert (place.audit().charges, place.audit().open_holds) == (0, 1)
        blocker.execute("ROLLBACK")
        blocker.close()
        place.wait_for(1)


def test_a_ledger_that_is_busy_is_waited_for(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        blocker = apsw.Connection(str(place.ledger))
        blocker.execute("BEGIN IMMEDIATE")
        thread = threading.Timer(0.3, lambda: None)
        answers: list[object] = []
        calling = threading.Thread(
            target=lambda: answers.append(client.chat.completions.create(model="gpt-test", messages=SAY))
        )
        calling.start()
        thread.start()
        thread.join()
        assert place.mock.calls == []
        blocker.execute("ROLLBACK")
        blocker.close()
        calling.join(20)
        assert len(answers) == 1
        place.wait_for(1)


def test_a_ledger_that_is_gone_refuses(tmp_path: Path) -> None:
    with shop(tmp_path) as place:
        client = place.gpt()
        client._client._outlay_meter.meter.settler.close()  # type: ignore[attr-defined]
        with pytest.raises(outlay.CallRefused) as caught:
            client.chat.completions.create(model="gpt-test", messages=SAY)
        assert (caught.value.error_code, caught.value.refusal_status) == ("ledger_down", 503)
        assert place.mock.calls == []
