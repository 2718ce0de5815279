"""Statistics: profiles of the data in, judged results out; no I/O, no clock."""
