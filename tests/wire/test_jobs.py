"""Batches, message batches and fine-tuning: each line is found whole, and what cannot be taken is named by its line."""

import json

import pytest
from anthropic.types.messages import MessageBatch
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Batch
from openai.types.fine_tuning import FineTuningJob

from outlay.wire import jobs
from outlay.wire.intent import Rejection, Units, Usage
from outlay.wire.openai import parse_chat

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Größe"}], "max_tokens": 5}


def line(custom_id: str = "a", **more: object) -> dict[str, object]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": CHAT,
        **more,
    }


def file_of(*lines: object, end: str = "\n") -> bytes:
    return (end.join(json.dumps(entry, ensure_ascii=False) for entry in lines) + end).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_lines_come_out_as_calls(end: str) -> None:
    lines = list(jobs.batch_lines(file_of(line("a"), line("b"), end=end)))
    assert [(entry.custom_id, entry.url) for entry in lines if isinstance(entry, jobs.BatchLine)] == [
        ("a", "/v1/chat/completions"),
        ("b", "/v1/chat/completions"),
    ]
    for entry in lines:
        assert isinstance(entry, jobs.BatchLine) and json.loads(entry.body) == CHAT
        assert not isinstance(parse_chat(entry.body), Rejection)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"custom_id": "x"}, "url"),
        (line(custom_id=""), "custom_id"),
        (line(custom_id="good"), "custom_id"),
        (line(custom_id="b" * 600), "custom_id"),
        (line(method="GET"), "method"),
        (line(BODY={}), "body"),
        ([], "object"),
    ],
)
def test_the_first_bad_line_is_named_and_ends_the_reading(bad: object, word: str) -> None:
    found = list(jobs.batch_lines(file_of(line("good"), bad, line("later"))))
    assert len(found) == 2
    refused = found[1]
    assert isinstance(refused, Rejection)
    assert refused.message.startswith("line 2: ") and word in refused.message


def test_a_line_that_says_two_things_is_refused() -> None:
    twice = json.dumps(line()).replace('"body":', '"body": {}, "body":').encode()
    (refused,) = jobs.batch_lines(twice)
    assert isinstance(refused, Rejection) and refused.code == "duplicate_field"
    (empty,) = jobs.batch_lines(b"\n \n")
    assert isinstance(empty, Rejection)


def test_results_of_a_batch() -> None:
    data = file_of(
        {"id": "r1", "custom_id": "a", "response": {"status_code": 200, "body": {"x": 1}}, "error": None},
        {
            "id": "r2",
            "custom_id": "b",
            "response": {"status_code": 400, "body": {"error": {}}},
            "error": None,
        },
        {"id": "r3", "custom_id": "c", "response": None, "error": {"code": "batch_expired"}},
        ["garbage"],
    )
    results = list(jobs.batch_results(data))
    assert [(entry.custom_id, entry.status_code) for entry in results] == [
        ("a", 200),
        ("b", 400),
        ("c", None),
        ("", None),
    ]
    assert json.loads(results[0].body) == {"x": 1}


def test_a_message_batch() -> None:
    body = json.dumps({"requests": [{"custom_id": "a", "params": CHAT}, {"custom_id": "b", "params": CHAT}]})
    lines = jobs.message_batch_requests(body.encode())
    assert isinstance(lines, list)
    assert [entry.custom_id for entry in lines] == ["a", "b"] and json.loads(lines[1].body) == CHAT
    same = jobs.message_batch_requests(body.replace('"b"', '"a"').encode())
    assert isinstance(same, Rejection) and same.message.startswith("requests[1]: ")
    for odd in ({}, {"requests": []}, {"requests": [{}]}, {"Requests": []}, []):
        assert isinstance(jobs.message_batch_requests(json.dumps(odd).encode()), Rejection)


def test_results_of_a_message_batch() -> None:
    data = file_of(
        {"custom_id": "a", "result": {"type": "succeeded", "message": {"id": "msg"}}},
        {"custom_id": "b", "result": {"type": "errored", "error": {"type": "error"}}},
        {"custom_id": "c", "result": {"type": "canceled"}},
        {"custom_id": "d", "result": {"type": "expired"}},
        {"custom_id": "e"},
    )
    results = list(jobs.message_batch_results(data))
    assert [(entry.custom_id, entry.status_code) for entry in results] == [
        ("a", 200),
        ("b", 400),
        ("c", None),
        ("d", None),
        ("", None),
    ]
    assert json.loads(results[0].body) == {"id": "msg"}


