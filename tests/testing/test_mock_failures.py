"""Each failure of the mock as a raw socket sees it, and what the meter billed for it."""

import json

import pytest

from outlay.testing import MockProvider, Outcome

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
MESSAGE = {**CHAT, "model": "claude-haiku-4-5", "max_tokens": 100, "stream": True}
VERSION = {"anthropic-version": "2023-06-01"}
NOT_JSON = r"Unterminated|Expecting|decode|delimiter"
INPUT_NANOS = 6 * 150
TOKEN_NANOS = 600
FULL_NANOS = INPUT_NANOS + 80 * TOKEN_NANOS


def only_entry(provider: MockProvider):
    [entry] = provider.wait_for(1)
    return entry


def text_of(events) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        if isinstance(event, dict)
        for choice in event.get("choices", ())
    )


def test_a_refused_connection_leaves_no_entry(provider, connect):
    provider.queue({"failure": "refuse"})
    try:
        ended = connect().read_to_end().ended
    except ConnectionResetError:  # the reset may arrive while the client still waits for its connect
        ended = "reset"
    assert ended == "reset"
    served = connect()
    served.send(CHAT)
    assert served.read_answer().status == 200
    assert provider.meter.refused_connections == 1
    assert len(provider.meter.entries) == 1


def test_a_hang_before_headers_lasts_until_the_client_goes(provider, raw):
    provider.behave(failure="hang_headers")
    raw.send(CHAT)
    assert raw.read_until_quiet() == (b"", "silence")
    assert provider.meter.open_requests == 1
    raw.close()
    entry = only_entry(provider)
    assert (entry.outcome, entry.cost_nanos) == (Outcome.CLIENT_GONE, FULL_NANOS)


def test_a_hang_can_end_by_itself(provider, raw):
    provider.behave(failure="hang_headers", hang_ms=20, bill="none")
    raw.send(CHAT)
    assert raw.read_to_end() == (b"", "eof")
    entry = only_entry(provider)
    assert (entry.outcome, entry.cost_nanos) == (Outcome.CUT, 0)


@pytest.mark.parametrize(
    ("setting", "tokens"), [("full", 80), ("sent", 8), ("ahead", 13), ("none", None), ("auto", 80)]
)
def test_a_client_that_leaves_a_hung_stream_is_billed_as_set(provider, raw, setting, tokens):
    provider.behave(failure="hang", after_chunks=2, on_client_gone=setting, run_ahead_tokens=5)
    raw.send(STREAM)
    reply = raw.read_until_quiet(lambda reply: reply.raw.count(b"data: ") >= 3)
    assert reply.ended == "silence"
    assert len(text_of(reply.events()).split()) == 8
    raw.close_by_reset()
    entry = only_entry(provider)
    assert entry.outcome is Outcome.CLIENT_GONE
    assert entry.cost_nanos == (0 if tokens is None else INPUT_NANOS + tokens * TOKEN_NANOS)


def test_a_cut_before_headers_sends_nothing_and_bills_nothing(provider, raw):
    provider.behave(failure="cut_headers")
    raw.send(CHAT)
    assert raw.read_to_end() == (b"", "eof")
    assert only_entry(provider).cost_nanos == 0


def test_a_cut_in_headers_stops_in_the_head(provider, raw):
    provider.behave(failure="cut_in_headers", bill="full")
    raw.send(CHAT)
    reply = raw.read_to_end()
    assert reply.raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in reply.raw
    assert only_entry(provider).cost_nanos == FULL_NANOS


def test_a_cut_can_be_a_reset(provider, raw):
    provider.behave(failure="cut", after_chunks=1, reset=True)
    raw.send(STREAM)
    assert raw.read_to_end().ended == "reset"


@pytest.mark.parametrize(("chunks", "words"), [(0, 0), (1, 4), (3, 12), (20, 80), (99, 80)])
def test_a_stream_is_cut_after_so_many_chunks(provider, raw, chunks, words):
    provider.behave(failure="cut", after_chunks=chunks)
    raw.send(STREAM)
    reply = raw.read_to_end()
    assert reply.ended == "eof"
    assert not reply.is_whole
    events = reply.events()
    assert len(text_of(events).split()) == words
    assert "[DONE]" not in events
    assert not any(event.get("usage") for event in events)
    entry = only_entry(provider)
    assert (entry.outcome, entry.tokens.output) == (Outcome.CUT, words)
    assert entry.cost_nanos == INPUT_NANOS + words * TOKEN_NANOS


def test_a_body_is_cut_after_so_many_bytes(provider, connect):
    for count in (0, 1, 100):
        client = connect()
        client.send(CHAT, headers={"x-mock-failure": "cut", "x-mock-after-bytes": str(count)})
        reply = client.read_to_end()
        assert reply.ended == "eof"
        assert len(reply.body) == count < int(reply.headers["content-length"])


