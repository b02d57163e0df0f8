"""What a hostile reviewer found at the doors: each test is an attack that once worked."""

import base64
import json
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.server import ServerConnection, serve

from outlay.app.cli.main import main
from outlay.flow.gateway.snapshot import Disclose, Mode, Settings
from outlay.flow.ledger.audit import audit
from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate import translate_request
from tests import world
from tests.harness import SECRET, RunningGateway, budget
from tests.reality.doors import house
from tests.reality.sdk import charges
from tests.reality.test_jobs import OTHER, lines, stage_of
from tests.reality.test_realtime import WORST, say, session, settled, wait_for


def handshake(gateway: RunningGateway, model: str = "talk-test", path: str = "/v1/realtime") -> socket.socket:
    """A connection on which a session was asked for and no answer was read."""
    host, port = gateway.url.removeprefix("http://").split(":")
    lines = (
        f"GET {path}?model={model} HTTP/1.1",
        f"host: {host}",
        f"authorization: Bearer {SECRET}",
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
        f"sec-websocket-key: {base64.b64encode(os.urandom(16)).decode()}",
    )
    connection = socket.create_connection((host, int(port)))
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return connection


def until_nothing_is_held(gateway: RunningGateway) -> None:
    """Wait for every hold and session to end."""
    deadline = time.monotonic() + 40
    while gateway.call(lambda: gateway.books.open_holds or len(gateway.gateway.sessions)):
        assert time.monotonic() < deadline, "a hold or a session is left over"
        time.sleep(0.02)


def test_a_client_that_leaves_during_a_realtime_handshake_leaves_no_hold(tmp_path: Path) -> None:
    """Each such connection held a response's worst case for ever, and broke the gateway's orderly stop."""
    with house(tmp_path, "10") as (mock, gateway):
        for _ in range(5):
            connection = handshake(gateway)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        time.sleep(0.3)
        until_nothing_is_held(gateway)
        assert sum(charge.cost_nanos for charge in charges(gateway)) == mock.meter.total_nanos == 0
    assert audit(tmp_path / "l.db").open_holds == 0


def test_a_response_asked_for_by_a_client_that_leaves_is_booked(tmp_path: Path) -> None:
    """Its hold was voided as not sent, while the provider made and billed the response."""
    with house(tmp_path, "10") as (mock, gateway):
        mock.behave(output_tokens=60, first_byte_ms=200)
        with session(gateway) as connection:
            wait_for(connection, "session.created")
            connection.response.create()
            # the provider has it, and has not begun
            connection.conversation.item.retrieve(item_id="none")
            time.sleep(0.1)
        booked = settled(gateway, mock)
        assert sum(charge.cost_nanos for charge in booked) == mock.meter.total_nanos > 0


def test_refused_responses_keep_no_holds(tmp_path: Path) -> None:
    """Each `response.create` that the provider refused held one more worst case until the session ended."""
    with house(tmp_path, "10") as (mock, gateway):
        mock.behave(output_tokens=60, chunk_ms=10)
        with session(gateway) as connection:
            wait_for(connection, "session.created")
            connection.response.create()
            wait_for(connection, "response.created")
            for _ in range(4):
                connection.response.create()
            for _ in range(4):
                assert wait_for(connection, "error").error.code == "conversation_already_has_active_response"
            assert gateway.call(lambda: gateway.books.held_nanos) <= WORST
            assert say(connection, "hello").type == "response.done"
        booked = settled(gateway, mock)
        assert sum(charge.cost_nanos for charge in booked) == mock.meter.total_nanos > 0


class TurnDetector:
    """A provider that hears several turns in what was sent, and begins a response to each."""

    def __init__(self) -> None:
        self._server = serve(self._talk, "127.0.0.1", 0)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.billed_nanos = 0

    def __enter__(self) -> str:
        self._thread.start()
        host, port = self._server.socket.getsockname()[:2]
        return f"http://{host}:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    def _talk(self, connection: ServerConnection) -> None:
        connection.send('{"type":"session.created","session":{}}')
        for message in connection:
            kind = json.loads(message)["type"]
            if kind == "input_audio_buffer.commit":
                connection.send('{"type":"response.created","response":{"id":"one"}}')
                connection.send('{"type":"response.created","response":{"id":"two"}}')
                self._done(connection, "one")
            elif kind == "response.cancel":
                self._done(connection, "two")

    def _done(self, connection: ServerConnection, name: str) -> None:
        usage = {"input_tokens": 1000, "output_tokens": 10, "total_tokens": 1010}
        self.billed_nanos += 1000 * 4_000 + 10 * 16_000
        response = {"id": name, "status": "completed", "usage": usage}
        connection.send(json.dumps({"type": "response.done", "response": response}))


