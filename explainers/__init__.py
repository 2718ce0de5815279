"""Attributions: a model's predict function and rows in, contributions out; no I/O, no clock."""
