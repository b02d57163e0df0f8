"""Existing gateways beside Outlay, in one run: `python -m bench.peers`."""
