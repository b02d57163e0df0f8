"""The ledger: balances in memory, every hold and charge durable in a store before anything depends on it.

`port` says what a store must do, `books` decides and posts, `sqlite` and `memory` are stores, `reader` answers
questions about a SQLite ledger from another process, `audit` recomputes everything from the rows.
"""
