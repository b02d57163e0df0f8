"""The mock's room for what OpenAI had before chats: text completions; and for moderations, which are free."""

from typing import Any

import msgspec

from outlay.testing import content
from outlay.testing.answer import (
    Answer,
    Length,
    Piece,
    Saying,
    chunk_bounds,
    input_tokens,
    length_of,
    reported,
    saying,
    with_output,
)
from outlay.testing.behaviour import Behaviour, UsageReport, marked_directive
from outlay.testing.call import Ask, Reply
from outlay.testing.meter import Tokens
from outlay.testing.openai_replies import (
    directed,
    error_answer,
    error_text,
    event,
    status_answer,
    whole_answer,
)

DEFAULT_MAX_TOKENS = 16
"""OpenAI's own default of `max_tokens` on this route."""
MAX_CHOICES = 128
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class _StreamOptions(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Completion(msgspec.Struct, gc=False):
    model: str | None = None
    prompt: str | list[Any] | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None


class _Moderation(msgspec.Struct, gc=False):
    model: str | None = None
    input: str | list[Any] | None = None


class LegacyRoom:
    """Builds answers; keeps nothing between requests."""

    def complete(self, ask: Ask) -> Reply:
        """POST /v1/completions: each prompt is answered `n` times, and `best_of` times billed."""
        try:
            request = msgspec.json.decode(ask.body, type=_Completion)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"We could not parse the JSON body: {error}"), None
        prompts = _prompts(request.prompt)
        choices = request.n or 1
        attempts = max(choices, request.best_of or 1)
        if not 1 <= attempts <= MAX_CHOICES or not prompts:
            return error_answer(ask.identity, 400, "Invalid 'prompt', 'n' or 'best_of'."), None
        if request.max_tokens is not None and request.max_tokens < 0:
            return error_answer(ask.identity, 400, "Invalid 'max_tokens'.", param="max_tokens"), None
        opened = directed(ask, request.model, marked_directive(request.user))
        if isinstance(opened, Answer):
            return opened, None
        model, behaviour = opened
        counted = sum(tokens for _, tokens in prompts) + content.text_tokens(request.suffix or "")
        limit = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
        length = length_of(behaviour, limit)
        generated = attempts * len(prompts)
        tokens = with_output(
            input_tokens(behaviour, counted), length.output * generated, length.reasoning * generated
        )
        if behaviour.status != 200:
            refused = status_answer(ask.identity, behaviour, model, None)
            refused.tokens, refused.is_stream = tokens, bool(request.stream)
            return refused, behaviour
        answer = whole_answer(ask.identity, None, model=model)
        answer.tokens = reported(behaviour.usage, tokens)
        told = _Told(ask, model, behaviour, length=length, rows=choices * len(prompts), stated=answer.tokens)
        echoes = [text if request.echo else "" for text, _ in prompts for _ in range(choices)]
        if request.stream:
            wants_usage = request.stream_options is not None and bool(request.stream_options.include_usage)
            answer.pieces = told.stream(echoes, generated, wants_usage=wants_usage)
            answer.is_stream, answer.content_type = True, b"text/event-stream; charset=utf-8"
            problem = error_text("The server had an error processing your request.", "server_error")
            answer.error_event = f"data: {problem}\n\n".encode()
        else:
            answer.pieces = [Piece(msgspec.json.encode(told.whole(echoes)), tokens.output)]
        return answer, behaviour

    def moderate(self, ask: Ask) -> Reply:
        """POST /v1/moderations: never billed."""
        try:
            request = msgspec.json.decode(ask.body, type=_Moderation)
        except msgspec.MsgspecError as error:
            return error_answer(ask.identity, 400, f"We could not parse the JSON body: {error}"), None
        if not request.input:
            return error_answer(
                ask.identity, 400, "Missing required parameter: 'input'.", param="input"
            ), None
        opened = directed(ask, request.model or "omni-moderation-latest")
        if isinstance(opened, Answer):
            return opened, None
        model, behaviour = opened
        if behaviour.status != 200:
            return status_answer(ask.identity, behaviour, model, None), behaviour
        is_many = isinstance(request.input, list) and all(isinstance(item, str) for item in request.input)
        count = len(request.input) if is_many else 1
        result = {
            "flagged": False,
            "categories": dict.fromkeys(_CATEGORIES, False),
            "category_scores": dict.fromkeys(_CATEGORIES, 0.0001),
            "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
        }
        value = {"id": f"modr-{ask.identity.serial}", "model": model, "results": [result] * count}
        return whole_answer(ask.identity, value, model=model), behaviour


