"""What is translated and what is not: the tables behind docs/translation.md, which the tests hold against the code.

Write the page anew with `python -m outlay.wire.translate.table > docs/translation.md`.
"""

import sys
from collections.abc import Iterator, Mapping
from itertools import permutations
from types import MappingProxyType
from typing import Final, NamedTuple

from outlay.wire.intent import Operation
from outlay.wire.translate.names import TITLES

CHAT: Final = Operation.CHAT
RESPONSES: Final = Operation.RESPONSES
MESSAGES: Final = Operation.MESSAGES
GENERATE: Final = Operation.GENERATE
DIALECTS: Final = (CHAT, RESPONSES, MESSAGES, GENERATE)
PAIRS: Final = tuple(permutations(DIALECTS, 2))

_SHORT: Final[Mapping[Operation, str]] = MappingProxyType(
    {CHAT: "chat", RESPONSES: "responses", MESSAGES: "messages", GENERATE: "gemini"}
)


class Feature(NamedTuple):
    """Something a request can say."""

    name: str
    fields: Mapping[Operation, str]
    """The dialects that can say it, and the field they say it with (which a 422 names)."""
    targets: tuple[Operation, ...]
    """The dialects that can carry it."""
    note: str = ""


class Hint(NamedTuple):
    """A field that is left out without a word, since it does not change what is asked for."""

    source: Operation
    field: str
    targets: tuple[Operation, ...]
    """Towards which it is left out; it is carried to the others."""
    reason: str


def _everywhere(
    field: str, generate: str = "", *, messages: str = "", responses: str = ""
) -> dict[Operation, str]:
    return {
        CHAT: field,
        RESPONSES: responses or field,
        MESSAGES: messages or field,
        GENERATE: generate or field,
    }


_TURNS: Final = {CHAT: "messages", RESPONSES: "input", MESSAGES: "messages", GENERATE: "contents"}


def _turns(*sources: Operation) -> dict[Operation, str]:
    return {source: _TURNS[source] for source in sources}


