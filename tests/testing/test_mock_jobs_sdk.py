"""Files, batches, message batches and fine-tuning by the vendors' own SDKs: their lives and their bills."""

import json
from collections.abc import Iterator

import anthropic
import openai
import pytest

from outlay.testing import MockProvider

PRICES = {
    "gpt-4o-mini": {"input": 150_000_000, "output": 600_000_000, "training": 3_000_000_000},
    "gpt-4o-mini@batch": {"input": 75_000_000, "output": 300_000_000},
    "text-embedding-3-small": {"input": 20_000_000},
    "claude-haiku-4-5": {"input": 1_000_000_000, "output": 5_000_000_000},
    "claude-haiku-4-5@batch": {"input": 500_000_000, "output": 2_500_000_000},
}
HELLO = [{"role": "user", "content": "hello there"}]
GOOD_LINE = 6 * 75 + 10 * 300


@pytest.fixture
def provider() -> Iterator[MockProvider]:
    with MockProvider(prices=PRICES, behaviour={"output_tokens": 10}) as running:
        yield running


@pytest.fixture
def client(provider: MockProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.url + "/v1", api_key="sk-any", max_retries=0) as made:
        yield made


def upload(client: openai.OpenAI, models: list[str], endpoint: str = "/v1/chat/completions") -> str:
    rows = []
    for index, model in enumerate(models):
        body = (
            {"model": model, "messages": HELLO}
            if "chat" in endpoint
            else {"model": model, "input": "hello there"}
        )
        rows.append({"custom_id": f"row-{index}", "method": "POST", "url": endpoint, "body": body})
    data = "\n".join(json.dumps(row) for row in rows).encode()
    return client.files.create(file=("in.jsonl", data), purpose="batch").id


def start(client: openai.OpenAI, models: list[str], **fields: object) -> openai.types.Batch:
    endpoint = str(fields.pop("endpoint", "/v1/chat/completions"))
    return client.batches.create(
        input_file_id=upload(client, models, endpoint), endpoint=endpoint, completion_window="24h", **fields
    )