def test_a_response_that_no_hold_covers_is_booked(tmp_path: Path) -> None:
    """Turns heard in what was said before the money was gone began responses that nobody booked."""
    provider = TurnDetector()
    with (
        provider as url,
        RunningGateway(
            tmp_path / "l.db",
            url,
            [budget("all", "1.3")],
            price_book=world.book(),
            upstreams=world.providers(url),
        ) as gateway,
    ):
        with session(gateway) as connection:
            connection.input_audio_buffer.commit()
            assert wait_for(connection, "error").error.code == "budget_spent"
        until_nothing_is_held(gateway)
        assert sum(charge.cost_nanos for charge in charges(gateway)) == provider.billed_nanos > 0
        assert audit(gateway.path).findings == ()


def test_a_key_that_is_taken_away_ends_its_session(tmp_path: Path) -> None:
    """A realtime session went on spending under a key that was revoked."""
    with house(tmp_path, "10") as (mock, gateway):
        with session(gateway) as connection:
            wait_for(connection, "session.created")
            assert say(connection, "hello").type == "response.done"
            gateway.swap(keys=())
            assert wait_for(connection, "error").error.code == "key_unknown"
        booked = settled(gateway, mock)
        assert sum(charge.cost_nanos for charge in booked) == mock.meter.total_nanos > 0


def test_a_session_takes_up_a_new_snapshot(tmp_path: Path) -> None:
    with house(tmp_path, "10") as (mock, gateway):
        with session(gateway) as connection:
            wait_for(connection, "session.created")
            gateway.swap(budgets=(budget("all", "10"), budget("late", "0.000001", {"team": "search"})))
            assert say(connection, "hello").type == "response.done"  # its hold was placed before
            assert say(connection, "again").type == "error"
        booked = settled(gateway, mock)
        assert sum(charge.cost_nanos for charge in booked) == mock.meter.total_nanos > 0


