"""`outlay demo`: the whole firewall against the mock provider, then the openai SDK against a real local model.

What it says is checked, not only printed: a broken invariant is an exit code.
"""
