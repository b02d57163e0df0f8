"""The ledger: balances in memory, every hold and charge durable in a store before anything depends on it.

`port` says what a store must do, `books` decides and posts; `sqlite`, `postgres` and `memory` are stores. In any other
process `rows` reads what a `place` names: on it `reader` (with the rooms beside it) answers questions, `rollup` keeps
sums, `audit` recomputes everything.
"""
