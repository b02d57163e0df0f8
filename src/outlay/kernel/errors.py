"""The few error classes. Expected outcomes are values, not exceptions; these are for what ends a task or a start.

Each knows whose fault it is, a stable `code`, the HTTP status it maps to and whether trying again can help.
"""

from enum import StrEnum


class Fault(StrEnum):
    CALLER = "caller"
    UPSTREAM = "upstream"
    STORE = "store"
    OPERATOR = "operator"


class OutlayError(Exception):
    """Base of Outlay's own errors; the message is one sentence for a person and holds no secret."""

    fault = Fault.OPERATOR
    code = "error"
    http_status = 500
    retryable = False


class ConfigError(OutlayError):
    """outlay.yaml (or an object given by CLI or API) is wrong; names where and how to mend it."""

    code = "config_invalid"
    http_status = 422

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, key: str | None = None
    ):
        place = "" if file is None else file + ("" if line is None else f":{line}") + ": "
        super().__init__(f"{place}{key + ': ' if key else ''}{message}")
        self.file, self.line, self.key, self.problem = file, line, key, message


class ReadOnlyObject(ConfigError):
    """A key, budget or price that outlay.yaml declares cannot be changed by CLI or API."""

    code = "read_only"
    http_status = 409


class NotFound(OutlayError):
    """No object of that name or id."""

    fault = Fault.CALLER
    code = "not_found"
    http_status = 404


class StoreError(OutlayError):
    """The ledger's store did not take a write or could not be read."""

    fault = Fault.STORE
    code = "ledger_down"
    http_status = 503
    retryable = True


class AccountingBroken(OutlayError):
    """Debits do not equal credits, or replay does not give the balances: the process must stop."""

    fault = Fault.STORE
    code = "accounting_broken"
