"""What clients are told of a stream that broke: by their vendors' SDKs, over a socket, and as one JSON array.

What was billed is `test_broken_streams`' question; here a broken answer may not pass for a whole one.
"""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from itertools import permutations
from typing import Any

import anthropic
import botocore.exceptions
import openai
import pytest
import urllib3.exceptions
from google.genai import errors as google

from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, RESPONSES
from tests.reality.dialect_cases import SHORT, ask
from tests.reality.doors import CONVERSE, INVOKE, Clients, clients
from tests.reality.lanes import Rig, rig_of
from tests.reality.load import post


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig_of(tmp_path_factory.mktemp("told")) as found:
        yield found


@pytest.fixture(scope="module")
def vendors(rig: Rig) -> Iterator[Clients]:
    with clients(rig.gateway.url) as found:
        yield found


CUT: dict[str, Any] = {"failure": "cut", "after_chunks": 5, "bill": "full"}
WITHIN: dict[str, Any] = {**CUT, "failure": "cut_json"}
EARLY: dict[str, Any] = {**CUT, "failure": "early_end"}
ERROR: dict[str, Any] = {**CUT, "failure": "stream_error"}
RAISED: dict[Any, type[Exception]] = {
    CHAT: openai.APIError,
    RESPONSES: openai.APIError,
    MESSAGES: anthropic.APIStatusError,
    GENERATE: google.APIError,
}
BILLED = "outcome_unknown"


@pytest.mark.parametrize("behaviour", [CUT, WITHIN, EARLY, ERROR], ids=lambda it: str(it["failure"]))
@pytest.mark.parametrize(("client", "server"), list(permutations(SHORT, 2)), ids=lambda it: SHORT[it])
def test_every_break_of_a_translated_stream_raises(
    rig: Rig, vendors: Clients, client: Any, server: Any, behaviour: dict[str, Any]
) -> None:
    rig.behave(**behaviour)
    with pytest.raises(RAISED[client]):
        ask(vendors, client, f"hosted-{SHORT[server]}", {}, stream=True)
    rig.check(BILLED)


@pytest.mark.parametrize("client", SHORT, ids=lambda it: SHORT[it])
def test_a_cut_raises_the_vendors_own_error(rig: Rig, vendors: Clients, client: Any) -> None:
    rig.behave(**CUT)
    with pytest.raises(RAISED[client], match="broke off"):
        ask(vendors, client, f"hosted-{SHORT[client]}", {}, stream=True)
    rig.check(BILLED)


@pytest.mark.parametrize("client", SHORT, ids=lambda it: SHORT[it])
def test_a_cut_within_an_event_is_a_broken_connection(rig: Rig, vendors: Clients, client: Any) -> None:
    rig.behave(**WITHIN)
    # no event can follow half an event; each SDK tells of the transfer in its own way
    with pytest.raises(Exception, match=r"Connection error|incomplete chunked read"):
        ask(vendors, client, f"hosted-{SHORT[client]}", {}, stream=True)
    rig.check(BILLED)


@pytest.mark.parametrize("client", SHORT, ids=lambda it: SHORT[it])
def test_an_early_end_passes_as_it_came_and_states_no_end(rig: Rig, vendors: Clients, client: Any) -> None:
    rig.behave(**EARLY)
    try:
        end = ask(vendors, client, f"hosted-{SHORT[client]}", {}, stream=True).end
    except AssertionError as error:
        end = ""
        assert "last event" in str(error) or "how it ended" in str(error)
    assert not end
    rig.check(BILLED)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (CUT, botocore.exceptions.EventStreamError),
        (WITHIN, urllib3.exceptions.ProtocolError),
        (ERROR, botocore.exceptions.EventStreamError),
    ],
    ids=["cut", "cut_json", "stream_error"],
)
@pytest.mark.parametrize("name", ["converse", "invoke"])
def test_bedrock_raises(
    rig: Rig, vendors: Clients, name: str, behaviour: dict[str, Any], error: type[Exception]
) -> None:
    rig.behave(**behaviour)
    bedrock = vendors.bedrock
    if name == "converse":
        stream = bedrock.converse_stream(modelId="hosted-bedrock", messages=CONVERSE)["stream"]
    else:
        asked = bedrock.invoke_model_with_response_stream(modelId="hosted-bedrock", body=INVOKE)
        stream = asked["body"]
    with closing(stream), pytest.raises(error):
        list(stream)
    rig.check(BILLED)


@pytest.mark.parametrize("behaviour", [CUT, WITHIN, ERROR], ids=lambda it: str(it["failure"]))
def test_legacy_completions_raise(rig: Rig, vendors: Clients, behaviour: dict[str, Any]) -> None:
    rig.behave(**behaviour)
    with pytest.raises(openai.APIError):
        list(vendors.openai.completions.create(model="hosted-completions", prompt="once", stream=True))
    rig.check(BILLED)


@pytest.mark.parametrize("behaviour", [CUT, WITHIN, EARLY, ERROR], ids=lambda it: str(it["failure"]))
@pytest.mark.parametrize("server", list(SHORT.values()))
def test_a_socket_says_so_and_stays(
    rig: Rig, vendors: Clients, server: str, behaviour: dict[str, Any]
) -> None:
    """A stream's end shows; a socket stays open, so only an event tells its client not to wait."""
    ends = ("response.completed", "response.incomplete", "response.failed", "error")
    rig.behave(**behaviour)
    with vendors.openai.responses.connect() as connection:

        def last() -> str:
            connection.send({"type": "response.create", "model": f"hosted-{server}", "input": "hello"})
            return next(event.type for event in connection if event.type in ends)

        assert last() in ("error", "response.failed")
        rig.check(BILLED)
        rig.behave()
        said = last()
        while said in ("error", "response.failed"):
            # the translation tells a failure twice, for clients that know only one of its forms
            said = next(event.type for event in connection if event.type in ends)
        assert said == "response.completed"
        rig.check("metered")


ARRAY = "/v1beta/models/hosted-gemini:streamGenerateContent"
"""Without `alt=sse` Google answers with one JSON array."""


@pytest.mark.parametrize(
    ("behaviour", "status", "basis"),
    [
        ({}, 200, "metered"),
        (CUT, 502, BILLED),
        (WITHIN, 502, BILLED),
        ({"failure": "truncated_json", "bill": "full"}, 200, BILLED),
        (ERROR, 200, BILLED),
        ({"usage": "omit"}, 200, "counted"),
        ({"usage": "zero"}, 200, "metered"),
    ],
)
def test_a_stream_as_one_array(rig: Rig, behaviour: dict[str, Any], status: int, basis: str) -> None:
    rig.behave(**behaviour)
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    reply = asyncio.run(post(rig.gateway.url, body, ARRAY))
    assert reply.status == status
    rig.check(basis)
