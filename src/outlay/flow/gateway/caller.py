"""Who calls and what goes on to the provider: one pass over a request's headers. No I/O.

Identity comes from the key; clients may add run, agent, customer and tags where the key pins none, and repeat what it
pins, never say otherwise. Nothing that authenticates to Outlay, and no hop-by-hop field, is forwarded.
"""

import msgspec

from outlay.flow.gateway.keys import KeySpec
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.runs import MAX_CALLS, MAX_DEPTH, MAX_SECONDS, RunTerms
from outlay.flow.scope import MAX_TAGS, MAX_VALUE_LENGTH, Identity
from outlay.flow.tags import (
    NO_RULES,
    NOT_ALLOWED,
    NOT_SETTABLE,
    REQUIRED,
    TagProblem,
    TagRules,
    judge_tags,
)
from outlay.kernel.money import MoneyError, usd_to_nanos

MAX_RUN_NANOS = 10**18
"""A billion dollars: sums with it stay in 64 bits."""
MAX_SHOWN = 32
"""Allowed values that a refusal lists."""

_FORWARD, _DROP, _BEARER, _KEY, _OUTLAY_KEY, _RUN, _AGENT, _CUSTOMER, _TAGS, _SESSION, _RUN_TERM = range(11)

_ACTIONS: dict[bytes, int] = {
    **dict.fromkeys(
        (
            b"host",
            b"connection",
            b"content-length",
            b"transfer-encoding",
            b"accept-encoding",
            b"content-encoding",
            b"expect",
            b"keep-alive",
            b"te",
            b"trailer",
            b"upgrade",
            b"proxy-authorization",
            b"proxy-connection",
            b"cookie",
            b"x-amz-date",
            b"x-amz-security-token",
            b"x-amz-content-sha256",
            b"sec-websocket-key",
            b"sec-websocket-version",
            b"sec-websocket-extensions",
            b"sec-websocket-protocol",
        ),
        _DROP,
    ),
    b"authorization": _BEARER,
    b"x-api-key": _KEY,
    b"api-key": _KEY,
    b"x-goog-api-key": _KEY,
    b"x-outlay-key": _OUTLAY_KEY,
    # coding agents name their session: the run, where the client names none itself
    b"x-claude-code-session-id": _SESSION,
    b"session_id": _SESSION,
    b"session-id": _SESSION,
    b"x-outlay-run": _RUN,
    b"x-outlay-run-parent": _RUN_TERM,
    b"x-outlay-run-above": _RUN_TERM,
    b"x-outlay-run-budget-usd": _RUN_TERM,
    b"x-outlay-run-max-calls": _RUN_TERM,
    b"x-outlay-run-max-seconds": _RUN_TERM,
    b"x-outlay-agent": _AGENT,
    b"x-outlay-customer": _CUSTOMER,
    b"x-outlay-tags": _TAGS,
}


