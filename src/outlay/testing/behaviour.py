"""What the mock provider is told to do with a request: one frozen record of knobs, and the ways to set them.

A request's behaviour is the server's default, then the model's entry, then the next entry of the queue, then
`x-mock-*` headers, then a directive; later ones win, knob by knob. Directives exist because a gateway may strip
headers it does not know. Must not know HTTP or a vendor's format.

Directives (all write knobs as `name=value;name=value`):

- the model name, in the body, the path or the query: `gpt-4o-mini@mock:output_tokens=12;failure=cut` (the model
  served and billed is `gpt-4o-mini`)
- `metadata.mock` (a string; OpenAI, realtime responses, batches, training), `requestMetadata.mock` (Bedrock)
- `metadata.user_id` (Anthropic), `user` or `safety_identifier` (OpenAI), `prompt` (transcriptions) if the text
  starts with `mock:`

Lines of a batch take no entry from the queue and no headers. Calls that cost nothing (lists, polls, cancellations)
take neither default nor queue: they listen to headers and to the entry of their route's name, as in
`behave_model("GET /v1/batches/{batch_id}", status=503)`. Each turn of a WebSocket is a request of its own: it takes
its entry from the queue, and failures break the turn (a cut closes the socket).
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

DIRECTIVE_MARK = "@mock:"
USER_MARK = "mock:"
HEADER_PREFIX = b"x-mock-"


class BehaviourError(ValueError):
    """A knob that does not exist or a value that does not fit it; the message names both."""


class Failure(StrEnum):
    """How the answer goes wrong. `after_chunks`/`after_bytes` say where, `bill` overrides who pays.

    Billing under `bill=auto` is given in brackets.
    """

    NONE = "none"
    REFUSE = "refuse"  # the connection is closed as soon as it is accepted [not billed, no entry]
    HANG_HEADERS = "hang_headers"  # nothing is sent, for hang_ms or until the client goes [on_client_gone]
    HANG = "hang"  # part of the body is sent, then silence [on_client_gone]
    CUT_HEADERS = "cut_headers"  # the socket is closed without a byte [none]
    CUT_IN_HEADERS = "cut_in_headers"  # closed in the middle of the response head [none]
    CUT = "cut"  # closed after part of the body [sent]
    CUT_JSON = "cut_json"  # closed in the middle of a JSON object: of the body, or of one event [sent]
    EARLY_END = "early_end"  # streams: good framing, but no finish, usage or [DONE] [sent]
    STREAM_ERROR = "stream_error"  # streams: the vendor's error event, then a clean end [sent]
    GARBAGE = "garbage"  # status 200, well framed, not JSON [full]
    TRUNCATED_JSON = "truncated_json"  # well framed, but the JSON stops half way [full]
    CUT_ON_REUSE = "cut_on_reuse"  # closed without a byte, if the connection has served before [none]
    CLOSE_AFTER = "close_after"  # a good answer that promises keep-alive, then the socket is closed [full]


class Framing(StrEnum):
    AUTO = "auto"  # content-length for JSON, chunked for streams
    CHUNKED = "chunked"
    CONTENT_LENGTH = "content_length"
    UNTIL_CLOSE = "until_close"


class UsageReport(StrEnum):
    """What the answer says about usage. Only `zero` changes what is billed: an explicit zero bills nothing."""

    NORMAL = "normal"
    OMIT = "omit"  # no usage field; no usage chunk in a stream
    NULL = "null"
    ZERO = "zero"


class Bill(StrEnum):
    """Output tokens billed for an answer that did not arrive whole; the input is billed unless it is `none`."""

    AUTO = "auto"  # as the failure says
    NONE = "none"  # nothing, not even the input
    SENT = "sent"  # the tokens of the pieces that were written to the socket
    AHEAD = "ahead"  # those and up to run_ahead_tokens more: the provider generates ahead of the wire
    FULL = "full"  # everything the answer would have had


class JobEnd(StrEnum):
    """How a job ends that nobody cancels."""

    DONE = "done"
    FAILED = "failed"  # nothing is billed
    EXPIRED = "expired"  # batches: finished lines are billed


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All knobs. Tokens are counts, `_ms` are milliseconds, bytes are bytes of the response body."""

    output_tokens: int = 80
    """What the model wants to say (reasoning included); a smaller `max_tokens` of the request truncates it."""
    reasoning_tokens: int = 0
    """Hidden part of the output, generated first."""
    input_tokens: int | None = None
    """Billed input (cached included). None: ceil(UTF-8 bytes / 4) of the text and tools, + 3 a message."""
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    """Cache-writing input tokens of every TTL."""
    cache_write_long_tokens: int = 0
    """Those of them with the long TTL: 1 h (Anthropic), 12 h (OpenAI)."""
    web_searches: int = 0
    """Searches the provider ran for this call, stated and billed (Anthropic)."""
    say: str | None = None
    """Text of the answer instead of plain words; it is cut up by output_tokens all the same."""
    tool_call: bool = False
    """Answer with a tool call if tools are given, whatever the prompt says."""
    tool_name: str | None = None
    """The tool that is called when one is; None: the first."""
    tool_arguments: str | None = None
    """Its arguments, JSON text (or plain text for a custom tool); None: an instance of its schema."""
    tool_calls: int = 1
    """Calls of the tool in one answer; they share the visible output."""
    served_model: str | None = None
    service_tier: str | None = None
    """Tier as served; None: what the request asks for, `default` (OpenAI) or `standard` (Anthropic) for `auto`."""

    audio_tokens: int | None = None
    """Part of the input that is audio, where the vendor states it. None: counted by the seconds."""
    cached_audio_tokens: int = 0
    """Part of the cached input that is audio."""
    image_tokens: int | None = None
    """Part of the input that is images, where the vendor states it. None: a flat number an image."""
    output_audio_tokens: int | None = None
    """Part of the output that is audio, if audio is asked for. None: three quarters of the visible output."""
    image_output_tokens: int | None = None
    """Output tokens of one generated image. None: by quality and size."""
    tool_prompt_tokens: int = 0
    """Input of tools that the provider ran, stated and billed apart from the prompt (Gemini)."""
    audio_ms: int | None = None
    """Length of uploaded audio. None: as a WAV header says, or one second."""
    search_units: int | None = None
    """None: one for each started 100 documents."""
    embed_usage: bool = False
    """State the usage of an embedContent call; the real Gemini API may not."""

    polls: int = 2
    """A job (background response, batch, training) is done at this GET; it runs from the GET before. 0: at once."""
    job_end: JobEnd = JobEnd.DONE
    job_lines: int | None = None
    """Lines of a batch that are finished when it expires or is cancelled. None: half of them."""
    refuse_upgrade: bool = False
    """A WebSocket upgrade is answered by 426."""

    first_byte_ms: float = 0
    chunk_ms: float = 0
    """Before each content chunk of a stream but the first, and before each part of a split JSON body."""
    tokens_per_chunk: int = 4
    chunks: int | None = None
    """Content chunks of a stream; overrides tokens_per_chunk."""

    framing: Framing = Framing.AUTO
    split_bytes: int = 0
    """> 0: the body leaves in parts of this many bytes, whatever they cut through."""
    split_seed: int | None = None
    """The parts are 1..split_bytes long, at random from this seed."""
    usage: UsageReport = UsageReport.NORMAL

    status: int = 200
    """400..599: the vendor's error for that status instead of an answer; not billed unless `bill` says so."""
    retry_after: str | None = None
    """Value of a `retry-after` header on the error."""
    failure: Failure = Failure.NONE
    after_chunks: int = 1
    """Content chunks of a stream that still go out before the failure."""
    after_bytes: int | None = None
    """Body bytes that still go out before it; overrides after_chunks. A JSON body goes out by half otherwise."""
    reset: bool = False
    """A cut is a TCP reset instead of an orderly close."""
    hang_ms: float = 0
    """A hang ends by closing the socket after this time; 0: it lasts until the client goes."""

    bill: Bill = Bill.AUTO
    on_client_gone: Bill = Bill.FULL
    """When the client goes before its answer is whole. `auto` is `full` here."""
    run_ahead_tokens: int = 16

    def __post_init__(self) -> None:
        if self.status != 200 and not 400 <= self.status <= 599:
            raise BehaviourError("status: 200, or an error 400..599")
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise BehaviourError(f"{name}: not below zero")
        if self.tool_calls < 1:
            raise BehaviourError("tool_calls: at least 1")
        if self.tokens_per_chunk < 1 or (self.chunks is not None and self.chunks < 1):
            raise BehaviourError("tokens_per_chunk, chunks: at least 1")


