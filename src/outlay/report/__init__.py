"""Reports: what the ledger says to people, and when to tell them. Reads; never on the request path."""
