"""The vendors' SDKs as readers: what each client understands of translated bytes, through its own code."""

import json
import re
from dataclasses import replace
from typing import Any

import anthropic
import httpx
import httpx2
import openai
from google import genai
from google.genai import types as google
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from tests.wire.translate.upstreams import Said

from outlay.wire.intent import Operation

STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
ANTHROPIC_EVENT: TypeAdapter[Any] = TypeAdapter(anthropic.types.RawMessageStreamEvent)
_NEUTRAL = {
    "stop": "end",
    "end_turn": "end",
    "STOP": "end",
    "completed": "end",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "length": "length",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "max_output_tokens": "length",
    "content_filter": "filter",
    "refusal": "filter",
    "SAFETY": "filter",
}


def transport(body: bytes, status: int, content_type: str) -> httpx.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body, headers={"content-type": content_type})

    return httpx.Client(transport=httpx.MockTransport(answer))


def openai_client(body: bytes, status: int = 200, content_type: str = "application/json") -> openai.OpenAI:
    http = transport(body, status, content_type)
    return openai.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=http, max_retries=0)


def anthropic_client(
    body: bytes, status: int = 200, content_type: str = "application/json"
) -> anthropic.Anthropic:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=body, headers={"content-type": content_type})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return anthropic.Anthropic(api_key="k", base_url="http://gateway", http_client=http, max_retries=0)


def google_client(body: bytes, status: int = 200, content_type: str = "application/json") -> genai.Client:
    options = google.HttpOptions(
        base_url="http://gateway", httpx_client=transport(body, status, content_type)
    )
    return genai.Client(api_key="k", http_options=options)


def with_calls(stop: str, calls: Any) -> str:
    """The neutral reason; Responses and Google do not name tool calls in it."""
    reason = _NEUTRAL[stop]
    return "tool_calls" if reason == "end" and calls else reason


def read_whole(client: Operation, body: bytes, status: int = 200) -> Said:
    """A whole answer as the client's SDK reads it; raises the SDK's error."""
    hello: Any = [{"role": "user", "content": "Hi"}]
    match client:
        case Operation.CHAT:
            sdk = openai_client(body, status)
            completion = sdk.chat.completions.create(model="asked", messages=hello)
            ChatCompletion.model_validate_json(body, strict=True)
            assert completion.model == "asked"
            assert completion.id.startswith("chatcmpl-")
            return chat_said(completion)
        case Operation.RESPONSES:
            response = openai_client(body, status).responses.create(model="asked", input="Hi")
            Response.model_validate(json.loads(body))
            assert response.model == "asked"
            assert response.id.startswith("resp_")
            return response_said(response)
        case Operation.MESSAGES:
            message = anthropic_client(body, status).messages.create(
                model="asked", messages=hello, max_tokens=9
            )
            anthropic.types.Message.model_validate_json(body)
            assert message.model == "asked"
            assert message.id.startswith("msg_")
            return message_said(message)
        case _:
            answer = google_client(body, status).models.generate_content(model="asked", contents="Hi")
            assert answer.model_version == "asked"
            return google_said([answer])


def read_stream(client: Operation, body: bytes) -> Said:
    """A stream as the client's SDK reads and puts it together; raises the SDK's error."""
    hello: Any = [{"role": "user", "content": "Hi"}]
    kind = "text/event-stream"
    match client:
        case Operation.CHAT:
            for data in datas(body, but=b"[DONE]"):
                if "error" not in data:
                    ChatCompletionChunk.model_validate(data)
            sdk = openai_client(body, 200, kind)
            chunks = list(sdk.chat.completions.create(model="asked", messages=hello, stream=True))
            said = chunks_said(chunks)
            if said.stop in {"end", "tool_calls"}:
                # the SDK's own accumulation raises for the other ends
                with openai_client(body, 200, kind).chat.completions.stream(
                    model="asked", messages=hello
                ) as stream:
                    assert replace(chat_said(stream.get_final_completion()), reasoning=said.reasoning) == said
            return said
        case Operation.RESPONSES:
            for number, data in enumerate(datas(body)):
                STREAM_EVENT.validate_python(data)
                assert data["sequence_number"] == number
            sdk = openai_client(body, 200, kind)
            last: Any = None
            deltas = {"response.output_text.delta": "", "response.reasoning_summary_text.delta": ""}
            for event in sdk.responses.create(model="asked", input="Hi", stream=True):
                if event.type in deltas:
                    deltas[event.type] += event.delta  # type: ignore[union-attr]
                last = event
            said = response_said(last.response)
            if last.type == "response.completed":
                # the SDK's own accumulation waits for this end only
                with openai_client(body, 200, kind).responses.stream(model="asked", input="Hi") as events:
                    assert response_said(events.get_final_response()) == said
            assert said.text == deltas["response.output_text.delta"]
            assert said.reasoning == deltas["response.reasoning_summary_text.delta"]
            return said
        case Operation.MESSAGES:
            for data in datas(body):
                if data["type"] != "error":
                    ANTHROPIC_EVENT.validate_python(data)
            client_ = anthropic_client(body, 200, kind)
            with client_.messages.stream(model="asked", messages=hello, max_tokens=9) as stream:
                return message_said(stream.get_final_message())
        case _:
            google_sdk = google_client(body, 200, kind)
            return google_said(list(google_sdk.models.generate_content_stream(model="asked", contents="Hi")))


