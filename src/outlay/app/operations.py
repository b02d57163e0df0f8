"""What an operator can do to a running or stopped Outlay: one set of operations for CLI, console and API.

`Operations` works on the ledger's owner: inside the gateway process, or in a CLI that opened the ledger itself
because no gateway runs. `control.ControlClient` has the same methods over a local socket. Every change is checked
against the whole configuration before it is stored, so a bad object never reaches the request path.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import msgspec

from outlay.app.approvals import Approvals
from outlay.app.config import (
    Config,
    KeyEntry,
    StoredObject,
    build_snapshot,
    check_object,
    load_config,
    rotated,
    yaml_owner,
)
from outlay.app.ordering import ORDER, checked_order, stored_orders
from outlay.app.policy_plan import PLANNED, change_row, plan_of
from outlay.flow.gateway.keys import KeySpec, Tokens
from outlay.flow.gateway.quoting import Preview, preview
from outlay.flow.gateway.refusal import Refusal
from outlay.flow.gateway.server import Gateway
from outlay.flow.gateway.snapshot import Snapshot
from outlay.flow.gateway.stops import carry_out
from outlay.flow.ledger.audit import audit
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.place import LedgerPlace
from outlay.flow.ledger.port import Store
from outlay.flow.orders import Order
from outlay.flow.scope import Identity
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import ConfigError, NotFound, OutlayError, StoreError
from outlay.kernel.ids import parse_id
from outlay.lookup.feed import Feed
from outlay.report.alerts import Alert, State

ALERT = "alert"
KINDS = ("key", "budget", "policy", "price")


class _Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `open_with` takes."""

    budget: str
    identity: Identity
    nanos: int
    at: int
    note: str


class Operating(Protocol):
    """The operations; see `Operations`."""

    def put(self, kind: str, name: str, body: Mapping[str, Any], actor: str) -> dict[str, Any]: ...
    def put_all(self, objects: Sequence[Mapping[str, Any]], actor: str) -> list[dict[str, Any]]: ...
    def delete(self, kind: str, name: str, actor: str) -> dict[str, Any]: ...
    def apply_policies(
        self,
        objects: Sequence[Mapping[str, Any]],
        actor: str,
        note: str = "",
        prune: Sequence[str] = (),
        *,
        is_plan: bool = False,
    ) -> dict[str, Any]: ...
    def objects(self) -> list[dict[str, Any]]: ...
    def rotate_key(self, name: str, secret_sha256: str, overlap_s: int, actor: str) -> dict[str, Any]: ...
    def resolve(self, charge: str, cost_nanos: int, actor: str, note: str) -> dict[str, Any]: ...
    def open_with(self, opening: Mapping[str, Any], actor: str) -> dict[str, Any]: ...
    def quote(self, path: str, body: str, key: str | None) -> dict[str, Any]: ...
    def accept(self, code: str) -> bool: ...
    def order(
        self, kind: str, scope: Mapping[str, str], reason: str, actor: str, asked_at: int = 0
    ) -> dict[str, Any]: ...
    def lift(self, name: str, actor: str) -> dict[str, Any]: ...
    def orders(self) -> list[dict[str, Any]]: ...
    def alerts(self) -> list[dict[str, Any]]: ...
    def keep_alert(self, alert: Mapping[str, Any], actor: str) -> dict[str, Any]: ...
    def acknowledge(self, alert_id: str, note: str, actor: str) -> dict[str, Any]: ...
    def ask(self, said: Mapping[str, Any], actor: str) -> dict[str, Any]: ...
    def asks(self, state: str | None = None) -> list[dict[str, Any]]: ...
    def refused_call(self, request_id: str) -> dict[str, Any]: ...
    def grant(self, ask_id: str, said: Mapping[str, Any], actor: str) -> dict[str, Any]: ...
    def deny(self, ask_id: str, note: str, actor: str) -> dict[str, Any]: ...
    def raise_budget(self, said: Mapping[str, Any], actor: str) -> dict[str, Any]: ...
    def end_raise(self, raise_id: str, actor: str) -> dict[str, Any]: ...
    def raises(self) -> list[dict[str, Any]]: ...
    def status(self) -> dict[str, Any]: ...
    def verify(self) -> dict[str, Any]: ...


