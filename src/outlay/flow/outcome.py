"""What a broken call cost: provider x point of failure -> void | full | counted | unknown. Data, no I/O.

Sources for hosted providers: failed requests (an error status before generation) are not billed by OpenAI and
Anthropic (their help centres and error documentation); what was generated before a disconnect is. A time-out of a
proxy in front of the model says nothing about the model, so it is *unknown*: booked at the held amount until
`outlay ledger resolve` or reconciliation corrects it. A self-hosted engine bills its own time: counted.
"""

from enum import StrEnum


class Billing(StrEnum):
    """How a provider bills what breaks."""

    HOSTED = "hosted"
    """Bills what was generated; a disconnect stops generation late and unobserved (OpenAI, Anthropic, ...)."""
    SELF_HOSTED = "self_hosted"
    """Cancelling stops generation at once (vLLM, SGLang, llama.cpp): what was seen is what was made."""
    BILLS_ERRORS = "bills_errors"
    """Bills accepted requests even when it answers an error (some aggregators)."""


class Failure(StrEnum):
    """Where a call broke, in the order of its life."""

    NOT_SENT = "not_sent"
    """No byte left for the provider."""
    NO_RESPONSE = "no_response"
    """Sent; no response head came (reset, time-out, killed)."""
    REJECTED = "rejected"
    """Whole error answer 4xx, 429, 500, 503, 529: the provider says it did not serve."""
    GATEWAY_ERROR = "gateway_error"
    """408, 502, 504, 52x: something between says it lost the model's answer."""
    BODY_CUT = "body_cut"
    """A non-streamed success whose body broke off: the whole answer had been generated."""
    STREAM_CUT = "stream_cut"
    """A stream that the provider's side broke off."""
    CLIENT_GONE = "client_gone"
    """The client left and the upstream was cancelled before the usage came."""
    NO_USAGE = "no_usage"
    """A complete answer that does not say its usage."""
    GARBAGE = "garbage"
    """A success whose body cannot be read."""


class Verdict(StrEnum):
    VOID = "void"
    """Nothing was billed."""
    FULL = "full"
    """Billed as a whole: the held amount."""
    COUNTED = "counted"
    """Billed for input and what was seen of the output: upper bounds of both, at most the hold."""
    UNKNOWN = "unknown"
    """Nobody here can know: the held amount, marked `outcome_unknown`."""


_V, _C, _U = Verdict.VOID, Verdict.COUNTED, Verdict.UNKNOWN

OUTCOMES: dict[Billing, dict[Failure, Verdict]] = {
    Billing.HOSTED: {
        Failure.NOT_SENT: _V,
        Failure.NO_RESPONSE: _U,
        Failure.REJECTED: _V,
        Failure.GATEWAY_ERROR: _U,
        Failure.BODY_CUT: _U,
        Failure.STREAM_CUT: _U,
        Failure.CLIENT_GONE: _U,
        Failure.NO_USAGE: _C,
        Failure.GARBAGE: _U,
    },
    Billing.SELF_HOSTED: {
        Failure.NOT_SENT: _V,
        Failure.NO_RESPONSE: _U,
        Failure.REJECTED: _V,
        Failure.GATEWAY_ERROR: _U,
        Failure.BODY_CUT: _U,
        Failure.STREAM_CUT: _C,
        Failure.CLIENT_GONE: _C,
        Failure.NO_USAGE: _C,
        Failure.GARBAGE: _U,
    },
    Billing.BILLS_ERRORS: {
        Failure.NOT_SENT: _V,
        Failure.NO_RESPONSE: _U,
        Failure.REJECTED: _U,
        Failure.GATEWAY_ERROR: _U,
        Failure.BODY_CUT: _U,
        Failure.STREAM_CUT: _U,
        Failure.CLIENT_GONE: _U,
        Failure.NO_USAGE: _C,
        Failure.GARBAGE: _U,
    },
}

_GATEWAY_STATUSES = frozenset({408, 499, 502, 504, *range(520, 528)})


def failure_of_status(status: int) -> Failure:
    """Point of failure of a whole error answer (status >= 300)."""
    return Failure.GATEWAY_ERROR if status in _GATEWAY_STATUSES else Failure.REJECTED


def verdict(billing: Billing, failure: Failure, *, has_hidden_output: bool = False) -> Verdict:
    """The table, with one rule on top: output that cannot be seen (hidden reasoning) cannot be counted."""
    found = OUTCOMES[billing][failure]
    if found is Verdict.COUNTED and has_hidden_output:
        return Verdict.UNKNOWN
    return found
