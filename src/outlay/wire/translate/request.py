"""A client's request body in the dialect of the model that is to answer."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate.chat_reader import read_chat
from outlay.wire.translate.chat_writer import write_chat
from outlay.wire.translate.conversation import Conversation, Role, Target, Text, Untranslatable
from outlay.wire.translate.gemini_reader import read_generate
from outlay.wire.translate.gemini_writer import write_generate
from outlay.wire.translate.messages_reader import read_messages
from outlay.wire.translate.messages_writer import write_messages
from outlay.wire.translate.names import decoding_problem, refuse_part, rejection, without_null
from outlay.wire.translate.responses_reader import read_responses
from outlay.wire.translate.responses_writer import write_responses

READERS: Final[Mapping[Operation, Callable[[bytes], Conversation]]] = MappingProxyType(
    {
        Operation.CHAT: read_chat,
        Operation.RESPONSES: read_responses,
        Operation.MESSAGES: read_messages,
        Operation.GENERATE: read_generate,
    }
)
WRITERS: Final[Mapping[Operation, Callable[[Conversation, Target], bytes]]] = MappingProxyType(
    {
        Operation.CHAT: write_chat,
        Operation.RESPONSES: write_responses,
        Operation.MESSAGES: write_messages,
        Operation.GENERATE: write_generate,
    }
)

MAX_UNKNOWN_NULLS: Final = 16
"""Each one costs another reading; no SDK writes so many."""


class Translated(msgspec.Struct, frozen=True):
    """A request as it goes to the provider."""

    body: bytes


def translate_request(
    source: Operation,
    target: Operation,
    body: bytes,
    *,
    model: str,
    stream: bool,
    max_output_tokens: int | None,
) -> Translated | Rejection:
    """The body for a provider of another dialect, or why it cannot be said there. Never raises.

    `body` has been accepted by the source dialect's parser. `model` is the name at the provider. `stream` is stated
    where the dialect has it in the body. `max_output_tokens` is the limit to state, None keeps the client's own.
    422 `untranslatable` names the field that the target cannot carry.
    """
    try:
        conversation = _read(source, body)
        _refuse_prefill(conversation, target)
        return Translated(WRITERS[target](conversation, Target(model, stream, max_output_tokens)))
    except Untranslatable as problem:
        return rejection(problem)
    except (ValueError, RecursionError):
        # ValueError: also bytes that are no UTF-8, and text with surrogates that no encoder takes
        return Rejection(400, "invalid_json", "the body is not valid JSON in UTF-8")


def _read(source: Operation, body: bytes) -> Conversation:
    """The body as a `Conversation`; an unknown field says nothing if it is null."""
    for _ in range(MAX_UNKNOWN_NULLS):
        try:
            return READERS[source](body)
        except msgspec.ValidationError as error:
            problem = decoding_problem(error)
        except Untranslatable as untranslatable:
            problem = untranslatable
        stripped = without_null(body, problem.param) if problem.is_unknown else None
        if stripped is None:
            raise problem
        body = stripped
    raise problem


def _refuse_prefill(conversation: Conversation, target: Operation) -> None:
    """An assistant's text at the end is the beginning of the answer at Anthropic, and a past message elsewhere."""
    if Operation.MESSAGES not in {conversation.source, target} or not conversation.turns:
        return
    last = conversation.turns[-1]
    if last.role is Role.ASSISTANT and any(isinstance(part, Text) for part in last.parts):
        raise refuse_part(
            conversation,
            last,
            target,
            "an assistant's text as last message in the same sense",
            "end with a user's",
        )