class _Told:
    """One completion in OpenAI's format."""

    def __init__(
        self, ask: Ask, model: str, behaviour: Behaviour, *, length: Length, rows: int, stated: Tokens
    ) -> None:
        self._head: dict[str, Any] = {
            "id": f"cmpl-{ask.identity.serial}",
            "object": "text_completion",
            "created": ask.identity.created,
            "model": model,
        }
        self._behaviour = behaviour
        self._length = length
        self._rows = rows
        self._stated = stated
        self._says: Saying = saying(behaviour, None)

    def whole(self, echoes: list[str]) -> dict[str, Any]:
        text = self._says.part(0, self._length.visible)
        rows = [_row(index, echo + text, self._finish) for index, echo in enumerate(echoes)]
        return {**self._head, "choices": rows, **self._usage()}

    def stream(self, echoes: list[str], generated: int, *, wants_usage: bool) -> list[Piece]:
        """Every choice gets the same chunks; tokens that no choice shows count with them."""
        more: dict[str, Any] = {"usage": None} if wants_usage else {}
        pieces: list[Piece] = []
        if any(echoes):
            rows = [_row(index, echo, None) for index, echo in enumerate(echoes)]
            pieces.append(Piece(event({**self._head, "choices": rows, **more}), 0))
        hidden = self._length.reasoning
        for start, end in chunk_bounds(self._behaviour, self._length.visible):
            text = self._says.part(start, end)
            data = b"".join(
                event({**self._head, "choices": [_row(index, text, None)], **more})
                for index in range(self._rows)
            )
            pieces.append(Piece(data, (end - start + hidden) * generated))
            hidden = 0
        data = b"".join(
            event({**self._head, "choices": [_row(index, "", self._finish)], **more})
            for index in range(self._rows)
        )
        pieces.append(Piece(data, hidden * generated))
        if wants_usage and self._behaviour.usage is not UsageReport.OMIT:
            pieces.append(Piece(event({**self._head, "choices": [], **self._usage()}), 0))
        pieces.append(Piece(b"data: [DONE]\n\n", 0))
        return pieces

    @property
    def _finish(self) -> str:
        return "length" if self._length.is_cut else "stop"

    def _usage(self) -> dict[str, Any]:
        if self._behaviour.usage is UsageReport.OMIT:
            return {}
        if self._behaviour.usage is UsageReport.NULL:
            return {"usage": None}
        stated = self._stated
        return {
            "usage": {
                "prompt_tokens": stated.input,
                "completion_tokens": stated.output,
                "total_tokens": stated.input + stated.output,
                "prompt_tokens_details": {"cached_tokens": stated.cached},
                "completion_tokens_details": {"reasoning_tokens": stated.reasoning},
            }
        }


def _row(index: int, text: str, finish: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def _prompts(prompt: str | list[Any] | None) -> list[tuple[str, int]]:
    """(text, tokens) of each prompt: a text, texts, one token array, or token arrays."""
    if prompt is None or isinstance(prompt, str):
        return [(prompt or "", content.text_tokens(prompt or ""))]
    if prompt and all(isinstance(item, int) for item in prompt):
        return [("", len(prompt))]
    return [
        (item, content.text_tokens(item)) if isinstance(item, str) else ("", len(item))
        for item in prompt
        if isinstance(item, str | list)
    ]
