"""The mock's meter and knobs against numbers worked out by hand."""

import json
import urllib.request

import pytest

from outlay.testing import Behaviour, BehaviourError, MockProvider, Tokens
from outlay.testing.behaviour import changed, parse_directive
from outlay.testing.meter import Meter

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}


@pytest.mark.parametrize(
    ("tokens", "rate", "nanos"),
    [
        (1, 1_000_000, 1),
        (1, 500_000, 0),  # 0.5 goes to the even 0
        (3, 500_000, 2),  # 1.5 goes to the even 2
        (5, 500_000, 2),  # 2.5 goes to the even 2
        (1, 500_001, 1),
        (1, 499_999, 0),
        (7, 37_500_000, 262),  # 262.5
        (9, 37_500_000, 338),  # 337.5
        (10**12, 10**12, 10**18),
    ],
)
def test_a_line_is_rounded_half_even_once(tokens, rate, nanos):
    assert Meter({"m": {"input": rate}}).cost("m", None, Tokens(input=tokens)) == (nanos, True)


def test_every_class_has_its_line():
    meter = Meter(
        {
            "m": {
                "input": 1_000_000,
                "cached": 10_000_000,
                "cache_write": 100_000_000,
                "cache_write_long": 1_000_000_000,
                "output": 10_000_000_000,
                "request_nanos": 7_000_000,
            }
        }
    )
    tokens = Tokens(input=10, cached=2, cache_write=5, cache_write_long=3, output=4, reasoning=1)
    # 3 plain, 2 cached, 2 short writes, 3 long writes, 4 out (reasoning is output), and the flat fee
    assert meter.cost("m", None, tokens) == (3 + 20 + 200 + 3000 + 40_000 + 7_000_000, True)


def test_a_class_without_a_rate_costs_as_input_and_a_long_write_as_a_short_one():
    tokens = Tokens(input=10, cached=2, cache_write=5, cache_write_long=3)
    assert Meter({"m": {"input": 1_000_000}}).cost("m", None, tokens) == (10, True)
    dearer = Meter({"m": {"input": 1_000_000, "cache_write": 2_000_000}})
    assert dearer.cost("m", None, tokens) == (5 + 10, True)


def test_media_classes_have_rates_of_their_own():
    rates = {
        "input": 1_000_000,
        "cached": 10_000_000,
        "input_audio": 100_000_000,
        "cached_audio": 1_000_000_000,
        "input_image": 10_000_000_000,
        "output": 100_000_000_000,
        "output_audio": 1_000_000_000_000,
        "output_image": 10_000_000_000_000,
    }
    tokens = Tokens(
        input=30,
        cached=7,
        input_audio=9,
        cached_audio=5,
        input_image=8,
        output=6,
        output_audio=2,
        output_image=3,
    )
    # text: 11 plain and 2 cached; audio: 4 fresh and 5 cached; 8 of pictures; out: 1 text, 2 audio, 3 pictures
    wanted = 11 + 20 + 400 + 5_000 + 80_000 + 100_000 + 2_000_000 + 30_000_000
    assert Meter({"m": rates}).cost("m", None, tokens) == (wanted, True)
    plain = {name: rates[name] for name in ("input", "cached", "output")}
    # without their own rates media cost what text costs, cached audio what cached text costs
    assert Meter({"m": plain}).cost("m", None, tokens) == (23 + 70 + 600_000, True)


def test_what_is_not_a_token_has_its_own_unit():
    meter = Meter(
        {
            "m": {
                "image_nanos": 40,
                "image/high/1024x1024": 167,
                "audio_second_nanos": 100_001,
                "character": 15_000_000,
                "search_unit_nanos": 2_000_000,
                "training": 3_000_000,
            }
        }
    )
    assert meter.cost("m", None, Tokens(images=3, image_class="high/1024x1024")) == (501, True)
    assert meter.cost("m", None, Tokens(images=3, image_class="low/1024x1024")) == (120, True)
    assert meter.cost("m", None, Tokens(audio_ms=1500)) == (150_002, True)  # 150 001.5 to the even
    assert meter.cost("m", None, Tokens(characters=11)) == (165, True)
    assert meter.cost("m", None, Tokens(search_units=2)) == (4_000_000, True)
    assert meter.cost("m", None, Tokens(training=1000)) == (3_000, True)


