"""Measurements beside the peers and the physical limits; each script prints a table."""
