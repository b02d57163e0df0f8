"""Tokens (JWT, OIDC) as identity: key sets, verification, claims, and the keeper that refreshes keys in the background.

Imported only where outlay.yaml declares issuers: it needs the `oidc` extra.
"""

from outlay.app.identity.keeper import Keeper

__all__ = ["Keeper"]
