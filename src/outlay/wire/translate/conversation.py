"""The neutral record of one text-generation call: what every dialect is read into and written from.

Holds no vendor's spelling. What a vendor's model alone can read (signed or encrypted reasoning) is kept as a `Seal`
with its origin, so that it can travel through a client of another dialect and back to the model that made it.
"""

from base64 import b64decode, b64encode
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from outlay.wire.intent import Operation

SEAL_PREFIX: Final = "outlay:"
"""Begins a seal that is carried in another dialect's field: `outlay:<origin>:<data>`."""


SYSTEM_SEPARATOR: Final = "\n\n"
"""Between system texts that a dialect takes as one: many chat templates allow one system message only."""
ERROR_PREFIX: Final = "Error: "
"""Tells the model that a tool failed, where the dialect has no flag for it."""
DEFAULT_FORMAT_NAME: Final = "response"
"""OpenAI wants a name for an output schema; others have none."""
DEFAULT_FILE_NAME: Final = "document.pdf"


class Untranslatable(Exception):
    """Something that the target cannot carry, or a value that has no meaning. Never leaves this package."""

    def __init__(self, param: str, why: str, *, status: int = 422, is_unknown: bool = False) -> None:
        super().__init__(why)
        self.param = param
        self.why = why
        self.status = status
        self.is_unknown = is_unknown
        """`param` is a field that the reader does not know."""


class Origin(StrEnum):
    """Whose models can read a seal."""

    RESPONSES = "responses"
    MESSAGES = "messages"
    REDACTED = "redacted"  # Anthropic's `redacted_thinking`: nothing but data
    GENERATE = "generate"


_ORIGINS: Final = frozenset(origin.value for origin in Origin)


class Seal(msgspec.Struct, frozen=True):
    """Reasoning as its vendor signed or encrypted it."""

    origin: Origin
    data: str

    def wrapped(self) -> str:
        """For a field of another dialect."""
        return f"{SEAL_PREFIX}{self.origin}:{self.data}"


def unwrap_seal(text: str, native: Origin) -> Seal:
    """The seal in a dialect's own field: one of ours, else the vendor's."""
    if text.startswith(SEAL_PREFIX):
        origin, _, data = text[len(SEAL_PREFIX) :].partition(":")
        if origin in _ORIGINS:
            return Seal(Origin(origin), data)
    return Seal(native, text)


class Text(msgspec.Struct, frozen=True, tag=True):
    """Plain text."""

    text: str


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """The model's own words for why it does not answer."""

    text: str


class Image(msgspec.Struct, frozen=True, tag=True):
    """An image: base64 `data` with its type, or a `url`."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    detail: str | None = None


class File(msgspec.Struct, frozen=True, tag=True):
    """A document: base64 `data` with its type, or a `url`."""

    media_type: str = ""
    data: str = ""
    url: str = ""
    name: str | None = None


class ToolCall(msgspec.Struct, frozen=True, tag=True):
    """The model calls a tool. `arguments` is JSON text; of a custom tool it is free text."""

    id: str
    name: str
    arguments: str
    is_custom: bool = False


class ToolResult(msgspec.Struct, frozen=True, tag=True):
    """What a tool gave back."""

    call_id: str
    content: tuple[Text | Image | File, ...]
    is_error: bool = False
    is_custom: bool = False


class Reasoning(msgspec.Struct, frozen=True, tag=True):
    """The model's thinking, as far as it is shown, and its seal."""

    text: str
    seal: Seal | None = None


Part = Text | Refusal | Image | File | ToolCall | ToolResult | Reasoning


class Role(StrEnum):
    """Whose turn. Tool results are the user's."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Turn(msgspec.Struct, frozen=True):
    """One message. `at` is its index in the client's list, for error messages."""

    role: Role
    parts: tuple[Part, ...]
    at: int = 0


class Tool(msgspec.Struct, frozen=True):
    """A tool that the client runs."""

    name: str
    description: str | None = None
    schema: msgspec.Raw | None = None
    """JSON Schema of the arguments, an object."""
    strict: bool | None = None
    is_custom: bool = False
    """Takes free text (OpenAI's custom tools)."""
    grammar: tuple[str, str] | None = None
    """Of a custom tool: syntax (`lark`, `regex`) and definition."""


