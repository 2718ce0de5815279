"""Formats of model files that are loaded without running what is in them: one file each, found by discovery."""
