"""What the API takes and gives, as OpenAPI shows it. Amounts: `_usd` decimal text, `_nanos` whole nano-dollars.

Amounts are taken as text only: a JSON number may have been through a float. The rules of names, windows, scopes and
amounts are `app.config`'s; here stand the shapes.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from outlay.app.config import MAX_OVERLAP_S


class _Given(BaseModel):
    """What a caller sends: unknown fields are errors, as in outlay.yaml."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class KeyCreate(_Given):
    """A key to make; the dimensions are pinned."""

    name: StrictStr = Field(min_length=1)
    org: StrictStr = ""
    team: StrictStr = ""
    project: StrictStr = ""
    user: StrictStr = ""
    agent: StrictStr = ""
    workload: StrictStr = ""
    deployment: StrictStr = ""
    environment: StrictStr = ""
    customer: StrictStr = ""
    tags: dict[str, StrictStr] = {}
    allow_models: list[StrictStr] = []
    deny_models: list[StrictStr] = []
    expires: StrictStr | None = None
    """ISO date or date and time; UTC without an offset."""


class KeyRotate(_Given):
    """A new secret for a key."""

    overlap_s: int = Field(default=86_400, ge=0, le=MAX_OVERLAP_S)
    """Seconds for which old secrets go on; 0 cuts at once."""


class BudgetPut(_Given):
    """A whole budget: what is not given has its default."""

    limit_usd: StrictStr
    """Decimal USD, or `none` to meter only."""
    scope: dict[str, StrictStr] = {}
    """Dimension or `tag.NAME` -> value, `prefix*` or `*`; empty covers everything."""
    window: StrictStr = "month"
    timezone: StrictStr = "UTC"
    soft: bool = False


class QuoteAsk(_Given):
    """A request that would be sent."""

    body: StrictStr
    """The request body exactly as it would be sent, as text: the bound counts its bytes."""
    path: StrictStr = "/v1/chat/completions"
    key: StrictStr | None = None
    """Name of the key whose bearer would send it."""


class ResolveAsk(_Given):
    """What a call of unknown outcome really cost."""

    cost_usd: StrictStr
    note: StrictStr = ""


class ErrorDetail(BaseModel):
    """Why not. `key` names the field, if one is to blame."""

    code: str
    message: str
    key: str | None


class ErrorBody(BaseModel):
    """The shape of every error."""

    error: ErrorDetail


class Done(BaseModel):
    """A change that is in force."""

    kind: str
    name: str
    version: int


class KeyView(BaseModel):
    """A key without its secret."""

    name: str
    origin: str
    """`yaml` or `store`."""
    place: str | None
    """`outlay.yaml:31`."""
    version: int | None
    pins: dict[str, str]
    tags: dict[str, str]
    allow_models: list[str]
    deny_models: list[str]
    expires: str | None
    previous: list[str]
    """When earlier secrets end."""


class KeyList(BaseModel):
    keys: list[KeyView]


class KeyMade(Done):
    """The only answer that ever holds the secret."""

    secret: str


class KeyRotated(KeyMade):
    """The secret is shown this once."""

    previous: list[str]
    """When earlier secrets end, the last one last."""


class AccountView(BaseModel):
    """The balance of one budget window."""

    scope: str
    window_start: str | None
    window_end: str | None
    is_current: bool
    limit_usd: str | None
    limit_nanos: int | None
    spent_usd: str
    spent_nanos: int
    held_usd: str
    held_nanos: int
    available_usd: str | None
    available_nanos: int | None


class BudgetView(BaseModel):
    """A budget and its balances."""

    name: str
    scope: dict[str, str]
    limit_usd: str | None
    limit_nanos: int | None
    window: str
    timezone: str
    hard: bool
    origin: str
    place: str | None
    version: int | None
    accounts: list[AccountView]


class BudgetList(BaseModel):
    budgets: list[BudgetView]


class PriceView(BaseModel):
    """A price entry of the operator's own."""

    name: str
    origin: str
    place: str | None
    version: int | None
    entry: dict[str, Any]
    """As in outlay.yaml."""


class PriceList(BaseModel):
    prices: list[PriceView]


class QuoteView(BaseModel):
    """The worst case of a request, and whether it would pass now."""

    passes: bool
    bound: dict[str, Any] | None
    budgets: list[dict[str, Any]]
    refusal: dict[str, Any] | None


class SpendFigures(BaseModel):
    """Amounts and counts of a group of charges."""

    cost_usd: str
    cost_nanos: int
    unknown_usd: str
    unknown_nanos: int
    overrun_usd: str
    overrun_nanos: int
    charges: int
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int


class SpendRow(SpendFigures):
    group: dict[str, str]


class SpendReport(BaseModel):
    """Dearest group first; `total` is the sum of all rows."""

    since: str | None
    until: str | None
    by: list[str]
    rows: list[SpendRow]
    total: SpendFigures


class ChargeView(BaseModel):
    """How one hold ended."""

    id: str
    request_id: str
    attempt: int
    placed_at: str | None
    settled_at: str | None
    provider: str
    model: str
    served: str
    operation: str
    status: str
    basis: str
    reason: str | None
    http_status: int | None
    held_usd: str
    held_nanos: int
    cost_usd: str
    cost_nanos: int
    price_id: str
    identity: dict[str, Any]
    tokens: dict[str, int | None]


class ChargeList(BaseModel):
    """Newest first; `next_before` asks for older ones, null at the end."""

    charges: list[ChargeView]
    next_before: str | None = None


class RequestView(BaseModel):
    request_id: str
    charges: list[ChargeView]


class Resolved(BaseModel):
    """The correction that was posted."""

    id: str
    cost_usd: str
    cost_nanos: int
    adjustment_usd: str
    adjustment_nanos: int


class VerifyView(BaseModel):
    """The ledger recomputed from its rows; right if there are no findings."""

    is_right: bool
    charges: int
    open_holds: int
    accounts: int
    spend_usd: str
    spend_nanos: int
    unknown_usd: str
    unknown_nanos: int
    overrun_usd: str
    overrun_nanos: int
    most_over_limit_usd: str
    most_over_limit_nanos: int
    findings: list[str]


class ConfigValue(BaseModel):
    """One effective value; secrets are `***`."""

    path: str
    value: str
    origin: str


class ConfigView(BaseModel):
    file: str
    values: list[ConfigValue]
