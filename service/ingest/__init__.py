"""From a request body to the durable log."""
