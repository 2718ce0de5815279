"""Tasks that try what a worker process must not do, or do it too much."""
