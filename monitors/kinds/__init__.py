"""Kinds of monitor, one file each."""
