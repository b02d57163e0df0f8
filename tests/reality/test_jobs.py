"""Jobs: held when they are submitted, settled from what the provider did, over restarts, and each team's own."""

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from outlay.flow.gateway.snapshot import Disclose, Settings
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.reader import ChargeView
from outlay.flow.orders import Order, OrderKind
from outlay.flow.policy import PolicyMode, PolicySpec, Rung
from outlay.kernel.clock import SystemClock
from outlay.testing import MockProvider
from tests import world
from tests.harness import SECRET, RunningGateway, budget, key
from tests.reality.sdk import charges

OTHER = "sk-outlay-other-team"
LINES = 5
SETTINGS = Settings(disclose=Disclose.ALL, job_poll_s=1)


class Stage:
    """A mock, a gateway that may be restarted, and two teams' clients."""

    def __init__(self, folder: Path, mock: MockProvider, limit: str) -> None:
        self.folder, self.mock, self.limit = folder, mock, limit
        self.gateway = self.make()

    def make(self) -> RunningGateway:
        return RunningGateway(
            self.folder / "l.db",
            self.mock.url,
            [budget("all", self.limit)],
            keys=[key(), key("other", OTHER, team="ads")],
            price_book=world.book(),
            upstreams=world.providers(self.mock.url),
            settings=SETTINGS,
        )

    @contextmanager
    def openai(self, secret: str = SECRET) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(base_url=self.gateway.url + "/v1", api_key=secret, max_retries=0) as client:
            yield client

    @contextmanager
    def anthropic(self, secret: str = SECRET) -> Iterator[anthropic.Anthropic]:
        with anthropic.Anthropic(base_url=self.gateway.url, api_key=secret, max_retries=0) as client:
            yield client

    def held(self) -> int:
        return self.gateway.call(lambda: self.gateway.books.held_nanos)

    def jobs(self) -> int:
        return self.gateway.call(lambda: len(self.gateway.books.jobs))

    def wait(self) -> None:
        """Until no job is open."""
        deadline = time.monotonic() + 15
        while self.jobs():
            assert time.monotonic() < deadline, "the job was not settled"
            time.sleep(0.05)

    def costly(self) -> list[ChargeView]:
        """The charges that are not of free routes."""
        return [charge for charge in charges(self.gateway) if charge.operation != "free"]


@contextmanager
def stage_of(folder: Path, limit: str = "10", **behaviour: object) -> Iterator[Stage]:
    with MockProvider(
        prices=world.meter_prices(), models=world.MODELS, behaviour={"output_tokens": 20, **behaviour}
    ) as mock:
        stage = Stage(folder, mock, limit)
        with stage.gateway:
            yield stage
            stage.wait()
            mock.wait_for(0)
            stage.gateway.call(stage.gateway.books.flush)
            found = audit(stage.gateway.path)
            assert found.findings == ()
            assert found.open_holds == 0
            assert found.spend_nanos == mock.meter.total_nanos


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stage_of(tmp_path) as found:
        yield found


