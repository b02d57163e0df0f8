"""Everything about a caller and a target that does not change between calls, made once and remembered.

A `Memo` is a kept connection's last caller; an `Entry` is that caller at one target: its accounts, and the parts of
the upstream request that are always the same. Reads the snapshot, opens accounts; holds nothing.
"""

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from outlay.flow.budgets import model_allowed
from outlay.flow.gateway.caller import Caller
from outlay.flow.gateway.forward import visible_accounts
from outlay.flow.gateway.guard import guard_of
from outlay.flow.gateway.keys import KeySpec, Unreadable
from outlay.flow.gateway.refusal import Refusal, stopped_by
from outlay.flow.gateway.signing import signer_of
from outlay.flow.gateway.snapshot import Aim, Aims, ClientAuth, Provider, Snapshot
from outlay.flow.gateway.upstream import Pool
from outlay.flow.ledger.directory import Chain
from outlay.flow.ledger.runs import RunProblem
from outlay.flow.orders import find_order
from outlay.flow.scope import API_EQUIVALENT, Identity
from outlay.wire.intent import Dialect, Operation

if TYPE_CHECKING:
    from outlay.flow.gateway.server import Gateway

_PATHS: dict[Operation, str] = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.COMPLETIONS: "/v1/completions",
    Operation.EMBEDDINGS: "/v1/embeddings",
    Operation.RESPONSES: "/v1/responses",
    Operation.IMAGES: "/v1/images/generations",
    Operation.IMAGE_EDIT: "/v1/images/edits",
    Operation.SPEECH: "/v1/audio/speech",
    Operation.TRANSCRIPTION: "/v1/audio/transcriptions",
    Operation.AUDIO_TRANSLATION: "/v1/audio/translations",
    Operation.MODERATION: "/v1/moderations",
    Operation.REALTIME: "/v1/realtime",
    Operation.MESSAGES: "/v1/messages",
    Operation.GENERATE: "/v1beta/models/{model}:generateContent",
}
"""Upstream paths of operations that have one whatever the client asked; others go to the path they came by."""


class Memo:
    """A kept connection's last caller: the same headers mean the same key, and mostly the same entry."""

    __slots__ = ("caller", "entries", "headers", "key", "model", "operation", "path", "snapshot")

    def __init__(
        self, snapshot: Snapshot, headers: list[tuple[bytes, bytes]], caller: Caller, key: KeySpec
    ) -> None:
        self.snapshot = snapshot
        self.headers = headers
        self.caller = caller
        self.key = key
        self.model = ""
        self.operation: Operation | None = None
        self.path = ""
        self.entries: Entries | None = None


class Entry:
    """One caller at one target."""

    __slots__ = (
        "aim",
        "chain",
        "gateway",
        "guard",
        "key",
        "label",
        "model",
        "operation",
        "path",
        "pool",
        "provider",
        "route_id",
        "sign",
        "stream_path",
        "translates",
        "upstream_head",
        "visible",
        "would_refuse",
    )

    def __init__(  # noqa: PLR0917 - made in one place only
        self, gateway: "Gateway", aim: Aim, chain: Chain, operation: Operation, path: str, memo: Memo
    ) -> None:
        self.gateway = gateway
        self.key = key = memo.key
        self.aim = aim
        self.provider = provider = aim.provider
        self.model = aim.model
        self.chain = chain
        self.operation = operation
        self.translates = aim.operation is not operation
        self.label = (provider.name, aim.model)
        self.pool = gateway.pools[provider.name]
        self.route_id = gateway.route_id(self, aim.model)
        self.path, self.stream_path = upstream_paths(self.pool, aim.operation, aim.model, path)
        self.upstream_head = upstream_head(self.pool, own_auth(provider, memo.caller))
        self.sign = signer_of(provider)
        self.visible = visible_accounts(chain, gateway.snapshot.settings, key)
        policies = gateway.snapshot.policies
        self.guard = guard_of(policies, chain.identity, gateway.limits) if policies else None
        denied = "" if self.guard is None else self.guard.denied(chain.identity, aim.model)
        self.would_refuse = f"model_not_allowed: {denied}" if denied else ""
        """What a policy in shadow mode would have refused of this caller at this model."""
        rules = gateway.snapshot.tag_rules
        if rules.specs or rules.is_shadow:
            self.would_refuse = memo.caller.recorded(key, chain.identity, rules) or self.would_refuse

    def current(self, now: int) -> Chain:
        """The chain, brought up to date if time or budgets moved on."""
        chain = self.chain
        if now >= chain.valid_until:
            self.gateway.books.directory.refresh(chain, now)
            self.visible = visible_accounts(chain, self.gateway.snapshot.settings, self.key)
        return chain