def test_a_json_body_is_cut_in_the_middle(provider, raw):
    provider.behave(failure="cut_json")
    raw.send(CHAT)
    reply = raw.read_to_end()
    assert len(reply.body) == int(reply.headers["content-length"]) // 2
    with pytest.raises(ValueError, match=NOT_JSON):
        json.loads(reply.body)


def test_a_stream_is_cut_within_an_event(provider, raw):
    provider.behave(failure="cut_json", after_chunks=2)
    raw.send(STREAM)
    reply = raw.read_to_end()
    last = reply.body.rsplit(b"\n\n", 1)[1]
    assert last.startswith(b"data: {")
    with pytest.raises(ValueError, match=NOT_JSON):
        json.loads(last[6:])
    assert only_entry(provider).tokens.output == 8


def test_an_early_end_is_well_framed(provider, raw):
    provider.behave(failure="early_end", after_chunks=2)
    raw.send(STREAM)
    reply = raw.read_answer()
    assert reply.is_whole
    assert len(text_of(reply.events()).split()) == 8
    assert reply.events()[-1]["choices"][0]["finish_reason"] is None
    entry = only_entry(provider)
    assert (entry.outcome, entry.tokens.output) == (Outcome.CUT, 8)
    # the connection is good for another request
    raw.send(CHAT, headers={"x-mock-failure": "none"})
    assert raw.read_answer().status == 200


def test_an_error_within_a_stream_is_the_vendors(provider, connect):
    provider.behave(failure="stream_error", after_chunks=1)
    client = connect()
    client.send(STREAM)
    assert client.read_answer().events()[-1]["error"]["type"] == "server_error"
    client.send(MESSAGE, "/v1/messages", VERSION)
    assert client.read_answer().events()[-1]["error"]["type"] == "overloaded_error"
    assert [entry.tokens.output for entry in provider.meter.entries] == [4, 4]


@pytest.mark.parametrize("failure", ["garbage", "truncated_json"])
def test_an_unreadable_answer_is_well_framed_and_billed(provider, raw, failure):
    provider.behave(failure=failure)
    raw.send(CHAT)
    reply = raw.read_answer()
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    with pytest.raises(ValueError, match=NOT_JSON):
        json.loads(reply.body)
    assert only_entry(provider).cost_nanos == FULL_NANOS


def test_one_event_of_a_stream_is_truncated_and_the_rest_is_sound(provider, raw):
    provider.behave(failure="truncated_json", after_chunks=1)
    raw.send(STREAM)
    events = [part for part in raw.read_answer().body.split(b"\n\n") if part]
    broken = []
    for event in events[:-1]:
        try:
            json.loads(event[6:])
        except ValueError:
            broken.append(event)
    assert len(broken) == 1
    assert events[-1] == b"data: [DONE]"


def test_the_second_request_of_a_connection_is_cut(provider, connect):
    provider.behave(failure="cut_on_reuse")
    client = connect()
    client.send(CHAT)
    assert client.read_answer().status == 200
    client.send(CHAT)
    assert client.read_to_end() == (b"", "eof")
    entries = provider.wait_for(2)
    assert [entry.cost_nanos for entry in entries] == [FULL_NANOS, 0]
    fresh = connect()
    fresh.send(CHAT)
    assert fresh.read_answer().status == 200


def test_keep_alive_is_promised_and_broken(provider, raw):
    provider.behave(failure="close_after")
    raw.send(CHAT)
    reply = raw.read_to_end()
    assert reply.is_whole
    assert reply.headers["connection"] == "keep-alive"
    assert reply.ended == "eof"
    assert only_entry(provider).outcome is Outcome.COMPLETE


@pytest.mark.parametrize(("bill", "nanos"), [("auto", 0), ("full", FULL_NANOS), ("sent", INPUT_NANOS)])
def test_an_error_status_bills_only_if_told(provider, raw, bill, nanos):
    provider.behave(status=500, bill=bill)
    raw.send(CHAT)
    reply = raw.read_answer()
    assert reply.status == 500
    assert reply.json()["error"]["type"] == "server_error"
    entry = only_entry(provider)
    assert (entry.outcome, entry.cost_nanos) == (Outcome.REFUSED, nanos)


@pytest.mark.parametrize("body", [CHAT, STREAM])
@pytest.mark.parametrize(("report", "nanos"), [("omit", FULL_NANOS), ("null", FULL_NANOS), ("zero", 0)])
def test_usage_can_be_missing_null_or_zero(provider, raw, body, report, nanos):
    provider.behave(usage=report)
    raw.send(body)
    reply = raw.read_answer()
    answers = [event for event in reply.events() if event != "[DONE]"] if "stream" in body else [reply.json()]
    stated = [
        answer["usage"]
        for answer in answers
        if not answer["choices"] or ("stream" not in body and "usage" in answer)
    ]
    match report:
        case "omit":
            assert stated == []
        case "null":
            assert stated == [None]
        case "zero":
            [usage] = stated
            assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (0, 0, 0)
    assert only_entry(provider).cost_nanos == nanos


