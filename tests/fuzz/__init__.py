"""HTTP, twice: what the gateway takes is a subset of what `h11` takes, and both frame it alike.

`messages` and `mutations` make bytes, `cases` holds those that once found something; `ours` and `reference` say what
each side read; `rule` compares. `target` is the same for a coverage-guided fuzzer (`make fuzz`).
"""
