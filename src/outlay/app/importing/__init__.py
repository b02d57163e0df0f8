"""Coming from another gateway: what its database and files say, as objects here. Reads there, never writes there.

`litellm` and `bifrost` make a `Plan`; `comparison` holds it against what is here; `carrying` puts it in force.
"""
