"""The dashboards' routes: data for a page in, HTML or its JSON twin out."""
