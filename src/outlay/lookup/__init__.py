"""What does it cost: the dated price book, `bound()` (worst case) and `cost()` (exact)."""