def rows_of(client: openai.OpenAI, file_id: str) -> list[dict]:
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_files_come_back_as_they_went(client):
    uploaded = client.files.create(file=("a.bin", b"\r\n--x\r\n\x00\xff"), purpose="user_data")
    assert (uploaded.bytes, uploaded.filename, uploaded.purpose) == (9, "a.bin", "user_data")
    assert client.files.content(uploaded.id).content == b"\r\n--x\r\n\x00\xff"
    other = client.files.create(file=("b.jsonl", b"{}"), purpose="batch")
    assert [file.id for file in client.files.list()] == [other.id, uploaded.id]
    assert [file.id for file in client.files.list(limit=1)] == [other.id, uploaded.id]  # two pages
    assert [file.id for file in client.files.list(purpose="batch")] == [other.id]
    assert client.files.delete(uploaded.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(uploaded.id)


def test_a_batch_bills_each_good_line_once_when_it_completes(client, provider):
    started = start(
        client,
        ["gpt-4o-mini", "gpt-4o-mini@mock:status=500", "gpt-4o-mini"],
        extra_headers={"x-outlay-request-id": "req_batch"},
    )
    assert (started.status, started.request_counts.total) == ("validating", 3)
    assert client.batches.retrieve(started.id).status == "in_progress"
    assert provider.meter.total_nanos == 0
    done = client.batches.retrieve(started.id)
    assert done.status == "completed"
    assert (done.request_counts.completed, done.request_counts.failed) == (2, 1)
    assert (done.usage.input_tokens, done.usage.output_tokens) == (12, 20)
    client.batches.retrieve(started.id)
    first, last = rows_of(client, done.output_file_id)
    assert (first["custom_id"], last["custom_id"]) == ("row-0", "row-2")
    assert first["response"]["body"]["usage"]["total_tokens"] == 16
    [failed] = rows_of(client, done.error_file_id)
    assert (failed["response"]["status_code"], failed["custom_id"]) == (500, "row-1")
    lines = [entry for entry in provider.meter.entries if entry.job == started.id and entry.cost_nanos]
    assert [entry.cost_nanos for entry in lines] == [GOOD_LINE] * 2
    assert {(entry.outlay_request_id, entry.path, entry.service_tier) for entry in lines} == {
        ("req_batch", "/v1/batches", "batch")
    }
    assert len({entry.request_id for entry in lines}) == 2
    assert provider.meter.open_requests == 0


def test_a_model_without_a_batch_price_costs_its_own(client, provider):
    provider.behave(polls=0)
    done = start(client, ["text-embedding-3-small"], endpoint="/v1/embeddings")
    assert done.status == "completed"
    assert provider.meter.total_nanos == 3 * 20
    start(client, ["gpt-4o-mini"], endpoint="/v1/responses")
    assert provider.meter.total_nanos == 60 + GOOD_LINE


@pytest.mark.parametrize(
    ("knobs", "status", "billed"),
    [
        ({"job_end": "expired"}, "expired", 2),
        ({"job_end": "expired", "job_lines": 3}, "expired", 3),
        ({"job_end": "failed"}, "failed", 0),
    ],
)
def test_a_batch_that_does_not_complete_bills_what_was_finished(client, provider, knobs, status, billed):
    provider.behave(polls=1, **knobs)
    batch = client.batches.retrieve(start(client, ["gpt-4o-mini"] * 4).id)
    assert batch.status == status
    assert provider.meter.total_nanos == billed * GOOD_LINE
    if billed:
        assert len(rows_of(client, batch.output_file_id)) == billed
        left = rows_of(client, batch.error_file_id)
        assert [row["error"]["code"] for row in left] == ["batch_expired"] * (4 - billed)


@pytest.mark.parametrize(("gets", "knobs", "billed"), [(0, {}, 0), (1, {}, 2), (1, {"job_lines": 1}, 1)])
def test_a_cancelled_batch_bills_what_was_finished(client, provider, gets, knobs, billed):
    provider.behave(polls=3, **knobs)
    batch = start(client, ["gpt-4o-mini"] * 4)
    for _ in range(gets):
        client.batches.retrieve(batch.id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    assert client.batches.retrieve(batch.id).status == "cancelled"
    assert provider.meter.total_nanos == billed * GOOD_LINE
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_a_bad_input_file_fails_the_batch(client, provider):
    line = {
        "custom_id": "a",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-4o-mini"},
    }
    data = "\n".join(
        [json.dumps(line), json.dumps(line), "no json", json.dumps({**line, "url": "/v1/other"})]
    )
    file = client.files.create(file=("in.jsonl", data.encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert batch.status == "failed"
    codes = [problem.code for problem in batch.errors.data]
    assert codes == ["duplicate_custom_id", "invalid_json_line", "mismatched_url"]
    assert provider.meter.total_nanos == 0
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id="file-no", endpoint="/v1/responses", completion_window="24h")
    with pytest.raises(openai.RateLimitError):
        start(client, ["gpt-4o-mini"], metadata={"mock": "status=429"})


def test_batches_are_listed_and_a_reset_forgets_them(client, provider):
    first, second = start(client, ["gpt-4o-mini"]), start(client, ["gpt-4o-mini"])
    assert [batch.id for batch in client.batches.list(limit=1)] == [second.id, first.id]
    assert client.batches.retrieve(first.id).status == "in_progress"  # the listing did not move it
    provider.service.reset()
    assert list(client.batches.list()) == []
    assert list(client.files.list()) == []


def test_azure_has_files_and_batches_too(provider):
    with openai.AzureOpenAI(azure_endpoint=provider.url, api_key="k", api_version="2024-10-21") as azure:
        file_id = upload(azure, ["gpt-4o-mini"])
        batch = azure.batches.create(
            input_file_id=file_id, endpoint="/chat/completions", completion_window="24h"
        )
        azure.batches.retrieve(batch.id)
        assert azure.batches.retrieve(batch.id).status == "completed"
    assert provider.meter.total_nanos == GOOD_LINE


@pytest.fixture
def claude(provider: MockProvider) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=provider.url, api_key="any", max_retries=0) as made:
        yield made


def message_rows(models: list[str]) -> list[dict]:
    return [
        {"custom_id": f"row-{index}", "params": {"model": model, "max_tokens": 50, "messages": HELLO}}
        for index, model in enumerate(models)
    ]


def test_a_message_batch_bills_what_succeeded(claude, provider):
    models = ["claude-haiku-4-5", "claude-haiku-4-5@mock:status=529", "claude-haiku-4-5"]
    started = claude.messages.batches.create(
        requests=message_rows(models), extra_headers={"x-outlay-request-id": "req_batch"}
    )
    assert (started.processing_status, started.request_counts.processing) == ("in_progress", 3)
    with pytest.raises(anthropic.AnthropicError):
        claude.messages.batches.results(started.id)
    assert provider.meter.total_nanos == 0
    ended = claude.messages.batches.retrieve(started.id)
    assert (ended.processing_status, ended.request_counts.processing) == ("ended", 0)
    assert (ended.request_counts.succeeded, ended.request_counts.errored) == (2, 1)
    results = {row.custom_id: row.result for row in claude.messages.batches.results(started.id)}
    assert results["row-0"].message.usage.service_tier == "batch"
    assert results["row-0"].message.usage.output_tokens == 10
    assert results["row-1"].error.error.type == "overloaded_error"
    lines = [entry for entry in provider.meter.entries if entry.cost_nanos]
    # 6 * 500 + 10 * 2500
    assert [entry.cost_nanos for entry in lines] == [28_000] * 2
    assert {(entry.outlay_request_id, entry.job) for entry in lines} == {("req_batch", started.id)}


@pytest.mark.parametrize(
    ("knobs", "kinds", "billed"),
    [
        ({"job_end": "expired"}, ["succeeded", "expired"], 1),
        ({"job_end": "failed"}, ["errored", "errored"], 0),
    ],
)
def test_a_message_batch_that_does_not_complete(claude, provider, knobs, kinds, billed):
    provider.behave(polls=0, **knobs)
    batch = claude.messages.batches.create(requests=message_rows(["claude-haiku-4-5"] * 2))
    assert [row.result.type for row in claude.messages.batches.results(batch.id)] == kinds
    assert provider.meter.total_nanos == billed * 28_000


def test_a_message_batch_is_cancelled_listed_and_deleted(claude, provider):
    provider.behave(job_lines=1)
    batch = claude.messages.batches.create(requests=message_rows(["claude-haiku-4-5"] * 3))
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.batches.delete(batch.id)
    assert claude.messages.batches.cancel(batch.id).processing_status == "canceling"
    ended = claude.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.canceled) == ("ended", 2)
    assert provider.meter.total_nanos == 28_000
    assert [row.id for row in claude.messages.batches.list()] == [batch.id]
    assert claude.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve(batch.id)


def training_file(client: openai.OpenAI) -> str:
    row = json.dumps({"messages": [*HELLO, {"role": "assistant", "content": "hi"}]})  # 6 + 4 tokens
    return client.files.create(file=("train.jsonl", f"{row}\n{row}\n".encode()), purpose="fine-tune").id


@pytest.mark.parametrize(
    ("fields", "epochs"),
    [
        ({}, 3),
        ({"hyperparameters": {"n_epochs": 2}}, 2),
        ({"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}}}, 4),
    ],
)
def test_training_is_billed_by_trained_tokens_on_success(client, provider, fields, epochs):
    jobs = client.fine_tuning.jobs
    started = jobs.create(model="gpt-4o-mini", training_file=training_file(client), **fields)
    assert (started.status, started.trained_tokens) == ("validating_files", None)
    assert jobs.retrieve(started.id).status == "running"
    assert provider.meter.total_nanos == 0
    done = jobs.retrieve(started.id)
    assert (done.status, done.trained_tokens) == ("succeeded", 20 * epochs)
    assert done.fine_tuned_model.startswith("ft:gpt-4o-mini:")
    assert provider.meter.total_nanos == 20 * epochs * 3_000
    assert provider.meter.all.training_tokens == 20 * epochs
    assert next(event.message for event in jobs.list_events(started.id)) == "Status: succeeded"
    assert [job.id for job in jobs.list()] == [started.id]


def test_training_that_fails_or_is_cancelled_is_not_billed(client, provider):
    jobs = client.fine_tuning.jobs
    cancelled = jobs.create(model="gpt-4o-mini", training_file=training_file(client))
    assert jobs.cancel(cancelled.id).status == "cancelled"
    assert jobs.retrieve(cancelled.id).status == "cancelled"
    provider.behave(job_end="failed", polls=1)
    failed = jobs.create(model="gpt-4o-mini", training_file=training_file(client))
    assert jobs.retrieve(failed.id).error.code == "server_error"
    with pytest.raises(openai.BadRequestError):
        jobs.create(model="gpt-4o-mini", training_file="file-no")
    assert provider.meter.total_nanos == 0
