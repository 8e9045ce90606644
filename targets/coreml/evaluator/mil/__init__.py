"""MIL operations in numpy, one file per family; each has ``OPERATIONS``. Unused parameters end in ``**_``."""
