"""Raises and those who ask for them: more money for one account for a while, and paused work that goes on.

Every ask, decision and raise is a version of a stored object with who and when, so the objects are the audit trail. A
raise is in force when `grant` returns. Decides nothing about a call: the books do, with the raised limit.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from outlay.flow.asks import Ask, AskState, RefusedCall
from outlay.flow.budgets import RUN_METER, BudgetSpec
from outlay.flow.gateway.server import Gateway
from outlay.flow.gateway.snapshot import Snapshot
from outlay.flow.ledger.books import Books
from outlay.flow.ledger.port import Store
from outlay.flow.orders import Order
from outlay.flow.raises import Raise, Values
from outlay.flow.scope import UNATTRIBUTED, scope_text
from outlay.flow.windows import FOREVER, bounds
from outlay.kernel.clock import SystemClock
from outlay.kernel.errors import ConfigError, NotFound, OutlayError
from outlay.kernel.ids import IdMaker
from outlay.kernel.money import MoneyError, usd_to_nanos

ASK: Final = "ask"
RAISE: Final = "raise"
MAX_HOURS: Final = 24 * 366
MAX_RAISE_NANOS: Final = 10**17
"""A hundred million dollars: sums with it stay in 64 bits."""
MAX_TEXT: Final = 500
MAX_OPEN_ASKS: Final = 10_000
MAX_OPEN_ASKS_EACH: Final = 100
"""Of one requester: one key in a loop must not take everybody's place."""
_HOUR: Final = 3600 * 1_000_000_000