class ConfigSource:
    """outlay.yaml as last read well: a file that became bad keeps the last good configuration in force."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self.path = path
        self._environ = environ
        self._stamp = self._read_stamp()
        self.config: Config = load_config(path, environ)
        self.problem: str | None = None

    def read_if_changed(self) -> Config | None:
        """The file's configuration if it changed and is good; `problem` says why a changed file is not.

        Touches nothing but the stamp and `problem`, so it may run beside the event loop.
        """
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        try:
            config = load_config(self.path, self._environ)
        except OutlayError as error:
            self.problem = str(error)
            return None
        self.problem = None
        return config

    def _read_stamp(self) -> tuple[int, int, int]:
        try:
            found = self.path.stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)


class Operations(Approvals):
    """See the module. `gateway` is None when no gateway runs (the CLI owns the ledger for a moment)."""

    def __init__(  # noqa: PLR0917 - assembled in two places only
        self,
        source: ConfigSource,
        store: Store,
        books: Books,
        clock: SystemClock,
        feed: Feed,
        ledger: LedgerPlace,
    ) -> None:
        self.source = source
        self.gateway: Gateway | None = None
        self._store = store
        self._books = books
        self._clock = clock
        self._feed = feed
        self._ledger = ledger
        self._version = 0
        self._orders = stored_orders(store)
        self._tokens: Tokens | None = None
        self.load_approvals()
        self.snapshot: Snapshot = self.rebuild()
        self.on_change: Callable[[Snapshot], None] = lambda _snapshot: None
        self.issuers: Callable[[], dict[str, str]] = dict
        """Issuers of tokens, and why their keys could not be read."""

    def rebuild(self) -> Snapshot:
        """A snapshot of the configuration in force and the store's objects. Raises ConfigError."""
        self._version += 1
        snapshot = build_snapshot(self.source.config, self._stored(), self._feed, self._version)
        self.snapshot = snapshot = snapshot.with_orders(tuple(self._orders.values())).with_raises(
            tuple(self._raises.values())
        )
        self.snapshot = snapshot = snapshot.with_tokens(self._tokens)
        return snapshot

    def take_tokens(self, tokens: Tokens | None) -> None:
        """Put a reader of tokens in force, with the issuers' keys as they are now."""
        self._tokens = tokens
        self.snapshot = self.snapshot.with_tokens(tokens)
        if self.gateway is not None:
            self.gateway.take_tokens(tokens)

    def _stored(self) -> list[StoredObject]:
        return [
            StoredObject(row.kind, row.name, row.version, row.body)
            for row in self._store.objects()
            if row.body and row.kind in KINDS
        ]

    # -- objects --------------------------------------------------------------------------------------------------

    def put(self, kind: str, name: str, body: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Make or change a key, budget or price; in force when this returns.

        Raises ConfigError (names the field), ReadOnlyObject (outlay.yaml owns the name).
        """
        if kind not in KINDS:
            raise ConfigError(f"unknown kind of object {kind!r}; use {', '.join(KINDS)}")
        encoded = msgspec.json.encode(body)
        entry = check_object(self.source.config, kind, name, encoded)
        text = msgspec.json.encode(entry).decode()
        others = [found for found in self._stored() if (found.kind, found.name) != (kind, name)]
        candidate = StoredObject(kind, name, 0, text)
        build_snapshot(self.source.config, [*others, candidate], self._feed, self._version)
        version = self._store.put_object(kind, name, text, self._clock.now(), actor)
        self._changed()
        return {"kind": kind, "name": name, "version": version}

    def put_all(self, objects: Sequence[Mapping[str, Any]], actor: str) -> list[dict[str, Any]]:
        """Make or change many (`kind`, `name`, `body`) in one step; each answer has a `version` or a `problem`.

        One that is wrong, or cannot stand beside the others, is left out and says why.
        """
        kept = {(row.kind, row.name): row for row in self._stored()}
        answers: list[dict[str, Any]] = []
        wanted: list[StoredObject] = []
        secrets = {digest.hex(): key.name for digest, key in self.snapshot.keys.items()}
        for item in objects:
            kind, name = str(item["kind"]), str(item["name"])
            answer: dict[str, Any] = {"kind": kind, "name": name}
            answers.append(answer)
            try:
                entry = check_object(self.source.config, kind, name, msgspec.json.encode(item["body"]))
                if isinstance(entry, KeyEntry):
                    for digest in (entry.secret_sha256, *(old.secret_sha256 for old in entry.previous)):
                        twin = secrets.setdefault(digest, name)
                        if twin != name:
                            raise ConfigError(f"the key {twin!r} has this secret", key="secret_sha256")
            except ConfigError as error:
                answer["problem"] = str(error)
                continue
            found = StoredObject(kind, name, 0, msgspec.json.encode(entry).decode())
            kept[kind, name] = found
            wanted.append(found)
        build_snapshot(self.source.config, list(kept.values()), self._feed, self._version)
        numbers = self._store.put_objects(
            [(row.kind, row.name, row.body) for row in wanted], self._clock.now(), actor
        )
        versions = {(row.kind, row.name): number for row, number in zip(wanted, numbers, strict=True)}
        if wanted:
            self._changed()
        for answer in answers:
            if "problem" not in answer:
                answer["version"] = versions[answer["kind"], answer["name"]]
        return answers

    def delete(self, kind: str, name: str, actor: str) -> dict[str, Any]:
        """Take a stored object away. Raises NotFound, ReadOnlyObject."""
        found = next((row for row in self._stored() if (row.kind, row.name) == (kind, name)), None)
        if found is None:
            owner = self._yaml_names().get((kind, name))
            if owner is not None:
                check_object(self.source.config, kind, name, b"{}")
            raise NotFound(f"there is no {kind} {name!r}")
        # what is left must stand without it
        others = [row for row in self._stored() if (row.kind, row.name) != (kind, name)]
        build_snapshot(self.source.config, others, self._feed, self._version)
        version = self._store.put_object(kind, name, "", self._clock.now(), actor)
        self._changed()
        return {"kind": kind, "name": name, "version": version}

    def rotate_key(self, name: str, secret_sha256: str, overlap_s: int, actor: str) -> dict[str, Any]:
        """Give a stored key a new secret; those before it open the door for `overlap_s` more, at most.

        Raises NotFound, ReadOnlyObject, ConfigError (too many secrets are in their overlap).
        """
        row = next((row for row in self._stored() if (row.kind, row.name) == ("key", name)), None)
        if row is None:
            if ("key", name) in self._yaml_names():
                check_object(self.source.config, "key", name, b"{}")
            raise NotFound(f"there is no key {name!r}")
        entry = rotated(
            msgspec.json.decode(row.body, type=KeyEntry), secret_sha256, overlap_s, self._clock.now()
        )
        done = self.put("key", name, msgspec.to_builtins(entry), actor)
        return {**done, "previous": [old.until for old in entry.previous]}

    def apply_policies(
        self,
        objects: Sequence[Mapping[str, Any]],
        actor: str,
        note: str = "",
        prune: Sequence[str] = (),
        *,
        is_plan: bool = False,
    ) -> dict[str, Any]:
        """Bring stored policies and budgets to what a file says (`kind`, `name`, `body`), all of it or nothing.

        Stored ones of the kinds in `prune` that it does not name are deleted. Answers a `policy_plan.Plan`; what
        outlay.yaml owns is named in `read_only`, and then nothing is applied. `is_plan` changes nothing. Raises
        ConfigError.
        """
        wanted = {}
        for item in objects:
            kind, name = str(item["kind"]), str(item["name"])
            if kind not in PLANNED:
                raise ConfigError(f"a file of policies holds no {kind}")
            if yaml_owner(self.source.config, kind, name) is None:
                entry = check_object(self.source.config, kind, name, msgspec.json.encode(item["body"]))
                wanted[kind, name] = msgspec.json.encode(entry).decode()
            else:
                wanted[kind, name] = ""
        stored = {(row.kind, row.name): row.body for row in self._stored()}
        plan = plan_of(wanted, stored, self._yaml_names(), prune)
        left = [StoredObject(kind, name, 0, body) for (kind, name), body in plan.stored_after(stored).items()]
        build_snapshot(self.source.config, left, self._feed, self._version)
        if plan.has_changes and not plan.read_only and not is_plan:
            now = self._clock.now()
            rows = plan.rows()
            following = {(row.kind, row.name): row.version + 1 for row in self._store.objects()}
            told = change_row(rows, following, note, now)
            self._store.put_objects([*rows, told], now, actor)
            self._changed()
            plan = msgspec.structs.replace(plan, is_applied=True)
        document: dict[str, Any] = msgspec.to_builtins(plan)
        return document

    def objects(self) -> list[dict[str, Any]]:
        """All keys, budgets and prices with their origin: `yaml` (and its place) or `store` (and its version)."""
        found: list[dict[str, Any]] = [
            {"kind": kind, "name": name, "origin": "yaml", "place": place}
            for (kind, name), place in self._yaml_names().items()
        ]
        found += [
            {
                "kind": row.kind,
                "name": row.name,
                "origin": "store",
                "version": row.version,
                "body": _without_secret(msgspec.json.decode(row.body)),
                "digest": body_digest(row.body),
            }
            for row in self._stored()
        ]
        return found

    def _yaml_names(self) -> dict[tuple[str, str], str]:
        return self.source.config.owned_names()

    def _changed(self) -> None:
        snapshot = self.rebuild()
        if self.gateway is None:
            self._books.configure(snapshot.budgets, snapshot.raises)
        self.on_change(snapshot)

    def take(self, config: Config) -> bool:
        """Put a configuration in force; one that does not fit the stored objects changes nothing but `problem`."""
        old = self.source.config
        if config.ledger_place != old.ledger_place:
            place = config.place("ledger")
            self.source.problem = f"{place}: ledger: another one needs a restart; this edit is not in force"
            return False
        self.source.config = config
        try:
            self._changed()
        except ConfigError as error:
            self.source.config = old
            self.source.problem = str(error)
            return False
        return True

    @property
    def default_org(self) -> str:
        """See `Approvals`."""
        return self.source.config.org

    # -- orders ---------------------------------------------------------------------------------------------------

    def order(
        self, kind: str, scope: Mapping[str, str], reason: str, actor: str, asked_at: int = 0
    ) -> dict[str, Any]:
        """Kill or pause a scope: in force, and what runs cut (a kill), before it is written.

        `asked_at` is when the order was given, UTC ns. Raises ConfigError; StoreError if the order is in force but
        could not be written: it ends with this process then.
        """
        order = checked_order(kind, scope, reason, actor, self._clock.now())
        answer = {"name": order.name, **self._put_order_in_force(order, asked_at)}
        self._store.put_object(ORDER, order.name, msgspec.json.encode(order).decode(), order.at, actor)
        return answer

    def take_order(self, order: Order, asked_at: int) -> None:
        """An order that a rule gave on the request path: in force at once, and kept if the store takes it."""
        self._put_order_in_force(order, asked_at)
        with contextlib.suppress(StoreError):
            self._store.put_object(
                ORDER, order.name, msgspec.json.encode(order).decode(), order.at, order.actor
            )

    def _put_order_in_force(self, order: Order, asked_at: int) -> dict[str, Any]:
        self._orders[order.name] = order
        orders = tuple(self._orders.values())
        self.snapshot = self.snapshot.with_orders(orders)
        if self.gateway is None:
            return {}
        found: dict[str, Any] = msgspec.to_builtins(carry_out(self.gateway, order, orders, asked_at))
        return found

    def lift(self, name: str, actor: str) -> dict[str, Any]:
        """Take an order away: calls of its scope pass again. Raises NotFound, StoreError."""
        if name not in self._orders:
            raise NotFound(f"there is no order {name!r}; `outlay kill list` names them")
        # written first: a stop may only end when it is certain to stay ended
        self._store.put_object(ORDER, name, "", self._clock.now(), actor)
        order = self._orders.pop(name)
        self.snapshot = self.snapshot.with_orders(tuple(self._orders.values()))
        if self.gateway is not None:
            self.gateway.take_orders(self.snapshot.orders)
            self.gateway.watching.lifted(order)
        return {"name": name}

    def orders(self) -> list[dict[str, Any]]:
        """Orders in force, newest first."""
        found = sorted(self._orders.values(), key=lambda order: -order.at)
        return [{"name": order.name, **msgspec.to_builtins(order)} for order in found]

    # -- alerts ---------------------------------------------------------------------------------------------------

    def alerts(self) -> list[dict[str, Any]]:
        """Alerts of running periods and those resolved of late, as they are kept."""
        return [
            msgspec.json.decode(row.body) for row in self._store.objects() if row.kind == ALERT and row.body
        ]

    def keep_alert(self, alert: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Keep the state of an alert. Raises ConfigError, StoreError."""
        try:
            found = msgspec.convert(alert, Alert)
        except msgspec.ValidationError as error:
            raise ConfigError(f"not an alert: {error}") from error
        body = msgspec.json.encode(found).decode()
        self._store.put_object(ALERT, found.id, body, self._clock.now(), actor)
        return {"id": found.id, "state": found.state.value}

    def acknowledge(self, alert_id: str, note: str, actor: str) -> dict[str, Any]:
        """Somebody has seen a firing alert. Raises NotFound, ConfigError."""
        body = next((alert for alert in self.alerts() if alert["id"] == alert_id), None)
        if body is None:
            raise NotFound(f"there is no alert {alert_id!r}; `outlay alert list` names them")
        alert = msgspec.convert(body, Alert)
        if alert.state is not State.FIRING:
            raise ConfigError(f"is {alert.state.value} already", key="id")
        now = self._clock.now()
        seen = msgspec.structs.replace(
            alert, state=State.ACKNOWLEDGED, changed_at=now, actor=actor, note=note
        )
        return self.keep_alert(msgspec.to_builtins(seen), actor)

    # -- ledger ---------------------------------------------------------------------------------------------------

    def resolve(self, charge: str, cost_nanos: int, actor: str, note: str) -> dict[str, Any]:
        """Correct a charge whose outcome was unknown. Raises NotFound, OutlayError."""
        charge_id = parse_id(charge)
        if charge_id is None:
            raise ConfigError(f"{charge!r} is not a request or attempt id (req_ and 32 hexadecimal digits)")
        if cost_nanos < 0:
            raise ConfigError("the cost may not be negative", key="cost")
        delta = self._books.resolve(charge_id, cost_nanos, actor, note)
        return {"id": charge, "cost_nanos": cost_nanos, "adjustment_nanos": delta}

    def open_with(self, opening: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Bring a budget up to what another gateway spent; see `Books.open_with`.

        `opening` has `budget`, `identity` (dimension -> value), `nanos`, `at` (UTC ns) and `note`. Raises NotFound,
        ConfigError, OutlayError.
        """
        try:
            asked = msgspec.convert(opening, _Opening)
        except msgspec.ValidationError as error:
            raise ConfigError(f"not an opening: {error}") from error
        if asked.nanos < 0:
            raise ConfigError("what was spent may not be negative", key="nanos")
        posted = self._books.open_with(
            asked.budget, asked.identity, asked.nanos, asked.at, actor=actor, note=asked.note
        )
        return {"budget": asked.budget, "posted_nanos": posted}

    def verify(self) -> dict[str, Any]:
        """Recompute the ledger from its rows; `findings` is empty when the books are right."""
        self._books.flush()
        found: dict[str, Any] = msgspec.to_builtins(audit(self._ledger))
        return found

    def quote(self, path: str, body: str, key: str | None) -> dict[str, Any]:
        """What a request would be held at, and whether it may pass now. Holds nothing, and counts in no rate."""
        now, gateway = self._clock.now(), self.gateway
        limits = None if gateway is None else gateway.limits
        found: Preview | Refusal | None = None if gateway is None else gateway.blocked
        if found is None:
            found = preview(self.snapshot, self._books, now, self._key(key), path, body.encode(), limits)
        if isinstance(found, Refusal):
            return {"passes": False, "refusal": msgspec.to_builtins(found)}
        result: dict[str, Any] = msgspec.to_builtins(found)
        return result

    def _key(self, name: str | None) -> KeySpec:
        if name is None:
            return KeySpec("", "", org=self.source.config.org)
        spec = self.snapshot.named.get(name)
        if spec is None:
            raise NotFound(f"there is no key {name!r}")
        return spec

    # -- state ----------------------------------------------------------------------------------------------------

    def accept(self, code: str) -> bool:
        """Accept what blocks spending (`clock_jumped`, `ledger_restored`, ...); tells whether it did block."""
        return self.gateway.accept(code) if self.gateway is not None else False

    def status(self) -> dict[str, Any]:
        """Counters, gauges, and what a doctor would look at."""
        state: dict[str, Any] = {
            "is_running": self.gateway is not None,
            "config": str(self.source.path),
            "config_problem": self.source.problem,
            "ledger": str(self._ledger),
            "was_clean": self._books.was_clean,
            "recovered_holds": self._books.recovered,
            "host_crashed": self._books.host_crashed,
            "keys": len(self.snapshot.named),
            "budgets": len(self.snapshot.budgets),
            "policies": len(self.snapshot.policies),
            "orders": len(self._orders),
            "raises": len(self.raises()),
            "asks_open": len(self.asks("open")),
            "alerts_firing": sum(alert["state"] == "firing" for alert in self.alerts()),
            "providers": list(self.snapshot.providers),
            "price_feed": self._feed.name,
            "issuers": self.issuers(),
        }
        if self.gateway is not None:
            state["metrics"] = msgspec.to_builtins(self.gateway.view())
        return state


def body_digest(body: str) -> str:
    """Digest of a stored body: tells whether two objects are equal without showing a key's secret or its hash."""
    return blake2b(body.encode(), digest_size=16).hexdigest()


def _without_secret(body: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in body.items() if name not in ("secret", "secret_sha256")}
    if "previous" in shown:
        shown["previous"] = [{"until": old["until"]} for old in shown["previous"]]
    return shown
