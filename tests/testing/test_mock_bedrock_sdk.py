"""AWS's own SDK (boto3) against the mock: it signs, it parses the binary streams, and the meter agrees."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from outlay.testing import MockProvider, Tokens

NOVA = "amazon.nova-lite-v1:0"
CLAUDE = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
PROFILE = (
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-haiku-4-5-20251001-v1:0"
)
TITAN = "amazon.titan-embed-text-v2:0"
PRICES = {
    NOVA: {"input": 60_000_000, "cached": 15_000_000, "cache_write": 75_000_000, "output": 240_000_000},
    f"{NOVA}@flex": {"input": 30_000_000, "output": 120_000_000},
    CLAUDE: {"input": 1_000_000_000, "cached": 100_000_000, "output": 5_000_000_000},
    TITAN: {"input": 20_000_000},
}
HELLO = [{"role": "user", "content": [{"text": "hello there"}]}]
WEATHER = {
    "toolSpec": {
        "name": "weather",
        "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
}
MESSAGES = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hello there"}],
}


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    keys = {"AKIAMOCK": "the-secret"}
    with MockProvider(prices=PRICES, behaviour={"output_tokens": 20}, aws_keys=keys) as running:
        yield running


@pytest.fixture
def sign_in(provider: MockProvider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    # nothing of the machine's own may be used
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = []

    def make(secret: str = "the-secret", key: str = "AKIAMOCK", **fields: Any) -> Any:
        client = boto3.client(
            "bedrock-runtime",
            region_name="us-east-1",
            endpoint_url=provider.url,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"total_max_attempts": 1}),
            **fields,
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(sign_in: Callable[..., Any]) -> Any:
    return sign_in()


def test_converse_states_what_the_meter_billed(client, provider):
    provider.behave(cached_tokens=2, cache_write_tokens=1)
    answer = client.converse(
        modelId=NOVA, messages=HELLO, system=[{"text": "be terse"}], inferenceConfig={"maxTokens": 15}
    )
    usage = answer["usage"]
    # 3 of the text, 3 of the message, 2 of the system prompt: 5 plain, 2 read, 1 written
    assert (usage["inputTokens"], usage["cacheReadInputTokens"], usage["cacheWriteInputTokens"]) == (5, 2, 1)
    assert (usage["outputTokens"], usage["totalTokens"]) == (15, 23)
    assert answer["stopReason"] == "max_tokens"
    assert len(answer["output"]["message"]["content"][0]["text"].split()) == 15
    [entry] = provider.meter.entries
    assert entry.tokens == Tokens(input=8, cached=2, cache_write=1, output=15)
    # 5 * 60 + 2 * 15 + 75 + 15 * 240
    assert (entry.model, entry.cost_nanos) == (NOVA, 4_005)
    assert entry.request_id == answer["ResponseMetadata"]["RequestId"]


def test_botos_own_parser_reads_the_stream(client, provider):
    provider.behave(reasoning_tokens=5)
    whole = client.converse(modelId=NOVA, messages=HELLO)
    events = list(client.converse_stream(modelId=NOVA, messages=HELLO)["stream"])
    kinds = [next(iter(event)) for event in events]
    assert kinds[0] == "messageStart"
    assert kinds[-2:] == ["messageStop", "metadata"]
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    thought, answer = whole["output"]["message"]["content"]
    assert "".join(delta.get("text", "") for delta in deltas) == answer["text"]
    assert deltas[0]["reasoningContent"]["text"] == thought["reasoningContent"]["reasoningText"]["text"]
    assert events[-1]["metadata"]["usage"] == whole["usage"]
    first, second = provider.meter.entries
    assert first.tokens == second.tokens == Tokens(input=6, output=20, reasoning=5)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_tool_is_used(client, is_stream):
    request = {
        "modelId": NOVA,
        "messages": HELLO,
        "toolConfig": {"tools": [WEATHER], "toolChoice": {"tool": {"name": "weather"}}},
    }
    if is_stream:
        events = list(client.converse_stream(**request)["stream"])
        [start] = [
            event["contentBlockStart"]["start"]["toolUse"] for event in events if "contentBlockStart" in event
        ]
        deltas = [
            event["contentBlockDelta"]["delta"]["toolUse"] for event in events if "contentBlockDelta" in event
        ]
        name, given = start["name"], json.loads("".join(delta["input"] for delta in deltas))
    else:
        answer = client.converse(**request)
        assert answer["stopReason"] == "tool_use"
        use = answer["output"]["message"]["content"][0]["toolUse"]
        name, given = use["name"], use["input"]
    assert (name, given) == ("weather", {"city": "ledger"})


def test_a_tier_is_served_and_billed(client, provider):
    answer = client.converse(modelId=NOVA, messages=HELLO, serviceTier={"type": "flex"})
    assert answer["serviceTier"]["type"] == "flex"
    # 6 * 30 + 20 * 120
    assert provider.meter.total_nanos == 2_580


@pytest.mark.parametrize("model", [CLAUDE, PROFILE])
def test_claude_is_invoked_by_anthropics_body(client, provider, model):
    provider.behave(cached_tokens=2)
    answer = client.invoke_model(modelId=model, body=json.dumps(MESSAGES))
    body = json.loads(answer["body"].read())
    assert (body["usage"]["input_tokens"], body["usage"]["cache_read_input_tokens"]) == (4, 2)
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert headers["x-amzn-bedrock-input-token-count"] == "4"
    stream = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(MESSAGES))
    events = [json.loads(event["chunk"]["bytes"]) for event in stream["body"]]
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == body["content"][0]["text"]
    assert events[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 20
    first, second = provider.meter.entries
    assert first.tokens == second.tokens == Tokens(input=6, cached=2, output=20)
    assert first.model == model
    # 4 * 1000 + 2 * 100 + 20 * 5000
    assert first.cost_nanos == (104_200 if model == CLAUDE else 0)
    assert first.priced is (model == CLAUDE)


def test_nova_is_invoked_by_its_own_body(client, provider):
    body = json.dumps({"messages": HELLO, "inferenceConfig": {"maxTokens": 7}})
    whole = json.loads(client.invoke_model(modelId=NOVA, body=body)["body"].read())
    assert whole["usage"]["outputTokens"] == 7
    stream = client.invoke_model_with_response_stream(modelId=NOVA, body=body)
    events = [json.loads(event["chunk"]["bytes"]) for event in stream["body"]]
    assert events[-1]["metadata"]["usage"] == whole["usage"]
    assert len({entry.cost_nanos for entry in provider.meter.entries}) == 1


def test_titan_embeds(client, provider):
    answer = client.invoke_model(
        modelId=TITAN, body=json.dumps({"inputText": "hello there", "dimensions": 8})
    )
    body = json.loads(answer["body"].read())
    assert (len(body["embedding"]), body["inputTextTokenCount"]) == (8, 3)
    assert provider.meter.total_nanos == 60


def test_counting_is_free(client, provider):
    counted = client.count_tokens(modelId=NOVA, input={"converse": {"messages": HELLO}})
    assert counted["inputTokens"] == 6
    assert provider.meter.total_nanos == 0


@pytest.mark.parametrize(
    ("secret", "key", "code"),
    [
        ("wrong", "AKIAMOCK", "InvalidSignatureException"),
        ("the-secret", "AKIAOTHER", "UnrecognizedClientException"),
    ],
)
def test_a_wrong_signature_is_refused(sign_in, provider, secret, key, code):
    with pytest.raises(ClientError) as refused:
        sign_in(secret, key).converse(modelId=NOVA, messages=HELLO)
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert provider.meter.total_nanos == 0


def test_a_signature_covers_what_was_sent(sign_in, provider):
    signed: dict[str, Any] = {}
    client = sign_in()

    def tamper(request: Any, **_: Any) -> None:
        signed["body"] = request.body
        request.body = request.body.replace(b"hello", b"jello")

    client.meta.events.register("before-send.bedrock-runtime.Converse", tamper)
    with pytest.raises(ClientError) as refused:
        client.converse(modelId=NOVA, messages=HELLO)
    assert b"hello" in signed["body"]
    assert refused.value.response["Error"]["Code"] == "InvalidSignatureException"


def test_session_tokens_and_odd_model_ids_are_signed_alike(sign_in, provider):
    client = sign_in(aws_session_token="a-session/token+with=signs")
    client.converse(modelId=f"{PROFILE} ~x", messages=HELLO)
    assert provider.meter.entries[0].model == f"{PROFILE} ~x"


def test_without_secrets_only_the_shape_is_checked(raw, dial):
    with MockProvider() as provider:
        path, body = "/model/m/converse", {"messages": HELLO}
        for headers, status in (({}, 403), ({"authorization": "Bearer a-key"}, 200)):
            client = dial(provider.port)
            client.send(body, path=path, headers=headers)
            assert client.read_answer().status == status
        old = {
            "x-amz-date": "20200101T000000Z",
            "authorization": "AWS4-HMAC-SHA256 Credential=A/20200101/us-east-1/bedrock/aws4_request, "
            f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}",
        }
        client = dial(provider.port)
        client.send(body, path=path, headers=old)
        assert "expired" in client.read_answer().json()["message"]


@pytest.mark.parametrize(
    ("status", "code"),
    [(429, "ThrottlingException"), (503, "ServiceUnavailableException"), (400, "ValidationException")],
)
def test_errors_are_awss(client, provider, status, code):
    for call in (
        lambda model: client.converse(modelId=model, messages=HELLO),
        lambda model: client.invoke_model(modelId=model, body=json.dumps(MESSAGES)),
    ):
        with pytest.raises(ClientError) as refused:
            call(f"{CLAUDE}@mock:status={status}")
        assert refused.value.response["Error"]["Code"] == code
    assert provider.meter.total_nanos == 0


def test_an_error_in_mid_stream_is_an_exception(client, provider):
    provider.queue({"failure": "stream_error", "after_chunks": 2})
    stream = client.converse_stream(modelId=NOVA, messages=HELLO)["stream"]
    with pytest.raises(EventStreamError):
        list(stream)
    stream.close()
    assert provider.meter.entries[0].tokens.output == 8


def test_invoke_refuses_what_anthropics_models_on_bedrock_refuse(client):
    for body in ({**MESSAGES, "model": "x"}, {**MESSAGES, "anthropic_version": "2023-06-01"}):
        with pytest.raises(ClientError) as refused:
            client.invoke_model(modelId=CLAUDE, body=json.dumps(body))
        assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_what_is_not_ascii_survives(client):
    body = json.dumps({**MESSAGES, "system": "naïve ☃"})
    stream = client.invoke_model_with_response_stream(modelId=f"{CLAUDE}@mock:say=héllo ☃", body=body)
    events = [json.loads(event["chunk"]["bytes"]) for event in stream["body"]]
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == "héllo ☃"