def test_tiers_models_and_the_joker():
    meter = Meter({"m": {"input": 3_000_000}, "m@flex": {"input": 1_000_000}, "*": {"input": 9_000_000}})
    one = Tokens(input=1)
    assert [meter.cost("m", tier, one)[0] for tier in (None, "default", "flex")] == [3, 3, 1]
    assert meter.cost("other", "flex", one) == (9, True)
    assert Meter({"m": {"input": 1}}).cost("other", None, one) == (0, False)


def get(url: str):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def post(url: str, body: object):
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_totals_and_entries_over_http(provider, raw):
    for model in ("gpt-4o-mini", "gpt-5-mini", "gpt-4o-mini"):
        raw.send({**CHAT, "model": model, "max_tokens": 10}, headers={"x-outlay-request-id": f"req_{model}"})
        raw.read_answer()
    report = get(provider.url + "/_mock/meter")
    # 6 * 150 + 10 * 600 twice, and 6 * 250 + 10 * 2000
    assert report["total_nanos"] == 2 * 6_900 + 21_500
    assert report["by_model"]["gpt-4o-mini"]["cost_nanos"] == 13_800
    assert {name: count for name, count in report["by_model"]["gpt-5-mini"].items() if count} == {
        "requests": 1,
        "billed_requests": 1,
        "input_tokens": 6,
        "output_tokens": 10,
        "cost_nanos": 21_500,
    }
    assert report["by_outcome"] == {"complete": 3}
    assert [entry["sequence"] for entry in report["entries"]] == [1, 2, 3]
    assert [entry["outlay_request_id"] for entry in report["entries"]] == [
        "req_gpt-4o-mini",
        "req_gpt-5-mini",
        "req_gpt-4o-mini",
    ]
    later = get(provider.url + "/_mock/meter?since=2")
    assert [entry["sequence"] for entry in later["entries"]] == [3]
    assert later["next"] == 3
    post(provider.url + "/_mock/reset", {})
    assert get(provider.url + "/_mock/meter")["totals"]["requests"] == 0


def test_totals_only_keeps_no_entries(connect):
    with MockProvider(prices={"*": {"input": 1_000_000}}, keep_entries=False, keep_calls=0) as provider:
        for _ in range(3):
            post(provider.url + "/v1/chat/completions", CHAT)
        assert provider.meter.entries == []
        assert provider.calls == []
        assert provider.meter.all.requests == 3
        assert provider.meter.total_nanos == 18


def test_input_tokens_are_a_function_of_the_text(provider, raw):
    messages = [
        {"role": "system", "content": "abcde"},  # 2 + 3
        {"role": "user", "content": "\u00e9\u00e9\u00e9"},  # 6 bytes: 2 + 3
        {"role": "user", "content": [{"type": "text", "text": "abcdefgh"}]},  # 2 + 3
        {"role": "assistant", "content": None},  # 3
    ]
    raw.send({**CHAT, "messages": messages})
    assert raw.read_answer().json()["usage"]["prompt_tokens"] == 18
    raw.send({**CHAT, "messages": messages}, headers={"x-mock-input-tokens": "1234"})
    assert raw.read_answer().json()["usage"]["prompt_tokens"] == 1234


def test_cached_tokens_never_exceed_the_input(provider, raw):
    provider.behave(input_tokens=10, cached_tokens=8, cache_write_tokens=8, cache_write_long_tokens=8)
    raw.send(CHAT)
    details = raw.read_answer().json()["usage"]["prompt_tokens_details"]
    assert (details["cached_tokens"], details["cache_write_tokens"]) == (8, 2)
    assert details["cache_write_tokens_details"] == {"ttl_12h_tokens": 2, "ttl_30m_tokens": 0}


def test_the_served_model_and_tier_are_billed(provider, raw):
    provider.behave(served_model="gpt-5-mini", service_tier="flex", input_tokens=1000, output_tokens=10)
    raw.send(CHAT)
    answer = raw.read_answer().json()
    assert (answer["model"], answer["service_tier"]) == ("gpt-5-mini", "flex")
    assert provider.meter.total_nanos == 1000 * 125 + 10 * 1000