@pytest.mark.parametrize("report", ["omit", "null"])
def test_anthropics_stream_usage_can_be_missing(provider, raw, report):
    provider.behave(usage=report)
    raw.send(MESSAGE, "/v1/messages", VERSION)
    events = raw.read_answer().events()
    delta = next(event for event in events if event["type"] == "message_delta")
    assert ("usage" in delta) == (report == "null")
    assert delta.get("usage") is None


def test_framings(provider, connect):
    for body in (CHAT, STREAM):
        seen = {}
        for framing in ("chunked", "content_length", "until_close"):
            client = connect()
            client.send(body, headers={"x-mock-framing": framing})
            reply = client.read_to_end() if framing == "until_close" else client.read_answer()
            assert ("content-length" in reply.headers) == (framing == "content_length")
            assert (reply.headers.get("transfer-encoding") == "chunked") == (framing == "chunked")
            assert (reply.headers["connection"], reply.ended) == (
                ("close", "eof") if framing == "until_close" else ("keep-alive", "silence")
            )
            seen[framing] = len(reply.body)
        assert len(set(seen.values())) == 1


@pytest.mark.parametrize("seed", [None, 7])
def test_a_stream_is_split_at_any_byte(provider, connect, seed):
    whole, split = connect(), connect()
    whole.send(STREAM)
    knobs = {"x-mock-split-bytes": "7"} | ({} if seed is None else {"x-mock-split-seed": str(seed)})
    split.send(STREAM, headers=knobs)
    expected, got = whole.read_answer(), split.read_answer()
    assert text_of(got.events()) == text_of(expected.events())
    sizes = {len(chunk) for chunk in got.chunks[:-1]}
    assert sizes == ({7} if seed is None else set(range(1, 8)))


def test_delays_hold_the_answer_back_and_a_slow_body_comes_in_parts(provider, raw):
    provider.behave(first_byte_ms=60_000)
    raw.send(CHAT)
    provider.wait_for_open(1)
    assert raw.read_until_quiet() == (b"", "silence")
    raw.close()
    assert only_entry(provider).outcome is Outcome.CLIENT_GONE


def test_a_slow_body_comes_in_parts(provider, raw):
    provider.behave(split_bytes=100, chunk_ms=60_000)
    raw.send(CHAT)
    reply = raw.read_until_quiet(lambda reply: len(reply.raw.partition(b"\r\n\r\n")[2]) >= 100)
    assert (len(reply.body), reply.ended) == (100, "silence")


def test_a_client_that_leaves_between_chunks_stops_the_stream(provider, raw):
    provider.behave(chunk_ms=60_000, on_client_gone="sent")
    raw.send(STREAM)
    reply = raw.read_until_quiet(lambda reply: reply.raw.count(b"data: ") >= 2)
    assert len(text_of(reply.events()).split()) == 4
    raw.close()
    entry = only_entry(provider)
    assert (entry.outcome, entry.tokens.output) == (Outcome.CLIENT_GONE, 4)


def test_chunk_count_and_size(provider, connect):
    def contents(knob: str, value: str) -> list[int]:
        client = connect()
        client.send(STREAM, headers={knob: value})
        events = client.read_answer().events()
        return [len(text_of([event]).split()) for event in events if text_of([event])]

    assert contents("x-mock-tokens-per-chunk", "30") == [30, 30, 20]
    assert contents("x-mock-chunks", "3") == [27, 27, 26]
    assert contents("x-mock-tokens-per-chunk", "1") == [1] * 80


def test_garbage_on_the_wire_is_refused(raw):
    raw.socket.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    reply = raw.read_to_end()
    assert (reply.status, reply.ended) == (400, "eof")


def test_pipelined_requests_are_answered_in_order(provider, raw):
    for limit in (1, 2, 3):
        raw.send({**CHAT, "max_tokens": limit})
    reply = raw.read_until_quiet(lambda reply: reply.raw.count(b"HTTP/1.1 200 OK") == 3)
    bodies = [part for part in reply.raw.split(b"\r\n\r\n") if part.startswith(b"{")]
    limits = [json.loads(body.partition(b"HTTP/1.1")[0])["usage"]["completion_tokens"] for body in bodies]
    assert limits == [1, 2, 3]


def test_a_stopped_provider_books_what_was_open(dial):
    with MockProvider(behaviour={"failure": "hang_headers"}) as provider:
        dial(provider.port).send(CHAT)
        provider.wait_for_open(1)
    assert [entry.outcome for entry in provider.meter.entries] == [Outcome.CLIENT_GONE]
