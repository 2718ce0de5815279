"""Bias metrics, one file each: how differently two groups fare."""