FEATURES: Final = (
    Feature("text", _TURNS, DIALECTS),
    Feature("several turns", _TURNS, DIALECTS),
    Feature(
        "system prompt",
        {CHAT: "messages", RESPONSES: "instructions", MESSAGES: "system", GENERATE: "systemInstruction"},
        DIALECTS,
        "Chat and Responses get one text, since many chat templates take one system message only.",
    ),
    Feature(
        "system message after the first turn",
        _turns(CHAT, RESPONSES, MESSAGES),
        (CHAT, RESPONSES, MESSAGES),
        "Moving it to the front would change what it is about. Claude takes it from Opus 4.8 on, and only behind a "
        "user's turn: between an assistant's and a user's it goes behind the latter.",
    ),
    Feature("image as base64", _TURNS, DIALECTS),
    Feature("image by URL", _turns(CHAT, RESPONSES, MESSAGES), (CHAT, RESPONSES, MESSAGES)),
    Feature("PDF as base64", _TURNS, DIALECTS),
    Feature("PDF by URL", _turns(RESPONSES, MESSAGES), (RESPONSES, MESSAGES)),
    Feature("file kept at the vendor", _TURNS, (), "Its bytes are out of reach."),
    Feature("audio", _turns(CHAT, GENERATE), ()),
    Feature("function tools", _everywhere("tools"), DIALECTS),
    Feature(
        "strict function tools",
        {CHAT: "tools", RESPONSES: "tools", MESSAGES: "tools", GENERATE: "toolConfig"},
        DIALECTS,
        "Gemini: mode `VALIDATED`, which holds for all tools of the call.",
    ),
    Feature("custom tools (free text, grammar)", {CHAT: "tools", RESPONSES: "tools"}, (CHAT, RESPONSES)),
    Feature("tools that the vendor runs", _everywhere("tools", messages="tools", responses="tools"), ()),
    Feature(
        "tool choice: auto, none, required",
        _everywhere("tool_choice", "toolConfig.functionCallingConfig"),
        DIALECTS,
    ),
    Feature(
        "tool choice: one tool", _everywhere("tool_choice", "toolConfig.functionCallingConfig"), DIALECTS
    ),
    Feature(
        "tool choice: some of the tools",
        {CHAT: "tool_choice", RESPONSES: "tool_choice", GENERATE: "toolConfig.functionCallingConfig"},
        (CHAT, RESPONSES, GENERATE),
    ),
    Feature(
        "at most one tool call",
        {
            CHAT: "parallel_tool_calls",
            RESPONSES: "parallel_tool_calls",
            MESSAGES: "tool_choice.disable_parallel_tool_use",
        },
        (CHAT, RESPONSES, MESSAGES),
    ),
    Feature("tool calls and results, parallel", _TURNS, DIALECTS),
    Feature(
        "failed tool result",
        _turns(MESSAGES, GENERATE),
        DIALECTS,
        "Chat and Responses have no flag: the text begins with `Error: `, unless it says so itself.",
    ),
    Feature(
        "image in a tool result",
        _turns(RESPONSES, MESSAGES, GENERATE),
        DIALECTS,
        "Chat takes text only there: the image follows in a user message, under a line that names the call.",
    ),
    Feature(
        "output by JSON schema",
        {
            CHAT: "response_format",
            RESPONSES: "text.format",
            MESSAGES: "output_config.format",
            GENERATE: "generationConfig.responseJsonSchema",
        },
        DIALECTS,
        "From Messages and Gemini it is `strict` at OpenAI if OpenAI can promise the schema.",
    ),
    Feature(
        "output as any JSON object",
        {CHAT: "response_format", RESPONSES: "text.format", GENERATE: "generationConfig.responseMimeType"},
        (CHAT, RESPONSES, GENERATE),
    ),
    Feature(
        "output limit",
        {
            CHAT: "max_completion_tokens",
            RESPONSES: "max_output_tokens",
            MESSAGES: "max_tokens",
            GENERATE: "generationConfig.maxOutputTokens",
        },
        DIALECTS,
        "Anthropic requires one: 4096 if neither client nor gateway states it.",
    ),
    Feature(
        "temperature",
        _everywhere("temperature", "generationConfig.temperature"),
        DIALECTS,
        "Claude models after 4.6 refuse `temperature`, `top_p` and `top_k` themselves (their 400 reaches the client); "
        "1, the default of the first two, is not sent to Anthropic.",
    ),
    Feature(
        "temperature above 1",
        {CHAT: "temperature", RESPONSES: "temperature", GENERATE: "generationConfig.temperature"},
        (CHAT, RESPONSES, GENERATE),
    ),
    Feature("top_p", _everywhere("top_p", "generationConfig.topP"), DIALECTS),
    Feature(
        "top_k",
        {CHAT: "top_k", MESSAGES: "top_k", GENERATE: "generationConfig.topK"},
        (MESSAGES, GENERATE),
    ),
    Feature(
        "stop sequences",
        {CHAT: "stop", MESSAGES: "stop_sequences", GENERATE: "generationConfig.stopSequences"},
        (CHAT, MESSAGES, GENERATE),
    ),
    Feature("seed", {CHAT: "seed", GENERATE: "generationConfig.seed"}, (CHAT, GENERATE)),
    Feature(
        "presence penalty",
        {CHAT: "presence_penalty", GENERATE: "generationConfig.presencePenalty"},
        (CHAT, GENERATE),
    ),
    Feature(
        "frequency penalty",
        {CHAT: "frequency_penalty", GENERATE: "generationConfig.frequencyPenalty"},
        (CHAT, GENERATE),
    ),
    Feature(
        "reasoning effort",
        {
            CHAT: "reasoning_effort",
            RESPONSES: "reasoning.effort",
            MESSAGES: "output_config.effort",
            GENERATE: "generationConfig.thinkingConfig",
        },
        DIALECTS,
        "Anthropic: adaptive thinking with that effort. Gemini before 3: a budget.",
    ),
    Feature(
        "reasoning effort `max`",
        {CHAT: "reasoning_effort", RESPONSES: "reasoning.effort", MESSAGES: "thinking"},
        (CHAT, RESPONSES, MESSAGES),
    ),
    Feature(
        "no reasoning",
        {
            CHAT: "reasoning_effort",
            RESPONSES: "reasoning.effort",
            MESSAGES: "thinking",
            GENERATE: "generationConfig.thinkingConfig",
        },
        DIALECTS,
    ),
    Feature(
        "thinking budget in tokens",
        {MESSAGES: "thinking", GENERATE: "generationConfig.thinkingConfig"},
        DIALECTS,
        "At OpenAI the nearest effort: below 4,096 `low`, below 16,384 `medium`, else `high`.",
    ),
    Feature(
        "end user's id",
        {CHAT: "user", RESPONSES: "user", MESSAGES: "metadata.user_id"},
        DIALECTS,
        "Gemini has no field for it; see the hints.",
    ),
    Feature(
        "service tier `flex`",
        {CHAT: "service_tier", RESPONSES: "service_tier", GENERATE: "serviceTier"},
        (CHAT, RESPONSES, GENERATE),
    ),
    Feature(
        "service tier: standard only",
        _everywhere("service_tier", "serviceTier"),
        DIALECTS,
    ),
    Feature("several choices", {CHAT: "n", GENERATE: "generationConfig.candidateCount"}, ()),
    Feature(
        "log probabilities",
        {CHAT: "logprobs", RESPONSES: "top_logprobs", GENERATE: "generationConfig.responseLogprobs"},
        (),
    ),
    Feature("token bias", {CHAT: "logit_bias"}, ()),
    Feature("storing the answer", {CHAT: "store", RESPONSES: "store", GENERATE: "store"}, ()),
    Feature(
        "going on from a stored answer", {RESPONSES: "previous_response_id", GENERATE: "cachedContent"}, ()
    ),
    Feature("stored conversation", {RESPONSES: "conversation"}, ()),
    Feature("answering in the background", {RESPONSES: "background"}, ()),
    Feature(
        "beginning of the answer (prefill)",
        {MESSAGES: "messages"},
        (),
        "Only Anthropic's older models go on from an assistant's last message. For the same reason a conversation that "
        "ends with one does not go from another dialect to Messages (422).",
    ),
    Feature("name of a participant", {CHAT: "messages"}, ()),
    Feature("fast mode", {MESSAGES: "speed"}, ()),
    Feature("where the model runs", {MESSAGES: "inference_geo"}, ()),
    Feature("safety thresholds", {GENERATE: "safetySettings"}, (), "`OFF` and `BLOCK_NONE` are hints."),
    Feature("a field we do not know", _everywhere("brand_new", "brandNew"), ()),
)