class Entries:
    """A caller's entries for one model name: one, or several targets with a strategy."""

    __slots__ = ("aims", "has_ladder", "only", "targets", "turns")

    def __init__(self, aims: Aims, targets: tuple[Entry, ...]) -> None:
        self.aims = aims
        self.targets = targets
        is_plain = len(targets) == 1 and not aims.retries and not targets[0].aim.max_concurrent
        self.only = targets[0] if is_plain else None
        """The entry, where there is nothing to choose or to try again."""
        self.has_ladder = any(target.guard is not None and target.guard.has_ladder for target in targets)
        self.turns = [0] * len(targets)
        """Of the weighted strategy: what each target has coming."""


def find_entries(  # noqa: PLR0917 - made in one place only
    gateway: "Gateway", memo: Memo, dialect: Dialect, operation: Operation, model: str, path: str
) -> Entries | Refusal:
    """The caller's entries for a model; a target that a rule denies is left out, all denied is a refusal."""
    snapshot, key, caller = memo.snapshot, memo.key, memo.caller
    aims = snapshot.aims(dialect, operation, model)
    if aims is None or not aims.targets:
        return no_such_model(model)
    barred = open_run(gateway, memo)
    if barred is not None:
        return barred
    targets, denied = [], None
    for aim in aims.targets:
        identity = allowed_identity(snapshot, key, caller, aim, model)
        if isinstance(identity, Refusal):
            denied = denied or identity
            continue
        chain = gateway.books.chain(identity)
        targets.append(Entry(gateway, aim, chain, operation, path, memo))
    if not targets:
        return denied or no_such_model(model)
    preferred = next((target.guard.providers for target in targets if target.guard is not None), ())
    if preferred:
        targets.sort(key=lambda target: _place_in(preferred, target.provider.name))
        aims = msgspec.structs.replace(aims, targets=tuple(target.aim for target in targets))
    return Entries(aims, tuple(targets))


def _place_in(preferred: tuple[str, ...], provider: str) -> int:
    return preferred.index(provider) if provider in preferred else len(preferred)


def open_run(gateway: "Gateway", memo: Memo) -> Refusal | None:
    """Open the caller's run, or take what its headers say of it; a refusal if that cannot be."""
    key = memo.key
    terms = memo.caller.run_terms(key)
    if terms is None or isinstance(terms, Refusal):
        return terms
    identity = memo.caller.identity(key, "", "", "", gateway.snapshot.tag_rules)
    if isinstance(identity, Refusal):
        return identity
    try:
        gateway.books.open_run(identity, terms, key.run_parent)
    except RunProblem as problem:
        return Refusal(400, "bad_header", f"x-outlay-run: {problem}.", {"param": "x-outlay-run"})
    return None


def allowed_identity(
    snapshot: Snapshot, key: KeySpec, caller: Caller, aim: Aim, model: str
) -> Identity | Refusal:
    """The caller's dimensions at a target, if the key may ask it for this model."""
    billing = (
        API_EQUIVALENT
        if own_auth(aim.provider, caller) and aim.provider.client_auth is ClientAuth.OWN
        else ""
    )
    identity = known_identity(snapshot, key, caller, aim.provider.name, model, billing, aim.model)
    if isinstance(identity, Refusal):
        return identity
    if not model_allowed(snapshot.rules, identity, aim.model):
        return Refusal(
            403,
            "model_not_allowed",
            f"The model {model[:100]!r} is not allowed for this key.",
            {"param": "model"},
        )
    return identity


