"""A company's own plug-in, as its wheel holds it."""
