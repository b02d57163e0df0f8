"""What a request asks for, as far as money is concerned: the record between wire, lookup and flow.

A `CallIntent` is made once per request by a dialect (`wire.openai`, `wire.anthropic`) from a partial decode of
the body. It holds no prompt text.
"""

from enum import StrEnum

import msgspec


class Dialect(StrEnum):
    """Whose shapes: of requests, of answers, of errors."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GOOGLE = "google"
    COHERE = "cohere"
    BEDROCK = "bedrock"


class Operation(StrEnum):
    """What a call does. An operation belongs to one dialect, but for COUNT_TOKENS and MODELS."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    MODELS = "models"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    IMAGES = "images"
    IMAGE_EDIT = "image_edit"
    SPEECH = "speech"
    TRANSCRIPTION = "transcription"
    AUDIO_TRANSLATION = "audio_translation"
    MODERATION = "moderation"
    GENERATE = "generate_content"
    EMBED_CONTENT = "embed_content"
    RERANK = "rerank"
    CONVERSE = "converse"
    INVOKE = "invoke"
    REALTIME = "realtime"
    BATCH = "batch"
    MESSAGE_BATCH = "message_batch"
    FINE_TUNING = "fine_tuning"
    FREE = "free"
    """Forwarded, and costs nothing: files, look-ups of jobs, cancels."""
    PASSTHROUGH = "passthrough"
    """A route the operator priced by request or second."""


class Modality(StrEnum):
    """Kinds of content besides text, which have rates of their own."""

    AUDIO = "audio"
    IMAGE = "image"
    VIDEO = "video"


class Units(msgspec.Struct, frozen=True, gc=False):
    """So many of something that is not a token: `image`, `audio_ms`, `character`, `page`, `search_unit`, ..."""

    name: str
    """The price book's name; `image/high/1024x1024` is priced under that name, else under `image/high`, `image`."""
    count: int


class CacheWrite(StrEnum):
    """Dearest prompt-cache write a request can cause, in rising order of price."""

    NONE = "none"
    DEFAULT = "default"  # the provider's short TTL: 5 min (Anthropic), 30 min (OpenAI)
    HOUR = "hour"  # 1 h (Anthropic)
    HALF_DAY = "half_day"  # 12 h (OpenAI)


class HostedTool(msgspec.Struct, frozen=True, gc=False):
    """A tool that the provider runs and bills by use, e.g. web search."""

    name: str
    """The price book's name: `web_search`, `file_search`, `code_execution`."""
    max_uses: int | None
    """Most uses in this call, None if the request does not bound it."""


class CallIntent(msgspec.Struct, frozen=True, gc=False):
    """One billable (or free) call as requested. Token counts are upper bounds, never estimates."""

    dialect: Dialect
    operation: Operation
    model: str
    """As requested; the served model may differ and is what is billed."""
    input_tokens_bound: int
    """Upper bound of input tokens before the context window is applied: UTF-8 bytes of the body (>= tokens for
    byte-level BPE) plus the dialect's fixed overhead."""
    max_output_tokens: int | None
    """Output limit stated by the client per choice; None if none was stated. 0 for operations without output."""
    output_limit_field: str | None
    """Body field that stated the limit: `max_tokens` or `max_completion_tokens`. With none stated it is None where
    providers differ (OpenAI dialect), else the dialect's only name."""
    choices: int = 1
    """`n`: completions asked for."""
    stream: bool = False
    wants_stream_usage: bool = False
    """The client itself asked for the usage chunk of an OpenAI stream."""
    service_tier: str | None = None
    """As requested: `auto`, `default`, `flex`, `priority`, ... None if absent."""
    speed: str | None = None
    """Anthropic `speed` as requested (`fast`)."""
    inference_geo: str | None = None
    """Data residency as requested (`us`, `eu`), None if absent."""
    cache_write: CacheWrite = CacheWrite.NONE
    hosted_tools: tuple[HostedTool, ...] = ()
    has_referenced_input: bool = False
    """Some input is not in the body (file ids, URLs, an earlier response): lookup takes the context window."""
    input_modalities: tuple[Modality, ...] = ()
    """Besides text; `input_tokens_bound` includes a formula's bound of them, or `has_referenced_input` is set."""
    output_modalities: tuple[Modality, ...] = ()
    """Besides text."""
    units: tuple[Units, ...] = ()
    """Upper bounds of what is billed by another unit than tokens."""
    is_background: bool = False
    """The provider answers at once and works on; usage comes with a later look-up."""


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """The request cannot be metered or is malformed; it never leaves. `message` names the field and the fix."""

    status: int
    """400 (malformed) or 422 (well-formed, but not supported or not boundable)."""
    code: str
    """`invalid_json`, `missing_field`, `duplicate_field`, `unsupported_modality`, `unbounded_input`, ..."""
    message: str
    param: str | None = None


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What the provider says it served. Names follow OpenTelemetry GenAI; every class is a subset of its total.

    `input_tokens` includes cached and cache-writing tokens; `output_tokens` includes reasoning. Absent is None in
    the provider's answer and 0 here only where the provider states the total. An explicit zero stays zero.
    """

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    """All cache-writing tokens, of every TTL."""
    cache_creation_1h_input_tokens: int = 0
    cache_creation_12h_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    web_search_requests: int = 0
    file_search_requests: int = 0
    code_execution_requests: int = 0
    input_audio_tokens: int = 0
    input_image_tokens: int = 0
    input_video_tokens: int = 0
    """Of `input_tokens`, cached ones included."""
    cache_read_audio_tokens: int = 0
    cache_read_image_tokens: int = 0
    """Of `cache_read_input_tokens` and of the modality's input."""
    output_audio_tokens: int = 0
    output_image_tokens: int = 0
    """Of `output_tokens`."""
    units: tuple[Units, ...] = ()
    """What was billed by another unit than tokens."""
    model: str | None = None
    """Model as served."""
    service_tier: str | None = None
    """Tier as served (from the response, never from the request); None if the provider did not say."""
    speed: str | None = None
    inference_geo: str | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What was read from a whole response body."""

    usage: Usage | None
    """None: the provider did not say (or the body is garbage)."""
    response_id: str | None = None
    finish_reason: str | None = None
    is_error: bool = False
    """The body is the vendor's error object."""
    output_bytes: int = 0
    """UTF-8 bytes of the generated content seen; for `counted` settlement."""
