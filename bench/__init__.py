"""Figures for the README: what Outlay's gateway costs beside a direct call and beside a raw proxy of the same parts."""
