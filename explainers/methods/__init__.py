"""Ways to attribute a prediction to its inputs: one file each, found by discovery."""