def test_each_way_to_direct_a_request_and_their_order(provider, raw):
    def outputs(body: dict[str, object], headers: dict[str, str] | None = None) -> int:
        raw.send({**CHAT, **body}, headers=headers)
        return raw.read_answer().json()["usage"]["completion_tokens"]

    assert outputs({}) == 80
    provider.behave(output_tokens=70)
    assert outputs({}) == 70
    provider.behave_model("gpt-5-mini", output_tokens=60)
    assert outputs({"model": "gpt-5-mini"}) == 60
    provider.queue({"output_tokens": 50})
    assert outputs({"model": "gpt-5-mini"}) == 50
    assert outputs({"model": "gpt-5-mini"}) == 60
    header = {"X-Mock-Output-Tokens": "40"}
    provider.queue({"output_tokens": 50})
    assert outputs({}, header) == 40
    for field in (
        {"model": "gpt-4o-mini@mock:output_tokens=30"},
        {"metadata": {"mock": "output-tokens=30"}},
        {"user": "mock: output_tokens = 30 ;"},
        {"safety_identifier": "mock:output_tokens=30"},
    ):
        assert outputs(field, header) == 30
    assert {entry.model for entry in provider.meter.entries} == {"gpt-4o-mini", "gpt-5-mini"}


def test_anthropics_metadata_directs_too(provider, raw):
    body = {**CHAT, "max_tokens": 100, "metadata": {"user_id": "mock:output_tokens=9"}}
    raw.send(body, "/v1/messages", {"anthropic-version": "2023-06-01"})
    assert raw.read_answer().json()["usage"]["output_tokens"] == 9


def test_the_controls_set_queue_and_show(provider, raw):
    shown = post(
        provider.url + "/_mock/behaviour",
        {
            "set": {"output_tokens": 5},
            "models": {"gpt-5-mini": {"output_tokens": 6}},
            "queue": [{"status": 503}],
        },
    )
    assert shown["behaviour"]["output_tokens"] == 5
    assert shown["queued"] == 1
    raw.send(CHAT)
    assert raw.read_answer().status == 503
    raw.send(CHAT)
    assert raw.read_answer().json()["usage"]["completion_tokens"] == 5
    post(provider.url + "/_mock/reset", {})
    raw.send(CHAT)
    assert raw.read_answer().json()["usage"]["completion_tokens"] == 80


def test_received_requests_can_be_read_back(provider, raw):
    raw.send(CHAT, headers={"Authorization": "Bearer sk-secret"})
    raw.read_answer()
    [call] = provider.calls
    assert (call.method, call.path) == ("POST", "/v1/chat/completions")
    assert call.header(b"authorization") == "Bearer sk-secret"
    assert json.loads(call.body) == CHAT
    [shown] = get(provider.url + "/_mock/calls")["calls"]
    assert ["authorization", "Bearer sk-secret"] in shown["headers"]


@pytest.mark.parametrize(
    "changes",
    [
        {"no_such_knob": 1},
        {"output_tokens": "many"},
        {"output_tokens": -1},
        {"failure": "sulk"},
        {"status": 302},
        {"tokens_per_chunk": 0},
    ],
)
def test_a_wrong_knob_is_an_error_everywhere(provider, raw, changes):
    with pytest.raises(BehaviourError):
        changed(Behaviour(), changes)
    with pytest.raises(BehaviourError):
        provider.behave(**changes)
    with pytest.raises(BehaviourError):
        provider.queue({}, changes)
    assert provider.service.queued == type(provider.service.queued)()
    [(name, value)] = changes.items()
    raw.send({**CHAT, "user": f"mock:{name}={value}"})
    reply = raw.read_answer()
    assert reply.status == 400
    assert reply.json()["error"]["message"].startswith("mock: ")


def test_directives_are_read_strictly():
    assert parse_directive("a=1; b-c = x y ;") == {"a": "1", "b_c": "x y"}
    assert parse_directive("") == {}
    with pytest.raises(BehaviourError):
        parse_directive("output_tokens")
