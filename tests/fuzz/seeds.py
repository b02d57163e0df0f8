"""The seeds of a run: one that is always the same, and one of this run, which a failure names."""

import os
import secrets

SEED = "outlay"
FRESH = os.environ.get("OUTLAY_FUZZ_SEED") or secrets.token_hex(4)
"""`OUTLAY_FUZZ_SEED` brings a run back."""