class Caller:
    """What one request's headers say."""

    __slots__ = (
        "agent",
        "customer",
        "forwarded",
        "own_auth",
        "run",
        "run_said",
        "same_auth",
        "secret",
        "tags",
        "twice",
    )

    def __init__(self, headers: list[tuple[bytes, bytes]], query_key: bytes = b"") -> None:
        self.secret = self.run = self.agent = self.customer = self.tags = session = b""
        own = outlay = b""
        credential: list[bytes] = []
        forwarded: list[bytes] = []
        self.run_said: tuple[tuple[bytes, bytes], ...] = ()
        """Headers about the run beside its name."""
        self.twice = ""
        """A header that says who calls and is given more than once, with two values."""
        actions = _ACTIONS
        for name, value in headers:
            action = actions.get(name, _FORWARD)
            if action == _FORWARD:
                if not name.startswith(b"x-outlay-"):
                    forwarded += (name, b": ", value, b"\r\n")
            elif action == _DROP:
                continue
            elif action == _BEARER:
                credential += (name, b": ", value, b"\r\n")
                if not own and value[:7].lower() == b"bearer ":
                    own = value[7:].strip()
            elif action == _KEY:
                credential += (name, b": ", value, b"\r\n")
                own = own or value.strip()
            elif action == _OUTLAY_KEY:
                # it wins over what else may be there for the provider
                value = value.strip()
                if outlay and outlay != value:
                    self.twice = "key"
                outlay = value
            elif action == _SESSION:
                session = session or value
                forwarded += (name, b": ", value, b"\r\n")
            elif action == _RUN:
                if self.run and self.run != value:
                    self.twice = "run"
                self.run = value
            elif action == _RUN_TERM:
                self.run_said += ((name, value),)
            elif action == _AGENT:
                if self.agent and self.agent != value:
                    self.twice = "agent"
                self.agent = value
            elif action == _CUSTOMER:
                if self.customer and self.customer != value:
                    self.twice = "customer"
                self.customer = value
            else:
                if self.tags and self.tags != value:
                    self.twice = "tags"
                self.tags = value
        self.forwarded = b"".join(forwarded)
        self.secret = outlay or own or query_key
        self.run = self.run or session
        self.own_auth = b"".join(credential) if outlay else b""
        """Header lines of a credential that the client brought beside its virtual key."""
        self.same_auth = b"".join(credential)
        """Header lines of whatever credential the client sent to Outlay or through it."""

    def identity(
        self, key: KeySpec, provider: str, model: str, billing: str = "", rules: TagRules = NO_RULES
    ) -> Identity | Refusal:
        """The caller's dimensions: pinned ones from the key, others from the headers."""
        judged = self._judged(key, provider, model, billing, rules)
        return judged if isinstance(judged, Refusal) else judged[0]

    def recorded(self, key: KeySpec, identity: Identity, rules: TagRules) -> str:
        """What a tag policy in shadow mode would have refused, as the charge says it; empty if nothing."""
        judged = self._judged(key, identity.provider, identity.model, identity.billing, rules)
        return "" if isinstance(judged, Refusal) else judged[1]

    def _judged(
        self, key: KeySpec, provider: str, model: str, billing: str, rules: TagRules
    ) -> tuple[Identity, str] | Refusal:
        """The dimensions, and what is only recorded of what is wrong with them."""
        if self.twice:
            return _given_twice(self.twice)
        said, recorded = {}, ""
        for dimension, value, pinned in (
            ("agent", self.agent, key.agent),
            ("customer", self.customer, key.customer),
            ("run", self.run, ""),
        ):
            text = _clean(value)
            if text is None:
                return _bad_header(dimension)
            if pinned and text and text != pinned:
                if not rules.is_shadow:
                    return _not_settable(dimension)
                recorded = recorded or f"dimension_not_settable: {dimension}"
            said[dimension] = pinned or text
        tags = self._tags()
        if isinstance(tags, Refusal):
            return tags
        identity = Identity(
            org=key.org,
            team=key.team,
            project=key.project,
            user=key.user,
            key=key.name,
            agent=said["agent"],
            workload=key.workload,
            deployment=key.deployment,
            environment=key.environment,
            customer=said["customer"],
            run=said["run"] or key.run_parent,
            model=model,
            provider=provider,
            billing=billing,
        )
        verdict = judge_tags(rules, tags, key.tags, identity)
        if verdict.refused is not None:
            return _wrong_tag(verdict.refused)
        if verdict.recorded is not None:
            recorded = recorded or f"{verdict.recorded.code}: {verdict.recorded.tag}"
        return msgspec.structs.replace(identity, tags=verdict.tags), recorded

    def run_terms(self, key: KeySpec) -> RunTerms | Refusal | None:
        """What the headers say of the run; None if nothing, and the key pins no run above it."""
        if not self.run_said:
            return RunTerms() if key.run_parent else None
        if not self.run and not key.run_parent:
            return Refusal(
                400,
                "bad_header",
                "x-outlay-run must name the run that the other x-outlay-run-* headers are about.",
                {"param": "x-outlay-run"},
            )
        said = dict(self.run_said)
        if len(said) != len(self.run_said):
            return Refusal(
                400, "bad_header", "A header about the run is given twice.", {"param": "x-outlay-run"}
            )
        parent = _clean(said.get(b"x-outlay-run-parent", b""))
        if parent is None:
            return _bad_header("run-parent")
        cap = calls = seconds = None
        if (text := said.get(b"x-outlay-run-budget-usd")) is not None:
            cap = _nanos(text)
            if cap is None:
                return _bad_number("run-budget-usd", "an amount in USD such as 2.50, 0 or more")
        if (text := said.get(b"x-outlay-run-max-calls")) is not None:
            calls = _count(text, MAX_CALLS)
            if calls is None:
                return _bad_number("run-max-calls", f"a whole number up to {MAX_CALLS}")
        if (text := said.get(b"x-outlay-run-max-seconds")) is not None:
            seconds = _count(text, MAX_SECONDS)
            if seconds is None:
                return _bad_number("run-max-seconds", f"a whole number up to {MAX_SECONDS}")
        above = _runs_above(said.get(b"x-outlay-run-above", b"[]"))
        if isinstance(above, Refusal):
            return above
        if above and parent and above[-1][0] != parent:
            return _bad_number("run-above", "the runs above, of which the last is x-outlay-run-parent")
        return RunTerms(parent, cap, calls, seconds, above)

    def _tags(self) -> dict[str, str] | Refusal:
        tags: dict[str, str] = {}
        if self.tags:
            try:
                tags = msgspec.json.decode(self.tags, type=dict[str, str])
            except msgspec.DecodeError:
                pairs = [part.partition(b"=") for part in self.tags.split(b",")]
                for raw_name, equals, raw_value in pairs:
                    clean_name, clean_value = _clean(raw_name.strip()), _clean(raw_value.strip())
                    if not equals or not clean_name or clean_value is None:
                        return _bad_header("tags")
                    tags[clean_name] = clean_value
            if len(tags) > MAX_TAGS:
                return _bad_header("tags")
            for name, value in tags.items():
                if clean_text(name) is None or clean_text(value) is None or not name:
                    return _bad_header("tags")
        return tags


