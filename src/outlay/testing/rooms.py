"""Which room of the mock answers which route: assembly only."""

from collections.abc import Iterator, Sequence

from outlay.testing import anthropic_room, bedrock_room, gemini_room, openai_replies, rerank_room
from outlay.testing.answer import Answer, Identity
from outlay.testing.anthropic_room import AnthropicRoom
from outlay.testing.audio_room import AudioRoom
from outlay.testing.batches_room import BatchesRoom, FilesRoom
from outlay.testing.bedrock_room import BedrockRoom
from outlay.testing.behaviour import Behaviour, Resolve, changed
from outlay.testing.call import Ask, BookCharge, Handler, Reply
from outlay.testing.gemini_room import GeminiRoom
from outlay.testing.images_room import ImagesRoom
from outlay.testing.jobs import BATCH_TIER, LineRunner
from outlay.testing.legacy_room import LegacyRoom
from outlay.testing.message_batches_room import MESSAGES_PATH, MessageBatchesRoom
from outlay.testing.openai_room import OpenAIRoom
from outlay.testing.realtime_talk import RealtimeTalk
from outlay.testing.rerank_room import RerankRoom
from outlay.testing.responses_room import ResponsesRoom
from outlay.testing.responses_talk import ResponsesTalk
from outlay.testing.routes import Route, Vendor
from outlay.testing.talk import BeginTurn, MakeTalk, Talk
from outlay.testing.training_room import TrainingRoom

GEMINI_VERSIONS = ("/v1beta", "/v1")
AZURE_DEPLOYMENT_PATHS = (
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/images/generations",
    "/images/edits",
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
)
"""What Azure serves under `/openai/deployments/{deployment}`; the model is the deployment's name."""