def datas(body: bytes, *, but: bytes = b"\0") -> list[dict[str, Any]]:
    """The events of a stream, each on one line."""
    events = re.findall(rb"^data: (.*)$", body, re.M)
    assert body.count(b"\n\n") == len(events)
    return [json.loads(event) for event in events if event != but]


def chat_said(completion: Any) -> Said:
    choice = completion.choices[0]
    calls = choice.message.tool_calls or []
    usage = completion.usage
    return Said(
        text=choice.message.content or "",
        reasoning=getattr(choice.message, "reasoning_content", None) or "",
        refusal=choice.message.refusal or "",
        calls=tuple((call.function.name, json.loads(call.function.arguments)) for call in calls),
        stop=_NEUTRAL[choice.finish_reason],
        input=usage.prompt_tokens,
        output=usage.completion_tokens,
        cached=usage.prompt_tokens_details.cached_tokens,
        thought=usage.completion_tokens_details.reasoning_tokens,
    )


def chunks_said(chunks: list[ChatCompletionChunk]) -> Said:
    """The chunks of a chat stream, put together as applications do."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    text = reasoning = refusal = ""
    stop = None
    for chunk in chunks:
        for choice in chunk.choices:
            delta = choice.delta
            text += delta.content or ""
            refusal += delta.refusal or ""
            reasoning += getattr(delta, "reasoning_content", None) or ""
            stop = choice.finish_reason or stop
            for call in delta.tool_calls or ():
                assert call.function is not None
                names.setdefault(call.index, call.function.name or "")
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    usage: Any = chunks[-1].usage
    return Said(
        text=text,
        reasoning=reasoning,
        refusal=refusal,
        calls=tuple((names[index], json.loads(arguments[index])) for index in sorted(names)),
        stop=_NEUTRAL[str(stop)],
        input=usage.prompt_tokens,
        output=usage.completion_tokens,
        cached=usage.prompt_tokens_details.cached_tokens,
        thought=usage.completion_tokens_details.reasoning_tokens,
    )


def response_said(response: Any) -> Said:
    calls = [item for item in response.output if item.type == "function_call"]
    contents = [part for item in response.output if item.type == "message" for part in item.content]
    details = response.incomplete_details
    return Said(
        text=response.output_text,
        reasoning="".join(
            part.text for item in response.output if item.type == "reasoning" for part in item.summary
        ),
        refusal="".join(part.refusal for part in contents if part.type == "refusal"),
        calls=tuple((call.name, json.loads(call.arguments)) for call in calls),
        stop=with_calls(response.status if details is None else details.reason, calls),
        input=response.usage.input_tokens,
        output=response.usage.output_tokens,
        cached=response.usage.input_tokens_details.cached_tokens,
        thought=response.usage.output_tokens_details.reasoning_tokens,
    )


def message_said(message: Any) -> Said:
    blocks = message.content
    usage = message.usage
    return Said(
        text="".join(block.text for block in blocks if block.type == "text"),
        reasoning="".join(block.thinking for block in blocks if block.type == "thinking"),
        calls=tuple((block.name, block.input) for block in blocks if block.type == "tool_use"),
        stop=_NEUTRAL[message.stop_reason],
        input=usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens,
        output=usage.output_tokens,
        cached=usage.cache_read_input_tokens,
        thought=0 if usage.output_tokens_details is None else usage.output_tokens_details.thinking_tokens,
    )


def google_said(answers: list[google.GenerateContentResponse]) -> Said:
    parts = [part for answer in answers for part in answer.candidates[0].content.parts or ()]  # type: ignore
    calls = [part.function_call for part in parts if part.function_call is not None]
    last = answers[-1]
    usage: Any = last.usage_metadata
    return Said(
        text="".join(part.text or "" for part in parts if not part.thought),
        reasoning="".join(part.text or "" for part in parts if part.thought),
        calls=tuple((str(call.name), dict(call.args or {})) for call in calls),
        stop=with_calls(last.candidates[0].finish_reason.value, calls),  # type: ignore
        input=usage.prompt_token_count,
        output=usage.candidates_token_count + (usage.thoughts_token_count or 0),
        cached=usage.cached_content_token_count or 0,
        thought=usage.thoughts_token_count or 0,
    )