def clean_text(text: str) -> str | None:
    """The same rule as for a header's value, of a text from elsewhere (a claim); None if it breaks it."""
    try:
        return _clean(text.encode("utf-8"))
    except UnicodeEncodeError:
        return None


def _clean(value: bytes) -> str | None:
    """A dimension's value, or None if it is too long or holds what no name should (controls, `*`)."""
    if len(value) > MAX_VALUE_LENGTH:
        return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() and "*" not in text else None


def _bad_header(dimension: str) -> Refusal:
    name = f"x-outlay-{dimension}"
    form = (
        f"up to {MAX_TAGS} pairs as `name=value,name=value` or a JSON object of texts"
        if dimension == "tags"
        else "printable UTF-8 without `*`"
    )
    return Refusal(
        400,
        "bad_header",
        f"{name} must be {form}, each value at most {MAX_VALUE_LENGTH} bytes.",
        {"param": name},
    )


def _given_twice(what: str) -> Refusal:
    name = f"x-outlay-{what}"
    return Refusal(400, "bad_header", f"{name} is given twice, with two values.", {"param": name})


def _not_settable(dimension: str) -> Refusal:
    name = f"x-outlay-{dimension}"
    text = f"This key is for another {dimension}: leave {name} out, or repeat the key's own value."
    return Refusal(403, "dimension_not_settable", text, {"param": name})


def _wrong_tag(problem: TagProblem) -> Refusal:
    tag, param = problem.tag[:MAX_VALUE_LENGTH], "x-outlay-tags"
    allowed = ", ".join(problem.allowed[:MAX_SHOWN])
    fields: dict[str, object] = {"param": param, "tag": tag}
    if problem.allowed:
        fields["allowed"] = problem.allowed[:MAX_SHOWN]
    match problem.code:
        case code if code == REQUIRED:
            hint = f" Allowed: {allowed}." if allowed else ""
            return Refusal(
                400, code, f"The tag {tag!r} is required: send {param}: {tag}=VALUE.{hint}", fields
            )
        case code if code == NOT_ALLOWED:
            return Refusal(400, code, f"The tag {tag!r} may not have this value. Allowed: {allowed}.", fields)
        case _:
            text = f"The tag {tag!r} is not the client's to set: leave it out, or repeat the key's own value."
            return Refusal(403, NOT_SETTABLE, text, fields)


def _bad_number(name: str, form: str) -> Refusal:
    return Refusal(400, "bad_header", f"x-outlay-{name} must be {form}.", {"param": f"x-outlay-{name}"})


class _Above(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    run: str
    budget_usd: str | None = None
    max_calls: int | None = None
    max_seconds: int | None = None


def _runs_above(text: bytes) -> tuple[tuple[str, RunTerms], ...] | Refusal:
    """The runs above as a header says them: JSON, the outermost first."""
    form = (
        f"a JSON list of at most {MAX_DEPTH} runs, the outermost first, each with `run` and, if it is limited,"
        " `budget_usd` (text), `max_calls`, `max_seconds`"
    )
    wrong = _bad_number("run-above", form)
    try:
        listed = msgspec.json.decode(text, type=list[_Above])
    except (msgspec.DecodeError, RecursionError):
        return wrong
    found = []
    for item in listed[: MAX_DEPTH + 1]:
        cap = None if item.budget_usd is None else _nanos(item.budget_usd.encode())
        numbers = (item.max_calls or 0, item.max_seconds or 0)
        if not item.run or _clean(item.run.encode()) is None or min(numbers) < 0:
            return wrong
        if item.budget_usd is not None and cap is None:
            return wrong
        calls = None if item.max_calls is None else min(item.max_calls, MAX_CALLS)
        seconds = None if item.max_seconds is None else min(item.max_seconds, MAX_SECONDS)
        found.append((item.run, RunTerms("", cap, calls, seconds)))
    return tuple(found) if len(found) <= MAX_DEPTH else wrong


def _nanos(text: bytes) -> int | None:
    try:
        nanos = usd_to_nanos(text.decode("ascii").strip())
    except (MoneyError, UnicodeDecodeError):
        return None
    return nanos if 0 <= nanos <= MAX_RUN_NANOS else None


def _count(text: bytes, highest: int) -> int | None:
    digits = text.strip()
    if not digits.isdigit() or len(digits) > 12:
        return None
    return min(int(digits), highest)


def query_key(path: bytes) -> bytes:
    """The key in a request's query (`?key=`, as Google's API takes it); empty if there is none."""
    if b"key=" not in path:
        return b""
    for part in path.partition(b"?")[2].split(b"&"):
        if part.startswith(b"key="):
            return part[4:]
    return b""
