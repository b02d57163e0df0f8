"""Outlay: an AI financial firewall and AIFinOps system.

Importing the package imports no web framework, no price feed, no vendor's SDK and no event loop; the SDK's names are
loaded when they are first used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outlay.app.embed import budget, langchain_callback, litellm_callback, run, wrap
    from outlay.flow.sdk.errors import BudgetExceeded, CallRefused
    from outlay.flow.sdk.runs import Run

__version__ = "0.1.0"
__all__ = [
    "BudgetExceeded",
    "CallRefused",
    "Run",
    "budget",
    "langchain_callback",
    "litellm_callback",
    "run",
    "wrap",
]

_HOMES = {
    "budget": "outlay.app.embed",
    "langchain_callback": "outlay.app.embed",
    "litellm_callback": "outlay.app.embed",
    "run": "outlay.app.embed",
    "wrap": "outlay.app.embed",
    "BudgetExceeded": "outlay.flow.sdk.errors",
    "CallRefused": "outlay.flow.sdk.errors",
    "Run": "outlay.flow.sdk.runs",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'outlay' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)
