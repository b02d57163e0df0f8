"""A provider's whole answer in the client's dialect."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from outlay.wire.intent import Operation
from outlay.wire.translate.chat_answers import read_chat_answer, write_chat_answer
from outlay.wire.translate.conversation import Answer
from outlay.wire.translate.gemini_answers import read_google_answer, write_google_answer
from outlay.wire.translate.messages_answers import read_message, write_message
from outlay.wire.translate.responses_answers import read_response, write_response

ANSWER_READERS: Final[Mapping[Operation, Callable[[bytes], Answer | None]]] = MappingProxyType(
    {
        Operation.CHAT: read_chat_answer,
        Operation.RESPONSES: read_response,
        Operation.MESSAGES: read_message,
        Operation.GENERATE: read_google_answer,
    }
)
ANSWER_WRITERS: Final[Mapping[Operation, Callable[[Answer, str], bytes]]] = MappingProxyType(
    {
        Operation.CHAT: write_chat_answer,
        Operation.RESPONSES: write_response,
        Operation.MESSAGES: write_message,
        Operation.GENERATE: write_google_answer,
    }
)


def translate_answer(client: Operation, upstream: Operation, body: bytes, *, model: str) -> bytes | None:
    """A whole successful answer in the client's shape; `model` is the name the client asked for.

    None if the body cannot be read as an answer; so also for a response of OpenAI's that failed or still runs.
    """
    try:
        answer = ANSWER_READERS[upstream](body)
        return None if answer is None else ANSWER_WRITERS[client](answer, model)
    except (ValueError, RecursionError):
        return None
