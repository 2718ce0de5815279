"""The kinds of webhooks, one file each, and what they share."""
