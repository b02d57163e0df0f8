"""The mock's Responses room: POST /v1/responses and what can be done with a stored response.

It remembers responses, so that a later one can build on them; a background response is billed when it completes.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from outlay.testing import content
from outlay.testing.answer import (
    Answer,
    Identity,
    Offer,
    Piece,
    Saying,
    calls_of,
    chosen_tool,
    input_tokens,
    length_of,
    reported,
    saying,
    with_output,
)
from outlay.testing.behaviour import (
    Behaviour,
    BehaviourError,
    JobEnd,
    Resolve,
    marked_directive,
    split_model,
)
from outlay.testing.call import Ask, BookCharge, Call, Charge, Reply
from outlay.testing.meter import NOTHING
from outlay.testing.openai_replies import (
    error_answer,
    request_id,
    status_answer,
    vendor_headers,
    whole_answer,
)
from outlay.testing.responses_replies import (
    Plot,
    ResponseRequest,
    beats,
    conversation_id,
    failed_event,
    input_items,
    response_object,
    sse,
)

MAX_STORED = 10_000
"""Responses remembered; the oldest go first."""
_JSON = msgspec.json.Encoder()


class Stored(msgspec.Struct):
    """One remembered response."""

    plot: Plot
    context_tokens: int
    """What a response that builds on it reads again: the input so far and this visible output."""
    call: Call
    status: str
    gets: int = 0
    """How often a background response was asked for."""


Memory = OrderedDict[str, Stored]


class ResponsesRoom:
    """Answers, and remembers unless it is told not to."""

    def __init__(self, book: BookCharge) -> None:
        self._book = book
        self._decoder = msgspec.json.Decoder(ResponseRequest)
        self.stored: Memory = OrderedDict()
        self.conversations: dict[str, int] = {}

    def reset(self) -> None:
        """Forget every response."""
        self.stored.clear()
        self.conversations.clear()

    def create(self, ask: Ask) -> Reply:
        """POST /v1/responses."""
        try:
            request = self._decoder.decode(ask.body)
        except msgspec.MsgspecError as error:
            message = f"We could not parse the JSON body of your request: {error}"
            return error_answer(ask.identity, 400, message), None
        request.model = ask.deployment or request.model
        plot = self.plotted(request, ask.resolve, ask.identity, self.stored)
        if not isinstance(plot, Plot):
            return plot
        behaviour = plot.behaviour
        is_deferred = bool(request.background) and not request.stream and behaviour.polls > 0
        status = "queued" if is_deferred else plot.final_status
        self.remember(plot, ask.call, status, self.stored)
        answer = billed_answer(plot)
        if request.stream:
            answer.pieces.extend(Piece(sse(beat), beat.tokens) for beat in beats(plot))
            answer.error_event = f"event: response.failed\ndata: {failed_event(plot)}\n\n".encode()
            answer.is_stream, answer.content_type = True, b"text/event-stream; charset=utf-8"
        elif is_deferred:
            answer.pieces.append(Piece(_JSON.encode(response_object(plot, "queued")), 0))
            answer.job, answer.tokens, answer.service_tier = plot.response_id, NOTHING, None
        else:
            body = _JSON.encode(response_object(plot, plot.final_status))
            answer.pieces.append(Piece(body, plot.length.output))
        return answer, behaviour

    def plotted(
        self, request: ResponseRequest, resolve: Resolve, identity: Identity, memory: Mapping[str, Stored]
    ) -> Plot | Reply:
        """What will be answered, or the refusal; earlier responses are looked up in `memory`."""
        problem = _problem(request)
        if problem is not None:
            message, param, code = problem
            return error_answer(identity, 400, message, param=param, code=code), None
        model, directive = split_model(request.model or "")
        try:
            behaviour = resolve(model, directive or _metadata_directive(request))
        except BehaviourError as error:
            return error_answer(identity, 400, f"mock: {error}", code="mock_directive"), None
        earlier = 0
        if request.previous_response_id is not None:
            previous = memory.get(request.previous_response_id)
            if previous is None:
                return _no_previous(identity, request.previous_response_id), None
            earlier = previous.context_tokens
        conversation = conversation_id(request)
        if conversation is not None:
            earlier = self.conversations.get(conversation, 0)
        counted = earlier + counted_input(request) + content.json_tokens(request.tools)
        counted += content.text_tokens(request.instructions or "")
        served = behaviour.served_model or model
        tier = behaviour.service_tier or _served_tier(request.service_tier)
        billed = msgspec.structs.replace(
            input_tokens(behaviour, counted), web_searches=behaviour.web_searches
        )
        if behaviour.status != 200:
            refused = status_answer(identity, behaviour, served, tier)
            refused.tokens = with_output(billed, behaviour.output_tokens, 0)
            refused.is_stream = bool(request.stream)
            return refused, behaviour
        length = length_of(behaviour, request.max_output_tokens)
        tool = _tool(request, behaviour)
        return Plot(
            request=request,
            behaviour=behaviour,
            identity=identity,
            model=served,
            tier=tier,
            length=length,
            calls=[] if tool is None else calls_of(tool, behaviour, length.visible),
            says=_says(request, behaviour),
            tokens=with_output(billed, length.output, length.reasoning),
        )

    def remember(
        self,
        plot: Plot,
        call: Call,
        status: str,
        earlier: Mapping[str, Stored],
        local: Memory | None = None,
    ) -> None:
        """Keep a response for those that build on it: always in `local`, for all unless it says not to."""
        request, before = plot.request, 0
        if request.previous_response_id is not None:
            before = earlier[request.previous_response_id].context_tokens
        conversation = conversation_id(request)
        if conversation is not None:
            before = self.conversations.get(conversation, 0)
        context = before + counted_input(request) + plot.length.visible
        if conversation is not None:
            self.conversations[conversation] = context
        stored = Stored(plot, context, call, status)
        for memory in (local, None if request.store is False else self.stored):
            if memory is not None:
                memory[plot.response_id] = stored
                while len(memory) > MAX_STORED:
                    memory.popitem(last=False)

    def retrieve(self, ask: Ask) -> Reply:
        """GET /v1/responses/{id}; a background response goes on by being asked for."""
        stored = self.stored.get(ask.captures["response_id"])
        if stored is None:
            return _not_found(ask), None
        behaviour = stored.plot.behaviour
        if stored.status in ("queued", "in_progress"):
            stored.gets += 1
            if stored.gets >= behaviour.polls:
                self._finish(stored)
            elif stored.gets >= behaviour.polls - 1:
                stored.status = "in_progress"
        return whole_answer(ask.identity, response_object(stored.plot, stored.status)), None

    def cancel(self, ask: Ask) -> Reply:
        """POST /v1/responses/{id}/cancel: nothing is billed for what was cancelled in time."""
        stored = self.stored.get(ask.captures["response_id"])
        if stored is None:
            return _not_found(ask), None
        if not stored.plot.request.background:
            return error_answer(ask.identity, 400, "Cannot cancel a synchronous response."), None
        if stored.status in ("queued", "in_progress"):
            stored.status = "cancelled"
        return whole_answer(ask.identity, response_object(stored.plot, stored.status)), None

    def delete(self, ask: Ask) -> Reply:
        """DELETE /v1/responses/{id}."""
        response_id = ask.captures["response_id"]
        if self.stored.pop(response_id, None) is None:
            return _not_found(ask), None
        return whole_answer(ask.identity, {"id": response_id, "object": "response", "deleted": True}), None

    def input_items(self, ask: Ask) -> Reply:
        """GET /v1/responses/{id}/input_items."""
        stored = self.stored.get(ask.captures["response_id"])
        if stored is None:
            return _not_found(ask), None
        rows = input_items(stored.plot.request, stored.plot.response_id)
        listing = {
            "object": "list",
            "data": rows,
            "first_id": rows[0]["id"] if rows else None,
            "last_id": rows[-1]["id"] if rows else None,
            "has_more": False,
        }
        return whole_answer(ask.identity, listing), None

    def _finish(self, stored: Stored) -> None:
        plot = stored.plot
        if plot.behaviour.job_end is not JobEnd.DONE:
            stored.status = "failed"
            return
        stored.status = plot.final_status
        answer = billed_answer(plot)
        self._book(Charge(stored.call, answer, answer.tokens, plot.response_id))


def billed_answer(plot: Plot) -> Answer:
    """The answer of a response before it is framed: whose it is and what it costs."""
    return Answer(
        status=200,
        content_type=b"application/json",
        headers=vendor_headers(plot.identity),
        pieces=[],
        model=plot.model,
        service_tier=plot.tier,
        request_id=request_id(plot.identity),
        tokens=reported(plot.behaviour.usage, plot.tokens),
    )


def counted_input(request: ResponseRequest) -> int:
    """Tokens of the new input: as a chat would count it."""
    if isinstance(request.input, str):
        return content.text_tokens(request.input) + content.TOKENS_PER_MESSAGE
    return sum(_item_tokens(item) for item in request.input or ())


def _item_tokens(item: dict[str, Any]) -> int:
    said = item.get("content", item.get("output"))
    if isinstance(said, str | list):
        return content.content_tokens(said) + content.TOKENS_PER_MESSAGE
    if item.get("type") == "reasoning":
        return 0  # a model does not read its earlier reasoning again
    return content.text_tokens(str(item.get("arguments") or item.get("input") or ""))


def _problem(request: ResponseRequest) -> tuple[str, str | None, str | None] | None:
    """Message, param and code of what OpenAI would refuse; None if it is sound."""
    if not request.model:
        return "Missing required parameter: 'model'.", "model", "missing_required_parameter"
    if not request.input and request.previous_response_id is None and request.conversation is None:
        return "Missing required parameter: 'input'.", "input", "missing_required_parameter"
    limit = request.max_output_tokens
    if limit is not None and limit < 1:
        message = "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 1"
        return f"{message}, but got {limit} instead.", "max_output_tokens", "integer_below_min_value"
    if request.background and request.store is False:
        return "Background mode requires 'store' to be true.", "background", None
    if request.conversation is not None and request.previous_response_id is not None:
        return "'conversation' and 'previous_response_id' cannot be used together.", "conversation", None
    return None


def _metadata_directive(request: ResponseRequest) -> str:
    if request.metadata is not None and isinstance(request.metadata.get("mock"), str):
        return str(request.metadata["mock"])
    return marked_directive(request.user) or marked_directive(request.safety_identifier)


def _served_tier(requested: str | None) -> str:
    if requested is None or requested == "auto":
        return "default"
    return "priority" if requested == "fast" else requested  # OpenAI answers `priority` for both


def _tool(request: ResponseRequest, behaviour: Behaviour) -> Offer | None:
    choice = request.tool_choice
    if not request.tools or choice == "none":
        return None
    forced, is_demanded = None, choice == "required"
    if isinstance(choice, dict):
        forced = str(choice["name"]) if choice.get("type") in ("function", "custom") else None
        is_demanded = choice.get("mode") == "required"
    offers = [offer for tool in request.tools if (offer := _offer(tool)) is not None]
    return chosen_tool(
        offers, behaviour, forced=forced, is_demanded=is_demanded, prompt=_last_prompt(request)
    )


def _says(request: ResponseRequest, behaviour: Behaviour) -> Saying:
    """The text of a response that calls no tool."""
    wanted = (request.text or {}).get("format") or {}
    if wanted.get("type") == "json_schema":
        return saying(behaviour, content.instance_json(wanted.get("schema") or {"type": "object"}))
    if wanted.get("type") == "json_object":
        return saying(behaviour, '{"answer":"ledger"}')
    return saying(behaviour, None)


def _offer(tool: dict[str, Any]) -> Offer | None:
    if tool.get("type") == "custom":
        return Offer(str(tool.get("name", "")), None)
    if tool.get("type") != "function":
        return None
    schema = tool.get("parameters")
    return Offer(str(tool.get("name", "")), schema if isinstance(schema, dict) else {"type": "object"})


def _last_prompt(request: ResponseRequest) -> str:
    """Text of the last input item, if it is the user's message."""
    if isinstance(request.input, str):
        return request.input
    if not request.input:
        return ""
    last = request.input[-1]
    said = last.get("content")
    return content.content_text(said) if last.get("role") == "user" and isinstance(said, str | list) else ""


def _no_previous(identity: Identity, response_id: str) -> Answer:
    return error_answer(
        identity,
        400,
        f"Previous response with id '{response_id}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def _not_found(ask: Ask) -> Answer:
    return error_answer(ask.identity, 404, f"Response with id '{ask.captures['response_id']}' not found.")