_COST: Final = "changes cost and speed only"
_ALL_BUT_CHAT: Final = (RESPONSES, MESSAGES, GENERATE)
_ALL_BUT_RESPONSES: Final = (CHAT, MESSAGES, GENERATE)
_ALL_BUT_MESSAGES: Final = (CHAT, RESPONSES, GENERATE)
_ALL_BUT_GENERATE: Final = (CHAT, RESPONSES, MESSAGES)
_VENDOR: Final = (MESSAGES, GENERATE)
_OPAQUE: Final = (
    "reasoning of earlier turns can be read by the model that wrote it only; if that is the target's vendor, its "
    "seal comes back and is sent"
)

DROPPED_HINTS: Final = (
    Hint(CHAT, "prompt_cache_key", _VENDOR, _COST),
    Hint(CHAT, "prompt_cache_retention", _ALL_BUT_CHAT, _COST),
    Hint(CHAT, "prompt_cache_options", _ALL_BUT_CHAT, _COST),
    Hint(CHAT, "content parts' prompt_cache_breakpoint, cache_control", _ALL_BUT_CHAT, _COST),
    Hint(CHAT, "metadata", _VENDOR, "labels of the copy that OpenAI stores; none is stored"),
    Hint(CHAT, "user, safety_identifier", (GENERATE,), "names an end user for OpenAI's abuse reports"),
    Hint(
        CHAT,
        "safety_identifier (beside user)",
        (MESSAGES,),
        "Anthropic has one such field; `user` goes there",
    ),
    Hint(CHAT, "verbosity", _VENDOR, "a taste for longer or shorter texts, no limit"),
    Hint(CHAT, "image_url.detail", _VENDOR, "how finely an image is looked at is the target's default"),
    Hint(CHAT, "stream_options", _ALL_BUT_CHAT, "shapes the stream to the client, which the gateway writes"),
    Hint(CHAT, "name of a tool message", _ALL_BUT_CHAT, "repeats the name in the call"),
    Hint(
        CHAT, "response_format.json_schema.name, description", _VENDOR, "names the schema, does not change it"
    ),
    Hint(CHAT, "reasoning_content, reasoning of an assistant message", _ALL_BUT_CHAT, _OPAQUE),
    Hint(CHAT, "annotations of an assistant message", _ALL_BUT_CHAT, "citations of an earlier answer"),
    Hint(
        RESPONSES,
        "prompt_cache_key",
        _ALL_BUT_RESPONSES,
        _COST + "; servers of chat that are not OpenAI's may refuse it",
    ),
    Hint(RESPONSES, "prompt_cache_retention, prompt_cache_options", _ALL_BUT_RESPONSES, _COST),
    Hint(RESPONSES, "content parts' prompt_cache_breakpoint", _ALL_BUT_RESPONSES, _COST),
    Hint(RESPONSES, "metadata", _ALL_BUT_RESPONSES, "labels of the copy that OpenAI stores; none is stored"),
    Hint(RESPONSES, "client_metadata", _ALL_BUT_RESPONSES, "labels of the client's own"),
    Hint(RESPONSES, "user, safety_identifier", (GENERATE,), "names an end user for OpenAI's abuse reports"),
    Hint(
        RESPONSES,
        "safety_identifier (beside user)",
        (MESSAGES,),
        "Anthropic has one such field; `user` goes there",
    ),
    Hint(RESPONSES, "text.verbosity", _VENDOR, "a taste for longer or shorter texts, no limit"),
    Hint(RESPONSES, "input_image.detail, input_file.detail", _VENDOR, "the target's default"),
    Hint(
        RESPONSES,
        "stream_options",
        _ALL_BUT_RESPONSES,
        "shapes the stream to the client, which the gateway writes",
    ),
    Hint(
        RESPONSES,
        "include (but log probabilities)",
        _ALL_BUT_RESPONSES,
        "asks for more of hosted tools' results, of which there are none; sealed reasoning always comes",
    ),
    Hint(RESPONSES, "max_tool_calls", _ALL_BUT_RESPONSES, "counts hosted tools, of which there are none"),
    Hint(RESPONSES, "reasoning.summary", (CHAT,), "whatever reasoning is shown comes with the answer"),
    Hint(RESPONSES, "reasoning.context", _ALL_BUT_RESPONSES, "which sealed reasoning OpenAI's model rereads"),
    Hint(RESPONSES, "text.format.name, description", _VENDOR, "names the schema, does not change it"),
    Hint(RESPONSES, "reasoning items", _ALL_BUT_RESPONSES, _OPAQUE),
    Hint(RESPONSES, "id, status and phase of an item", _ALL_BUT_RESPONSES, "OpenAI's bookkeeping"),
    Hint(RESPONSES, "annotations, logprobs of output_text", _ALL_BUT_RESPONSES, "about an earlier answer"),
    Hint(MESSAGES, "cache_control, everywhere", _ALL_BUT_MESSAGES, _COST),
    Hint(MESSAGES, "diagnostics", _ALL_BUT_MESSAGES, "asks why a cache was missed"),
    Hint(
        MESSAGES,
        "context_management (edits clear_*)",
        _ALL_BUT_MESSAGES,
        "lets Anthropic forget old tool results and thinking to save input; the target gets them all",
    ),
    Hint(MESSAGES, "tools' eager_input_streaming", _ALL_BUT_MESSAGES, "changes when arguments arrive"),
    Hint(MESSAGES, "metadata.user_id", (GENERATE,), "names an end user for Anthropic's abuse reports"),
    Hint(MESSAGES, "thinking.display", (CHAT,), "whatever reasoning is shown comes with the answer"),
    Hint(MESSAGES, "thinking, redacted_thinking blocks", _ALL_BUT_MESSAGES, _OPAQUE),
    Hint(MESSAGES, "citations of a text block", _ALL_BUT_MESSAGES, "about an earlier answer"),
    Hint(
        MESSAGES,
        "effort beside thinking.budget_tokens",
        (GENERATE,),
        "Gemini takes one of the two; the budget",
    ),
    Hint(GENERATE, "safetySettings OFF, BLOCK_NONE", _ALL_BUT_GENERATE, "the target has no such filter"),
    Hint(GENERATE, "labels", _ALL_BUT_GENERATE, "names of Google's bill"),
    Hint(GENERATE, "model", _ALL_BUT_GENERATE, "stands in the path too"),
    Hint(
        GENERATE,
        "mediaResolution",
        _ALL_BUT_GENERATE,
        "how finely media is looked at is the target's default",
    ),
    Hint(
        GENERATE,
        "thinkingConfig.includeThoughts",
        (CHAT,),
        "whatever reasoning is shown comes with the answer",
    ),
    Hint(
        GENERATE,
        "functionDeclarations' response, responseJsonSchema",
        _ALL_BUT_GENERATE,
        "describe a tool's results, which come themselves",
    ),
    Hint(GENERATE, "propertyOrdering of a schema", _ALL_BUT_GENERATE, "JSON keeps the order of properties"),
    Hint(GENERATE, "thought parts, thoughtSignature", _ALL_BUT_GENERATE, _OPAQUE),
)


