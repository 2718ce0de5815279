"""Tests of the explainers: what is loaded, what is refused, and that the numbers are right."""
