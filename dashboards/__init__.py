"""Pages: plain data in, HTML and chart specifications out; no I/O, no clock."""
