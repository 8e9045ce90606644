"""The operators, one file per family; each has ``ROWS``."""