def _reading(file_id: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Calls that have the provider read a file."""
    part = {"type": "input_file", "file_id": file_id}
    source = {"type": "file", "file_id": file_id}
    escaped = json.loads(json.dumps({"type": "input_file", "file_id": file_id}))
    return {
        "responses": ("/v1/responses", {"model": "gpt-test", "input": [{"role": "user", "content": [part]}]}),
        "escaped": (
            "/v1/responses",
            {"model": "gpt-test", "input": [{"role": "user", "content": [escaped]}]},
        ),
        "code": (
            "/v1/responses",
            {
                "model": "gpt-test",
                "input": "run",
                "tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": [file_id]}}],
            },
        ),
        "chat": (
            "/v1/chat/completions",
            {
                "model": "gpt-test",
                "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": file_id}}]}],
            },
        ),
        "messages": (
            "/v1/messages",
            {
                "model": "claude-test",
                "max_tokens": 30,
                "messages": [{"role": "user", "content": [{"type": "document", "source": source}]}],
            },
        ),
        "edit": (
            "/v1/images/edits",
            {"model": "picture-test", "prompt": "x", "images": [{"file_id": file_id}]},
        ),
    }


@pytest.mark.parametrize("kind", ["responses", "escaped", "code", "chat", "messages", "edit"])
def test_another_teams_file_is_not_read_by_a_call(tmp_path: Path, kind: str) -> None:
    """A file could not be fetched, but a model could be asked to tell what is in it."""
    with stage_of(tmp_path) as stage, stage.openai() as client:
        file = client.files.create(file=("secret.jsonl", lines()), purpose="user_data")
        path, body = _reading(file.id)[kind]
        data = json.dumps(body)
        if kind == "escaped":
            data = data.replace('"file_id"', '"file\\u005fid"')
        headers = {"authorization": f"Bearer {OTHER}", "anthropic-version": "2023-06-01"}
        answer = httpx.post(stage.gateway.url + path, headers=headers, content=data)
        assert answer.status_code == 404
        assert [call.path for call in stage.mock.calls] == ["/v1/files"]


def test_another_teams_objects_are_not_read_by_a_job(tmp_path: Path) -> None:
    with stage_of(tmp_path) as stage, stage.openai() as client, stage.openai(OTHER) as other:
        made = client.responses.create(model="gpt-test", input="a secret").id
        file = client.files.create(file=("secret.jsonl", lines()), purpose="fine-tune")
        body = {"model": "gpt-test", "input": "x", "max_output_tokens": 30, "previous_response_id": made}
        row = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
        batch = other.files.create(file=("b.jsonl", json.dumps(row).encode()), purpose="batch")
        with pytest.raises(openai.NotFoundError):
            other.batches.create(input_file_id=batch.id, endpoint="/v1/responses", completion_window="24h")
        rows = b'{"messages":[]}\n' * 20
        training = other.files.create(file=("t.jsonl", rows), purpose="fine-tune")
        with pytest.raises(openai.NotFoundError):
            other.fine_tuning.jobs.create(
                model=world.TUNED, training_file=training.id, validation_file=file.id
            )


SHADOW = Settings(disclose=Disclose.ALL, job_poll_s=1, mode=Mode.SHADOW)


@pytest.mark.parametrize("model", ["gpt-test", "gpt-unpriced"])
def test_shadow_mode_lets_jobs_pass_and_records_why(tmp_path: Path, model: str) -> None:
    """A batch was refused for its price, and one over budget was booked as if it had fitted."""
    with (
        house(tmp_path, "0.0000001", settings=SHADOW) as (_, gateway),
        openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0) as client,
    ):
        file = client.files.create(file=("a.jsonl", lines(model=model)), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        assert client.batches.retrieve(batch.id).id == batch.id
        until_nothing_is_held(gateway)
        (charge,) = [charge for charge in charges(gateway) if charge.operation == "batch"]
        expected = "budget_spent" if model == "gpt-test" else "model_unpriced"
        assert (charge.reason or "").startswith(f"shadow: {expected}")


@pytest.mark.parametrize("model", ["talk-test", "gpt-unpriced"])
def test_shadow_mode_lets_sessions_pass_and_records_why(tmp_path: Path, model: str) -> None:
    with house(tmp_path, "0.0000001", settings=SHADOW) as (mock, gateway):
        with (
            openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET, max_retries=0) as client,
            client.realtime.connect(model=model) as connection,
        ):
            assert say(connection, "hello").type == "response.done"
        booked = [charge for charge in settled(gateway, mock) if charge.basis != "void"]
        assert booked and all((charge.reason or "").startswith("shadow: ") for charge in booked)


def part(name: str, value: bytes, extra: str = "") -> bytes:
    """One part of a form, without its boundary."""
    return f'content-disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + value + b"\r\n"


def form(boundary: bytes, *parts: bytes) -> bytes:
    """A form of parts."""
    return b"".join(b"--" + boundary + b"\r\n" + each for each in parts) + b"--" + boundary + b"--\r\n"


def images(count: bytes, *more: bytes, extra: str = "") -> tuple[bytes, ...]:
    """The parts of an image edit."""
    return (
        part("model", b"dall-e-test"),
        part("prompt", b"x"),
        part("size", b"1024x1024"),
        part("n", count, extra),
        part("image", b"x", '; filename="a.png"'),
        *more,
    )


NESTED = form(b"BB", *images(b"1", part("junk", form(b"AA", *images(b"10")))))
NAMED_TWICE = form(b"BB", *images(b"10", extra='; name="junk"'))


@pytest.mark.parametrize(
    ("types", "body"),
    [
        (["multipart/form-data; boundary=AA; boundary=BB"], NESTED),
        (["multipart/form-data; boundary=BB; boundary*=AA"], NESTED),
        (["multipart/form-data; boundary=BB", "multipart/form-data; boundary=AA"], NESTED),
        (["multipart/form-data; boundary=BB"], NAMED_TWICE),
    ],
)
def test_a_form_is_read_in_one_way(tmp_path: Path, types: list[str], body: bytes) -> None:
    """One image was held and ten were made: two boundaries are two forms in one body."""
    with house(tmp_path) as (mock, gateway):
        headers = [("authorization", f"Bearer {SECRET}"), *(("content-type", kind) for kind in types)]
        answer = httpx.post(gateway.url + "/v1/images/edits", headers=headers, content=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_form")
        assert not mock.calls


def test_a_list_in_the_place_of_the_model_is_no_fault(tmp_path: Path) -> None:
    with house(tmp_path) as (_, gateway):
        body = form(b"BB", part("model[]", b"dall-e-test"), part("prompt", b"x"))
        headers = {"authorization": f"Bearer {SECRET}", "content-type": "multipart/form-data; boundary=BB"}
        url = gateway.url + "/openai/deployments/dall-e-test/images/edits"
        assert httpx.post(url, headers=headers, content=body).status_code == 400


def test_a_models_name_does_not_write_the_providers_request(tmp_path: Path) -> None:
    """A session's model went into the provider's request line as it came."""
    with house(tmp_path, settings=SHADOW) as (mock, gateway):
        for name in ("a%0d%0ax-injected:%20b", "a%26model%3Dtalk-test", "a%23", "a%20b"):
            connection = handshake(gateway, name)
            connection.settimeout(5)
            assert connection.recv(100)
            connection.close()
        until_nothing_is_held(gateway)
        for call in mock.calls:
            assert b"x-injected" not in dict(call.headers)
            assert call.query.count("model=") == 1


def test_events_that_wait_for_money_are_bounded(tmp_path: Path) -> None:
    """Sixty-four gigabytes could wait behind one running response."""
    small = Settings(disclose=Disclose.ALL, max_body_bytes=1_000_000)
    with house(tmp_path, "1.3", settings=small) as (mock, gateway):
        mock.behave(output_tokens=400, chunk_ms=30)
        with session(gateway) as connection:
            wait_for(connection, "session.created")
            connection.response.create()
            wait_for(connection, "response.created")
            with pytest.raises(ConnectionClosedError, match="too_many_pipelined"):
                for _ in range(8):
                    connection.input_audio_buffer.append(audio="A" * 300_000)
                while True:
                    connection.recv()
        until_nothing_is_held(gateway)


def masked(text: bytes) -> bytes:
    """A client's text frame, masked with zeros."""
    return bytes([0x81, 0x80 | len(text)]) + bytes(4) + text


def test_who_is_still_sending_is_told_why_the_session_ends(tmp_path: Path) -> None:
    """The connection was closed over bytes that were not read: it was reset, and the reason lost."""
    small = Settings(disclose=Disclose.ALL, max_body_bytes=1_000_000)
    with house(tmp_path, settings=small) as (_, gateway):
        connection = handshake(gateway)
        connection.settimeout(10)
        assert connection.recv(100)
        size = 4_000_000
        connection.sendall(bytes([0x81, 0x80 | 127]) + size.to_bytes(8, "big") + bytes(4) + b" " * size)
        seen = b""
        while bytes([0x03, 0xF1]) not in seen:  # 1009, too big
            part = connection.recv(100_000)
            assert part, seen
            seen += part
        connection.sendall(bytes([0x88, 0x82]) + bytes(4) + bytes([0x03, 0xF1]))
        assert connection.recv(100) == b""
        connection.close()
        until_nothing_is_held(gateway)


def test_a_session_that_is_not_read_is_not_buffered(tmp_path: Path) -> None:
    """What a client left unread piled up in the gateway for as long as the provider sent."""
    stalls = Settings(disclose=Disclose.ALL, client_stall_s=4)
    with house(tmp_path, "100", settings=stalls) as (mock, gateway):
        mock.behave(output_tokens=4_000)
        connection = handshake(gateway)
        connection.settimeout(10)
        assert connection.recv(100)
        for _ in range(40):
            connection.sendall(masked(b'{"type":"response.create"}'))
        time.sleep(3)
        unread = gateway.call(
            lambda: [each._socket.transport.get_write_buffer_size() for each in gateway.gateway.sessions]
        )
        # on a busy machine it may be let go already
        assert all(size < 1_000_000 for size in unread)
        until_nothing_is_held(gateway)  # a client that does not read for long is let go
        connection.close()


def test_a_search_with_default_options_is_not_dropped() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"web_search_options":{}}'
    for upstream in (Operation.RESPONSES, Operation.MESSAGES, Operation.GENERATE):
        found = translate_request(
            Operation.CHAT, upstream, body, model="m", stream=False, max_output_tokens=100
        )
        assert isinstance(found, Rejection) and found.param == "web_search_options"