class Rooms:
    """All rooms of one mock provider, with what they keep."""

    def __init__(self, models: Sequence[str], book: BookCharge, line_behaviour: Resolve) -> None:
        """`line_behaviour` is for the lines of batches, which take nothing from the queue."""
        self._models = list(models)
        self._openai = OpenAIRoom()
        self._responses = ResponsesRoom(book)
        self._anthropic = AnthropicRoom()
        self._gemini = GeminiRoom()
        self._legacy = LegacyRoom()
        self._images = ImagesRoom()
        self._audio = AudioRoom()
        self._rerank = RerankRoom()
        self._bedrock = BedrockRoom(self._anthropic.messages)
        self._files = FilesRoom()
        handlers = {f"/v1{path}": handle for path, handle in self._openai_calls().items()}
        runner = LineRunner(handlers, line_behaviour)
        self._batches = BatchesRoom(self._files, runner, book)
        self._training = TrainingRoom(self._files, book)

        def message_behaviour(model: str, directive: str) -> Behaviour:
            return changed(line_behaviour(model, directive), {"service_tier": BATCH_TIER})

        runner = LineRunner({MESSAGES_PATH: self._anthropic.messages}, message_behaviour)
        self._message_batches = MessageBatchesRoom(runner, book)

    def reset(self) -> None:
        """Forget everything that earlier calls left behind."""
        self._responses.reset()
        self._files.files.clear()
        self._batches.batches.clear()
        self._training.jobs.clear()
        self._message_batches.batches.clear()

    def routes(self) -> Iterator[Route]:
        """Every route."""
        yield from self._openai_routes()
        yield from self._anthropic_routes()
        yield from self._gemini_routes()
        yield from self._rerank_routes()
        yield from self._bedrock_routes()
        yield from self._model_routes()

    def talks(self) -> dict[str, MakeTalk]:
        """What a WebSocket upgrade opens, by path."""
        talks: dict[str, MakeTalk] = {}
        for prefix in ("/v1", "/openai/v1"):
            talks[prefix + "/responses"] = self._talk_responses
            talks[prefix + "/realtime"] = RealtimeTalk
        talks["/openai/realtime"] = RealtimeTalk  # Azure names the model in `deployment`
        return talks

    def _talk_responses(self, ask: Ask, begin: BeginTurn) -> Talk:
        return ResponsesTalk(self._responses, ask, begin)

    def _openai_routes(self) -> Iterator[Route]:
        """OpenAI's own, and the same under Azure's two ways to write a path."""
        calls = self._openai_calls()
        for prefix in ("/v1", "/openai/v1"):
            for path, handle in calls.items():
                yield Route("POST", prefix + path, Vendor.OPENAI, handle)
            yield from self._stored_responses(prefix)
            yield from self._job_routes(prefix)
        for path in AZURE_DEPLOYMENT_PATHS:
            template = "/openai/deployments/{deployment}" + path
            yield Route("POST", template, Vendor.OPENAI, _with_version(calls[path]))
        yield Route("POST", "/openai/responses", Vendor.OPENAI, _with_version(self._responses.create))
        for route in self._job_routes("/openai"):
            yield route._replace(handle=_with_version(route.handle))

    def _openai_calls(self) -> dict[str, Handler]:
        return {
            "/chat/completions": self._openai.chat,
            "/embeddings": self._openai.embeddings,
            "/completions": self._legacy.complete,
            "/moderations": self._legacy.moderate,
            "/responses": self._responses.create,
            "/images/generations": self._images.generate,
            "/images/edits": self._images.edit,
            "/audio/speech": self._audio.speech,
            "/audio/transcriptions": self._audio.transcribe,
            "/audio/translations": self._audio.translate,
        }

    def _stored_responses(self, prefix: str) -> Iterator[Route]:
        responses, one = self._responses, prefix + "/responses/{response_id}"
        for method, path, handle in (
            ("GET", one, responses.retrieve),
            ("DELETE", one, responses.delete),
            ("POST", one + "/cancel", responses.cancel),
            ("GET", one + "/input_items", responses.input_items),
        ):
            yield Route(method, path, Vendor.OPENAI, handle, is_metered=False)

    def _job_routes(self, prefix: str) -> Iterator[Route]:
        """Files, batches and fine-tuning. What starts something is metered, so that the queue's knobs apply."""
        files, batches, training = self._files, self._batches, self._training
        file, batch = prefix + "/files", prefix + "/batches"
        job = prefix + "/fine_tuning/jobs"
        for path, start in ((file, files.upload), (batch, batches.create), (job, training.create)):
            yield Route("POST", path, Vendor.OPENAI, start)
        for method, path, handle in (
            ("GET", file, files.list),
            ("GET", file + "/{file_id}", files.retrieve),
            ("GET", file + "/{file_id}/content", files.content),
            ("DELETE", file + "/{file_id}", files.delete),
            ("GET", batch, batches.list),
            ("GET", batch + "/{batch_id}", batches.retrieve),
            ("POST", batch + "/{batch_id}/cancel", batches.cancel),
            ("GET", job, training.list),
            ("GET", job + "/{job_id}", training.retrieve),
            ("POST", job + "/{job_id}/cancel", training.cancel),
            ("GET", job + "/{job_id}/events", training.events),
        ):
            yield Route(method, path, Vendor.OPENAI, handle, is_metered=False)

    def _rerank_routes(self) -> Iterator[Route]:
        for path in ("/v2/rerank", "/v1/rerank"):
            yield Route("POST", path, Vendor.COHERE, self._rerank.rerank)

    def _anthropic_routes(self) -> Iterator[Route]:
        vendor = Vendor.ANTHROPIC
        yield Route("POST", "/v1/messages", vendor, self._anthropic.messages)
        yield Route("POST", "/v1/messages/count_tokens", vendor, self._anthropic.count_tokens)
        batches, path = self._message_batches, "/v1/messages/batches"
        one = path + "/{batch_id}"
        yield Route("POST", path, vendor, batches.create)
        for method, template, handle in (
            ("GET", path, batches.list),
            ("GET", one, batches.retrieve),
            ("GET", one + "/results", batches.results),
            ("POST", one + "/cancel", batches.cancel),
            ("DELETE", one, batches.delete),
        ):
            yield Route(method, template, vendor, handle, is_metered=False)

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

    def _bedrock_routes(self) -> Iterator[Route]:
        room = self._bedrock
        for action, handle in (
            ("converse", room.converse),
            ("converse-stream", room.converse_stream),
            ("invoke", room.invoke),
            ("invoke-with-response-stream", room.invoke_stream),
            ("count-tokens", room.count_tokens),
        ):
            yield Route("POST", f"/model/{{model+}}/{action}", Vendor.BEDROCK, handle)

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


def _with_version(handle: Handler) -> Handler:
    """Azure knows no such resource unless the query names an `api-version`."""

    def handle_versioned(ask: Ask) -> Reply:
        if not ask.call.parameter("api-version"):
            return openai_replies.error_answer(ask.identity, 404, "Resource not found", code="404"), None
        return handle(ask)

    return handle_versioned


def error_answer(
    vendor: Vendor, identity: Identity, status: int, message: str, *, code: str | None = None
) -> Answer:
    """The vendor's error object for `status`; `code` where the vendor has one."""
    match vendor:
        case Vendor.ANTHROPIC:
            return anthropic_room.error_answer(identity, status, message)
        case Vendor.GOOGLE:
            return gemini_room.error_answer(identity, status, message)
        case Vendor.COHERE:
            return rerank_room.error_answer(identity, status, message)
        case Vendor.BEDROCK:
            return bedrock_room.error_answer(identity, status, message)
        case _:
            return openai_replies.error_answer(identity, status, message, code=code)
