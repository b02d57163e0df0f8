"""Outlay: an AI financial firewall and AIFinOps system.

Importing the package imports no web framework, no price feed and no event loop.
"""

__version__ = "0.1.0"
