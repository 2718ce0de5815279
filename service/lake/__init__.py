"""Parquet segments, their manifest and the id index."""