def test_batch_objects_in_the_shapes_that_the_sdks_know() -> None:
    batch = {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "created_at": 1,
        "input_file_id": "file_1",
        "output_file_id": "file_2",
        "status": "completed",
        "request_counts": {"total": 3, "completed": 2, "failed": 1},
    }
    Batch.model_validate(batch)
    state = jobs.read_batch(json.dumps(batch).encode())
    assert state == jobs.BatchState("batch_1", "completed", True, "file_1", "file_2", None, None, 3, 2, 1)
    running = jobs.read_batch(json.dumps({**batch, "status": "finalizing"}).encode())
    assert running is not None and not running.is_final
    message = {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "ended",
        "created_at": "2026-11-24T00:00:00Z",
        "expires_at": "2026-11-25T00:00:00Z",
        "request_counts": {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 1, "expired": 1},
        "results_url": "https://x/results",
    }
    MessageBatch.model_validate(message)
    ended = jobs.read_batch(json.dumps(message).encode())
    assert ended is not None and (ended.is_final, ended.total, ended.done, ended.failed) == (True, 5, 2, 1)
    assert ended.results_url == "https://x/results"
    assert jobs.read_batch(b'{"error":{}}') is None and jobs.read_batch(b"x") is None


def test_a_batch_request() -> None:
    asked = {"input_file_id": "f", "endpoint": "/v1/responses", "completion_window": "24h"}
    assert jobs.parse_batch(json.dumps(asked).encode()) == jobs.BatchRequest("f", "/v1/responses", "24h")
    assert isinstance(jobs.parse_batch(b'{"endpoint":"x"}'), Rejection)


def tuning(**more: object) -> bytes:
    return json.dumps({"model": "gpt-4.1-mini", "training_file": "f", **more}).encode()


@pytest.mark.parametrize(
    ("more", "epochs"),
    [
        ({}, jobs.AUTO_EPOCHS),
        ({"hyperparameters": {"n_epochs": 3}}, 3),
        ({"hyperparameters": {"n_epochs": "auto"}}, jobs.AUTO_EPOCHS),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2}}}}, 2),
        ({"method": {"type": "supervised", "supervised": {"hyperparameters": {}}}}, jobs.AUTO_EPOCHS),
    ],
)
def test_a_fine_tuning_job_is_held_at_its_epochs(more: dict[str, object], epochs: int) -> None:
    asked = jobs.parse_fine_tuning(tuning(**more))
    assert isinstance(asked, jobs.FineTuningRequest), asked
    assert asked.epochs_bound == epochs
    assert jobs.fine_tuning_intent(asked, 1000).units == (Units("training_token", 1000 * epochs),)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        tuning(method={"type": "reinforcement"}),
        tuning(hyperparameters={"n_epochs": 0}),
        tuning(hyperparameters={"n_epochs": 51}),
        tuning(
            hyperparameters={"n_epochs": 1},
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 9}}},
        ),
        tuning(HyperParameters={}),
    ],
)
def test_refused_fine_tuning(body: bytes) -> None:
    assert isinstance(jobs.parse_fine_tuning(body), Rejection)


def test_the_state_of_a_job() -> None:
    job = {
        "id": "ftjob-1",
        "object": "fine_tuning.job",
        "created_at": 1,
        "model": "gpt-4.1-mini",
        "organization_id": "o",
        "result_files": [],
        "seed": 1,
        "training_file": "f",
        "status": "succeeded",
        "trained_tokens": 5768,
        "hyperparameters": {"n_epochs": 3},
    }
    FineTuningJob.model_validate(job)
    state = jobs.read_fine_tuning(json.dumps(job).encode())
    assert state is not None and (state.is_final, state.n_epochs) == (True, 3)
    assert state.usage == Usage(0, 0, units=(Units("training_token", 5768),), model="gpt-4.1-mini")
    running = jobs.read_fine_tuning(json.dumps({**job, "status": "running", "trained_tokens": None}).encode())
    assert running is not None and running.usage is None and not running.is_final
    assert jobs.read_fine_tuning(b'{"id":"x"}') is None


@given(
    data=st.binary(max_size=200)
    | st.lists(
        st.sampled_from([b"{", b"}", b"\n", b'"custom_id":"a"', b",", json.dumps(line()).encode()])
    ).map(b"".join)
)
def test_nothing_raises(data: bytes) -> None:
    list(jobs.batch_lines(data))
    list(jobs.batch_results(data))
    list(jobs.message_batch_results(data))
    for parse in (
        jobs.message_batch_requests,
        jobs.parse_batch,
        jobs.parse_fine_tuning,
        jobs.read_batch,
        jobs.read_fine_tuning,
    ):
        parse(data)
