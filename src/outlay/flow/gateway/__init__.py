"""The data plane: `asyncio.Protocol` and `httptools` on both sides, one exchange object per request.

`snapshot` is what it knows (immutable, swapped whole), `client` and `upstream` speak HTTP/1.1, `exchange` is the
shell around `flow.lifecycle`, `server` listens, keeps time and drains.
"""