def lines(**changes: Any) -> bytes:
    """A batch file."""
    body = {
        "model": "gpt-test",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 30,
        **changes,
    }
    rows = [
        {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number in range(LINES)
    ]
    return "\n".join(json.dumps(row) for row in rows).encode()


def submit(client: openai.OpenAI, data: bytes) -> Any:
    """Upload a file and make a batch of it."""
    file = client.files.create(file=("calls.jsonl", data), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )


def done(look: Any, ends: tuple[str, ...]) -> Any:
    """The job when it has ended."""
    deadline = time.monotonic() + 10
    while True:
        job = look()
        if getattr(job, "status", getattr(job, "processing_status", "")) in ends:
            return job
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_batch_is_held_by_line_and_settled_at_the_batch_price(stage: Stage) -> None:
    with stage.openai() as client:
        batch = submit(client, lines())
        assert stage.jobs() == 1
        assert stage.held() > 0
        job = done(lambda: client.batches.retrieve(batch.id), ("completed",))
        stage.wait()
        assert stage.held() == 0
        rows = client.files.content(job.output_file_id).text.strip().split("\n")
        assert len(rows) == LINES
    (charge,) = stage.costly()
    assert (charge.operation, charge.basis) == ("batch", "metered")
    assert charge.cost_nanos == stage.mock.meter.total_nanos
    assert 0 < charge.cost_nanos <= charge.hold_nanos
    assert charge.tokens["output_tokens"] == LINES * 20


def test_lines_that_fail_cost_nothing(stage: Stage) -> None:
    with stage.openai() as client:
        bad = json.loads(lines().split(b"\n")[0])
        bad["custom_id"], bad["body"]["model"] = "bad", "gpt-test@mock:status=500"
        # the model's name stays the provider's; what a line does wrong is its own matter
        bad["body"]["model"] = "gpt-test"
        bad["body"]["user"] = "mock:status=500"
        batch = submit(client, lines() + b"\n" + json.dumps(bad).encode())
        done(lambda: client.batches.retrieve(batch.id), ("completed",))
        stage.wait()
    (charge,) = stage.costly()
    assert charge.reason == f"{LINES} lines, 0 failed" or charge.reason == f"{LINES} lines, 1 failed"
    assert charge.tokens["output_tokens"] == LINES * 20


def test_a_batch_that_the_budget_does_not_cover(tmp_path: Path) -> None:
    with stage_of(tmp_path, "0.0005") as stage, stage.openai() as client:
        with pytest.raises(openai.APIStatusError) as raised:
            submit(client, lines())
        assert raised.value.status_code == 402
        assert not [call for call in stage.mock.calls if call.path == "/v1/batches" and call.method == "POST"]


def test_a_killed_run_may_look_after_its_batch_and_cancel_it(stage: Stage) -> None:
    with stage.openai() as client:
        mine = client.with_options(default_headers={"x-outlay-run": "nightly"})
        batch = submit(mine, lines())
        now = SystemClock().now()
        stage.gateway.swap(orders=(Order(OrderKind.KILL, {"run": "nightly"}, "enough", "eve", now),))
        with pytest.raises(openai.PermissionDeniedError):
            submit(mine, lines())
        assert mine.batches.retrieve(batch.id).id == batch.id
        with contextlib.suppress(openai.ConflictError):  # the provider may have been faster
            mine.batches.cancel(batch.id)
        done(lambda: mine.batches.retrieve(batch.id), ("cancelled", "completed"))
        stage.wait()


def test_a_ladder_that_pauses_takes_no_batch(stage: Stage) -> None:
    with stage.openai() as client:
        stage.gateway.swap(policies=(PolicySpec(name="halt", ladder=(Rung(0, "all", ""),)),))
        with pytest.raises(openai.APIStatusError) as raised:
            submit(client, lines())
        assert (raised.value.status_code, raised.value.code) == (402, "paused")
        assert not [call for call in stage.mock.calls if call.path == "/v1/batches" and call.method == "POST"]


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"max_output_nanos_per_mtok": 1_000_000_000}, "price_above_ceiling"),
        ({"max_nanos_per_call": 1_000}, "call_above_policy"),
    ],
)
def test_what_a_policy_says_of_a_call_it_says_of_each_line(
    stage: Stage, limits: dict[str, Any], code: str
) -> None:
    with stage.openai() as client:
        stage.gateway.swap(policies=(PolicySpec(name="cheap", **limits),))
        with pytest.raises(openai.APIStatusError, match=r"line 1.*'cheap'") as raised:
            submit(client, lines())
        assert raised.value.code == code
        assert not [call for call in stage.mock.calls if call.path == "/v1/batches" and call.method == "POST"]
        marking = PolicySpec(name="cheap", mode=PolicyMode.SHADOW, **limits)
        stage.gateway.swap(policies=(marking,))
        batch = submit(client, lines())
        done(lambda: client.batches.retrieve(batch.id), ("completed",))
        stage.wait()
    (charge,) = stage.costly()
    assert (charge.reason or "").startswith(f"shadow: {code}: cheap")