LITELLM = """
model_list:
  - model_name: gpt
    litellm_params:
      model: azure/gpt-4o
      api_key: SECRET
      api_base: https://user:SECRET@example.openai.azure.com/?sig=SECRET
      azure_ad_token: SECRET
      extra_headers: {Authorization: Bearer SECRET}
      extra_body: {anything: SECRET}
      weird_token: SECRET
      webhook: https://hooks.example/SECRET
general_settings: {master_key: SECRET}
"""
BIFROST = {
    "providers": {
        "openai": {
            "keys": [{"value": "SECRET", "models": ["gpt-4o"], "weight": 1}],
            "network_config": {"base_url": "https://user:SECRET@example.test/v1?sig=SECRET"},
        }
    }
}


@pytest.mark.parametrize("kind", ["litellm", "bifrost"])
def test_an_import_shows_and_writes_no_secret(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tokens of odd names, nested ones and those in addresses stood in the report or the file."""
    source, target = tmp_path / "source", tmp_path / "outlay.yaml"
    source.write_text(LITELLM if kind == "litellm" else json.dumps(BIFROST))
    arguments = ["import", kind, "--config", str(source), "-c", str(target)]
    assert main([*arguments, "--dry-run"]) == 0
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert "SECRET" not in told.out + told.err
    written = [path for path in tmp_path.iterdir() if path != source and path.is_file()]
    assert target in written
    assert not [path for path in written if b"SECRET" in path.read_bytes()]