def known_identity(  # noqa: PLR0917 - made in few places
    snapshot: Snapshot,
    key: KeySpec,
    caller: Caller,
    provider: str,
    model: str,
    billing: str = "",
    target: str = "",
    *,
    is_free: bool = False,
) -> Identity | Refusal:
    """The caller's dimensions, if no order stops what they name. `target` is the provider's name of the model.

    `is_free`: the call costs nothing. A run that was stopped may still look after its jobs, and cancel them.
    """
    identity = caller.identity(key, provider, model, billing, snapshot.tag_rules)
    if isinstance(identity, Refusal):
        return identity
    others = snapshot.other_names(provider, model, target)
    if others:
        # a model is budgeted, denied and stopped behind any name
        identity = msgspec.structs.replace(identity, model_names=others)
    if snapshot.orders:
        orders = snapshot.orders
        if is_free:
            orders = tuple(order for order in orders if "run" not in order.scope)
        order = find_order(orders, identity)
        if order is not None:
            return stopped_by(order, snapshot.settings)
    return identity


def unknown_caller(secret: bytes, token: Unreadable | None) -> Refusal:
    """Nothing says who calls."""
    if token is not None:
        return Refusal(token.status, token.code, token.message, {}, token.retry_after_s)
    if not secret:
        return Refusal(
            401,
            "key_missing",
            "No virtual key: send `Authorization: Bearer <key>` or `x-api-key: <key>`.",
        )
    return Refusal(
        401, "key_unknown", "The virtual key is not known here; create one with `outlay key create`."
    )


def ended(key: KeySpec) -> Refusal:
    """The bearer's key, secret or token opens the door no more."""
    text = {
        "key_rotated": f"This secret of the virtual key {key.name!r} was replaced by a newer one.",
        "token_expired": "The token has expired.",
    }.get(key.ends_as, f"The virtual key {key.name!r} has expired.")
    return Refusal(401, key.ends_as, text)


def no_such_model(model: str) -> Refusal:
    """No provider serves a name in the API asked for."""
    return Refusal(
        404,
        "model_not_found",
        f"No provider here serves the model {model[:100]!r} in this API; `GET /v1/models` lists the names.",
        {"param": "model"},
    )


def own_auth(provider: Provider, caller: Caller) -> bytes:
    """Header lines of the client's own credential, where the provider takes it; else empty."""
    if provider.client_auth is ClientAuth.OWN:
        return caller.own_auth
    if provider.client_auth is ClientAuth.SAME:
        return caller.same_auth
    return b""


def upstream_paths(pool: Pool, operation: Operation, model: str, path: str) -> tuple[bytes, bytes]:
    """Path of a call as the provider takes it, and of the same call as a stream (another one at Google)."""
    provider, prefix = pool.provider, pool.address.path
    whole = _PATHS.get(operation, path)
    if operation in (Operation.EMBED_CONTENT, Operation.COUNT_TOKENS) and "/models/" in path:
        whole = "/v1beta/models/{model}:" + path.rpartition(":")[2]
    elif operation in (Operation.CONVERSE, Operation.INVOKE):
        whole = "/model/{model}/" + path.rpartition("/")[2]
    name = quote(model, safe="/:" if provider.dialect is Dialect.GOOGLE else "")
    whole = whole.replace("{model}", name)
    if provider.dialect is Dialect.OPENAI:
        # an OpenAI base URL ends in its version (`.../v1`), others do not: as their SDKs take them
        whole = whole.removeprefix("/v1")
        if provider.api_version and model:
            whole = f"/deployments/{name}{whole}?api-version={quote(provider.api_version)}"
    stream = whole.replace(":generateContent", ":streamGenerateContent")
    return (prefix + whole).encode(), (prefix + stream).encode()


def upstream_head(pool: Pool, client_auth: bytes = b"") -> bytes:
    """Header lines of every call to a provider: host, credential, the operator's own."""
    provider = pool.provider
    lines = {"host": pool.address.host_header, "accept-encoding": "identity"}
    if client_auth:
        lines.update(_client_lines(client_auth))
    elif provider.api_key:
        match provider.dialect:
            case Dialect.ANTHROPIC:
                lines["x-api-key"] = provider.api_key
            case Dialect.GOOGLE:
                lines["x-goog-api-key"] = provider.api_key
            case Dialect.OPENAI if provider.api_version:
                lines["api-key"] = provider.api_key
            case _:
                lines["authorization"] = f"Bearer {provider.api_key}"
    lines.update({name.lower(): value for name, value in provider.headers.items()})
    return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("latin-1")


def _client_lines(auth: bytes) -> dict[str, str]:
    lines = {}
    for line in auth.split(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(": ")
        if name:
            lines[name] = value
    return lines