def test_a_bad_line_is_named(stage: Stage) -> None:
    with stage.openai() as client:
        data = lines().replace(b'"custom_id": "c3"', b'"custom_id": "c2"')
        with pytest.raises(openai.APIStatusError, match="custom_id"):
            submit(client, data)
        with pytest.raises(openai.UnprocessableEntityError, match=r"line 1.*price"):
            submit(client, lines(model="gpt-unpriced"))


def test_a_job_outlives_the_gateway(tmp_path: Path) -> None:
    with MockProvider(
        prices=world.meter_prices(), models=world.MODELS, behaviour={"output_tokens": 20}
    ) as mock:
        stage = Stage(tmp_path, mock, "10")
        with stage.gateway, stage.openai() as client:
            submit(client, lines())
            held = stage.held()
            assert held > 0
        stage.gateway = stage.make()
        with stage.gateway:
            assert stage.gateway.books.recovered == 0
            assert stage.held() == held or stage.jobs() == 0
            stage.wait()
            (charge,) = stage.costly()
            assert charge.basis == "metered"
            assert charge.hold_nanos == held
            assert charge.cost_nanos == mock.meter.total_nanos > 0
            assert audit(stage.gateway.path).findings == ()


def test_another_teams_objects_are_not_found(stage: Stage) -> None:
    with stage.openai() as client, stage.openai(OTHER) as other:
        file = client.files.create(file=("calls.jsonl", lines()), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        for look in (
            lambda: other.files.retrieve(file.id),
            lambda: other.files.content(file.id),
            lambda: other.files.delete(file.id),
            lambda: other.batches.retrieve(batch.id),
            lambda: other.batches.cancel(batch.id),
            lambda: other.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            ),
        ):
            with pytest.raises(openai.NotFoundError):
                look()
        assert [found.id for found in client.files.list()] == [file.id]
        assert [found.id for found in client.batches.list()] == [batch.id]
        assert list(other.files.list()) == []
        assert list(other.batches.list()) == []


def test_message_batches(stage: Stage) -> None:
    params: Any = {
        "model": "claude-test",
        "max_tokens": 30,
        "messages": [{"role": "user", "content": "hello"}],
    }
    with stage.anthropic() as client:
        batch = client.messages.batches.create(
            requests=[{"custom_id": f"c{number}", "params": params} for number in range(LINES)]
        )
        assert stage.jobs() == 1
        done(lambda: client.messages.batches.retrieve(batch.id), ("ended",))
        stage.wait()
        ended = client.messages.batches.retrieve(batch.id)
        assert (ended.results_url or "").startswith(stage.gateway.url)  # not at the provider
        results = list(client.messages.batches.results(batch.id))
        assert [result.result.type for result in results] == ["succeeded"] * LINES
    with stage.anthropic(OTHER) as other, pytest.raises(anthropic.NotFoundError):
        other.messages.batches.results(batch.id)
    (charge,) = stage.costly()
    assert (charge.operation, charge.basis) == ("message_batch", "metered")
    assert charge.cost_nanos == stage.mock.meter.total_nanos > 0


def test_fine_tuning(stage: Stage) -> None:
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    data = "\n".join([json.dumps(row)] * 20).encode()
    with stage.openai() as client:
        file = client.files.create(file=("train.jsonl", data), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            model=world.TUNED, training_file=file.id, hyperparameters={"n_epochs": 2}
        )
        assert stage.held() >= len(data) * 2 * 25_000
        ended = done(lambda: client.fine_tuning.jobs.retrieve(job.id), ("succeeded",))
        stage.wait()
    (charge,) = stage.costly()
    assert (charge.operation, charge.basis) == ("fine_tuning", "metered")
    assert charge.cost_nanos == ended.trained_tokens * 25_000 == stage.mock.meter.total_nanos