class Choice(StrEnum):
    """Which tools the model may call."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


class OutputFormat(msgspec.Struct, frozen=True):
    """Structured output; without a schema: any JSON object."""

    schema: msgspec.Raw | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class Thinking(msgspec.Struct, frozen=True):
    """How much the model should think before it answers."""

    effort: str | None = None
    """`none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`."""
    budget_tokens: int | None = None
    is_adaptive: bool = False
    """The model decides."""
    shows: bool | None = None
    """Whether (a summary of) the thinking comes with the answer."""


class Conversation(msgspec.Struct):
    """One request. `source` is the dialect it was read from; None is always "not stated"."""

    source: Operation
    turns: list[Turn]
    system: list[str] = []
    """System texts before the first turn; later ones are turns of Role.SYSTEM."""
    tools: list[Tool] = []
    choice: Choice | None = None
    allowed: tuple[str, ...] = ()
    """With AUTO or REQUIRED: only these tools; one name with REQUIRED is a named tool."""
    parallel: bool | None = None
    format: OutputFormat | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    thinking: Thinking | None = None
    user: str | None = None
    safety_identifier: str | None = None
    cache_key: str | None = None
    metadata: dict[str, str] | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    """`default`, `flex`, `priority`; `auto` is None."""


class Target(msgspec.Struct, frozen=True):
    """How the request is to be stated at the provider."""

    model: str
    stream: bool
    max_output_tokens: int | None

    def limit(self, conversation: Conversation) -> int | None:
        """The output limit to state."""
        return conversation.max_tokens if self.max_output_tokens is None else self.max_output_tokens


class Stop(StrEnum):
    """Why an answer ended."""

    END = "end"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    STOP_SEQUENCE = "stop_sequence"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"


class Tokens(msgspec.Struct, frozen=True):
    """What was used: `input` includes cached and cache-writing tokens, `output` includes reasoning."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0


class Answer(msgspec.Struct):
    """A whole answer."""

    id: str
    parts: list[Part]
    stop: Stop
    created: int = 0
    """Unix seconds; 0 where the vendor does not say."""
    stop_sequence: str | None = None
    tokens: Tokens | None = None


def refined_stop(stop: Stop, parts: list[Part]) -> Stop:
    """The reason with what only the content says: an end with tool calls or a refusal is not a plain end."""
    if stop is Stop.END:
        for part in parts:
            if isinstance(part, ToolCall):
                return Stop.TOOL_CALLS
            if isinstance(part, Refusal):
                return Stop.REFUSAL
    return stop


_ID_PREFIXES: Final = ("chatcmpl-", "resp_", "msg_")
_MAX_CORE_CHARS: Final = 40
"""OpenAI takes tool call ids up to 64 characters; ours add a few."""


def id_core(upstream_id: str) -> str:
    """What is common to all ids derived from an upstream's answer id: letters, digits, `_` and `-`."""
    for prefix in _ID_PREFIXES:
        if upstream_id.startswith(prefix):
            upstream_id = upstream_id[len(prefix) :]
            break
    return safe_id(upstream_id)[:_MAX_CORE_CHARS] or "0"


def safe_id(text: str) -> str:
    """An id that Anthropic accepts (`^[a-zA-Z0-9_-]+$`), the same for the same input."""
    if text.isascii() and text.replace("_", "").replace("-", "").isalnum():
        return text
    return "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "_" for char in text)


def merged_turns(turns: list[Turn]) -> list[Turn]:
    """Neighbouring turns of one role joined, for dialects whose turns alternate."""
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role is turn.role:
            merged[-1] = Turn(turn.role, merged[-1].parts + turn.parts, merged[-1].at)
        else:
            merged.append(turn)
    return merged


def joined_text(parts: tuple[Part, ...], separator: str = "\n") -> str:
    """The text of text parts."""
    return separator.join(part.text for part in parts if isinstance(part, Text))


_decode_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def arguments_object(arguments: str) -> msgspec.Raw | None:
    """Tool arguments as a JSON object (no text: an empty one), None if they are not one."""
    if not arguments.strip():
        return msgspec.Raw(b"{}")
    encoded = arguments.encode()
    try:
        _decode_object(encoded)
        if b"\n" in encoded or b"\r" in encoded:
            # written into a stream, a line end between two tokens would end the event's line
            encoded = msgspec.json.format(encoded, indent=-1)
    except (ValueError, RecursionError):
        return None
    return msgspec.Raw(encoded)


Count = Annotated[int, msgspec.Meta(ge=-(2**60), le=2**60)]
"""A number in an answer: anything beyond is no count, and clients read 64 bits."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=2**53)]
"""A time in an answer."""
ABSENT: Final = msgspec.Raw()
"""Default of a field that is kept as JSON: an optional Raw would be decoded."""


def stated_raw(raw: msgspec.Raw) -> msgspec.Raw | None:
    """A JSON value if it is there and not null."""
    return None if bytes(raw) in {b"", b"null"} else raw


def media_of_data_url(url: str, param: str) -> tuple[str, str]:
    """Media type and base64 data of a `data:` URL. Raises Untranslatable."""
    head, comma, data = url[5:].partition(",")
    media_type, _, encoding = head.partition(";")
    if not comma or not encoding.endswith("base64"):
        raise Untranslatable(param, "must be a base64 data URL (`data:<type>;base64,...`)", status=400)
    return media_type.lower(), data


def standard_base64(data: str) -> str:
    """Base64 in the standard alphabet; Google's SDK writes the URL-safe one."""
    return data.replace("-", "+").replace("_", "/") if "-" in data or "_" in data else data


def encode_text(text: str) -> str:
    """Text as base64."""
    return b64encode(text.encode()).decode()


def decode_text(data: str, param: str) -> str:
    """Base64 as text. Raises Untranslatable."""
    try:
        return b64decode(data, validate=True).decode()
    except ValueError:
        raise Untranslatable(param, "must be base64 of UTF-8 text", status=400) from None
