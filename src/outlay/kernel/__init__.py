"""Money, clock, ids, errors. Imports nothing of ours and does no I/O but reading the clock."""