def test_background_responses(stage: Stage) -> None:
    with stage.openai() as client:
        response = client.responses.create(model="gpt-test", input="hello", background=True)
        assert response.status == "queued"
        assert stage.jobs() == 1
        done(lambda: client.responses.retrieve(response.id), ("completed",))
        stage.wait()
    with stage.openai(OTHER) as other, pytest.raises(openai.NotFoundError):
        other.responses.retrieve(response.id)
    (charge,) = stage.costly()
    assert (charge.operation, charge.basis) == ("responses", "metered")
    assert charge.cost_nanos == stage.mock.meter.total_nanos > 0


def test_a_cancelled_batch_costs_what_was_done(stage: Stage) -> None:
    with stage.openai() as client:
        batch = submit(client, lines())
        client.batches.cancel(batch.id)
        done(lambda: client.batches.retrieve(batch.id), ("cancelled", "completed"))
        stage.wait()
    assert len(stage.costly()) == 1


def test_every_kind_of_job_is_refused_when_the_budget_is_spent(tmp_path: Path) -> None:
    params: Any = {
        "model": "claude-test",
        "max_tokens": 30,
        "messages": [{"role": "user", "content": "hello"}],
    }
    with stage_of(tmp_path, "0.000000001") as stage:
        with stage.openai() as client, stage.anthropic() as claude:
            file = client.files.create(file=("train.jsonl", b'{"messages":[]}\n' * 20), purpose="fine-tune")
            calls = (
                lambda: submit(client, lines()),
                lambda: claude.messages.batches.create(requests=[{"custom_id": "c", "params": params}]),
                lambda: client.fine_tuning.jobs.create(
                    model=world.TUNED, training_file=file.id, hyperparameters={"n_epochs": 2}
                ),
                lambda: client.responses.create(model="gpt-test", input="hello", background=True),
            )
            for call in calls:
                with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
                    call()
                assert raised.value.status_code == 402
        assert stage.jobs() == 0
        assert stage.held() == 0
        jobs = ("/v1/batches", "/v1/messages/batches", "/v1/fine_tuning/jobs", "/v1/responses")
        assert not [call for call in stage.mock.calls if call.path in jobs and call.method == "POST"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_stored_responses_are_their_teams(stage: Stage, is_stream: bool) -> None:
    with stage.openai() as client, stage.openai(OTHER) as other:
        if is_stream:
            with client.responses.stream(model="gpt-test", input="hello") as stream:
                stream.until_done()
                made = stream.get_final_response().id
        else:
            made = client.responses.create(model="gpt-test", input="hello").id
        assert client.responses.retrieve(made).id == made
        client.responses.create(model="gpt-test", input="and then", previous_response_id=made)
        with pytest.raises(openai.NotFoundError):
            other.responses.retrieve(made)
        with pytest.raises(openai.NotFoundError):
            other.responses.create(model="gpt-test", input="and then", previous_response_id=made)


def test_results_that_are_too_large_to_read_are_booked_at_what_is_held(tmp_path: Path) -> None:
    with MockProvider(
        prices=world.meter_prices(), models=world.MODELS, behaviour={"output_tokens": 20}
    ) as mock:
        stage = Stage(tmp_path, mock, "10")
        with stage.gateway, stage.openai() as client:
            settings = stage.gateway.snapshot.settings
            batch = submit(client, lines())
            # the file of calls is read before it is held, so only its results meet the lower limit
            stage.gateway.swap(settings=msgspec.structs.replace(settings, max_job_bytes=200))
            done(lambda: client.batches.retrieve(batch.id), ("completed",))
            stage.wait()
            (charge,) = stage.costly()
            assert charge.basis == "outcome_unknown"
            assert charge.cost_nanos == charge.hold_nanos >= mock.meter.total_nanos > 0
            assert "max_job_bytes" in (charge.reason or "")
            assert audit(stage.gateway.path).findings == ()
