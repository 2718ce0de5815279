"""Statistics of one column, one file each."""
