"""Protocols that served models are asked in: one file each, found by discovery; the service makes the calls."""
