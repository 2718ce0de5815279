"""Statistics of the rows themselves, computed in the worker process by other libraries, one file per library."""