def cell(feature: Feature, source: Operation, target: Operation) -> str:
    """What becomes of a feature between two dialects: `yes`, `422 <field>`, or `-` if the client cannot say it."""
    field = feature.fields.get(source)
    if field is None:
        return "-"
    return "yes" if target in feature.targets else f"422 `{field}`"


_INTRO: Final = """# Translation between dialects

A client of one text-generation dialect reaches models behind the other three. A call within one dialect is not
translated: its bytes pass as they are. This page is written by `python -m outlay.wire.translate.table` from the tables
that the tests hold against the code; do not edit it by hand.

The rule: what the target cannot carry is a **422 `untranslatable`** that names the field and says what to do. Nothing
that changes the answer is left out in silence; the hints that are left out stand in the last table.

## Requests

`yes`: carried over. `422`: refused, naming the field. `-`: the client's dialect cannot say it.
"""
_ANSWERS: Final = """
## Answers, streams, errors

Between all twelve pairs, whole and streamed: text, tool calls (arguments as they come; Gemini takes and gives whole
calls), reasoning as far as the provider shows it, refusals, the reason for the end, usage, and errors (also
inside a stream).

- **Reasoning** is `reasoning_content` in chat, a reasoning item with a summary in Responses, a thinking block in
  Messages, a thought part in Gemini. What its vendor signed or encrypted (a *seal*) travels in the field that the
  client's dialect has for its own (`signature`, `encrypted_content`, `thoughtSignature`), marked with its origin, and
  goes back to that vendor with the next call. Chat has no such field; Gemini 3 then gets the word that Google
  documents for calls without a signature.
- **Ends**: `stop`, `end_turn`, `STOP`, `completed`; `length`, `max_tokens`, `MAX_TOKENS`, `incomplete`
  (`max_output_tokens`); `content_filter`, `refusal`, `SAFETY` and Google's other reasons for withholding an answer,
  `incomplete` (`content_filter`); `tool_calls`, `tool_use`. A stop sequence is a plain end outside Anthropic.
- **Usage**: cached and cache-written input is part of the input but at Anthropic, reasoning is part of the output but
  at Google; the counts are converted.
- What no translated request can ask for (uses of hosted tools, citations, generated media) is left out of an answer.
- **Ids** are derived from the provider's answer id, so the same answer always has the same ids. Where the provider
  gives no time, `created` is 0.
- A stream that breaks off or ends before its answer does, events that cannot be read, and tool calls whose parts come
  mixed end the stream with the client's error event: many clients take a stream that only stops for whole.
- Arguments that are no JSON object reach Messages and Gemini clients as `{"invalid_arguments": "<text>"}`.
"""
_HINTS: Final = """
## Hints that are left out

| client | field | left out towards | why |
| --- | --- | --- | --- |
"""


def render() -> str:
    """docs/translation.md."""
    return "".join(_lines())


def _lines() -> Iterator[str]:
    yield _INTRO + "\n"
    names = [f"{_SHORT[source]} → {_SHORT[target]}" for source, target in PAIRS]
    yield f"| feature | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}\n"
    for feature in FEATURES:
        cells = [cell(feature, source, target) for source, target in PAIRS]
        yield f"| {feature.name} | {' | '.join(cells)} |\n"
    yield "\n"
    for feature in FEATURES:
        if feature.note:
            yield f"- *{feature.name}*: {feature.note}\n"
    yield _ANSWERS
    yield _HINTS
    for hint in DROPPED_HINTS:
        targets = ", ".join(_SHORT[target] for target in hint.targets)
        yield f"| {TITLES[hint.source]} | {hint.field} | {targets} | {hint.reason} |\n"


if __name__ == "__main__":
    sys.stdout.write(render())
