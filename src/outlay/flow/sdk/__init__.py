"""Wrapped vendor clients: what leaves them is held first and settled after, in this process or by a gateway.

`transport` stands between a vendor's SDK and its HTTP client, `exchange` is one call from hold to settlement, `meter`
knows prices, budgets and the ledger, `clients` and `google` make the wrapped clients. Nothing here imports a vendor's
SDK or an HTTP client: they come with what is wrapped.
"""