class Approvals:
    """The part of `Operations` about raises; see there for the collaborators."""

    gateway: Gateway | None
    snapshot: Snapshot
    _store: Store
    _books: Books
    _clock: SystemClock
    _orders: dict[str, Order]
    _raises: dict[str, Raise]
    _asks: dict[str, Ask]

    def load_approvals(self) -> None:
        """Read what is stored; raises that have ended are left out."""
        now = self._clock.now()
        rows = [row for row in self._store.objects() if row.body]
        self._asks = {row.name: msgspec.json.decode(row.body, type=Ask) for row in rows if row.kind == ASK}
        raises = [msgspec.json.decode(row.body, type=Raise) for row in rows if row.kind == RAISE]
        self._raises = {item.id: item for item in raises if item.until > now}

    # -- asking -----------------------------------------------------------------------------------------------

    def ask(self, said: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Ask for a raise. `said`: `reason`; `usd` (default: what the call needed), `hours`; and either `request_id` of
        a refused call or `budget` with `scope`. Raises ConfigError, NotFound.
        """
        reason = _text(said.get("reason", ""), "reason")
        hours = _hours(said.get("hours", 0))
        if sum(ask.state is AskState.OPEN for ask in self._asks.values()) >= MAX_OPEN_ASKS:
            raise OutlayError(f"{MAX_OPEN_ASKS} raises are asked for already; decide some first")
        mine = sum(ask.state is AskState.OPEN and ask.requester == actor for ask in self._asks.values())
        if mine >= MAX_OPEN_ASKS_EACH and said.get("request_id"):
            raise OutlayError(f"you ask for {mine} raises already; wait for what is decided")
        now = self._clock.now()
        base: dict[str, Any] = {"id": f"ask_{_new_id(self._clock)}", "state": AskState.OPEN, "at": now}
        base |= {"requester": actor, "reason": reason, "hours": hours}
        request_id = str(said.get("request_id") or "")
        if request_id:
            call = self._refused(request_id)
            for known in self._asks.values():
                if known.request_id == request_id and known.state is AskState.OPEN:
                    return ask_view(known)
            wanted = _usd(said["usd"], "usd") if said.get("usd") is not None else _least(call)
            if not call.budget and not call.order:
                raise ConfigError(
                    "that call was not refused for want of money; nothing can be raised", key="request_id"
                )
            identity = call.identity
            base |= {
                name: getattr(call, name)
                for name in ("code", "budget", "values", "order", "limit_nanos", "spent_nanos", "held_nanos")
            }
            base |= {"needed_nanos": call.needed_nanos, "request_id": request_id, "wanted_nanos": wanted}
            base |= {"org": identity.org, "team": identity.team, "run": identity.run}
        else:
            name, values = self._account(said)
            base |= {"budget": name, "values": values, "wanted_nanos": _usd(said.get("usd"), "usd")}
            scope = dict(values)
            base |= {part: scope.get(part, "") for part in ("org", "team", "run")}
        ask = Ask(**base)
        self._keep(ask, actor)
        return ask_view(ask)

    def asks(self, state: str | None = None) -> list[dict[str, Any]]:
        """Asks, newest first; of one state if it is given."""
        found = sorted(self._asks.values(), key=lambda ask: -ask.at)
        return [ask_view(ask) for ask in found if state is None or ask.state == state]

    def refused_call(self, request_id: str) -> dict[str, Any]:
        """What is remembered of a refused call. Raises NotFound."""
        return msgspec.to_builtins(self._refused(request_id))  # type: ignore[no-any-return]

    # -- deciding ---------------------------------------------------------------------------------------------

    def grant(self, ask_id: str, said: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Approve an ask: a raise (`usd`, `hours` over what was asked for), and paused work goes on. Raises NotFound,
        ConfigError."""
        ask = self._open_ask(ask_id)
        nanos = ask.wanted_nanos if said.get("usd") is None else _usd(said["usd"], "usd")
        hours = ask.hours if said.get("hours") is None else _hours(said["hours"])
        note = _text(said.get("note") or "approved", "note")
        made = None
        if nanos and ask.budget:
            made = self._new_raise(ask.budget, ask.values, nanos, hours, actor, note)
        now = self._clock.now()
        decided = msgspec.structs.replace(
            ask,
            state=AskState.APPROVED,
            decided_by=actor,
            decided_at=now,
            note=note,
            raise_id="" if made is None else made.id,
            granted_nanos=0 if made is None else nanos,
            until=0 if made is None else made.until,
        )
        # the raise and its decision are one write: an ask that stayed open would be granted a second time
        rows = [(ASK, decided.id, msgspec.json.encode(decided).decode())]
        if made is not None:
            rows.append((RAISE, made.id, msgspec.json.encode(made).decode()))
        self._store.put_objects(rows, now, actor)
        self._asks[decided.id] = decided
        if made is not None:
            self._raises[made.id] = made
            self._put_raises_in_force()
        if ask.order and ask.order in self._orders:
            self.lift(ask.order, actor)
        return ask_view(decided)

    def deny(self, ask_id: str, note: str, actor: str) -> dict[str, Any]:
        """Deny an ask. Raises NotFound, ConfigError."""
        ask = self._open_ask(ask_id)
        decided = msgspec.structs.replace(
            ask,
            state=AskState.DENIED,
            decided_by=actor,
            decided_at=self._clock.now(),
            note=_text(note, "note"),
        )
        self._keep(decided, actor)
        return ask_view(decided)

    def raise_budget(self, said: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Raise an account without an ask: `budget`, `scope`, `usd`, `hours`, `note`. Raises NotFound, ConfigError."""
        name, values = self._account(said)
        note = _text(said.get("note") or "raised", "note")
        nanos = _usd(said.get("usd"), "usd")
        if nanos == 0:
            raise ConfigError("must be more than 0", key="usd")
        return raise_view(self._raise(name, values, nanos, _hours(said.get("hours", 0)), actor, note))

    def end_raise(self, raise_id: str, actor: str) -> dict[str, Any]:
        """End a raise before its time; what was spent under it stays spent. Raises NotFound."""
        found = self._raises.get(raise_id)
        if found is None:
            raise NotFound(f"there is no raise {raise_id!r} in force")
        self._store.put_object(RAISE, raise_id, "", self._clock.now(), actor)
        del self._raises[raise_id]
        self._put_raises_in_force()
        return raise_view(found)

    def raises(self) -> list[dict[str, Any]]:
        """Raises in force, the one that ends first first."""
        now = self._clock.now()
        found = sorted(self._raises.values(), key=lambda item: item.until)
        return [raise_view(item) for item in found if item.until > now]

    def lift(self, name: str, actor: str) -> dict[str, Any]:
        """See `Operations.lift`."""
        raise AssertionError("operations define this")

    # -- private ----------------------------------------------------------------------------------------------

    def _refused(self, request_id: str) -> RefusedCall:
        call = None if self.gateway is None else self.gateway.refused_calls.get(request_id)
        if call is None:
            raise NotFound("no refused call of that id is remembered; ask with a budget and scope instead")
        return call

    def _open_ask(self, ask_id: str) -> Ask:
        ask = self._asks.get(ask_id)
        if ask is None:
            raise NotFound(f"nothing is asked for under {ask_id!r}; `outlay approve list` names what is")
        if ask.state is not AskState.OPEN:
            raise ConfigError(f"was {ask.state.value} by {ask.decided_by} already", key="id")
        return ask

    def _raise(  # noqa: PLR0917 - made from what was said, part by part
        self, budget: str, values: Values, nanos: int, hours: int, actor: str, note: str
    ) -> Raise:
        item = self._new_raise(budget, values, nanos, hours, actor, note)
        self._store.put_object(RAISE, item.id, msgspec.json.encode(item).decode(), item.at, actor)
        self._raises[item.id] = item
        self._put_raises_in_force()
        return item

    def _new_raise(  # noqa: PLR0917 - made from what was said, part by part
        self, budget: str, values: Values, nanos: int, hours: int, actor: str, note: str
    ) -> Raise:
        """A raise that is not in force yet. Raises NotFound, ConfigError."""
        now = self._clock.now()
        spec = self._budget(budget)
        end = bounds(spec.window, now)[1]
        until = now + hours * _HOUR if hours else end
        if until >= FOREVER and budget != RUN_METER:
            raise ConfigError(
                f"the budget {budget!r} does not reset: say for how many hours it is raised", key="hours"
            )
        return Raise(f"raise_{_new_id(self._clock)}", budget, values, nanos, until, actor, now, note)

    def _put_raises_in_force(self) -> None:
        self.snapshot = self.snapshot.with_raises(tuple(self._raises.values()))
        if self.gateway is not None:
            self.gateway.swap(self.snapshot)
        else:
            self._books.configure(self.snapshot.budgets, self.snapshot.raises)

    def _budget(self, name: str) -> BudgetSpec:
        for budget in self._books.directory.budgets:
            if budget.name == name:
                return budget
        raise NotFound(f"there is no budget {name!r}")

    def _account(self, said: Mapping[str, Any]) -> tuple[str, Values]:
        """Budget name and scope values of one account, from `budget` and `scope`."""
        name = str(said.get("budget") or "")
        if not name:
            raise ConfigError("say which budget, or which refused request", key="budget")
        spec = self._budget(name)
        scope = said.get("scope") or {}
        if not isinstance(scope, Mapping):
            raise ConfigError("needs dimensions and values", key="scope")
        given = {str(dimension): str(value) for dimension, value in scope.items()}
        values = dict(spec.scope)
        if "run" in spec.scope:
            # a run's account names its org and team, whatever the budget's scope says
            values = {"org": self.default_org, "team": UNATTRIBUTED, **values}
        if values.get("org") == "*":
            values["org"] = self.default_org
        for dimension, wanted in given.items():
            if dimension not in values:
                raise ConfigError(f"the budget {name!r} has no dimension {dimension!r}", key="scope")
            if values[dimension] != wanted and values[dimension] not in ("*", UNATTRIBUTED, self.default_org):
                raise ConfigError(f"the budget {name!r} is for {dimension}={values[dimension]}", key="scope")
            values[dimension] = wanted
        open_ones = [dimension for dimension, value in values.items() if value == "*"]
        if open_ones:
            raise ConfigError(
                f"the budget {name!r} has one account for each {', '.join(open_ones)}: say which", key="scope"
            )
        return name, tuple(sorted(values.items()))

    @property
    def default_org(self) -> str:
        """Organisation of keys that name none."""
        raise AssertionError("operations define this")

    def _keep(self, ask: Ask, actor: str) -> None:
        self._store.put_object(ASK, ask.id, msgspec.json.encode(ask).decode(), self._clock.now(), actor)
        self._asks[ask.id] = ask


def ask_view(ask: Ask) -> dict[str, Any]:
    """An ask as JSON."""
    found: dict[str, Any] = msgspec.to_builtins(ask)
    found["scope"] = scope_text(ask.values)
    return found


def raise_view(item: Raise) -> dict[str, Any]:
    """A raise as JSON."""
    found: dict[str, Any] = msgspec.to_builtins(item)
    found["scope"] = scope_text(item.values)
    return found


def _least(call: RefusedCall) -> int:
    """The raise that lets a refused call through."""
    return max(0, call.spent_nanos + call.needed_nanos - call.limit_nanos)


def _new_id(clock: SystemClock) -> str:
    return IdMaker(clock).make(clock.now()).hex()


def _text(value: object, key: str) -> str:
    text = str(value).strip()
    if not text:
        raise ConfigError("say why", key=key)
    if len(text) > MAX_TEXT or not text.isprintable():
        raise ConfigError(f"must be at most {MAX_TEXT} printable characters", key=key)
    return text


def _hours(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_HOURS:
        raise ConfigError(
            f"must be a whole number of hours from 0 (the window's end) to {MAX_HOURS}", key="hours"
        )
    return value


def _usd(value: object, key: str) -> int:
    try:
        nanos = usd_to_nanos(str(value))
    except MoneyError as error:
        raise ConfigError(f"{error}; give USD such as 12.50", key=key) from error
    if not 0 <= nanos <= MAX_RAISE_NANOS:
        raise ConfigError("must be 0 or more, and at most a hundred million", key=key)
    return nanos
