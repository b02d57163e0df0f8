"""Alerts at work: a process of its own reads balances, keeps the state of alerts, and tells people."""
