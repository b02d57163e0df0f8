"""Google Gemini `generateContent`: a request body written from a `Conversation`."""

from typing import Final

import msgspec

from outlay.wire.intent import Operation
from outlay.wire.translate.conversation import (
    Choice,
    Conversation,
    File,
    Image,
    Origin,
    Part,
    Reasoning,
    Refusal,
    Role,
    Target,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
    arguments_object,
    encode_text,
    merged_turns,
)
from outlay.wire.translate.effort import counts_thinking, google_thinking
from outlay.wire.translate.gemini_reader import FOREIGN_SIGNATURE, JSON_TYPE
from outlay.wire.translate.names import refuse_field, refuse_part

_GENERATE: Final = Operation.GENERATE
_TIERS_OUT: Final = {"default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}


def write_generate(conversation: Conversation, target: Target) -> bytes:
    """The request body for a Gemini provider. Raises Untranslatable."""
    body: dict[str, object] = {}
    system = [text for text in conversation.system if text]
    if system:
        body["systemInstruction"] = {"parts": [{"text": text} for text in system]}
    names = _names_of_calls(conversation)
    signs = not counts_thinking(target.model)
    contents: list[dict[str, object]] = []
    for turn in merged_turns(conversation.turns):
        match turn.role:
            case Role.SYSTEM:
                raise refuse_part(
                    conversation,
                    turn,
                    _GENERATE,
                    "a system message after the first turn",
                    "put it first, or into a user message",
                )
            case Role.USER:
                parts = [_write_input(conversation, turn, part, names) for part in turn.parts]
                contents.append({"role": "user", "parts": parts or [{"text": ""}]})
            case Role.ASSISTANT:
                parts = _write_output(conversation, turn, signs=signs)
                if parts:
                    contents.append({"role": "model", "parts": parts})
    body["contents"] = contents
    _write_tools(conversation, body)
    config = _write_config(conversation, target)
    if config:
        body["generationConfig"] = config
    if conversation.service_tier is not None:
        tier = _TIERS_OUT.get(conversation.service_tier)
        if tier is None:
            raise refuse_field(conversation, "service_tier", _GENERATE, "use `auto`, `flex` or `priority`")
        body["serviceTier"] = tier
    return msgspec.json.encode(body)


def _names_of_calls(conversation: Conversation) -> dict[str, str]:
    return {
        part.id: part.name for turn in conversation.turns for part in turn.parts if isinstance(part, ToolCall)
    }


def _write_input(
    conversation: Conversation, turn: Turn, part: Part, names: dict[str, str]
) -> dict[str, object]:
    match part:
        case Text():
            return {"text": part.text}
        case Image() | File():
            return {"inlineData": _write_blob(conversation, turn, part)}
        case ToolResult():
            return {"functionResponse": _write_response(conversation, turn, part, names)}
        case _:
            raise refuse_part(
                conversation, turn, _GENERATE, "this part in a user turn", "send text, images or files"
            )


def _write_blob(conversation: Conversation, turn: Turn, part: Image | File) -> dict[str, object]:
    if not part.data:
        raise refuse_part(conversation, turn, _GENERATE, "media by its address", "send it as base64")
    return {"mimeType": part.media_type, "data": part.data}


def _write_response(
    conversation: Conversation, turn: Turn, result: ToolResult, names: dict[str, str]
) -> dict[str, object]:
    name = names.get(result.call_id)
    if name is None:
        raise refuse_part(
            conversation,
            turn,
            _GENERATE,
            f"a result of call `{result.call_id[:64]}`, which no turn before it makes",
            "send the call too",
        )
    text = "\n".join(part.text for part in result.content if isinstance(part, Text))
    written: dict[str, object] = {
        "id": result.call_id,
        "name": name,
        "response": {"error" if result.is_error else "output": text},
    }
    media = [
        {"inlineData": _write_blob(conversation, turn, part)}
        for part in result.content
        if not isinstance(part, Text)
    ]
    if media:
        written["parts"] = media
    return written


def _write_output(conversation: Conversation, turn: Turn, *, signs: bool) -> list[dict[str, object]]:
    """The model's parts. A signature of Google's goes on the part it came with.

    Gemini 3 wants one on the first call of a turn (`signs`); a call that another model made has Google's own word.
    """
    parts: list[dict[str, object]] = []
    signature: str | None = None
    has_calls = False
    for part in turn.parts:
        written: dict[str, object]
        match part:
            case Reasoning():
                if part.seal is not None and part.seal.origin is Origin.GENERATE:
                    signature = part.seal.data
                continue
            case Text() | Refusal():
                written = {"text": part.text}
            case Image() | File():
                written = {"inlineData": _write_blob(conversation, turn, part)}
            case ToolCall():
                written = {"functionCall": _write_call(conversation, turn, part)}
                if signature is None and signs and not has_calls:
                    signature = FOREIGN_SIGNATURE
                has_calls = True
            case _:
                raise refuse_part(
                    conversation, turn, _GENERATE, "tool results in an assistant turn", "send them after it"
                )
        if signature is not None:
            written["thoughtSignature"] = signature
            signature = None
        parts.append(written)
    if signature is not None:
        # it came behind the text, as Google streams it
        parts.append({"text": "", "thoughtSignature": signature})
    return parts


def _write_call(conversation: Conversation, turn: Turn, call: ToolCall) -> dict[str, object]:
    if call.is_custom:
        raise refuse_part(
            conversation, turn, _GENERATE, "calls of custom tools", "use function tools with a JSON schema"
        )
    arguments = arguments_object(call.arguments)
    if arguments is None:
        raise refuse_part(
            conversation, turn, _GENERATE, "arguments that are no JSON object", "repair the tool call"
        )
    return {"id": call.id, "name": call.name, "args": arguments}


def _write_tools(conversation: Conversation, body: dict[str, object]) -> None:
    if not conversation.tools:
        return
    declarations: list[dict[str, object]] = []
    for index, tool in enumerate(conversation.tools):
        if tool.is_custom:
            raise Untranslatable(
                f"tools[{index}]",
                "Gemini generateContent has no custom tools; use a function tool with a JSON schema",
            )
        declaration: dict[str, object] = {"name": tool.name}
        if tool.description is not None:
            declaration["description"] = tool.description
        if tool.schema is not None:
            declaration["parametersJsonSchema"] = tool.schema
        declarations.append(declaration)
    body["tools"] = [{"functionDeclarations": declarations}]
    if conversation.parallel is False and conversation.choice is not Choice.NONE:
        raise refuse_field(
            conversation, "parallel", _GENERATE, "allow parallel calls (leave it out) or use another model"
        )
    choice, allowed = conversation.choice, conversation.allowed
    calling: dict[str, object] = {}
    match choice:
        case Choice.REQUIRED:
            calling["mode"] = "ANY"
        case Choice.NONE:
            calling["mode"] = "NONE"
        case _:
            if any(tool.strict for tool in conversation.tools):
                # free to call or not, but calls follow the schema: what `strict` means
                calling["mode"] = "VALIDATED"
            elif choice is Choice.AUTO:
                calling["mode"] = "AUTO"
    if allowed:
        if choice is Choice.AUTO:
            # Google takes names with ANY and VALIDATED only
            calling["mode"] = "VALIDATED"
        calling["allowedFunctionNames"] = list(allowed)
    if calling:
        body["toolConfig"] = {"functionCallingConfig": calling}


def _write_config(conversation: Conversation, target: Target) -> dict[str, object]:
    config: dict[str, object] = {}
    for name, value in (
        ("maxOutputTokens", target.limit(conversation)),
        ("temperature", conversation.temperature),
        ("topP", conversation.top_p),
        ("topK", conversation.top_k),
        ("seed", conversation.seed),
        ("presencePenalty", conversation.presence_penalty),
        ("frequencyPenalty", conversation.frequency_penalty),
        ("stopSequences", list(conversation.stop) or None),
        ("thinkingConfig", google_thinking(conversation, target.model)),
    ):
        if value is not None:
            config[name] = value
    if conversation.format is not None:
        config["responseMimeType"] = JSON_TYPE
        if conversation.format.schema is not None:
            config["responseJsonSchema"] = conversation.format.schema
    return config


def packed_signature(wrapped: str) -> str:
    """A seal of another vendor for a Google client, whose field is bytes in base64."""
    return encode_text(wrapped)
