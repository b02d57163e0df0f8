"""Which room of the mock answers which route: assembly only."""

from collections.abc import Iterator, Sequence

from outlay.testing import anthropic_room, gemini_room, openai_replies
from outlay.testing.answer import Answer, Identity
from outlay.testing.anthropic_room import AnthropicRoom
from outlay.testing.call import Ask, BookCharge, Handler, Reply
from outlay.testing.gemini_room import GeminiRoom
from outlay.testing.openai_room import OpenAIRoom
from outlay.testing.responses_room import ResponsesRoom
from outlay.testing.routes import Route, Vendor

GEMINI_VERSIONS = ("/v1beta", "/v1")


class Rooms:
    """All rooms of one mock provider, with what they keep."""

    def __init__(self, models: Sequence[str], book: BookCharge) -> None:
        self._models = list(models)
        self._openai = OpenAIRoom()
        self._responses = ResponsesRoom(book)
        self._anthropic = AnthropicRoom()
        self._gemini = GeminiRoom()

    def reset(self) -> None:
        """Forget everything that earlier calls left behind."""
        self._responses.reset()

    def routes(self) -> Iterator[Route]:
        """Every route."""
        yield from self._openai_routes()
        yield from self._anthropic_routes()
        yield from self._gemini_routes()
        yield from self._model_routes()

    def _openai_routes(self) -> Iterator[Route]:
        responses = self._responses
        vendor = Vendor.OPENAI
        yield Route("POST", "/v1/chat/completions", vendor, self._openai.chat)
        yield Route("POST", "/v1/embeddings", vendor, self._openai.embeddings)
        yield Route("POST", "/v1/responses", vendor, responses.create)
        one = "/v1/responses/{response_id}"
        yield Route("GET", one, vendor, responses.retrieve, is_metered=False)
        yield Route("DELETE", one, vendor, responses.delete, is_metered=False)
        yield Route("POST", one + "/cancel", vendor, responses.cancel, is_metered=False)
        yield Route("GET", one + "/input_items", vendor, responses.input_items, is_metered=False)

    def _anthropic_routes(self) -> Iterator[Route]:
        vendor = Vendor.ANTHROPIC
        yield Route("POST", "/v1/messages", vendor, self._anthropic.messages)
        yield Route("POST", "/v1/messages/count_tokens", vendor, self._anthropic.count_tokens)

    def _gemini_routes(self) -> Iterator[Route]:
        room = self._gemini
        actions: dict[str, Handler] = {
            "generateContent": room.generate,
            "streamGenerateContent": room.stream_generate,
            "embedContent": room.embed,
            "batchEmbedContents": room.batch_embed,
            "countTokens": room.count_tokens,
        }
        for version in GEMINI_VERSIONS:
            for action, handle in actions.items():
                yield Route("POST", f"{version}/models/{{model}}:{action}", Vendor.GOOGLE, handle)

    def _model_routes(self) -> Iterator[Route]:
        yield Route("GET", "/v1/models", Vendor.OPENAI, self._list_models, is_metered=False)
        yield Route("GET", "/v1/models/{model+}", Vendor.OPENAI, self._list_models, is_metered=False)
        yield Route("GET", "/v1beta/models", Vendor.GOOGLE, self._list_gemini_models, is_metered=False)
        yield Route(
            "GET", "/v1beta/models/{model+}", Vendor.GOOGLE, self._list_gemini_models, is_metered=False
        )

    def _list_models(self, ask: Ask) -> Reply:
        one = ask.captures.get("model")
        if ask.call.header(b"anthropic-version") is not None:
            return anthropic_room.models_answer(ask.identity, self._models, one), None
        return openai_replies.models_answer(ask.identity, self._models, one), None

    def _list_gemini_models(self, ask: Ask) -> Reply:
        return gemini_room.models_answer(ask.identity, self._models, ask.captures.get("model")), None


def error_answer(
    vendor: Vendor, identity: Identity, status: int, message: str, *, code: str | None = None
) -> Answer:
    """The vendor's error object for `status`; `code` where the vendor has one."""
    match vendor:
        case Vendor.ANTHROPIC:
            return anthropic_room.error_answer(identity, status, message)
        case Vendor.GOOGLE:
            return gemini_room.error_answer(identity, status, message)
        case _:
            return openai_replies.error_answer(identity, status, message, code=code)
