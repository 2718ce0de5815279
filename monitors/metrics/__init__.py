"""The metrics of predictions against ground truth: each a file of its own, found by discovery."""
