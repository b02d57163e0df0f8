"""Translation between the four text-generation dialects, so that a client of one reaches models behind the others.

Chat completions, Responses (OpenAI), Messages (Anthropic) and generateContent (Google) are each read into and written
from one neutral record (`conversation`, `events`): four readers and four writers, no pairs. A call within one dialect
never comes here; it stays byte-identical.

What the target cannot carry is a 422 `untranslatable` that names the field. The exceptions are hints: fields that
change cost, storage or bookkeeping but not what is asked for. Each one that is dropped stands in `table.DROPPED_HINTS`
with its reason, and in docs/translation.md, e.g. Anthropic's `cache_control`. Pure: no I/O, no clock, no random; ids
are derived from the upstream's own.
"""

from outlay.wire.translate.answer import translate_answer
from outlay.wire.translate.errors import VendorError, translate_error
from outlay.wire.translate.request import Translated, translate_request
from outlay.wire.translate.stream import StreamTranslation, open_translation

__all__ = [
    "StreamTranslation",
    "Translated",
    "VendorError",
    "open_translation",
    "translate_answer",
    "translate_error",
    "translate_request",
]