_COUNTS = (
    "output_tokens",
    "reasoning_tokens",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_long_tokens",
    "web_searches",
    "audio_tokens",
    "cached_audio_tokens",
    "image_tokens",
    "output_audio_tokens",
    "image_output_tokens",
    "tool_prompt_tokens",
    "audio_ms",
    "search_units",
    "polls",
    "job_lines",
    "first_byte_ms",
    "chunk_ms",
    "split_bytes",
    "after_chunks",
    "after_bytes",
    "hang_ms",
    "run_ahead_tokens",
)
_DIRECTIVE = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=\s*([^;]*?)\s*(?:;|$)")


Resolve = Callable[[str, str], Behaviour]
"""(model, directive) -> the behaviour for this request; raises `BehaviourError`."""


def changed(behaviour: Behaviour, changes: Mapping[str, object]) -> Behaviour:
    """`behaviour` with `changes` (knob -> value, or text that reads as one). Raises `BehaviourError`."""
    if not changes:
        return behaviour
    try:
        parsed = msgspec.convert(dict(changes), Behaviour, strict=False)
    except msgspec.ValidationError as error:
        raise BehaviourError(str(error)) from error
    return msgspec.structs.replace(behaviour, **{name: getattr(parsed, name) for name in changes})


def parse_directive(text: str) -> dict[str, str]:
    """`name=value;name=value` as a mapping; dashes in names read as underscores. Raises `BehaviourError`."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _DIRECTIVE.match(text, at)
        if match is None:
            raise BehaviourError(f"not a directive (name=value;name=value): {text[at : at + 80]!r}")
        found[match[1].lower().replace("-", "_")] = match[2]
        at = match.end()
    return found


def marked_directive(text: str | None) -> str:
    """The directive of a `user`-like field: what follows `mock:`, empty if it does not begin so."""
    return text.removeprefix(USER_MARK) if text is not None and text.startswith(USER_MARK) else ""


def split_model(model: str) -> tuple[str, str]:
    """The model's own name and the directive after `@mock:` (empty if there is none)."""
    name, _, directive = model.partition(DIRECTIVE_MARK)
    return name, directive
